//! The recent past of the farm, for clients that were away and for pages that have just opened.
//!
//! ```text
//! registry ── record(offset, event) ──▶ ring: what was published, up to --history bytes
//!                                   └─▶ FarmState: what was last published of each entity
//! /resume       ◀── missed(token, rooms) ── ring
//! state: true   ◀── of_room(room) ───────── FarmState, and the ring for task logs
//! GET /api/events ◀── read(token) ───────── ring, in chunks: nothing waits for a slow reader
//! ```
//!
//! The registry owns both, so what a client gets of the past and its place in the present are
//! decided in one turn, and nothing can come between them.

mod state;
mod token;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use clap::Args;
use uuid::Uuid;

use self::state::FarmState;
pub use self::token::{InvalidToken, Token};
use crate::{
    farm::{Audience, FarmEvent, Room},
    frame::Frame,
    options::heading,
    slots::Shrink,
};

/// The memory that an event takes beside its text, in bytes, roughly.
const OVERHEAD: usize = 720;

/// The maximum age of a frame that is used for another client. A frame's age counts in the outbox
/// of a client that does not read.
const FRESH: Duration = Duration::from_secs(1);

/// The maximum number of rooms of which it is remembered that their updates did not arrive.
const MAX_LAPSES: usize = 10_000;

/// How much of a task's log is its state, in bytes.
const LOG_STATE: usize = 64 * 1024;

/// The options of the history.
#[derive(Debug, Clone, Copy, Args)]
pub struct HistoryOptions {
    /// Memory for recent events, from which clients that reconnect get what they missed; 0 turns
    /// that off
    #[arg(id = "history", long = "history", value_name = "BYTES", env = "WEBUPDATES_HISTORY", default_value_t = 16_777_216, help_heading = heading::DELIVERY, hide_short_help = true)]
    pub bytes: usize,

    /// Maximum number of jobs, tasks, workers and tags of which the last state is kept for pages
    /// that open; beyond it the oldest finished jobs are forgotten. 0 turns that off
    #[arg(id = "state-entities", long = "state-entities", value_name = "N", env = "WEBUPDATES_STATE_ENTITIES", default_value_t = 100_000, help_heading = heading::DELIVERY, hide_short_help = true)]
    pub state_entities: usize,
}

/// The number of an event in the history: that of its broadcast, or that in the stream of all nodes.
pub type Offset = u64;

/// The number of a broadcast on this server.
type Seq = u64;

/// Recent events, and the last state of each entity.
#[derive(Debug)]
pub struct History {
    epoch: u64,
    began: Instant,
    limit: usize,
    max_entities: usize,
    ring: VecDeque<Entry>,
    bytes: usize,
    /// The newest event that has left the ring.
    forgotten: Offset,
    /// The newest event.
    newest: Place,
    /// Rooms whose updates did not arrive for a while after an event.
    lapses: HashMap<Room, Offset>,
    /// The newest lapse that is forgotten: it may have been of any job or log.
    lapsed: Option<Offset>,
    state: FarmState,
}

/// Where an event is in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: Offset,
    /// From the start of the history to the event's publication, in microseconds.
    pub micros: u64,
}

/// How far a server has come in a history that several servers share. The epoch is 0 if none do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    pub epoch: u64,
    pub offset: Offset,
}

impl Reached {
    /// Returns whether the event of this token is yet to come.
    pub fn is_before(self, token: &Token) -> bool {
        self.epoch != 0 && token.epoch == self.epoch && token.offset > self.offset
    }
}

#[derive(Debug)]
struct Entry {
    place: Place,
    /// The number of the broadcast, by which outboxes recognise it.
    seq: Seq,
    event: Arc<FarmEvent>,
    /// The frame of the last replay, as long as a client waits for it.
    frame: Weak<Frame>,
}

/// An event of the history, for programs that read all of it.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub token: Token,
    pub offset: Offset,
    /// When it was published.
    pub at: Instant,
    pub event: Arc<FarmEvent>,
}

/// Why a client cannot get what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The token is not one of this history, as after a restart of the server.
    Epoch,
    /// The history does not go back as far.
    TooOld,
    /// It is more than one client may get at once.
    TooMany,
    /// Updates of a room did not arrive meanwhile.
    NotFollowed,
}

impl History {
    pub fn new(options: HistoryOptions, now: Instant) -> Self {
        Self {
            epoch: Uuid::new_v4().as_u64_pair().0,
            began: now,
            limit: options.bytes,
            max_entities: options.state_entities,
            ring: VecDeque::new(),
            bytes: 0,
            forgotten: 0,
            newest: Place { offset: 0, micros: 0 },
            lapses: HashMap::new(),
            lapsed: None,
            state: FarmState::new(options.state_entities),
        }
    }

    /// Begins anew, after the event with this offset of a history that began at `began`.
    pub fn begin(&mut self, epoch: u64, offset: Offset, began: Instant) {
        self.epoch = epoch;
        self.began = began;
        self.ring.clear();
        self.bytes = 0;
        self.forgotten = offset;
        self.newest = Place { offset, micros: 0 };
        self.lapses.clear();
        self.lapsed = None;
        self.state = FarmState::new(self.max_entities);
    }

    /// Records an event. An event that is recorded already is not recorded again. Its place is given
    /// if servers share the history; else its offset is the number of its broadcast.
    pub fn record(&mut self, seq: Seq, place: Option<Place>, event: &Arc<FarmEvent>, now: Instant) {
        let micros = || now.saturating_duration_since(self.began).as_micros() as u64;
        let place = place.unwrap_or_else(|| Place { offset: seq, micros: micros() });
        let offset = place.offset;
        if offset <= self.newest.offset {
            return;
        }
        self.newest = place;
        self.state.learn(offset, event);
        self.bytes += size(event);
        self.ring.push_back(Entry { place, seq, event: event.clone(), frame: Weak::new() });
        while self.bytes > self.limit
            && let Some(oldest) = self.ring.pop_front()
        {
            self.bytes -= size(&oldest.event);
            self.forgotten = oldest.place.offset;
        }
    }

    /// Records that updates of a room do not arrive from now on: the recent past has a gap there.
    pub fn lapse(&mut self, room: Room) {
        if self.lapses.len() >= MAX_LAPSES {
            // Tokens from before are too old anyway.
            self.lapses.retain(|_, offset| *offset >= self.forgotten);
            if self.lapses.len() >= MAX_LAPSES {
                self.lapse_all();
            }
            self.lapses.shrink_if_sparse();
        }
        self.lapses.insert(room, self.newest.offset);
        if let Room::Job(job) = room {
            self.state.forget_tasks(job);
        }
    }

    /// Records the same of all rooms of jobs and logs.
    pub fn lapse_all(&mut self) {
        self.lapsed = Some(self.newest.offset);
        self.lapses.clear();
    }

    /// Returns the event after which the room's updates last did not arrive for a while.
    fn lapse_of(&self, room: Room) -> Option<Offset> {
        let any = self.lapsed.filter(|_| room.is_of_entity());
        self.lapses.get(&room).copied().max(any)
    }

    /// Returns the token of the newest event.
    pub fn token(&self) -> Token {
        self.newest.token(self.epoch)
    }

    /// Returns the memory that recent events take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of entities of which the last state is known.
    pub fn entities(&self) -> usize {
        self.state.entities()
    }

    /// Returns the events after `token` for these rooms, with the numbers of their broadcasts.
    ///
    /// # Errors
    ///
    /// The history does not know what came after the token, or it is more than `max_bytes`.
    pub fn missed(
        &mut self,
        token: &Token,
        rooms: &[Room],
        max_bytes: usize,
        now: Instant,
    ) -> Result<Vec<(Seq, Arc<Frame>)>, Lost> {
        let first = self.after(token)?;
        if rooms.iter().filter_map(|room| self.lapse_of(*room)).any(|lapse| token.offset <= lapse) {
            return Err(Lost::NotFollowed);
        }
        let rooms: HashSet<Room> = rooms.iter().copied().collect();
        let is_for = |event: &FarmEvent| match event.audience() {
            Audience::Everyone => true,
            Audience::Room(room) => rooms.contains(&room),
            Audience::Rooms(either) => either.iter().any(|room| rooms.contains(room)),
        };
        let epoch = self.epoch;
        let mut bytes = 0;
        let mut missed = Vec::new();
        for entry in self.ring.range_mut(first..).filter(|entry| is_for(&entry.event)) {
            let token = entry.place.token(epoch);
            let frame = reuse(&mut entry.frame, now, || Frame::with_token(now, &entry.event, &token.to_string()));
            bytes += frame.websocket().len();
            if bytes > max_bytes {
                return Err(Lost::TooMany);
            }
            missed.push((entry.seq, frame));
        }
        Ok(missed)
    }

    /// Returns events of all rooms after the token, or from the oldest on: as many as `max_bytes`
    /// allow, but at least one if there is one.
    ///
    /// # Errors
    ///
    /// The history does not go back to the token, or it is not of this history.
    pub fn read(&self, after: Option<&Token>, max_bytes: usize) -> Result<Vec<Recorded>, Lost> {
        let first = after.map_or(Ok(0), |token| self.after(token))?;
        let mut bytes = 0;
        let entries = self.ring.range(first..).take_while(|entry| {
            let fits = bytes < max_bytes;
            bytes += entry.event.json().len();
            fits
        });
        Ok(entries.map(|entry| self.recorded(entry)).collect())
    }

    fn recorded(&self, Entry { place, event, .. }: &Entry) -> Recorded {
        let at = self.began + Duration::from_micros(place.micros);
        Recorded { token: place.token(self.epoch), offset: place.offset, at, event: event.clone() }
    }

    /// Returns where in the ring the events after the token begin.
    fn after(&self, token: &Token) -> Result<usize, Lost> {
        if token.epoch != self.epoch || token.offset > self.newest.offset {
            return Err(Lost::Epoch);
        }
        if token.offset < self.forgotten {
            return Err(Lost::TooOld);
        }
        let first = self.ring.partition_point(|entry| entry.place.offset <= token.offset);
        let is_genuine = match first.checked_sub(1).map(|index| &self.ring[index]) {
            Some(entry) if entry.place.offset == token.offset => entry.place.token(self.epoch) == *token,
            // The event has just left the ring, or there was none before the token.
            Some(_) | None => first == 0,
        };
        if is_genuine { Ok(first) } else { Err(Lost::Epoch) }
    }

    /// Returns the last known state in these rooms, the oldest first, and how many updates were left
    /// out because they are more than `max_bytes`. `with_farm` adds the state of the farm.
    pub fn state(
        &mut self,
        rooms: &[Room],
        with_farm: bool,
        max_bytes: usize,
        now: Instant,
    ) -> (Vec<Arc<Frame>>, usize) {
        let mut known = self.state.of_rooms(rooms, with_farm);
        for room in rooms.iter().filter(|room| matches!(room, Room::TaskLog(_))) {
            let mut bytes = 0;
            let lapse = self.lapse_of(*room);
            let entries = self.ring.iter().rev().take_while(|entry| Some(entry.place.offset) > lapse);
            let chunks = entries.filter(|entry| entry.event.audience() == Audience::Room(*room));
            let chunks = chunks.take_while(|entry| {
                bytes += entry.event.json().len();
                bytes <= LOG_STATE
            });
            known.extend(chunks.map(|entry| state::Known::new(entry.place.offset, &entry.event)));
        }
        known.sort_unstable_by_key(|known| known.offset);
        let mut bytes = 0;
        // The newest are the most useful.
        let kept = known.iter().rev().take_while(|known| {
            bytes += known.event.json().len();
            bytes <= max_bytes
        });
        let left_out = known.len() - kept.count();
        let frames = known.drain(left_out..).map(|known| Frame::of_state(now, &known.event)).collect();
        (frames, left_out)
    }
}

impl Place {
    fn token(self, epoch: u64) -> Token {
        Token { epoch, offset: self.offset, check: self.micros as u32 }
    }
}

fn size(event: &FarmEvent) -> usize {
    event.json().len() + OVERHEAD
}

/// Returns the frame that another client waits for, or makes it.
fn reuse(frame: &mut Weak<Frame>, now: Instant, make: impl FnOnce() -> Arc<Frame>) -> Arc<Frame> {
    let waiting = frame.upgrade().filter(|frame| now.saturating_duration_since(frame.published()) < FRESH);
    waiting.unwrap_or_else(|| {
        let made = make();
        drop(mem::replace(frame, Arc::downgrade(&made)));
        made
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock, farm::EventKind};

    const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn event(number: u64) -> Arc<FarmEvent> {
        let (kind, json) = match number % 3 {
            0 => (EventKind::ChatMessage, format!(r#"{{"name":"","text":"{number}"}}"#)),
            1 => (EventKind::TaskLogUpdate, format!(r#"{{"log":"{number}","task_id":"{JOB}"}}"#)),
            _ => (EventKind::FarmStatus, format!(r#"{{"status":"active","number":{number}}}"#)),
        };
        Arc::new(FarmEvent::parse(kind, &json).unwrap())
    }

    fn of_room(number: u64, rooms: &[Room]) -> bool {
        match number % 3 {
            0 => rooms.contains(&Room::Chat),
            1 => rooms.contains(&Room::TaskLog(JOB.parse().unwrap())),
            _ => true,
        }
    }

    fn history(bytes: usize) -> History {
        History::new(HistoryOptions { bytes, state_entities: 100 }, clock::now())
    }

    proptest! {
        /// Against the list of all events: either all that was missed, or an error; never a gap.
        #[test]
        fn nothing_is_missed_silently(
            events in prop::collection::vec(1..4_u64, 0..60),
            limit in 0..40_000_usize,
            seen in 0..70_usize,
            is_in_chat: bool,
        ) {
            let mut history = history(limit);
            let rooms: Vec<Room> = if is_in_chat { vec![Room::Chat] } else { vec![Room::TaskLog(JOB.parse().unwrap())] };
            let mut offsets = vec![(0, history.token())];
            for step in events {
                let offset = history.newest.offset + step;
                history.record(offset, None, &event(offset), clock::now());
                // A retry changes nothing.
                history.record(offset, None, &event(offset), clock::now());
                offsets.push((offset, history.token()));
            }
            prop_assert!(history.bytes() <= limit);
            let seen = seen.min(offsets.len() - 1);
            let expected: Vec<u64> =
                offsets[seen + 1..].iter().map(|(offset, _)| *offset).filter(|offset| of_room(*offset, &rooms)).collect();
            match history.missed(&offsets[seen].1, &rooms, usize::MAX, clock::now()) {
                Ok(missed) => {
                    let missed: Vec<u64> = missed.into_iter().map(|(offset, _)| offset).collect();
                    prop_assert_eq!(missed, expected);
                }
                Err(error) => {
                    prop_assert_eq!(error, Lost::TooOld);
                    prop_assert!(offsets[seen].0 < history.forgotten);
                }
            }
        }
    }

    #[test]
    fn a_token_of_elsewhere_is_refused() {
        let (mut here, mut other) = (history(100_000), history(100_000));
        for offset in 1..=4 {
            here.record(offset, None, &event(offset), clock::now());
            other.record(offset, None, &event(offset), clock::now());
        }
        let token = here.token();
        let mut refused = |token: Token| here.missed(&token, &[Room::Chat], usize::MAX, clock::now()).unwrap_err();
        assert_eq!(refused(other.token()), Lost::Epoch, "of another server");
        assert_eq!(refused(Token { offset: 5, ..token }), Lost::Epoch, "from the future");
        assert_eq!(refused(Token { check: token.check ^ 1, ..token }), Lost::Epoch, "numbers that were given again");
        let first = Token { offset: 0, check: 0, ..token };
        assert_eq!(here.missed(&first, &[Room::Chat], 10, clock::now()).unwrap_err(), Lost::TooMany);
    }

    #[test]
    fn a_room_that_was_not_followed_has_a_gap() {
        let log = Room::TaskLog(JOB.parse().unwrap());
        let mut history = history(100_000);
        history.record(1, None, &event(1), clock::now());
        let before = history.token();
        history.lapse(log);
        history.record(2, None, &event(2), clock::now());
        history.record(4, None, &event(4), clock::now());
        let after = Token { offset: 2, check: history.ring[1].place.token(before.epoch).check, ..before };
        let mut missed =
            |token: &Token, room| history.missed(token, &[room], usize::MAX, clock::now()).map(|all| all.len());
        assert_eq!(missed(&before, log), Err(Lost::NotFollowed));
        assert_eq!(missed(&before, Room::Chat), Ok(1));
        assert_eq!(missed(&after, log), Ok(1));
        assert_eq!(history.state(&[log], false, usize::MAX, clock::now()).0.len(), 1, "the chunk before the gap");
        // Of too many rooms it is only known that there is a gap.
        for number in 0..=MAX_LAPSES {
            history.lapse(Room::TaskLog(Uuid::from_u128(number as u128).to_string().parse().unwrap()));
        }
        assert!(history.lapses.len() <= MAX_LAPSES);
        let mut missed =
            |token: &Token, room| history.missed(token, &[room], usize::MAX, clock::now()).map(|all| all.len());
        assert_eq!(missed(&after, Room::Job(JOB.parse().unwrap())), Err(Lost::NotFollowed));
        assert_eq!(missed(&after, Room::Chat), Ok(0));
    }

    #[test]
    fn frames_of_a_replay_are_shared() {
        let mut history = history(100_000);
        let before = history.token();
        history.record(1, None, &event(3), clock::now());
        let now = clock::now();
        let one = history.missed(&before, &[Room::Chat], usize::MAX, now).unwrap();
        let other = history.missed(&before, &[Room::Chat], usize::MAX, now).unwrap();
        assert!(Arc::ptr_eq(&one[0].1, &other[0].1));
        let token = history.token();
        let text = format!(r#"42["/message",{{"name":"","text":"3"}},"{token}"]"#);
        assert_eq!(one[0].1.packet(), Some(&*text));
    }

    #[test]
    fn the_state_of_a_log_is_its_end() {
        let mut history = history(1 << 20);
        for offset in 1..1000 {
            history.record(offset, None, &event(offset), clock::now());
        }
        let (frames, left_out) = history.state(&[Room::TaskLog(JOB.parse().unwrap())], true, 1 << 20, clock::now());
        let last: Vec<_> = frames.iter().rev().take(2).map(|frame| frame.packet().unwrap().to_owned()).collect();
        assert_eq!(last[0], r#"42["/status",{"status":"active","number":998},{"state":true}]"#);
        assert_eq!(last[1], format!(r#"42["/tasklog",{{"log":"997","task_id":"{JOB}"}},{{"state":true}}]"#));
        assert_eq!(left_out, 0);
        let (few, left_out) = history.state(&[Room::TaskLog(JOB.parse().unwrap())], true, 1000, clock::now());
        assert_eq!(few.len() + left_out, frames.len());
        assert!(few.len() < 20 && !few.is_empty());
    }
}
