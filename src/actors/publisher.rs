//! What all publishers do: take events in order, make a frame of each, hand it to the registry, and lose none to a panic.

use std::{collections::VecDeque, sync::Arc};

use super::messages::{Accepted, Publish, PublishEvents, Receipt};
use crate::{clock, farm::FarmEvent, faults, frame::Frame, stats::Stats};

/// How often an event is tried before it is dropped.
const MAX_ATTEMPTS: u8 = 2;

/// Events that a publisher has taken and not handed on yet. It outlives a panic of its actor, so what was in hand is tried
/// again, and nothing is handed on twice.
pub(super) struct Lane {
    /// The name of the actor whose it is.
    actor: &'static str,
    stats: &'static Stats,
    waiting: VecDeque<Waiting>,
    attempts: u8,
}

struct Waiting {
    accepted: Accepted,
    receipt: Option<Receipt>,
}

impl Lane {
    pub(super) fn new(actor: &'static str, stats: &'static Stats) -> Self {
        Self { actor, stats, waiting: VecDeque::new(), attempts: 0 }
    }

    pub(super) fn add(&mut self, publish: PublishEvents) {
        let PublishEvents { events, receipt } = publish;
        self.waiting.extend(events.into_iter().map(|accepted| Waiting { accepted, receipt: Some(receipt.clone()) }));
    }

    pub(super) fn add_one(&mut self, event: FarmEvent) {
        let accepted = Accepted { id: None, event: Arc::new(event) };
        self.waiting.push_back(Waiting { accepted, receipt: None });
    }

    /// Hands on all that waits. INVARIANT: `hand_on` tells the registry as its last step, so an event that is tried again was
    /// not told.
    pub(super) fn work(&mut self, mut hand_on: impl FnMut(&Accepted, Option<Receipt>)) {
        while let Some(next) = self.waiting.front() {
            self.attempts += 1;
            if self.attempts > MAX_ATTEMPTS {
                self.stats.poisoned.add(1);
                let Accepted { id, event } = &next.accepted;
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

/// Encodes the event, once for all who get it.
pub(super) fn publication(Accepted { id, event }: &Accepted, receipt: Option<Receipt>) -> Publish {
    let frame = Frame::event(clock::now(), event);
    Publish { audience: event.audience(), seen: None, frame, id: id.clone(), event: event.clone(), receipt }
}
