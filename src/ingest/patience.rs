//! How long the relay waits before it reconnects to the Manager.

use std::time::Duration;

use fastrand::Rng;

use crate::client::Backoff;

/// A connection that lived this long shows that the Manager can carry the relay.
const LIVED: Duration = Duration::from_secs(30);

/// The waits after connections that ended early: at most one connection per 15 s.
const AFTER_YOUNG_DEATHS: Backoff = Backoff { first: Duration::from_millis(250), max: Duration::from_secs(15) };

/// Counts failures for two waits, the longer of which applies.
///
/// ```text
///              failed: unreachable + 1                       ended before LIVED: young + 1
///                 ┌───────────┐                                 ┌────────────────┐
///                 │           ▼        connected                │                ▼
///                 └──── Disconnected ──────────────▶ Connected ─┴──────▶ Disconnected
///                                    unreachable = 0            ended after LIVED: young = 0
/// ```
///
/// A Manager that restarts is found again within [`Backoff`]'s three seconds. A Manager that
/// accepts the relay and soon drops it is contacted at growing intervals: a successful connect
/// alone does not reset them.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Failed attempts since the last connection.
    unreachable: u32,
    /// Consecutive connections that ended early.
    young: u32,
}

impl Patience {
    /// Records that an attempt failed.
    pub(super) fn failed(&mut self) {
        self.unreachable = self.unreachable.saturating_add(1);
    }

    /// Records that a connection ended. Returns whether it ended early.
    pub(super) fn ended(&mut self, age: Duration) -> bool {
        let died_young = age < LIVED;
        self.young = if died_young { self.young.saturating_add(1) } else { 0 };
        self.unreachable = 0;
        died_young
    }

    /// Returns how long to wait now.
    pub(super) fn wait(&self, rng: &mut Rng) -> Duration {
        // The first wait is short whether or not the Manager was connected before.
        let away = Backoff::default().wait(self.unreachable, rng);
        if self.young == 0 { away } else { away.max(AFTER_YOUNG_DEATHS.wait(self.young, rng)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    /// Returns the shortest and the longest wait that the jitter may choose.
    fn bounds(patience: &Patience) -> (Duration, Duration) {
        let waits = || (0..200).map(|seed| patience.wait(&mut Rng::with_seed(seed)));
        (waits().min().unwrap(), waits().max().unwrap())
    }

    #[test]
    fn waits_grow_while_connections_die_young() {
        let mut patience = Patience::default();
        for due in [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            assert!(patience.ended(SOON));
            let (shortest, longest) = bounds(&patience);
            let due = Duration::from_millis(due);
            assert!(due / 2 <= shortest && longest <= due, "{due:?}: {shortest:?} to {longest:?}");
        }
        // A failed attempt in between changes nothing.
        patience.failed();
        assert!(bounds(&patience).0 >= Duration::from_millis(7500));
    }

    #[test]
    fn a_connection_that_lived_starts_over() {
        let mut patience = Patience::default();
        assert!((0..10).all(|_| patience.ended(SOON)));
        assert!(!patience.ended(LIVED));
        assert!(bounds(&patience).1 <= Duration::from_millis(250));
        patience.ended(SOON);
        assert!(bounds(&patience).1 <= Duration::from_millis(250));
    }

    #[test]
    fn a_manager_that_is_away_is_found_within_seconds() {
        let mut patience = Patience::default();
        patience.ended(LIVED);
        (0..100).for_each(|_| patience.failed());
        assert!(bounds(&patience).1 <= Duration::from_secs(3));
    }
}
