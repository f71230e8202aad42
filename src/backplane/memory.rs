//! The backplane of one process: it remembers ids, and the registry makes the order.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Apply, Outside, RepetitionOptions, recent_ids::RecentIds};
use crate::{actors::messages::Accepted, clock, farm::IncomingEvent, stats::Refused};

/// Publishes events at once.
#[derive(Debug)]
pub(super) struct Memory {
    apply: Apply,
    recent: Mutex<RecentIds>,
}

impl Memory {
    pub(super) fn new(options: &RepetitionOptions, apply: Apply) -> Self {
        Self { apply, recent: Mutex::new(RecentIds::new(options.event_ids, options.event_id_age)) }
    }

    /// There is no await between remembering ids and handing over their events, so a caller that is
    /// dropped leaves behind no id whose event was not published.
    pub(super) async fn publish(&self, events: Vec<IncomingEvent>) {
        let topic = |incoming: &IncomingEvent| incoming.event.kind().topic();
        self.apply.apply(events, topic, |run| self.accept(run, clock::now())).await;
    }

    pub(super) async fn publish_noted(&self, events: Vec<IncomingEvent>, note: Option<String>) {
        self.publish(events).await;
        note.iter().for_each(|note| self.apply.is_of_outside(Outside::Note(note)));
    }

    fn accept(&self, run: Vec<IncomingEvent>, now: Instant) -> Vec<Accepted> {
        let accepted = run.into_iter().filter_map(|IncomingEvent { id, event, .. }| {
            let is_new = |id| self.recent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now);
            if id.clone().is_some_and(|id| !is_new(id)) {
                self.apply.stats.refused(Refused::Repeated).add(1);
                return None;
            }
            self.apply.count(&event);
            let event = Arc::new(event);
            self.apply.is_new(&event, None);
            Some(Accepted { id, event, place: None })
        });
        accepted.collect()
    }
}
