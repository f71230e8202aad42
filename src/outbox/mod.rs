//! What waits for one client, between the registry that fills it and the transport that empties it.

mod dirty;
#[cfg(test)]
mod following;
mod log;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    dirty::MAX_WORKERS,
    state::{Attention, Place, State},
};
pub use self::{
    dirty::{Home, Marks, WorkerId, Workers},
    log::{Burst, Log, Position},
};
use crate::{
    disconnect::Disconnect,
    frame::Frame,
    membership::Member,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How much may wait for a client that does not read. A client that reads is never held to it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all waiting frames, for a client that takes nothing; [`READER_SHARE`] times as much for one that does.
    pub bytes: usize,
    /// How long the oldest frame may wait, and the client may take nothing while something waits.
    pub age: Duration,
    /// A client whose oldest frame has waited for longer lags: newer states take the place of older ones. One that took nothing
    /// for longer counts as one that does not read.
    pub lag: Duration,
}

/// A client that reads, only slower than the farm talks, may have so many times more waiting than one that does not: its frames
/// are shared with others, and the age of the oldest bounds it too.
pub const READER_SHARE: usize = 16;

/// How much one answer to a polling request may hold, at least one.
#[derive(Debug, Clone, Copy)]
pub struct BodyRoom {
    pub bytes: usize,
    pub packets: usize,
}

/// The place of a broadcast in the registry's one order; starts at 1.
pub type Seq = u64;

/// A bounded queue of shared frames.
///
/// INVARIANT: frames leave in the order in which they came, and broadcasts come in the order of their numbers: one whose
/// number is not higher than the last one taken is dropped. So a broadcast that is tried again reaches nobody twice.
///
/// INVARIANT: what a follower lacks of the log comes behind all that is in its own queue: before anything is added to that, the
/// log's part is. So a follower gets everything in order too, and what was written always comes off the front of both.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
}

/// What takes the frames to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// Requests, each of which takes what waits when it comes.
    Polls,
    /// A socket, that can be written whenever something is there: so its outbox may follow the log.
    Stream,
}

/// Whether an outbox takes and gives anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// What waits is still sent, then the transport closes. Nothing new is taken.
    Closing(Disconnect),
    /// What waited is gone.
    Closed(Disconnect),
}

/// What a follower is to be given of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follower {
    /// Nothing: it does not follow, or no longer.
    No,
    /// All between these positions, and nothing else before what comes then.
    Lacks { from: Position, to: Position },
    /// It has something else to write, too.
    Own,
    /// It is blocked, and will lack what is behind this position when it is not any more.
    Blocked(Position),
}

/// What became of a pushed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It waits; whoever flushes this outbox knows.
    Queued,
    /// It waits, and this slot must be marked.
    QueuedUnseen(Home),
    /// It waits in the place of an older state of the same entity.
    Coalesced,
    /// It is not taken: the outbox had this broadcast already, or takes nothing any more.
    Dropped,
    /// The client reads too slowly: it is evicted, its frames are dropped, and this slot must be marked.
    Evicted(Option<Home>),
}

/// What there is to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing; the next push marks the slot.
    Nothing,
    /// Some frames, now copied.
    Frames,
    /// Everything is sent, the transport shall close.
    Close(Disconnect),
    /// The transport shall be dropped at once.
    Drop(Disconnect),
}

impl Outbox {
    /// An empty outbox that nobody flushes yet.
    pub fn new() -> Self {
        Self { state: Mutex::new(State::new()) }
    }

    /// Adds a broadcast. A client that is blocked and over the limits is evicted instead.
    pub fn push(&self, seq: Seq, frame: &Arc<Frame>, limits: &Limits) -> Push {
        let mut state = self.lock();
        state.catch_up();
        if seq <= state.last_seq {
            return Push::Dropped;
        }
        let pushed = state.push(frame, limits);
        // Only now: what failed on the way is tried again.
        state.last_seq = seq;
        pushed
    }

    /// Adds a frame that only this client gets.
    pub fn push_direct(&self, frame: &Arc<Frame>, limits: &Limits) -> Push {
        let mut state = self.lock();
        state.catch_up();
        state.push(frame, limits)
    }

    /// It may follow the log from now on, as this member.
    pub fn admit(&self, log: &Arc<Log>, member: Member) {
        let mut state = self.lock();
        if let (Phase::Open, Place::Outside) = (state.phase, &state.place) {
            log.admit(member);
            state.place = Place::Apart(log.clone(), member);
            state.follow();
        }
    }

    /// The log is nothing to it any more; what it lacked until now it still gets. Returns the slot to mark: whoever goes around the
    /// log's followers passes it by from now on.
    pub fn dismiss(&self) -> Option<Home> {
        let mut state = self.lock();
        state.leave_log();
        if state.queue.is_empty() { None } else { state.mark() }
    }

    /// From now on `home` flushes this outbox. Returns whether something waits already.
    pub fn attach(&self, home: Home, taker: Taker) -> bool {
        let mut state = self.lock();
        state.home = Some(home);
        state.taker = taker;
        state.attention = Attention::Idle;
        !state.queue.is_empty() || state.phase != Phase::Open
    }

    /// Ends the session once what waits is sent. Returns the slot to mark.
    pub fn close(&self, reason: Disconnect) -> Option<Home> {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.part();
            state.phase = Phase::Closing(reason);
        }
        state.mark()
    }

    /// Ends the session now and forgets what waits. Returns the slot to mark.
    pub fn drop_all(&self, reason: Disconnect) -> Option<Home> {
        self.lock().evict(reason)
    }

    /// The slot to mark where somebody may have failed between adding and marking. Once too often does no harm.
    pub fn remark(&self) -> Option<Home> {
        let state = self.lock();
        if state.attention == Attention::Marked { state.home } else { None }
    }

    /// Evicts a client that has not read for longer than the limit allows. Returns the slot to mark.
    pub fn evict_overdue(&self, now: Instant, limits: &Limits) -> Option<Home> {
        let mut state = self.lock();
        let overdue = state.attention == Attention::Blocked && state.queue.waited(now) > limits.age;
        if overdue { state.evict(Disconnect::TooSlow) } else { None }
    }

    /// Copies what waits to the end of `scratch`, until that holds `limit` bytes or more. It stays in the outbox until
    /// [`advance`](Self::advance) says that it was written.
    pub fn copy_to(&self, scratch: &mut Vec<u8>, limit: usize) -> Waiting {
        let mut state = self.lock();
        state.catch_up();
        match state.phase {
            Phase::Closed(reason) => return Waiting::Drop(reason),
            Phase::Closing(reason) if state.queue.is_empty() => return Waiting::Close(reason),
            Phase::Open if state.queue.is_empty() => {
                state.attention = Attention::Idle;
                return Waiting::Nothing;
            }
            Phase::Open | Phase::Closing(_) => {}
        }
        state.queue.copy_to(scratch, limit);
        state.attention = Attention::Marked;
        Waiting::Frames
    }

    /// Takes out what was written: `bytes` of what [`copy_to`](Self::copy_to) or the log gave. Returns what to do next. A client
    /// that has taken everything follows the log from here, if it may.
    pub fn advance(&self, bytes: usize, now: Instant) -> Next {
        let mut state = self.lock();
        let from_log = state.queue.advance(bytes, now);
        if let Place::Following(_, _, at) = &mut state.place {
            *at += from_log as u64;
        }
        if !state.queue.is_empty() || state.phase != Phase::Open {
            return Next::Again;
        }
        state.attention = Attention::Idle;
        state.follow();
        Next::Done
    }

    /// What it lacks of the log, which has all its followers gone around since it ended at `began`. What is given is written next,
    /// and told to [`advance`](Self::advance): no more than is there now, for something else may be pushed before what comes later.
    /// A client that was blocked a whole round does not follow any longer: it is pushed to, within its limits, until it has taken
    /// everything.
    pub fn follower(&self, began: Position) -> Follower {
        let mut state = self.lock();
        let Place::Following(log, _, from) = &state.place else { return Follower::No };
        let (from, to) = (*from, log.end());
        match state.attention {
            Attention::Blocked if from < began => {
                state.part();
                Follower::No
            }
            Attention::Blocked => Follower::Blocked(from),
            Attention::Idle | Attention::Marked if state.queue.is_empty() && state.phase == Phase::Open => {
                state.attention = Attention::Marked;
                Follower::Lacks { from, to }
            }
            Attention::Idle | Attention::Marked => Follower::Own,
        }
    }

    /// Takes out what waits, as far as there is room or one frame, and appends it to `body` in the text framing of a polling
    /// request. Until the next request asks, the client counts as blocked; unless there is nothing: then this one waits, and
    /// the next push marks the slot.
    pub fn take_polling(&self, body: &mut Vec<u8>, room: BodyRoom, now: Instant) -> Waiting {
        let mut state = self.lock();
        let taken = state.queue.take_polling(body, room, now);
        match state.phase {
            Phase::Closed(reason) => Waiting::Drop(reason),
            Phase::Closing(reason) if state.queue.is_empty() => Waiting::Close(reason),
            Phase::Open if !taken => {
                state.attention = Attention::Idle;
                Waiting::Nothing
            }
            Phase::Open | Phase::Closing(_) => {
                state.attention = Attention::Blocked;
                Waiting::Frames
            }
        }
    }

    /// The transport takes no more; it marks the slot when it does again.
    pub fn block(&self, now: Instant) {
        let mut state = self.lock();
        state.attention = Attention::Blocked;
        state.queue.blocked(now);
    }

    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Bytes that wait.
    pub fn backlog(&self) -> usize {
        let state = self.lock();
        let lacks = match &state.place {
            Place::Following(log, _, at) => log.end().saturating_sub(*at) as usize,
            Place::Outside | Place::Apart(..) => 0,
        };
        state.queue.bytes() + lacks
    }

    /// The same again, that goes on by itself: for tests that try all ways to go on.
    #[cfg(test)]
    pub(crate) fn fork(&self) -> Self {
        Self { state: Mutex::new(self.lock().clone()) }
    }

    /// A panic elsewhere while the lock was held left a state whose every step is complete, so it is used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do after some bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing waits.
    Done,
    /// There is more to write, or the transport shall end.
    Again,
}
