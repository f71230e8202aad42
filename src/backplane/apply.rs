//! Hands events to their publishers, the only place that does.

use std::{fmt, sync::Arc};

use actix::Addr;

use crate::{
    actors::{
        Chat, FarmUpdates, JobUpdates, WorkerUpdates,
        messages::{Accepted, Enqueue, PublishEvents, Receipt},
    },
    farm::{FarmEvent, Topic},
    history::Offset,
    stats::Stats,
};

/// The publisher actors.
#[derive(Debug, Clone)]
pub struct Publishers {
    pub jobs: Addr<JobUpdates>,
    pub workers: Addr<WorkerUpdates>,
    pub farm: Addr<FarmUpdates>,
    pub chat: Addr<Chat>,
}

impl Publishers {
    fn publish(&self, topic: Topic, events: PublishEvents) {
        match topic {
            Topic::Jobs => self.jobs.enqueue(events),
            Topic::Workers => self.workers.enqueue(events),
            Topic::Farm => self.farm.enqueue(events),
            Topic::Chat => self.chat.enqueue(events),
        }
    }
}

/// Gets each event that is not a repetition, in order, on every node, with its offset in the stream if there
/// is one.
pub type OnNew = Box<dyn Fn(&Arc<FarmEvent>, Option<Offset>) + Send + Sync>;

/// What a source that exists once published.
#[derive(Debug)]
pub enum Outside<'a> {
    Event(&'a FarmEvent),
    /// What such a source wants the nodes to know, in words of its own.
    Note(&'a str),
}

/// Gets what sources that exist once published, on whichever node, in order. Without other nodes these are
/// only notes.
pub type OnOutside = Box<dyn Fn(Outside<'_>) + Send + Sync>;

/// Hands events to their publishers.
pub struct Apply {
    publishers: Publishers,
    on_new: Option<OnNew>,
    on_outside: OnOutside,
    pub(super) stats: &'static Stats,
}

impl fmt::Debug for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apply").field("publishers", &self.publishers).finish_non_exhaustive()
    }
}

impl Apply {
    pub fn new(publishers: Publishers, on_new: Option<OnNew>, on_outside: OnOutside, stats: &'static Stats) -> Self {
        Self { publishers, on_new, on_outside, stats }
    }

    /// Hands over runs of events with the same publisher together. Two publishers share only one
    /// order, that in which the registry receives their events, so the second one starts after the
    /// first has finished. `accept` is called for each run right before it is handed over.
    pub(super) async fn apply<E>(
        &self,
        events: Vec<E>,
        topic: impl Fn(&E) -> Topic,
        accept: impl Fn(Vec<E>) -> Vec<Accepted>,
    ) {
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let of_run = topic(&first);
            let mut run = vec![first];
            while let Some(next) = events.next_if(|next| topic(next) == of_run) {
                run.push(next);
            }
            let (receipt, dealt_with) = Receipt::new();
            self.publishers.publish(of_run, PublishEvents { events: accept(run), receipt });
            // It closes when the last clone of the receipt is dropped.
            let _ = dealt_with.await;
        }
    }

    /// Counts an event that is published.
    pub(super) fn count(&self, event: &FarmEvent) {
        self.stats.event(event.kind()).add(1);
        if let Some(word) = event.unknown_status() {
            self.stats.unknown_status(event.kind(), word);
        }
    }

    /// Passes on an event that is not a repetition.
    pub(super) fn is_new(&self, event: &Arc<FarmEvent>, offset: Option<Offset>) {
        self.on_new.iter().for_each(|on_new| on_new(event, offset));
    }

    /// Passes on what a source that exists once published.
    pub(super) fn is_of_outside(&self, outside: Outside<'_>) {
        (self.on_outside)(outside);
    }
}
