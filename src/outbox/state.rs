//! The state of an outbox behind its lock.
//!
//! Four values vary, and most of their combinations are illegal:
//!
//! ```text
//! phase     Open ── close ──▶ Closing ── all is written ──▶ (the transport closes)
//!             └──────┴─────── evict, drop_all ──▶ Closed
//! place     Outside ── admit ──▶ Detached ── attach ──▶ Attached ── detach ──▶ Detached       Outside again: leave_log
//! attention Idle ── a push marks the slot ──▶ Marked ── the socket takes no more ──▶ Blocked ── it does again ──▶ Marked
//!             └◀── all is written ────────────┘
//! taker     Polls ── a WebSocket takes over ──▶ Stream
//! ```
//!
//! | phase | place | taker | attention | queue |
//! |---|---|---|---|---|
//! | Open | Outside, Detached | any | any | any |
//! | Open | Attached | Stream, with a home | any | any |
//! | Closing | Outside, Detached | any | any | any |
//! | Closed | Outside | any | any | empty |
//!
//! That is 33 of the 54 combinations of phase, place, attention and taker. Only one enum of all four
//! could exclude the other 21, and each step would have to rebuild it under the lock. So debug builds
//! check the table whenever the lock is taken, and the tests that run every order of threads check it
//! too; release builds pay nothing.

use std::{sync::Arc, time::Instant};

use super::{
    CHAT_SHARE, Home, Log, OutboxLimits, Overdue, Phase, Position, Push, READER_SHARE, Seq, Taker, queue::Queue,
};
use crate::{disconnect::Disconnect, frame::Frame, membership::Member};

#[derive(Debug, Clone)]
pub(super) struct OutboxState {
    pub(super) queue: Queue,
    pub(super) last_seq: Seq,
    pub(super) home: Option<Home>,
    pub(super) taker: Taker,
    pub(super) attention: Attention,
    pub(super) phase: Phase,
    pub(super) place: Place,
}

/// How the outbox relates to the log.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Outside,
    /// Each broadcast to the log is pushed into the queue.
    Detached(Arc<Log>, Member),
    /// The outbox takes broadcasts from the log; the client has everything before the position.
    Attached(Arc<Log>, Member, Position),
}

/// What looks at the queue next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// Nothing: a push must mark the home slot.
    Idle,
    /// The flusher: the slot is on its dirty list.
    Marked,
    /// The transport, once it is writable again; it then marks the slot itself.
    Blocked,
}

impl OutboxState {
    /// Returns an empty queue without a home.
    pub(super) fn new() -> Self {
        Self {
            queue: Queue::default(),
            last_seq: 0,
            home: None,
            taker: Taker::Polls,
            attention: Attention::Idle,
            phase: Phase::Open,
            place: Place::Outside,
        }
    }

    /// Returns whether this is one of the combinations in the module's table.
    pub(super) fn is_legal(&self) -> bool {
        match (self.phase, &self.place) {
            (Phase::Open, Place::Attached(..)) => self.taker == Taker::Stream && self.home.is_some(),
            (Phase::Open | Phase::Closing(_), Place::Outside | Place::Detached(..)) => true,
            (Phase::Closed(_), Place::Outside) => self.queue.is_empty(),
            (Phase::Closing(_), Place::Attached(..))
            | (Phase::Closed(_), Place::Detached(..) | Place::Attached(..)) => false,
        }
    }

    /// Moves what the outbox lacks of the log into its queue, and stays attached at the log's
    /// end.
    pub(super) fn catch_up(&mut self) {
        let Self { place: Place::Attached(log, _, at), queue, last_seq, .. } = self else { return };
        if *at == log.end() {
            return;
        }
        match log.since(*at, |frame, written| queue.resume(frame, written)) {
            Some(newest) => (*at, *last_seq) = (newest.end, newest.seq.max(*last_seq)),
            None => self.lose(),
        }
    }

    /// Moves what the outbox lacks of the log into its queue, and detaches it.
    pub(super) fn detach(&mut self) {
        let Self { place: Place::Attached(log, member, at), queue, last_seq, home: Some(home), .. } = self else {
            return;
        };
        let newest = log.detach(*at, *member, home.worker, |frame, written| queue.resume(frame, written));
        self.place = Place::Detached(log.clone(), *member);
        match newest {
            Some(newest) => *last_seq = newest.seq.max(*last_seq),
            None => self.lose(),
        }
    }

    /// Removes the outbox from the log.
    pub(super) fn leave_log(&mut self) {
        self.detach();
        if let Place::Detached(log, member) = std::mem::replace(&mut self.place, Place::Outside) {
            log.dismiss(member);
        }
    }

    /// Attaches the outbox at the log's end, if its transport allows it and its queue is empty.
    pub(super) fn attach(&mut self) {
        if self.taker == Taker::Stream
            && self.queue.is_empty()
            && self.attention != Attention::Blocked
            && let (Place::Detached(log, member), Some(home)) = (&self.place, self.home)
        {
            let end = log.attach(*member, home.worker);
            self.place = Place::Attached(log.clone(), *member, end);
        }
    }

    /// Evicts the client because part of what it lacks has been dropped. It must not miss that
    /// silently: it reconnects.
    fn lose(&mut self) {
        debug_assert!(false, "the log keeps what an attached outbox lacks");
        self.evict(Disconnect::SessionFailed);
    }

    /// Adds a frame, or evicts the client if it is blocked and over the limits.
    pub(super) fn push(&mut self, frame: &Arc<Frame>, limits: &OutboxLimits) -> Push {
        if self.phase != Phase::Open {
            return Push::Dropped;
        }
        if self.attention == Attention::Blocked {
            return self.push_to_blocked(frame, limits);
        }
        self.queue.push(frame.clone());
        match self.mark() {
            Some(home) => Push::QueuedUnseen(home),
            None => Push::Queued,
        }
    }

    /// Applies the limits. They hold only for clients that have stopped reading.
    fn push_to_blocked(&mut self, frame: &Arc<Frame>, limits: &OutboxLimits) -> Push {
        let now = frame.published();
        let is_late = self.is_late(now, limits);
        let mut left_out = if is_late { self.queue.drop_chat() } else { 0 };
        let is_long = self.queue.bytes() + frame.websocket().len() > CHAT_SHARE;
        if frame.is_chat() && (is_late || is_long && self.stalls(now, limits)) {
            return Push::LeftOut(left_out + 1);
        }
        // A polling client may have been blocked with an empty queue.
        self.queue.blocked(now);
        let lags = self.queue.age(now) > limits.lag;
        let coalesced = lags && self.queue.replace(frame);
        if !coalesced {
            self.queue.push(frame.clone());
        }
        if self.has_too_much(now, limits) {
            left_out += self.queue.drop_chat();
        }
        if self.has_too_much(now, limits) || self.queue.waited(now) > limits.age {
            return Push::Evicted(self.evict(Disconnect::TooSlow));
        }
        match left_out {
            1.. => Push::LeftOut(left_out),
            0 if coalesced => Push::Coalesced,
            0 => Push::Queued,
        }
    }

    /// Drops waiting chat if the client is late, and evicts the client if it is overdue.
    pub(super) fn evict_overdue(&mut self, now: Instant, limits: &OutboxLimits) -> Overdue {
        if self.attention != Attention::Blocked || !self.is_late(now, limits) {
            return Overdue::default();
        }
        let left_out = self.queue.drop_chat();
        let is_overdue = self.queue.waited(now) > limits.age;
        Overdue { left_out, evicted: if is_overdue { self.evict(Disconnect::TooSlow) } else { None } }
    }

    /// Returns whether the client is half-way to being evicted for its age. No chat waits for it from
    /// then on, so only other frames can make it overdue.
    fn is_late(&self, now: Instant, limits: &OutboxLimits) -> bool {
        self.queue.waited(now) > limits.age / 2
    }

    /// Returns whether the client has taken nothing for longer than a client that reads does.
    fn stalls(&self, now: Instant, limits: &OutboxLimits) -> bool {
        self.queue.took_nothing_for(now) > limits.lag
    }

    /// Returns whether more bytes wait than the limits allow.
    fn has_too_much(&self, now: Instant, limits: &OutboxLimits) -> bool {
        let max_bytes = if self.stalls(now, limits) { limits.bytes } else { limits.bytes.saturating_mul(READER_SHARE) };
        self.queue.bytes() > max_bytes
    }

    /// Returns the slot to mark, if nothing is going to look at this queue.
    pub(super) fn mark(&mut self) -> Option<Home> {
        if self.attention != Attention::Idle {
            return None;
        }
        let home = self.home?;
        self.attention = Attention::Marked;
        Some(home)
    }

    /// Closes the outbox. The flusher looks at it once more, even if it is blocked.
    pub(super) fn evict(&mut self, reason: Disconnect) -> Option<Home> {
        if matches!(self.phase, Phase::Closed(_)) {
            return None;
        }
        self.leave_log();
        self.phase = Phase::Closed(reason);
        self.queue = Queue::default();
        self.attention = Attention::Marked;
        self.home
    }
}
