//! Waits between attempts to connect.

use std::time::Duration;

use fastrand::Rng;

/// Waits that double from attempt to attempt up to a limit, with jitter, so that the clients of a
/// restarted server do not all reconnect at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter. The default is 250 ms.
    pub first: Duration,
    /// The maximum wait. The default is 3 s, so a restarted server is found within that time.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), max: Duration::from_secs(3) }
    }
}

impl Backoff {
    /// Returns the wait after `failures` consecutive failures, counted from 1: between half and all
    /// of the wait for that number.
    pub fn wait(&self, failures: u32, rng: &mut Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let due = self.first.saturating_mul(1 << doublings).min(self.max);
        due.mul_f64(0.5 + rng.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_vary_below_it() {
        let backoff = Backoff::default();
        for seed in 0..50 {
            let mut rng = Rng::with_seed(seed);
            for (failures, due) in [(0, 250), (1, 250), (2, 500), (3, 1000), (4, 2000), (5, 3000), (u32::MAX, 3000)] {
                let wait = backoff.wait(failures, &mut rng);
                let due = Duration::from_millis(due);
                assert!(due / 2 <= wait && wait <= due, "{failures} failures: {wait:?}");
            }
        }
    }

    #[test]
    fn the_same_chance_gives_the_same_wait() {
        let wait = |seed| Backoff::default().wait(4, &mut Rng::with_seed(seed));
        assert_eq!(wait(1), wait(1));
        assert_ne!(wait(1), wait(2));
    }
}
