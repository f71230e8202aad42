//! The way of accepted events to the publishers: each id once, and one order for all events.
//!
//! ```text
//! Intake ──publish──▶ memory: recent ids, or a stream of NATS ──▶ Apply ──▶ publishers ──▶ RoomRegistry
//! ```

mod apply;
mod leadership;
mod memory;
mod nats;
mod recent_ids;

use std::time::Duration;

use clap::Args;

use self::memory::Memory;
pub use self::{
    apply::{Apply, OnNew, OnOutside, Outside, Publishers},
    leadership::{Leadership, Turn},
    nats::{Connection, Nats, NatsError, NatsOptions, NatsUrl, Node, NodeReport, StoreError},
};
use crate::{
    farm::IncomingEvent,
    options::{duration, heading},
    stats::Source,
};

/// How repetitions of events are recognised.
#[derive(Debug, Clone, Args)]
pub struct RepetitionOptions {
    /// Number of accepted event ids that are remembered to recognise retries
    #[arg(long, value_name = "N", env = "WEBUPDATES_EVENT_IDS", default_value_t = 100_000, help_heading = heading::EVENTS, hide_short_help = true)]
    pub event_ids: usize,

    /// Time for which an accepted event id is remembered
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_EVENT_ID_AGE", default_value = "10m", value_parser = duration, help_heading = heading::EVENTS, hide_short_help = true)]
    pub event_id_age: Duration,
}

/// Puts accepted events in one order and passes them to the publishers.
pub struct Backplane(Way);

enum Way {
    Memory(Memory),
    Nats(Nats),
}

impl Backplane {
    /// Creates the backplane of a server that has no other nodes.
    pub fn memory(options: &RepetitionOptions, apply: Apply) -> Self {
        Self(Way::Memory(Memory::new(options, apply)))
    }

    /// Creates the backplane of one of several nodes.
    pub fn nats(nats: Nats) -> Self {
        Self(Way::Nats(nats))
    }

    /// Publishes the events in order. Returns once each one is in the outbox of every recipient on
    /// this node. An event whose id was accepted before is dropped.
    ///
    /// # Errors
    ///
    /// The events cannot be stored. Some may be, which is what ids are for.
    pub async fn publish(&self, events: Vec<IncomingEvent>) -> Result<(), StoreError> {
        match &self.0 {
            Way::Memory(memory) => {
                memory.publish(events).await;
                Ok(())
            }
            Way::Nats(nats) => Box::pin(nats.publish(events)).await,
        }
    }

    /// Publishes the events like [`publish`](Self::publish), and waits until they can be stored. A note of a
    /// source that exists once reaches all nodes after them.
    pub async fn publish_patiently(&self, source: Source, events: Vec<IncomingEvent>, note: Option<String>) {
        match &self.0 {
            Way::Memory(memory) => memory.publish_noted(events, note).await,
            Way::Nats(nats) => Box::pin(nats.publish_patiently(source, events, note)).await,
        }
    }

    /// Returns when a source of this node runs, if it runs on one node at a time.
    pub fn leadership(&self, source: Source) -> Leadership {
        match &self.0 {
            Way::Memory(_) => Leadership::alone(),
            Way::Nats(nats) => nats.leadership(source),
        }
    }

    /// Returns when this node publishes over MQTT, which one node does at a time.
    pub fn mirror_leadership(&self) -> Leadership {
        match &self.0 {
            Way::Memory(_) => Leadership::alone(),
            Way::Nats(nats) => nats.mirror_leadership(),
        }
    }

    /// Ends what runs on one node at a time, so that another node runs it.
    pub async fn resign(&self) {
        match &self.0 {
            Way::Memory(_) => {}
            Way::Nats(nats) => nats.resign().await,
        }
    }

    /// Returns the nodes, each with the time since it was heard of. `None` without other nodes.
    pub fn nodes(&self) -> Option<Vec<(NodeReport, Duration)>> {
        match &self.0 {
            Way::Memory(_) => None,
            Way::Nats(nats) => Some(nats.nodes()),
        }
    }
}
