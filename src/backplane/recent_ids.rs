//! The ids of recently accepted events, which make retries idempotent.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{farm::EventId, slots::Shrink};

/// Remembers the last `count` ids, each for `age`.
#[derive(Debug)]
pub(super) struct RecentIds {
    count: usize,
    age: Duration,
    known: HashSet<EventId>,
    order: VecDeque<(Instant, EventId)>,
}

impl RecentIds {
    pub(super) fn new(count: usize, age: Duration) -> Self {
        Self { count, age, known: HashSet::new(), order: VecDeque::new() }
    }

    /// Adds an id. Returns whether it is new.
    pub(super) fn insert(&mut self, id: EventId, now: Instant) -> bool {
        self.forget(now);
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back((now, id));
        if self.order.len() > self.count {
            self.forget_oldest();
        }
        true
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.age) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
            self.known.shrink_if_sparse();
            self.order.shrink_if_sparse();
        }
    }
}
