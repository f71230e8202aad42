//! A token bucket that limits how often something may happen.

use std::time::{Duration, Instant};

/// Grants `burst` at once, and then one per `every`.
#[derive(Debug)]
pub(super) struct Allowance {
    burst: u32,
    every: Duration,
    left: u32,
    /// The start of the wait for the next grant; meaningless while the bucket is full.
    since: Instant,
    /// The number of denials since the last grant.
    denied: u64,
}

impl Allowance {
    pub(super) fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self { burst, every, left: burst, since: now, denied: 0 }
    }

    /// Returns whether a grant is available.
    pub(super) fn has(&mut self, now: Instant) -> bool {
        let saved = now.saturating_duration_since(self.since).as_nanos() / self.every.as_nanos().max(1);
        let saved = u32::try_from(saved).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(saved).min(self.burst);
        if self.left == self.burst {
            self.since = now;
        } else {
            self.since += self.every * saved;
        }
        self.left > 0
    }

    /// Uses a grant. Returns the number of denials since the last one, or `None` if this request is
    /// denied too.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        if !self.has(now) {
            self.denied += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.denied))
    }

    /// Returns when the next grant is available, after [`has`](Self::has) returned false.
    pub(super) fn next(&self) -> Instant {
        self.since + self.every
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = clock::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let mut allowance = Allowance::new(2, Duration::from_secs(1), start);
        let taken: Vec<_> = [0, 0, 1, 9, 10, 15, 20, 21].map(|tenths| allowance.take(at(tenths))).into();
        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2), None, Some(1), None]);
        assert_eq!(allowance.next(), at(30));
        assert!(allowance.has(at(30)));
        // However long no request arrives, no more than a burst accumulates.
        let taken: Vec<_> = (0..4).map(|_| allowance.take(at(100_000)).is_some()).collect();
        assert_eq!(taken, [true, true, false, false]);
    }
}
