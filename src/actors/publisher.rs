//! Publishers: they take events in order, encode each once, send it to the registry, and lose none
//! to a panic.

use std::{collections::VecDeque, marker::PhantomData, sync::Arc};

use actix::{Actor, Addr, Context, Handler, Supervised};

use super::{
    RoomRegistry,
    messages::{Accepted, Enqueue, Publish, PublishEvents, Receipt},
};
use crate::{clock, farm::FarmEvent, faults, frame::Frame, stats::Stats};

/// How often an event is tried before it is dropped.
const MAX_ATTEMPTS: u8 = 2;

/// The events that a publisher has accepted and not yet sent. The queue outlives a panic of its
/// actor, so the event in hand is retried, and no event is sent twice.
pub(super) struct Lane {
    /// The name of the actor that owns the queue.
    actor: &'static str,
    stats: &'static Stats,
    waiting: VecDeque<Queued>,
    attempts: u8,
}

struct Queued {
    accepted: Accepted,
    receipt: Option<Receipt>,
}

impl Lane {
    pub(super) fn new(actor: &'static str, stats: &'static Stats) -> Self {
        Self { actor, stats, waiting: VecDeque::new(), attempts: 0 }
    }

    pub(super) fn add(&mut self, publish: PublishEvents) {
        let PublishEvents { events, receipt } = publish;
        self.waiting.extend(events.into_iter().map(|accepted| Queued { accepted, receipt: Some(receipt.clone()) }));
    }

    pub(super) fn add_one(&mut self, event: FarmEvent) {
        let accepted = Accepted { id: None, event: Arc::new(event), place: None };
        self.waiting.push_back(Queued { accepted, receipt: None });
    }

    /// Publishes all queued events. INVARIANT: `hand_on` sends to the registry as its last step, so
    /// an event that is retried has not been sent.
    pub(super) fn work(&mut self, mut hand_on: impl FnMut(&Accepted, Option<Receipt>)) {
        while let Some(next) = self.waiting.front() {
            self.attempts += 1;
            if self.attempts > MAX_ATTEMPTS {
                self.stats.poisoned.add(1);
                let Accepted { id, event, .. } = &next.accepted;
                let (kind, id) = (event.kind(), id.as_ref().map_or("none", |id| id.as_str()));
                log::error!("a {kind} event (id {id:?}) is dropped: it makes {} fail", self.actor);
            } else {
                faults::publishing(self.actor, next.accepted.id.as_ref());
                hand_on(&next.accepted, next.receipt.clone());
            }
            self.waiting.pop_front();
            self.attempts = 0;
        }
        self.waiting.shrink_to(64);
    }
}

/// Encodes the event once, for all recipients.
pub(super) fn publication(Accepted { id, event, place }: &Accepted, receipt: Option<Receipt>) -> Publish {
    let frame = Frame::event(clock::now(), event);
    Publish {
        audience: event.audience(),
        seen: None,
        is_rest: false,
        frame,
        id: id.clone(),
        event: event.clone(),
        place: *place,
        receipt,
    }
}

/// Publishes every event as it arrives. `K` names the actor.
pub struct Publisher<K> {
    registry: Addr<RoomRegistry>,
    lane: Lane,
    kind: PhantomData<K>,
}

/// Names one [`Publisher`].
pub trait Kind: Unpin + 'static {
    /// The actor's name in logs.
    const NAME: &'static str;
}

/// Names the publisher of workers and their tags.
pub enum OfWorkers {}

/// Names the publisher of the state of the Manager and the farm.
pub enum OfFarm {}

/// Publishes updates of workers and their tags.
pub type WorkerUpdates = Publisher<OfWorkers>;

/// Publishes the state of the Manager and the farm to every client.
pub type FarmUpdates = Publisher<OfFarm>;

impl Kind for OfWorkers {
    const NAME: &'static str = "worker-updates";
}

impl Kind for OfFarm {
    const NAME: &'static str = "farm-updates";
}

impl<K: Kind> Publisher<K> {
    pub fn new(registry: Addr<RoomRegistry>, stats: &'static Stats) -> Self {
        Self { registry, lane: Lane::new(K::NAME, stats), kind: PhantomData }
    }

    /// Publishes an event that has no receipt.
    pub(super) fn add_one(&mut self, event: FarmEvent) {
        self.lane.add_one(event);
        self.work();
    }

    fn work(&mut self) {
        self.lane.work(|event, receipt| self.registry.enqueue(publication(event, receipt)));
    }
}

impl<K: Kind> Actor for Publisher<K> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.work();
    }
}

impl<K: Kind> Supervised for Publisher<K> {}

impl<K: Kind> Handler<PublishEvents> for Publisher<K> {
    type Result = ();

    fn handle(&mut self, publish: PublishEvents, _: &mut Self::Context) {
        self.lane.add(publish);
        self.work();
    }
}
