//! What is to be done for a client at a later moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::clock::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub(super) due: Time,
    pub(super) client: u32,
    /// Which of the client's connections it is for: a timer of an earlier one is void.
    pub(super) epoch: u32,
    pub(super) task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Stop waiting for a connect and the answers to its subscriptions.
    GiveUp,
    /// Show a sign of life and look for the server's.
    Ping,
    /// A slow reader reads a little.
    ReadSlowly,
    /// A churning client goes away.
    Leave,
    /// A churning client that has no connection tries again.
    ComeBack,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let Reverse(next) = self.heap.peek()?;
        if next.due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }

    /// How long there is nothing due.
    pub(super) fn idle_for(&self, now: Time) -> Duration {
        self.heap.peek().map_or(Duration::MAX, |Reverse(timer)| timer.due.since(now))
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order_and_not_too_early() {
        let timer = |nanos, client| Timer { due: Time::from_nanos(nanos), client, epoch: 1, task: Task::Ping };
        let mut timers = Timers::default();
        assert_eq!(timers.idle_for(Time::default()), Duration::MAX);
        for (nanos, client) in [(30, 1), (10, 2), (20, 3)] {
            timers.set(timer(nanos, client));
        }
        assert_eq!(timers.idle_for(Time::from_nanos(4)), Duration::from_nanos(6));
        assert_eq!(timers.idle_for(Time::from_nanos(40)), Duration::ZERO);
        let due = std::iter::from_fn(|| timers.pop_due(Time::from_nanos(20))).map(|timer| timer.client);
        assert_eq!(due.collect::<Vec<_>>(), [2, 3]);
    }
}
