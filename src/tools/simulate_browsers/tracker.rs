//! What one client has received, exactly: which events are missing, which came twice, which came late.

use std::ops::Range;

/// One client's record. Positions count the events for this client, from 0.
///
/// Without losses it is one number. Gaps are kept as ranges, which distinguish an event that fills a gap from a
/// duplicate.
#[derive(Debug)]
pub(super) struct Tracker {
    /// The first position that the client must receive; `None` until its first event.
    start: Option<u32>,
    /// One more than the highest position received.
    next: u32,
    /// Positions below `next` that have not come, ascending.
    gaps: Vec<Range<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// For the first time, after everything published before it that has come so far.
    InOrder,
    /// For the first time, but a later one was here before.
    Late,
    /// Not for the first time.
    Doubled,
}

impl Tracker {
    /// A client that is connected and subscribed before position `start` is published.
    pub(super) const fn expecting(start: u32) -> Self {
        Self { start: Some(start), next: start, gaps: Vec::new() }
    }

    /// Starts with a client that connects during the run: the first event it receives decides where
    /// it begins.
    pub(super) const fn joining() -> Self {
        Self { start: None, next: 0, gaps: Vec::new() }
    }

    pub(super) fn arrived(&mut self, position: u32) -> Arrival {
        if position == self.next && self.start.is_some() {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.arrived_unexpected(position)
    }

    /// How many of the positions below `end` have not come.
    pub(super) fn missing(&self, end: u32) -> u64 {
        u64::from(end.saturating_sub(self.next)) + self.skipped()
    }

    /// How many positions have not come although later ones did.
    pub(super) fn skipped(&self) -> u64 {
        self.gaps.iter().map(|gap| u64::from(gap.end - gap.start)).sum()
    }

    #[cold]
    fn arrived_unexpected(&mut self, position: u32) -> Arrival {
        let start = *self.start.get_or_insert_with(|| {
            self.next = position;
            position
        });
        if position >= self.next {
            if position > self.next {
                self.gaps.push(self.next..position);
            }
            self.next = position + 1;
            return Arrival::InOrder;
        }
        if position < start {
            return Arrival::Late;
        }
        let after = self.gaps.partition_point(|gap| gap.end <= position);
        match self.gaps.get(after).cloned() {
            Some(gap) if gap.contains(&position) => {
                let parts = [gap.start..position, position + 1..gap.end].into_iter().filter(|part| !part.is_empty());
                self.gaps.splice(after..=after, parts);
                Arrival::Late
            }
            _ => Arrival::Doubled,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn in_order_leaves_nothing_missing() {
        let mut tracker = Tracker::expecting(0);
        assert!((0..5).all(|position| tracker.arrived(position) == Arrival::InOrder));
        assert_eq!((tracker.missing(5), tracker.missing(7)), (0, 2));
    }

    #[test]
    fn a_late_one_fills_its_gap_and_a_second_one_is_a_double() {
        let mut tracker = Tracker::expecting(0);
        let arrivals = [0, 4, 2, 2, 1, 3, 3, 0].map(|position| tracker.arrived(position));
        use Arrival::{Doubled, InOrder, Late};
        assert_eq!(arrivals, [InOrder, InOrder, Late, Doubled, Late, Late, Doubled, Doubled]);
        assert_eq!(tracker.missing(5), 0);
    }

    #[test]
    fn one_that_joins_in_the_middle_misses_nothing_before() {
        let mut tracker = Tracker::joining();
        assert_eq!(tracker.arrived(7), Arrival::InOrder);
        assert_eq!(tracker.arrived(9), Arrival::InOrder);
        assert_eq!(tracker.arrived(6), Arrival::Late);
        assert_eq!((tracker.skipped(), tracker.missing(11)), (1, 2));
    }

    #[test]
    fn one_that_reconnects_at_the_start_does_not_take_zero_for_granted() {
        let mut tracker = Tracker::joining();
        assert_eq!(tracker.arrived(0), Arrival::InOrder);
        assert_eq!(tracker.arrived(0), Arrival::Doubled);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(positions in proptest::collection::vec(0..40u32, 0..120)) {
            let mut tracker = Tracker::expecting(0);
            let mut seen = HashSet::new();
            for &position in &positions {
                let highest = seen.iter().max().copied();
                let expected = match (seen.insert(position), highest) {
                    (false, _) => Arrival::Doubled,
                    (true, Some(highest)) if highest > position => Arrival::Late,
                    (true, _) => Arrival::InOrder,
                };
                prop_assert_eq!(tracker.arrived(position), expected);
            }
            prop_assert_eq!(tracker.missing(40), 40 - seen.len() as u64);
        }
    }
}
