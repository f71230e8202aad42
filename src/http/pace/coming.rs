//! A body that is arriving, and when to check whether its client is still connected.

use std::time::{Duration, Instant};

use super::{Due, stream::Closed};

/// How long a body may make no progress after its client has stopped sending.
const ABANDONED: Duration = Duration::from_secs(2);

/// How often the server checks whether the client of a body is still connected.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// How long a body may make no progress before the server probes its client. The client's end of
/// stream is queued behind unread bytes, but a client that is gone resets the connection on any
/// data sent to it. The interval doubles with each probe, and the number of probes is limited: Go's
/// HTTP client accepts five interim responses (RFC 9110 §15.2).
const ASK: Duration = Duration::from_secs(1);
const MAX_ASKED: u32 = 4;

/// The body of the request that is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyPhase {
    /// The reader has all of it, or there is none.
    Complete,
    Coming(Coming),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coming {
    /// Whether the reader can use partial data, and so may wait indefinitely for more.
    pub(super) is_patient: bool,
    /// Whether the client may be sent interim responses.
    pub(super) may_ask: bool,
    pub(super) asked: u32,
    /// When the reader last took a piece; `None` while the reader waits.
    pub(super) left_alone: Option<Instant>,
    /// When to check next whether the client is still connected.
    pub(super) look: Instant,
    pub(super) closed: Closed,
}

impl Coming {
    pub(super) fn new(may_ask: bool, now: Instant) -> Self {
        Self { is_patient: false, may_ask, asked: 0, left_alone: Some(now), look: now + LOOK, closed: Closed::No }
    }

    pub(super) fn due(&self) -> Due {
        // A waiting reader sees the end itself.
        match (self.left_alone, self.closed) {
            (Some(since), Closed::Half) if since + ABANDONED <= self.look => Due::End(since + ABANDONED),
            (Some(since), Closed::Whole) => Due::End(since),
            (Some(_) | None, _) => Due::Look(self.look),
        }
    }

    /// Returns whether to probe the client now.
    pub(super) fn asks(&self, now: Instant) -> bool {
        let patience = ASK * (1 << self.asked);
        let is_left_alone = self.left_alone.is_some_and(|since| now.saturating_duration_since(since) >= patience);
        self.may_ask && self.asked < MAX_ASKED && is_left_alone
    }
}
