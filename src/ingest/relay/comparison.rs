//! The progress of finding out what was missed while the link was down.

use std::{
    future::pending,
    pin::Pin,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{api::ApiError, snapshot::Snapshot};
use crate::client::Backoff;

/// How long the subscriptions of a new connection may take before the comparison starts without the
/// remaining ones.
const MAX_SUBSCRIBING: Duration = Duration::from_secs(10);

/// The pause before a failed comparison is retried; it grows.
const COMPARE_AGAIN: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(120) };

/// The request for the Manager's current state.
pub(super) type Asking = Pin<Box<dyn Future<Output = Result<Snapshot, ApiError>>>>;

/// The comparison of one connection.
pub(super) struct Comparison {
    stage: Stage,
    failures: u32,
    /// The last error. A repeated one is logged once.
    complaint: String,
}

enum Stage {
    /// The Manager has not acknowledged all subscriptions yet, so events may still be missed. The
    /// comparison starts at this time at the latest, because browsers may subscribe without end.
    Subscribing(Instant),
    Asking(Asking),
    /// The Manager did not answer.
    Again(Instant),
    Done,
}

impl Comparison {
    /// Waits for the subscriptions of a new connection.
    pub(super) fn after_subscribing(now: Instant) -> Self {
        Self { stage: Stage::Subscribing(now + MAX_SUBSCRIBING), failures: 0, complaint: String::new() }
    }

    /// Starts the comparison with the response to this request.
    pub(super) fn begin(&mut self, asking: Asking) {
        self.stage = Stage::Asking(asking);
    }

    /// Returns whether the comparison is to start: its time has come, or `is_settled` says that all
    /// subscriptions are acknowledged.
    pub(super) fn is_due(&self, is_settled: bool, now: Instant) -> bool {
        match self.stage {
            Stage::Subscribing(at) => is_settled || at <= now,
            Stage::Again(at) => at <= now,
            Stage::Asking(_) | Stage::Done => false,
        }
    }

    /// Returns when the comparison starts at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Subscribing(at) | Stage::Again(at) => Some(at),
            Stage::Asking(_) | Stage::Done => None,
        }
    }

    /// Waits for the Manager's response, if one is expected. May be cancelled.
    pub(super) async fn answer(&mut self) -> Result<Snapshot, ApiError> {
        match &mut self.stage {
            Stage::Asking(asking) => asking.await,
            Stage::Subscribing(_) | Stage::Again(_) | Stage::Done => pending().await,
        }
    }

    pub(super) fn finish(&mut self) {
        self.stage = Stage::Done;
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Plans the next attempt. Returns the error unless it is the one of the last attempt.
    pub(super) fn failed(&mut self, error: &ApiError, rng: &mut Rng, now: Instant) -> Option<&str> {
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Again(now + COMPARE_AGAIN.wait(self.failures, rng));
        let error = error.to_string();
        let is_new = error != self.complaint;
        self.complaint = error;
        is_new.then_some(&*self.complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn starts_once_the_subscriptions_are_settled_or_took_too_long() {
        let now = clock::now();
        let mut comparison = Comparison::after_subscribing(now);
        let latest = now + MAX_SUBSCRIBING;
        assert_eq!(comparison.deadline(), Some(latest));
        for (is_settled, at, is_due) in [(false, now, false), (true, now, true), (false, latest, true)] {
            assert_eq!(comparison.is_due(is_settled, at), is_due);
        }
        comparison.begin(Box::pin(pending()));
        assert!(!comparison.is_due(true, latest), "one request at a time");
        comparison.finish();
        assert!(comparison.is_done() && !comparison.is_due(true, latest));
    }
}
