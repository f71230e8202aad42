//! The broadcasts of the room that nearly everyone is in, kept once for all outboxes that follow them.

use std::{collections::VecDeque, sync::Arc};

use super::{MAX_WORKERS, Seq, WorkerId};
use crate::{
    frame::Frame,
    membership::Member,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError},
};

/// A place in the log: bytes of all frames before it.
pub type Position = u64;

/// A room's broadcasts that some follower has not taken yet.
///
/// A member either *follows*: its outbox holds a position here, and publishing costs nothing for it; or it is *apart*: each
/// broadcast is pushed into its outbox.
///
/// INVARIANT: whoever locks an outbox may lock this, never the other way around. `append` and the list of who was apart at that
/// moment are one step, so each member gets each broadcast one way or the other.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    /// `state.end`, to be read without the lock.
    end: AtomicU64,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    end: Position,
    last: Appended,
    apart: Apart,
    followers: Box<[Followers]>,
}

#[derive(Debug)]
struct Entry {
    start: Position,
    seq: Seq,
    frame: Arc<Frame>,
}

/// Those of one worker.
#[derive(Debug, Clone, Copy, Default)]
struct Followers {
    count: usize,
    /// All of them have taken what is before it.
    taken: Position,
}

/// What became of a broadcast.
#[derive(Debug, Clone, Default)]
pub struct Appended {
    seq: Seq,
    /// How many followers have it by this.
    pub followers: usize,
    /// Those it must be pushed to.
    pub apart: Vec<Member>,
}

/// The newest of the frames that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    /// 0 when there was none: what a member was apart for is still to be pushed to it.
    pub(super) seq: Seq,
    /// The position behind all.
    pub(super) end: Position,
}

impl Log {
    pub fn new() -> Self {
        let state = State {
            entries: VecDeque::new(),
            end: 0,
            last: Appended::default(),
            apart: Apart::default(),
            followers: vec![Followers::default(); MAX_WORKERS].into_boxed_slice(),
        };
        Self { state: Mutex::new(state), end: AtomicU64::new(0) }
    }

    /// A new member, apart from the others for now.
    pub(super) fn admit(&self, member: Member) {
        self.lock().apart.insert(member);
    }

    /// One that was apart is no member any more.
    pub(super) fn dismiss(&self, member: Member) {
        self.lock().apart.remove(member);
    }

    /// Adds a broadcast. Tried again, it adds nothing and says the same.
    pub fn append(&self, seq: Seq, frame: &Arc<Frame>) -> Appended {
        let mut state = self.lock();
        if seq > state.last.seq {
            let followers = state.followers.iter().map(|followers| followers.count).sum();
            state.last = Appended { seq, followers, apart: state.apart.members.clone() };
            if followers > 0 {
                let start = state.end;
                state.entries.push_back(Entry { start, seq, frame: frame.clone() });
                state.end += frame.websocket().len() as u64;
                self.end.store(state.end, Ordering::Release);
            }
        }
        state.last.clone()
    }

    /// Where the next broadcast will be.
    pub fn end(&self) -> Position {
        self.end.load(Ordering::Acquire)
    }

    /// A member that was apart and has taken all that was pushed to it follows from here.
    pub(super) fn follow(&self, member: Member, worker: WorkerId) -> Position {
        let mut state = self.lock();
        state.apart.remove(member);
        let end = state.end;
        let followers = &mut state.followers[worker.index()];
        if followers.count == 0 {
            followers.taken = end;
        }
        followers.count += 1;
        end
    }

    /// As [`since`](Self::since); from now on the follower is apart.
    pub(super) fn part(
        &self,
        from: Position,
        member: Member,
        worker: WorkerId,
        take: impl FnMut(&Arc<Frame>, usize),
    ) -> Option<Newest> {
        let mut state = self.lock();
        state.apart.insert(member);
        let followers = &mut state.followers[worker.index()];
        followers.count = followers.count.saturating_sub(1);
        state.since(from, take)
    }

    /// Gives `take` each frame that a follower at this position lacks, and how much of it the follower has. `None` when some
    /// of it is forgotten.
    pub(super) fn since(&self, from: Position, take: impl FnMut(&Arc<Frame>, usize)) -> Option<Newest> {
        self.lock().since(from, take)
    }

    /// All followers of this worker have taken what is before this position: what nobody lacks is forgotten.
    pub fn taken(&self, worker: WorkerId, to: Position) {
        let mut state = self.lock();
        state.followers[worker.index()].taken = to;
        let served = state.followers.iter().filter(|followers| followers.count > 0);
        let lacking = served.map(|followers| followers.taken).min().unwrap_or(state.end);
        while state.entries.front().is_some_and(|entry| entry.end() <= lacking) {
            state.entries.pop_front();
        }
    }

    /// Every step under the lock is complete, so after a panic elsewhere it is used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn since(&self, from: Position, mut take: impl FnMut(&Arc<Frame>, usize)) -> Option<Newest> {
        let begin = self.entries.front().map_or(self.end, |first| first.start);
        if from < begin {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.end() <= from);
        let mut newest = Newest { seq: 0, end: self.end };
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

/// A set of members that is walked as a dense list.
#[derive(Debug, Default)]
struct Apart {
    members: Vec<Member>,
    /// Where in `members` each one is.
    places: Vec<Option<u32>>,
}

impl Apart {
    fn insert(&mut self, member: Member) {
        let index = member as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        if self.places[index].is_none() {
            self.places[index] = Some(self.members.len() as u32);
            self.members.push(member);
        }
    }

    fn remove(&mut self, member: Member) {
        let Some(place) = self.places.get_mut(member as usize).and_then(Option::take) else { return };
        self.members.swap_remove(place as usize);
        if let Some(&moved) = self.members.get(place as usize) {
            self.places[moved as usize] = Some(place);
        }
    }
}

/// The last stretch of the log as bytes: made once for all followers that lack it.
#[derive(Debug, Default)]
pub struct Burst {
    from: Position,
    bytes: Vec<u8>,
}

impl Burst {
    /// Forgets everything, and gives back memory above `kept` bytes.
    pub fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
    }

    /// Adds what came since.
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

    /// What a follower lacks between these positions, as far as this was made before; `None` when some of it is forgotten.
    pub fn between(&mut self, from: Position, to: Position, log: &Log) -> Option<&[u8]> {
        if self.bytes.is_empty() || from < self.from {
            self.bytes.clear();
            self.from = from;
            let bytes = &mut self.bytes;
            log.since(from, |frame, skip| bytes.extend_from_slice(&frame.websocket()[skip..]))?;
        }
        // Who follows since this was made lacks nothing of it.
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
    fn a_broadcast_goes_to_followers_and_to_those_apart() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        (1..=3).for_each(|member| log.admit(member));
        let at = log.follow(2, worker);
        let appended = log.append(7, &frame("a"));
        assert_eq!((appended.followers, &appended.apart[..]), (1, &[1, 3][..]));
        log.follow(3, worker);
        let again = log.append(7, &frame("a"));
        assert_eq!((again.followers, &again.apart[..]), (1, &[1, 3][..]), "who was apart then must still get it");
        assert_eq!(lacks(&log, at), "a");
    }

    #[test]
    fn who_parts_is_given_the_rest() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        log.admit(0);
        let at = log.follow(0, worker);
        log.append(1, &frame("a"));
        log.append(2, &frame("b"));
        let mut rest = Vec::new();
        let newest = log.part(at + 4, 0, worker, |frame, has| rest.push((frame.packet().unwrap().to_owned(), has)));
        assert_eq!((newest, rest), (Some(Newest { seq: 2, end: at + 6 }), vec![("b".to_owned(), 1)]));
        assert_eq!(log.append(3, &frame("c")).apart, [0]);
    }

    #[test]
    fn what_nobody_lacks_is_forgotten() {
        let (log, workers) = (Log::new(), Workers::new());
        let (fast, slow) = (workers.claim().unwrap(), workers.claim().unwrap());
        let start = log.follow(0, fast);
        log.follow(1, slow);
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
    fn nothing_is_kept_while_nobody_follows() {
        let log = Log::new();
        log.admit(0);
        log.append(1, &frame("a"));
        assert_eq!(log.end(), 0);
    }

    #[test]
    fn a_burst_is_made_once_and_grows() {
        let (log, worker) = (Log::new(), Workers::new().claim().unwrap());
        let start = log.follow(0, worker);
        log.append(1, &frame("a"));
        let mut burst = Burst::default();
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a");
        log.append(2, &frame("b"));
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a");
        burst.extend(&log);
        assert_eq!(burst.between(start + 1, log.end(), &log).unwrap(), b"\x01a\x81\x01b");
        assert_eq!(burst.between(log.end(), log.end(), &log).unwrap(), b"");
        assert_eq!(burst.between(start + 1, start + 3, &log).unwrap(), b"\x01a", "who was asked before more came");
        burst.clear(0);
        assert_eq!(burst.between(start + 3, log.end(), &log).unwrap(), b"\x81\x01b");
        assert_eq!(burst.between(start, log.end(), &log).unwrap(), b"\x81\x01a\x81\x01b", "who lacks more");
    }
}
