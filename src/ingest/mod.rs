//! Domain events on their way in: one file per source, one way on from there.

pub mod decode;
pub mod demo;
pub mod http;
mod recent;
pub mod relay;
pub mod stdin;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix::Addr;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{decode::IncomingEvent, recent::RecentIds};
use crate::{
    actors::{
        Chat, FarmUpdates, JobUpdates, WorkerUpdates,
        messages::{Accepted, PublishEvents, Receipt, Tell},
    },
    clock,
    farm::{EventId, EventKind},
    stats::{Refused, Source, Stats},
};

/// The publisher actors.
#[derive(Debug, Clone)]
pub struct Publishers {
    pub jobs: Addr<JobUpdates>,
    pub workers: Addr<WorkerUpdates>,
    pub farm: Addr<FarmUpdates>,
    pub chat: Addr<Chat>,
}

/// Which publisher an event goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publisher {
    Jobs,
    Workers,
    Farm,
    Chat,
}

impl Publisher {
    fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::NewJob
            | EventKind::JobUpdate
            | EventKind::TaskUpdate
            | EventKind::TaskLogUpdate
            | EventKind::LastRendered => Self::Jobs,
            EventKind::NewWorker | EventKind::WorkerUpdate | EventKind::WorkerTagUpdate => Self::Workers,
            EventKind::LifeCycle | EventKind::FarmStatus | EventKind::Unread => Self::Farm,
            EventKind::ChatMessage => Self::Chat,
        }
    }
}

impl Publishers {
    fn tell(&self, publisher: Publisher, publish: PublishEvents) {
        match publisher {
            Publisher::Jobs => self.jobs.tell(publish),
            Publisher::Workers => self.workers.tell(publish),
            Publisher::Farm => self.farm.tell(publish),
            Publisher::Chat => self.chat.tell(publish),
        }
    }
}

/// How much may be under way, and how retries are known.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events taken and not yet handed to every session that is to get them.
    pub backlog: usize,
    /// Ids remembered.
    pub ids: usize,
    /// How long an id is remembered.
    pub id_age: Duration,
}

/// Where all sources hand over their events.
#[derive(Debug)]
pub struct Intake {
    publishers: Publishers,
    permits: Semaphore,
    limits: Limits,
    recent: Mutex<RecentIds>,
    stats: &'static Stats,
}

/// Too many events are under way.
#[derive(Debug, thiserror::Error)]
#[error("too many events are waiting to be sent, try again in a second")]
pub struct Overloaded;

impl Intake {
    pub fn new(publishers: Publishers, limits: Limits, stats: &'static Stats) -> Self {
        let recent = Mutex::new(RecentIds::new(limits.ids, limits.id_age));
        Self { publishers, permits: Semaphore::new(limits.backlog), limits, recent, stats }
    }

    pub fn stats(&self) -> &'static Stats {
        self.stats
    }

    /// Events that were taken and not yet handed to every session that is to get them.
    pub fn backlog(&self) -> usize {
        self.limits.backlog.saturating_sub(self.permits.available_permits())
    }

    /// Publishes the events in their order; returns once each was handed to every session that is to get it.
    pub async fn submit(&self, source: Source, events: Vec<IncomingEvent>) -> Result<(), Overloaded> {
        let permits = self.permits.try_acquire_many(self.cost(&events)).map_err(|_| {
            self.stats.refused(Refused::Overloaded).add(1);
            Overloaded
        })?;
        self.publish(source, events, permits).await;
        Ok(())
    }

    /// The same, for a source that can wait.
    pub async fn submit_patiently(&self, source: Source, events: Vec<IncomingEvent>) {
        let permits = self.permits.acquire_many(self.cost(&events)).await.expect("the intake never closes its permits");
        self.publish(source, events, permits).await;
    }

    fn cost(&self, events: &[IncomingEvent]) -> u32 {
        events.len().min(self.limits.backlog) as u32
    }

    /// Neighbours for the same publisher go to it together. Between two publishers there is only one order, that in which the
    /// registry gets their events: so the second is told once the first has been dealt with.
    async fn publish(&self, source: Source, events: Vec<IncomingEvent>, _permits: SemaphorePermit<'_>) {
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let publisher = Publisher::of(first.event.kind());
            let mut run = vec![first];
            while let Some(next) = events.next_if(|next| Publisher::of(next.event.kind()) == publisher) {
                run.push(next);
            }
            let (receipt, dealt_with) = Receipt::new();
            // No await between remembering the ids and telling: a caller that goes away leaves no id behind whose event was
            // not sent.
            let events = self.accept(source, run, clock::now());
            self.publishers.tell(publisher, PublishEvents { events, receipt });
            // It ends when the last clone of the receipt is gone.
            let _ = dealt_with.await;
        }
    }

    fn accept(&self, source: Source, run: Vec<IncomingEvent>, now: Instant) -> Vec<Accepted> {
        self.stats.source(source).took(run.len() as u64, now);
        let accepted = run.into_iter().filter_map(|incoming| {
            if incoming.id.as_ref().is_some_and(|id| self.is_repeated(id, now)) {
                self.stats.refused(Refused::Repeated).add(1);
                return None;
            }
            self.stats.event(incoming.event.kind()).add(1);
            if incoming.dropped_previous_status {
                log::warn!("a {} event came with a previous_status, which is dropped", incoming.event.kind().as_str());
            }
            if let Some(word) = incoming.event.unknown_status() {
                self.stats.unknown_status(incoming.event.kind(), word);
            }
            Some(Accepted { id: incoming.id, event: Arc::new(incoming.event) })
        });
        accepted.collect()
    }

    fn is_repeated(&self, id: &EventId, now: Instant) -> bool {
        !self.recent.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), now)
    }
}
