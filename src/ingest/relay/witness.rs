//! Notices that MQTT lacks events.
//!
//! A Manager that cannot reach its broker drops its events, and says so nowhere. But it also sends
//! them to its own pages, so each event on the link must have its like on MQTT, before or after.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use crate::farm::{EventKind, FarmEvent};

/// How long an event may take longer over MQTT than over the link.
const LATE: Duration = Duration::from_secs(3);

/// The minimum time between two comparisons.
const PAUSE: Duration = Duration::from_secs(5);

/// The maximum number of events that are remembered of each side.
const REMEMBERED: usize = 1000;

/// Compares the events of the link with those of MQTT.
#[derive(Debug, Default)]
pub(super) struct Witness {
    hasher: RandomState,
    /// Events that only MQTT had so far.
    over_mqtt: VecDeque<u64>,
    /// Events that only the link had so far, with the time at which they count as missing.
    missing: VecDeque<(u64, Instant)>,
    last_comparison: Option<Instant>,
}

impl Witness {
    /// A comparison restores no image, and the link may have two copies of each.
    fn is_compared(event: &FarmEvent) -> bool {
        event.kind() != EventKind::LastRendered
    }

    /// Records an event of MQTT.
    pub(super) fn arrived(&mut self, event: &FarmEvent) {
        if !Self::is_compared(event) {
            return;
        }
        let hash = self.hash(event);
        if let Some(at) = self.missing.iter().position(|(missing, _)| *missing == hash) {
            self.missing.remove(at);
        } else {
            bounded(&mut self.over_mqtt).push_back(hash);
        }
    }

    /// Records an event of the link.
    pub(super) fn announced(&mut self, event: &FarmEvent, now: Instant) {
        if !Self::is_compared(event) {
            return;
        }
        let hash = self.hash(event);
        if let Some(at) = self.over_mqtt.iter().position(|arrived| *arrived == hash) {
            self.over_mqtt.remove(at);
        } else {
            bounded(&mut self.missing).push_back((hash, now + LATE));
        }
    }

    /// Returns when the Manager's lists have to be compared.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (_, due) = self.missing.front()?;
        Some(self.last_comparison.map_or(*due, |last| (last + PAUSE).max(*due)))
    }

    /// A comparison begins, which makes up for everything so far.
    pub(super) fn begin_comparison(&mut self, now: Instant) {
        self.last_comparison = Some(now);
        self.missing.clear();
        self.over_mqtt.clear();
    }

    fn hash(&self, event: &FarmEvent) -> u64 {
        self.hasher.hash_one((event.wire_name(), event.json()))
    }
}

fn bounded<T>(queue: &mut VecDeque<T>) -> &mut VecDeque<T> {
    if queue.len() >= REMEMBERED {
        queue.pop_front();
    }
    queue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn status(word: &str) -> FarmEvent {
        FarmEvent::parse(EventKind::FarmStatus, &format!(r#"{{"status":"{word}"}}"#)).unwrap()
    }

    #[test]
    fn an_event_that_only_the_link_has_is_missing() {
        let (now, mut witness) = (clock::now(), Witness::default());
        witness.announced(&status("active"), now);
        witness.arrived(&status("active"));
        witness.arrived(&status("idle"));
        witness.announced(&status("idle"), now);
        assert_eq!(witness.deadline(), None, "in either order");
        witness.announced(&status("idle"), now);
        witness.announced(&status("active"), now + LATE);
        assert_eq!(witness.deadline(), Some(now + LATE), "each counts for one");
        witness.begin_comparison(now + LATE);
        assert_eq!(witness.deadline(), None);
        witness.announced(&status("idle"), now + LATE);
        assert_eq!(witness.deadline(), Some(now + LATE + PAUSE));
    }

    #[test]
    fn no_more_is_remembered_than_needed() {
        let (now, mut witness) = (clock::now(), Witness::default());
        for number in 0..3 * REMEMBERED {
            witness.announced(&status(&format!("a{number}")), now);
            witness.arrived(&status(&format!("b{number}")));
        }
        assert_eq!((witness.missing.len(), witness.over_mqtt.len()), (REMEMBERED, REMEMBERED));
    }
}
