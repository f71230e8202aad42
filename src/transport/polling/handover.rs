//! What the requests of a polling session, its flusher, its sweep and a WebSocket that takes it over do to each other: plain
//! decisions, each made under one lock.

use std::{
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    disconnect::Disconnect,
    outbox::{BodyRoom, Home, Limits, Outbox, Phase, Taker, Waiting},
};

/// How long a session that ends politely waits for the request that is told so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An engine packet `6` (noop) as a body.
const NOOP: &[u8] = b"1:6";
/// An engine packet `1` (close) as a body.
pub(super) const CLOSE: &[u8] = b"1:1";

/// Who carries the session.
///
/// INVARIANT: only while requests carry it does anything here touch its outbox, and both a request that takes from the outbox
/// and a WebSocket that becomes its home do so under the same lock as this. So each frame leaves on one of them, in order.
#[derive(Debug)]
pub(super) struct Handover {
    stage: Stage,
    /// When a request last came or was answered.
    heard: Instant,
}

#[derive(Debug)]
enum Stage {
    Polling { get: Get, probing: bool },
    Over(Over),
}

/// The request that takes what waits; a client has one at a time.
#[derive(Debug)]
enum Get {
    Absent,
    Waiting(Waker),
    /// It was woken, to be answered even if nothing waits.
    Released,
}

/// Why requests no longer carry the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Over {
    /// A WebSocket does.
    Upgraded,
    Ended(Disconnect),
}

/// Why a `GET` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GetError {
    /// Another one is waiting.
    Overlap,
    Over,
}

/// Why a WebSocket may not probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum ProbeError {
    /// Another one is probing.
    Busy,
    Over,
}

impl Handover {
    pub(super) fn new(now: Instant) -> Self {
        Self { stage: Stage::Polling { get: Get::Absent, probing: false }, heard: now }
    }

    pub(super) fn over(&self) -> Option<Over> {
        match self.stage {
            Stage::Polling { .. } => None,
            Stage::Over(over) => Some(over),
        }
    }

    /// A `POST` came.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A `GET` came. It is answered once [`poll_get`](Self::poll_get) is ready.
    pub(super) fn begin_get(&mut self, now: Instant) -> Result<(), GetError> {
        match &mut self.stage {
            Stage::Polling { get: get @ Get::Absent, .. } => {
                *get = Get::Waiting(Waker::noop().clone());
                self.heard = now;
                Ok(())
            }
            Stage::Polling { get: Get::Waiting(_) | Get::Released, .. } => Err(GetError::Overlap),
            Stage::Over(_) => Err(GetError::Over),
        }
    }

    /// Appends the answer to `body`, or has `waker` woken when it is worth asking again.
    pub(super) fn poll_get(
        &mut self,
        outbox: &Outbox,
        body: &mut Vec<u8>,
        room: BodyRoom,
        waker: &Waker,
        now: Instant,
    ) -> Poll<()> {
        match &mut self.stage {
            Stage::Polling { get, .. } => match outbox.take_polling(body, room, now) {
                Waiting::Nothing if matches!(get, Get::Waiting(_)) => {
                    *get = Get::Waiting(waker.clone());
                    return Poll::Pending;
                }
                Waiting::Nothing => {
                    body.extend_from_slice(NOOP);
                    *get = Get::Absent;
                }
                Waiting::Frames => *get = Get::Absent,
                Waiting::Close(reason) | Waiting::Drop(reason) => {
                    body.extend_from_slice(CLOSE);
                    self.end(reason);
                }
            },
            Stage::Over(Over::Upgraded) => body.extend_from_slice(NOOP),
            Stage::Over(Over::Ended(_)) => body.extend_from_slice(CLOSE),
        }
        self.heard = now;
        Poll::Ready(())
    }

    /// The `GET` is gone before it was answered: so is the client, or a proxy between that may have lost more.
    pub(super) fn abandon_get(&mut self) {
        if let Stage::Polling { get: Get::Waiting(_) | Get::Released, .. } = self.stage {
            self.end(Disconnect::TransportClose);
        }
    }

    /// The flusher comes around.
    pub(super) fn flush(&mut self, outbox: &Outbox, now: Instant) {
        match &self.stage {
            Stage::Polling { get: Get::Waiting(waker), .. } => waker.wake_by_ref(),
            Stage::Polling { get: Get::Absent, .. } => match outbox.phase() {
                Phase::Closed(reason) => self.end(reason),
                Phase::Open | Phase::Closing(_) => outbox.block(now),
            },
            // A released request looks itself.
            Stage::Polling { get: Get::Released, .. } | Stage::Over(_) => {}
        }
    }

    /// Ends a session whose client was silent for longer than `silence`, or did not fetch what waits for it.
    pub(super) fn sweep(&mut self, outbox: &Outbox, now: Instant, silence: Duration, limits: &Limits) {
        let Stage::Polling { get, .. } = &self.stage else { return };
        let elapsed = now.saturating_duration_since(self.heard);
        if elapsed > silence {
            self.end(Disconnect::PingTimeout);
        } else if let Get::Absent = get {
            match outbox.phase() {
                Phase::Closing(reason) if elapsed > CLOSE_TIMEOUT => self.end(reason),
                Phase::Open | Phase::Closing(_) if outbox.evict_overdue(now, limits).is_some() => {
                    self.end(Disconnect::TooSlow);
                }
                Phase::Open | Phase::Closing(_) => {}
                Phase::Closed(reason) => self.end(reason),
            }
        }
    }

    /// A WebSocket wants to take over.
    pub(super) fn begin_probe(&mut self) -> Result<(), ProbeError> {
        match &mut self.stage {
            Stage::Polling { probing: probing @ false, .. } => {
                *probing = true;
                Ok(())
            }
            Stage::Polling { probing: true, .. } => Err(ProbeError::Busy),
            Stage::Over(_) => Err(ProbeError::Over),
        }
    }

    /// Has a waiting `GET` answered, so that the client can pause its polling.
    pub(super) fn release_get(&mut self) {
        if let Stage::Polling { get, .. } = &mut self.stage
            && let Get::Waiting(waker) = get
        {
            waker.wake_by_ref();
            *get = Get::Released;
        }
    }

    /// The WebSocket is gone without having taken over.
    pub(super) fn end_probe(&mut self) {
        if let Stage::Polling { probing, .. } = &mut self.stage {
            *probing = false;
        }
    }

    /// A WebSocket takes over: from now on `home` flushes the outbox, and what is still waiting in it first.
    pub(super) fn upgrade(&mut self, outbox: &Outbox, home: Home) -> Result<(), Over> {
        match self.over() {
            None => {
                outbox.attach(home, Taker::Stream);
                self.leave(Over::Upgraded);
                Ok(())
            }
            Some(over) => Err(over),
        }
    }

    /// Ends the session at once.
    pub(super) fn end(&mut self, reason: Disconnect) {
        if self.over().is_none() {
            self.leave(Over::Ended(reason));
        }
    }

    fn leave(&mut self, over: Over) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over(over));
        if let Stage::Polling { get: Get::Waiting(waker), .. } = stage {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod model;
