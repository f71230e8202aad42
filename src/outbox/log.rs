//! The broadcasts of the room that nearly every session is in, stored once for all outboxes that
//! are attached to them.

use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    sync::Arc,
};

use super::{MAX_WORKERS, Seq, WorkerId};
use crate::{
    frame::Frame,
    membership::Member,
    slots::Shrink,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError},
};

/// A position in the log: the number of bytes of all frames before it.
pub type Position = u64;

/// The broadcasts of a room that some attached outbox has not taken yet.
///
/// A member is either *attached*: its outbox holds a position, and publishing costs nothing for it.
/// Or it is *detached*: each broadcast is pushed into its outbox.
///
/// INVARIANT: this lock may be taken while an outbox is locked, never the other way around.
/// `append` and the snapshot of detached members are one step, so each member gets each broadcast
/// exactly one way.
#[derive(Debug)]
pub struct Log {
    state: Mutex<LogState>,
    /// A copy of `state.end` that can be read without the lock.
    end: AtomicU64,
}

#[derive(Debug)]
struct LogState {
    entries: VecDeque<Entry>,
    end: Position,
    last: Appended,
    detached: DetachedMembers,
    attached: Box<[AttachedOutboxes]>,
}

#[derive(Debug)]
struct Entry {
    start: Position,
    seq: Seq,
    frame: Arc<Frame>,
}

/// The attached outboxes of one worker.
#[derive(Debug, Clone, Copy, Default)]
struct AttachedOutboxes {
    count: usize,
    /// The position up to which all of them have taken the log.
    taken: Position,
}

/// The result of an append.
#[derive(Debug, Clone, Default)]
pub struct Appended {
    seq: Seq,
    /// The number of attached outboxes that get the broadcast this way.
    pub attached: usize,
    /// The members that the broadcast must be pushed to.
    pub detached: Vec<Member>,
}

/// The newest of the frames that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// 0 if there was none. A broadcast that was appended while the member was detached is still
    /// pushed to it.
    pub(super) seq: Seq,
    /// The position behind all frames.
    pub(super) end: Position,
}

impl Log {
    pub fn new() -> Self {
        let state = LogState {
            entries: VecDeque::new(),
            end: 0,
            last: Appended::default(),
            detached: DetachedMembers::default(),
            attached: vec![AttachedOutboxes::default(); MAX_WORKERS].into_boxed_slice(),
        };
        Self { state: Mutex::new(state), end: AtomicU64::new(0) }
    }

    /// Adds a member, which is detached for now.
    pub(super) fn admit(&self, member: Member) {
        self.lock().detached.insert(member);
    }

    /// Removes a detached member.
    pub(super) fn dismiss(&self, member: Member) {
        self.lock().detached.remove(member);
    }

    /// Appends a broadcast. A retry appends nothing and returns the same result.
    pub fn append(&self, seq: Seq, frame: &Arc<Frame>) -> Appended {
        let mut state = self.lock();
        if seq > state.last.seq {
            let attached = state.attached.iter().map(|attached| attached.count).sum();
            state.last = Appended { seq, attached, detached: state.detached.members.clone() };
            if attached > 0 {
                let start = state.end;
                state.entries.push_back(Entry { start, seq, frame: frame.clone() });
                state.end += frame.websocket().len() as u64;
                self.end.store(state.end, Ordering::Release);
            }
        }
        state.last.clone()
    }

    /// Returns the position of the next broadcast.
    pub fn end(&self) -> Position {
        self.end.load(Ordering::Acquire)
    }

    /// Attaches a member that has taken everything pushed to it, and returns its position.
    pub(super) fn attach(&self, member: Member, worker: WorkerId) -> Position {
        let mut state = self.lock();
        state.detached.remove(member);
        let end = state.end;
        let attached = &mut state.attached[worker.index()];
        if attached.count == 0 {
            attached.taken = end;
        }
        attached.count += 1;
        end
    }

    /// Does the same as [`since`](Self::since), and then detaches the member.
    pub(super) fn detach(
        &self,
        from: Position,
        member: Member,
        worker: WorkerId,
        take: impl FnMut(&Arc<Frame>, usize),
    ) -> Option<LogEnd> {
        let mut state = self.lock();
        state.detached.insert(member);
        let attached = &mut state.attached[worker.index()];
        attached.count = attached.count.saturating_sub(1);
        state.since(from, take)
    }

    /// Passes each frame that an outbox attached at this position lacks to `take`, with the number
    /// of its bytes that the outbox has. Returns `None` if some of them have been dropped.
    pub(super) fn since(&self, from: Position, take: impl FnMut(&Arc<Frame>, usize)) -> Option<LogEnd> {
        self.lock().since(from, take)
    }

    /// Records that all attached outboxes of this worker have taken everything before this position, and
    /// drops the entries that none lacks.
    pub fn taken(&self, worker: WorkerId, to: Position) {
        let mut state = self.lock();
        state.attached[worker.index()].taken = to;
        let served = state.attached.iter().filter(|attached| attached.count > 0);
        let lacking = served.map(|attached| attached.taken).min().unwrap_or(state.end);
        while state.entries.front().is_some_and(|entry| entry.end() <= lacking) {
            state.entries.pop_front();
        }
        state.entries.shrink_if_sparse();
    }

    /// Every step under the lock is complete, so the state stays usable after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl LogState {
    fn since(&self, from: Position, mut take: impl FnMut(&Arc<Frame>, usize)) -> Option<LogEnd> {
        let begin = self.entries.front().map_or(self.end, |first| first.start);
        if from < begin {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.end() <= from);
        let mut newest = LogEnd { seq: 0, end: self.end };
        for entry in self.entries.range(first..) {
            take(&entry.frame, from.saturating_sub(entry.start) as usize);
            newest.seq = entry.seq;
        }
        Some(newest)
    }
}

impl Entry {
    fn end(&self) -> Position {
        self.start + self.frame.websocket().len() as u64
    }
}

/// A set of members, stored as a dense list.
#[derive(Debug, Default)]
struct DetachedMembers {
    members: Vec<Member>,
    /// The index in `members` of each member.
    places: BTreeMap<Member, u32>,
}

impl DetachedMembers {
    fn insert(&mut self, member: Member) {
        if let btree_map::Entry::Vacant(vacant) = self.places.entry(member) {
            vacant.insert(self.members.len() as u32);
            self.members.push(member);
        }
    }

    fn remove(&mut self, member: Member) {
        let Some(place) = self.places.remove(&member) else { return };
        self.members.swap_remove(place as usize);
        if let Some(&moved) = self.members.get(place as usize) {
            self.places.insert(moved, place);
        }
        self.members.shrink_if_sparse();
    }
}

/// The last segment of the log as bytes, copied once for all attached outboxes that lack it.
#[derive(Debug, Default)]
pub struct Burst {
    from: Position,
    bytes: Vec<u8>,
}

impl Burst {
    /// Empties the buffer and frees memory above `kept` bytes.
    pub fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
    }

    /// Adds the frames appended since the last copy.
    pub fn extend(&mut self, log: &Log) {
        let end = self.from + self.bytes.len() as u64;
        if self.bytes.is_empty() || end == log.end() {
            return;
        }
        let bytes = &mut self.bytes;
        if log.since(end, |frame, skip| bytes.extend_from_slice(&frame.websocket()[skip..])).is_none() {
            bytes.clear();
        }
    }

    /// Returns the bytes between these positions, as far as they were copied before. Returns `None`
    /// if some of them have been dropped.
    pub fn between(&mut self, from: Position, to: Position, log: &Log) -> Option<&[u8]> {
        if self.bytes.is_empty() || from < self.from {
            self.bytes.clear();
            self.from = from;
            let bytes = &mut self.bytes;
            log.since(from, |frame, skip| bytes.extend_from_slice(&frame.websocket()[skip..]))?;
        }
        // An outbox that attached after the copy lacks nothing of it.
        let bytes = self.bytes.get((from - self.from) as usize..).unwrap_or_default();
        Some(&bytes[..bytes.len().min((to - from) as usize)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, outbox::Workers};

    fn frame(text: &str) -> Arc<Frame> {
        Frame::text(clock::now(), |out| out.extend_from_slice(text.as_bytes()))
    }

    fn lacks(log: &Log, at: Position) -> String {
        let mut text = String::new();
        match log.since(at, |frame, _| text.push_str(frame.packet().unwrap())) {
            Some(_) => text,
            None => "forgotten".to_owned(),
        }
    }

    #[test]
    fn a_broadcast_goes_to_attached_and_detached_members() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        (1..=3).for_each(|member| log.admit(member));
        let at = log.attach(2, worker);
        let appended = log.append(7, &frame("a"));
        assert_eq!((appended.attached, &appended.detached[..]), (1, &[1, 3][..]));
        log.attach(3, worker);
        let again = log.append(7, &frame("a"));
        assert_eq!(
            (again.attached, &again.detached[..]),
            (1, &[1, 3][..]),
            "a member that was detached must still get it"
        );
        assert_eq!(lacks(&log, at), "a");
    }

    #[test]
    fn an_outbox_that_detaches_gets_the_rest() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        log.admit(0);
        let at = log.attach(0, worker);
        log.append(1, &frame("a"));
        log.append(2, &frame("b"));
        let mut rest = Vec::new();
        let newest = log.detach(at + 4, 0, worker, |frame, has| rest.push((frame.packet().unwrap().to_owned(), has)));
        assert_eq!((newest, rest), (Some(LogEnd { seq: 2, end: at + 6 }), vec![("b".to_owned(), 1)]));
        assert_eq!(log.append(3, &frame("c")).detached, [0]);
    }

    #[test]
    fn entries_that_no_attached_outbox_lacks_are_dropped() {
        let (log, workers) = (Log::new(), Workers::new());
        let (fast, slow) = (workers.claim().unwrap(), workers.claim().unwrap());
        let start = log.attach(0, fast);
        log.attach(1, slow);
        log.append(1, &frame("a"));
        log.append(2, &frame("b"));
        log.taken(fast, log.end());
        assert_eq!(lacks(&log, start), "ab");
        log.taken(slow, start + 3);
        assert_eq!(lacks(&log, start), "forgotten");
        assert_eq!(lacks(&log, start + 3), "b");
        log.taken(slow, log.end());
        assert_eq!(lacks(&log, start + 3), "forgotten");
        assert_eq!(lacks(&log, log.end()), "");
    }

    #[test]
    fn nothing_is_kept_while_no_outbox_is_attached() {
        let log = Log::new();
        log.admit(0);
        log.append(1, &frame("a"));
        assert_eq!(log.end(), 0);
    }

    #[test]
    fn a_burst_is_made_once_and_grows() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        let start = log.attach(0, worker);
        log.append(1, &frame("a"));
        let mut burst = Burst::default();
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a");
        log.append(2, &frame("b"));
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a");
        burst.extend(&log);
        assert_eq!(burst.between(start + 1, log.end(), &log).unwrap(), b"\x01a\x81\x01b");
        assert_eq!(burst.between(log.end(), log.end(), &log).unwrap(), b"");
        assert_eq!(
            burst.between(start + 1, start + 3, &log).unwrap(),
            b"\x01a",
            "an outbox queried before more was appended"
        );
        burst.clear(0);
        assert_eq!(burst.between(start + 3, log.end(), &log).unwrap(), b"\x81\x01b");
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a\x81\x01b", "an outbox that lacks more");
    }
}
