//! Outboxes: the bounded queues between the registry, which fills them, and the transports, which
//! empty them.
//!
//! ```text
//!           push, push_direct                 copy_to ▶ write ▶ advance
//! Idle ───────────────────────▶ Marked ─────────────────────────────────▶ Idle
//!                                │  ▲
//!           the socket is full:  │  │ the socket is writable:
//!           block                ▼  │ Workers::mark
//!                               Blocked ── over the limits: evict ──▶ Closed
//!
//! Open ── close ──▶ Closing ── the queue is empty: Waiting::Close ──▶ the transport closes
//! Open, Closing ── drop_all, evict ──▶ Closed: Waiting::Drop ──▶ the transport drops its stream
//! ```
//!
//! `state.rs` lists the legal combinations.

#[cfg(test)]
mod attached;
mod dirty;
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
    state::{Attention, OutboxState, Place},
};
pub use self::{
    dirty::{Home, Marks, WorkerId, Workers},
    log::{Burst, Log, Position},
};
use clap::Args;

use crate::{
    disconnect::Disconnect,
    frame::Frame,
    membership::Member,
    options::{at_least_one, duration, heading, positive_duration},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The limits of an outbox whose client does not read. They never apply to a client that reads.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutboxLimits {
    /// Maximum number of bytes that wait for a browser that does not read; beyond it the browser is
    /// evicted
    #[arg(id = "outbox-bytes", long = "outbox-bytes", value_name = "BYTES", env = "WEBUPDATES_OUTBOX_BYTES", default_value_t = 1_048_576, value_parser = at_least_one(), help_heading = heading::DELIVERY, hide_short_help = true)]
    pub bytes: usize,

    /// Maximum time for which a frame waits for a browser that does not read; after it the browser
    /// is evicted
    #[arg(id = "outbox-age", long = "outbox-age", value_name = "TIME", env = "WEBUPDATES_OUTBOX_AGE", default_value = "10s", value_parser = positive_duration, help_heading = heading::DELIVERY, hide_short_help = true)]
    pub age: Duration,

    /// Time for which a frame waits before newer states of a job, task or worker replace older ones
    #[arg(id = "outbox-lag", long = "outbox-lag", value_name = "TIME", env = "WEBUPDATES_OUTBOX_LAG", default_value = "1s", value_parser = duration, help_heading = heading::DELIVERY, hide_short_help = true)]
    pub lag: Duration,
}

/// How many times `OutboxLimits::bytes` may wait for a client that reads too slowly. Its frames are
/// shared with other outboxes, and the age limit applies to it too.
pub const READER_SHARE: usize = 16;

/// Bytes that may wait for a client that has stalled when a chat message arrives; over it the
/// message is left out. Waiting chat is dropped before such a client is evicted, so that no client
/// is evicted because others chat.
const CHAT_SHARE: usize = 64 * 1024;

/// The maximum size of one response to a polling request, which holds at least one packet.
#[derive(Debug, Clone, Copy)]
pub struct BodyRoom {
    pub bytes: usize,
    pub packets: usize,
}

/// The number of a broadcast in the registry's order, starting at 1.
pub type Seq = u64;

/// A bounded queue of shared frames.
///
/// INVARIANT: frames leave in the order in which they were pushed, and broadcasts are pushed in the
/// order of their numbers. A broadcast whose number is not higher than the last one is dropped, so
/// a retry delivers nothing twice.
///
/// INVARIANT: the part of the log that an attached outbox lacks comes after everything in its own queue.
/// Before a frame is added to the queue, that part of the log is moved into it. The client thus
/// gets everything in order, and written bytes always leave from the front.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<OutboxState>,
}

/// The kind of transport that takes the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// Polling requests, each of which takes the frames that wait when it arrives.
    Polls,
    /// A socket, which can be written at any time, so its outbox may attach to the log.
    Stream,
}

/// Whether an outbox accepts and returns frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// The waiting frames are still sent, then the transport closes. Pushes are dropped.
    Closing(Disconnect),
    /// The waiting frames have been dropped.
    Closed(Disconnect),
}

/// What the flusher writes next to an outbox, in a round through the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromLog {
    /// Nothing: it is detached.
    Detached,
    /// Everything between these positions, and nothing else before the next append.
    Segment { from: Position, to: Position },
    /// It also has frames of its own to write.
    OwnFirst,
    /// It is blocked, and lacks everything behind this position.
    Blocked(Position),
}

/// The result of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// The frame waits, and a flusher or transport will look at this outbox.
    Queued,
    /// The frame waits, and this slot must be marked.
    QueuedUnseen(Home),
    /// The frame replaces an older state of the same entity.
    Coalesced,
    /// The client does not read and goes without this many chat messages: those that waited, and
    /// the frame itself if it is chat. Any other frame waits.
    LeftOut(u64),
    /// The frame is not accepted: the outbox already had this broadcast, or is closing.
    Dropped,
    /// The client reads too slowly: it is evicted, its frames are dropped, and this slot must be
    /// marked.
    Evicted(Option<Home>),
}

impl Push {
    /// Returns the slot that must be marked.
    pub fn unmarked(self) -> Option<Home> {
        match self {
            Self::QueuedUnseen(home) => Some(home),
            Self::Evicted(home) => home,
            Self::Queued | Self::Coalesced | Self::LeftOut(_) | Self::Dropped => None,
        }
    }
}

/// The result of a periodic check of a client that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overdue {
    /// The client is evicted, and this slot must be marked.
    pub evicted: Option<Home>,
    /// The number of waiting chat messages that were dropped.
    pub left_out: u64,
}

/// What the transport has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing; the next push marks the slot.
    Nothing,
    /// Write the frames, which have been copied.
    Frames,
    /// Close the transport: everything is sent.
    Close(Disconnect),
    /// Drop the transport at once.
    Drop(Disconnect),
}

impl Outbox {
    /// Returns an empty outbox without a home.
    pub fn new() -> Self {
        Self { state: Mutex::new(OutboxState::new()) }
    }

    /// Adds a broadcast, or evicts the client if it is blocked and over the limits.
    pub fn push(&self, seq: Seq, frame: &Arc<Frame>, limits: &OutboxLimits) -> Push {
        let mut state = self.lock();
        state.catch_up();
        if seq <= state.last_seq {
            return Push::Dropped;
        }
        let pushed = state.push(frame, limits);
        // Set last: if the push fails on the way, it is retried.
        state.last_seq = seq;
        pushed
    }

    /// Adds a frame that only this client gets.
    pub fn push_direct(&self, frame: &Arc<Frame>, limits: &OutboxLimits) -> Push {
        let mut state = self.lock();
        state.catch_up();
        state.push(frame, limits)
    }

    /// Makes the outbox a member of the log, to which it may attach from now on.
    pub fn admit(&self, log: &Arc<Log>, member: Member) {
        let mut state = self.lock();
        if let (Phase::Open, Place::Outside) = (state.phase, &state.place) {
            log.admit(member);
            state.place = Place::Detached(log.clone(), member);
            state.attach();
        }
    }

    /// Removes the outbox from the log and keeps what it lacked until now. Returns the slot to
    /// mark, because the flusher's rounds through the log skip this outbox from now on.
    pub fn dismiss(&self) -> Option<Home> {
        let mut state = self.lock();
        state.leave_log();
        if state.queue.is_empty() { None } else { state.mark() }
    }

    /// Makes `home` flush this outbox from now on. Returns whether frames already wait.
    pub fn set_home(&self, home: Home, taker: Taker) -> bool {
        let mut state = self.lock();
        state.home = Some(home);
        state.taker = taker;
        state.attention = Attention::Idle;
        !state.queue.is_empty() || state.phase != Phase::Open
    }

    /// Ends the session once the waiting frames are sent. Returns the slot to mark.
    pub fn close(&self, reason: Disconnect) -> Option<Home> {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.detach();
            state.phase = Phase::Closing(reason);
        }
        state.mark()
    }

    /// Ends the session now and drops the waiting frames. Returns the slot to mark.
    pub fn drop_all(&self, reason: Disconnect) -> Option<Home> {
        self.lock().evict(reason)
    }

    /// Returns the slot to mark if a panic may have happened between adding and marking. Marking it
    /// twice is harmless.
    pub fn remark(&self) -> Option<Home> {
        let state = self.lock();
        if state.attention == Attention::Marked { state.home } else { None }
    }

    /// Evicts a client that has not read for longer than the limit allows. Half-way there, its
    /// waiting chat is dropped.
    pub fn evict_overdue(&self, now: Instant, limits: &OutboxLimits) -> Overdue {
        self.lock().evict_overdue(now, limits)
    }

    /// Copies waiting frames to the end of `scratch`, until that holds `limit` bytes or more. They
    /// stay in the outbox until [`advance`](Self::advance) confirms that they are written.
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

    /// Removes the first `bytes` of what [`copy_to`](Self::copy_to) or the log returned, after they
    /// have been written. Returns what to do next. An outbox whose client has taken everything
    /// attaches to the log, if it may.
    pub fn advance(&self, bytes: usize, now: Instant) -> Next {
        let mut state = self.lock();
        let from_log = state.queue.advance(bytes, now);
        if let Place::Attached(_, _, at) = &mut state.place {
            *at += from_log as u64;
        }
        if !state.queue.is_empty() || state.phase != Phase::Open {
            return Next::Again;
        }
        state.attention = Attention::Idle;
        state.attach();
        Next::Done
    }

    /// Returns what the outbox lacks of the log, in a round that began when the log ended at
    /// `began`. The caller writes the returned segment next and passes its length to
    /// [`advance`](Self::advance); the segment ends at the current end of the log, because another
    /// frame may be pushed before the next append. An outbox that was blocked for a whole round
    /// detaches: broadcasts are pushed to it, within its limits, until its client has taken
    /// everything.
    pub fn take_log(&self, began: Position) -> FromLog {
        let mut state = self.lock();
        let Place::Attached(log, _, from) = &state.place else { return FromLog::Detached };
        let (from, to) = (*from, log.end());
        match state.attention {
            Attention::Blocked if from < began => {
                state.detach();
                FromLog::Detached
            }
            Attention::Blocked => FromLog::Blocked(from),
            Attention::Idle | Attention::Marked if state.queue.is_empty() && state.phase == Phase::Open => {
                state.attention = Attention::Marked;
                FromLog::Segment { from, to }
            }
            Attention::Idle | Attention::Marked => FromLog::OwnFirst,
        }
    }

    /// Moves waiting frames to `body`, in the text framing of a polling response: as many as fit,
    /// but at least one. If there are some, the client counts as blocked until its next request. If
    /// there are none, the request waits, and the next push marks the slot.
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

    /// Records that the transport takes no more bytes. The transport marks the slot when it does
    /// again.
    pub fn block(&self, now: Instant) {
        let mut state = self.lock();
        state.attention = Attention::Blocked;
        state.queue.blocked(now);
    }

    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub fn taker(&self) -> Taker {
        self.lock().taker
    }

    /// Returns the number of waiting bytes.
    pub fn backlog(&self) -> usize {
        let state = self.lock();
        let lacks = match &state.place {
            Place::Attached(log, _, at) => log.end().saturating_sub(*at) as usize,
            Place::Outside | Place::Detached(..) => 0,
        };
        state.queue.bytes() + lacks
    }

    /// Returns an independent copy, for tests that explore every continuation.
    #[cfg(test)]
    pub(crate) fn fork(&self) -> Self {
        Self { state: Mutex::new(self.lock().clone()) }
    }

    /// Every step under the lock is complete, so the state stays usable after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(state.is_legal(), "an outbox is in an illegal state: {state:?}");
        state
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do after bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the outbox is empty.
    Done,
    /// Write more, or close the transport.
    Again,
}
