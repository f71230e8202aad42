//! The interaction of a polling session's requests, its flusher, its sweep and the WebSocket that
//! takes it over: plain decisions, each made under one lock.
//!
//! ```text
//! get       Absent ── begin_get ──▶ Waiting ── release_get ──▶ Released
//!             ▲                        │ poll_get: frames         │ poll_get: frames or noop
//!             └────────────────────────┴──────────────────────────┘
//! stage     Polling ── upgrade ──▶ Over(Upgraded)
//!              └─ close packet sent, abandon_get, sweep, end ──▶ Over(Ended)
//! ```

use std::{
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    disconnect::Disconnect,
    outbox::{BodyRoom, Home, Outbox, OutboxLimits, Phase, Taker, Waiting},
};

/// How long a closing session waits for the request that fetches the close packet.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client may take for its first request after opening the session. Clients send it at
/// once; a web page that makes a visitor's browser open sessions sends none.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// An engine packet `6` (noop) as a body.
const NOOP: &[u8] = b"1:6";
/// An engine packet `1` (close) as a body.
pub(super) const CLOSE: &[u8] = b"1:1";

/// The transport of a polling session.
///
/// INVARIANT: the outbox is touched from here only while requests carry the session. A request that
/// takes frames and a WebSocket that becomes the outbox's home do so under this lock. So each frame
/// leaves on exactly one of them, in order.
#[derive(Debug)]
pub(super) struct Handover {
    stage: Stage,
    /// When a request last arrived or was answered.
    heard: Instant,
    /// The number of requests that arrived, including the one that opened the session; more than
    /// two count as two.
    requests: u8,
}

#[derive(Debug)]
enum Stage {
    Polling { get: Get, probing: bool },
    Over(Over),
}

/// The request that takes waiting frames; a client has one at a time.
#[derive(Debug)]
enum Get {
    Absent,
    Waiting(Waker),
    /// The request was woken, and is answered even if no frames wait.
    Released,
}

/// Why requests no longer carry the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Over {
    /// A WebSocket carries it.
    Upgraded,
    Ended(Disconnect),
}

/// Why a `GET` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GetError {
    /// Another `GET` is waiting.
    Overlap,
    Over,
}

/// Why a WebSocket may not probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum ProbeError {
    /// Another WebSocket is probing.
    Busy,
    Over,
}

impl Handover {
    pub(super) fn new(now: Instant) -> Self {
        Self { stage: Stage::Polling { get: Get::Absent, probing: false }, heard: now, requests: 0 }
    }

    pub(super) fn over(&self) -> Option<Over> {
        match self.stage {
            Stage::Polling { .. } => None,
            Stage::Over(over) => Some(over),
        }
    }

    /// Records a `POST`.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.requests = (self.requests + 1).min(2);
    }

    /// Records a `GET`. It is answered once [`poll_get`](Self::poll_get) is ready.
    pub(super) fn begin_get(&mut self, now: Instant) -> Result<(), GetError> {
        match &mut self.stage {
            Stage::Polling { get: get @ Get::Absent, .. } => {
                *get = Get::Waiting(Waker::noop().clone());
                self.hear(now);
                Ok(())
            }
            Stage::Polling { get: Get::Waiting(_) | Get::Released, .. } => Err(GetError::Overlap),
            Stage::Over(_) => Err(GetError::Over),
        }
    }

    /// Appends the response to `body`, or registers `waker` for the next attempt.
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

    /// Ends the session, because its `GET` was dropped before the response: the client is gone, or
    /// a proxy in between may have lost more.
    pub(super) fn abandon_get(&mut self) {
        if let Stage::Polling { get: Get::Waiting(_) | Get::Released, .. } = self.stage {
            self.end(Disconnect::TransportClose);
        }
    }

    /// Handles a visit of the flusher.
    pub(super) fn flush(&mut self, outbox: &Outbox, now: Instant) {
        match &self.stage {
            Stage::Polling { get: Get::Waiting(waker), .. } => waker.wake_by_ref(),
            Stage::Polling { get: Get::Absent, .. } => match outbox.phase() {
                Phase::Closed(reason) => self.end(reason),
                Phase::Open | Phase::Closing(_) => outbox.block(now),
            },
            // A released request checks by itself.
            Stage::Polling { get: Get::Released, .. } | Stage::Over(_) => {}
        }
    }

    /// Ends a session whose client was silent for longer than `silence`, or did not fetch its
    /// frames. Returns how many chat messages were left out before that.
    pub(super) fn sweep(&mut self, outbox: &Outbox, now: Instant, silence: Duration, limits: &OutboxLimits) -> u64 {
        let Stage::Polling { get, .. } = &self.stage else { return 0 };
        let elapsed = now.saturating_duration_since(self.heard);
        if elapsed > silence {
            self.end(Disconnect::PingTimeout);
        } else if self.requests < 2 && elapsed > FIRST_REQUEST {
            self.end(Disconnect::NeverPolled);
        } else if let Get::Absent = get {
            match outbox.phase() {
                Phase::Closing(reason) if elapsed > CLOSE_TIMEOUT => self.end(reason),
                Phase::Open | Phase::Closing(_) => {
                    let overdue = outbox.evict_overdue(now, limits);
                    if overdue.evicted.is_some() {
                        self.end(Disconnect::TooSlow);
                    }
                    return overdue.left_out;
                }
                Phase::Closed(reason) => self.end(reason),
            }
        }
        0
    }

    /// Starts the probe of a WebSocket.
    pub(super) fn begin_probe(&mut self) -> Result<(), ProbeError> {
        match &mut self.stage {
            Stage::Polling { probing: probing @ false, .. } => {
                *probing = true;
                self.requests = (self.requests + 1).min(2);
                Ok(())
            }
            Stage::Polling { probing: true, .. } => Err(ProbeError::Busy),
            Stage::Over(_) => Err(ProbeError::Over),
        }
    }

    /// Releases a waiting `GET`, so that the client can pause its polling.
    pub(super) fn release_get(&mut self) {
        if let Stage::Polling { get, .. } = &mut self.stage
            && let Get::Waiting(waker) = get
        {
            waker.wake_by_ref();
            *get = Get::Released;
        }
    }

    /// Ends the probe of a WebSocket that did not take over.
    pub(super) fn end_probe(&mut self) {
        if let Stage::Polling { probing, .. } = &mut self.stage {
            *probing = false;
        }
    }

    /// Lets a WebSocket take over: from now on `home` flushes the outbox, starting with the waiting
    /// frames.
    pub(super) fn upgrade(&mut self, outbox: &Outbox, home: Home) -> Result<(), Over> {
        match self.over() {
            None => {
                outbox.set_home(home, Taker::Stream);
                self.leave(Over::Upgraded);
                Ok(())
            }
            Some(over) => Err(over),
        }
    }

    /// Ends the session at once, unless a request waits, which then gets the remaining frames and
    /// the end.
    pub(super) fn end_unless_polled(&mut self, reason: Disconnect) {
        if let Stage::Polling { get: Get::Absent, .. } = self.stage {
            self.end(reason);
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
