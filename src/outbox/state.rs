//! What an outbox is behind its lock.

use std::sync::Arc;

use super::{Home, Limits, Log, Phase, Position, Push, READER_SHARE, Seq, Taker, queue::Queue};
use crate::{disconnect::Disconnect, frame::Frame, membership::Member};

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) last_seq: Seq,
    pub(super) home: Option<Home>,
    pub(super) taker: Taker,
    pub(super) attention: Attention,
    pub(super) phase: Phase,
    pub(super) place: Place,
}

/// Where the client is towards the log.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Outside,
    /// Each broadcast to the log is pushed here.
    Apart(Arc<Log>, Member),
    /// It takes broadcasts from the log, and has what is before the position.
    Following(Arc<Log>, Member, Position),
}

/// Who will look at the queue next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// Nobody: who adds something must mark the home slot.
    Idle,
    /// The flusher: the slot is on its list.
    Marked,
    /// The transport, once it can send again: it marks the slot itself then.
    Blocked,
}

impl State {
    /// An empty queue that nobody flushes yet.
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

    /// Takes what it lacks of the log into its own queue, and follows on from the log's end.
    pub(super) fn catch_up(&mut self) {
        let Self { place: Place::Following(log, _, at), queue, last_seq, .. } = self else { return };
        if *at == log.end() {
            return;
        }
        match log.since(*at, |frame, written| queue.resume(frame, written)) {
            Some(newest) => (*at, *last_seq) = (newest.end, newest.seq.max(*last_seq)),
            None => self.lose(),
        }
    }

    /// Takes what it lacks of the log into its own queue, and follows no longer.
    pub(super) fn part(&mut self) {
        let Self { place: Place::Following(log, member, at), queue, last_seq, home: Some(home), .. } = self else {
            return;
        };
        let newest = log.part(*at, *member, home.worker, |frame, written| queue.resume(frame, written));
        self.place = Place::Apart(log.clone(), *member);
        match newest {
            Some(newest) => *last_seq = newest.seq.max(*last_seq),
            None => self.lose(),
        }
    }

    /// Is no member of the log any more.
    pub(super) fn leave_log(&mut self) {
        self.part();
        if let Place::Apart(log, member) = std::mem::replace(&mut self.place, Place::Outside) {
            log.dismiss(member);
        }
    }

    /// Follows the log from here, if it may and has all that was pushed to it.
    pub(super) fn follow(&mut self) {
        if self.taker == Taker::Stream
            && self.queue.is_empty()
            && self.attention != Attention::Blocked
            && let (Place::Apart(log, member), Some(home)) = (&self.place, self.home)
        {
            let end = log.follow(*member, home.worker);
            self.place = Place::Following(log.clone(), *member, end);
        }
    }

    /// Something it lacks is forgotten. It must not miss that silently: the next sweep drops it, and it comes back.
    fn lose(&mut self) {
        debug_assert!(false, "the log keeps what a follower lacks");
        self.evict(Disconnect::SessionFailed);
    }

    /// Adds a frame. A client that is blocked and over the limits is evicted instead.
    pub(super) fn push(&mut self, frame: &Arc<Frame>, limits: &Limits) -> Push {
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

    /// Only a client that does not read is held to the limits: what waits for one that does waits for us.
    fn push_to_blocked(&mut self, frame: &Arc<Frame>, limits: &Limits) -> Push {
        let now = frame.published();
        // A client that polls may have been blocked with nothing to take.
        self.queue.blocked(now);
        let lags = self.queue.age(now) > limits.lag;
        let coalesced = lags && self.queue.replace(frame);
        if !coalesced {
            self.queue.push(frame.clone());
        }
        let stalls = self.queue.took_nothing_for(now) > limits.lag;
        let max_bytes = if stalls { limits.bytes } else { limits.bytes.saturating_mul(READER_SHARE) };
        if self.queue.bytes() > max_bytes || self.queue.waited(now) > limits.age {
            return Push::Evicted(self.evict(Disconnect::TooSlow));
        }
        if coalesced { Push::Coalesced } else { Push::Queued }
    }

    /// The slot to mark, if nobody looks after this queue.
    pub(super) fn mark(&mut self) -> Option<Home> {
        if self.attention != Attention::Idle {
            return None;
        }
        let home = self.home?;
        self.attention = Attention::Marked;
        Some(home)
    }

    /// A closed outbox is looked at once more by the flusher, blocked or not.
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
