//! Ingest: the path of events into the server. Each source has a file; all of them submit to one
//! intake.

mod allowance;
pub mod demo;
pub mod lines;
pub mod mqtt;
mod patience;
mod published;
mod recent_map;
pub mod relay;
mod source;
pub mod stdin;

use std::time::Duration;

use clap::Args;
use tokio::sync::Semaphore;

pub use self::{
    published::{Published, note},
    source::{EventSource, SourceContext, SourceEnded},
};
use crate::{
    backplane::{Backplane, Leadership, NodeReport, StoreError},
    clock,
    farm::IncomingEvent,
    options::{at_least_one, heading},
    stats::{Refused, Source, Stats},
};

/// The options of the intake.
#[derive(Debug, Clone, Args)]
pub struct IntakeOptions {
    /// Maximum number of events in flight; further requests get 503
    #[arg(long, value_name = "N", env = "WEBUPDATES_BACKLOG", default_value_t = 100_000, value_parser = at_least_one(), help_heading = heading::EVENTS, hide_short_help = true)]
    pub backlog: usize,
}

/// Which sources there are beside the Manager's port.
#[derive(Debug, Clone, Args)]
pub struct SourceOptions {
    /// Simulate a farm, for a demonstration
    #[arg(long, env = "WEBUPDATES_DEMO", num_args = 0..=1, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true, help_heading = heading::EVENTS)]
    pub demo: bool,

    /// Also read events from stdin, one JSON object per line; at EOF the server drains and exits
    #[arg(long, env = "WEBUPDATES_EVENTS_FROM_STDIN", num_args = 0..=1, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true, help_heading = heading::EVENTS)]
    pub events_from_stdin: bool,
}

/// Accepts the events of all sources.
pub struct Intake {
    backplane: Backplane,
    permits: Semaphore,
    options: IntakeOptions,
    stats: &'static Stats,
}

/// Why events are not published.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("too many events are waiting to be sent, try again in a second")]
    Overloaded,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Intake {
    pub fn new(backplane: Backplane, options: IntakeOptions, stats: &'static Stats) -> Self {
        Self { backplane, permits: Semaphore::new(options.backlog), options, stats }
    }

    pub fn stats(&self) -> &'static Stats {
        self.stats
    }

    /// Returns the number of events that are accepted but not yet in the outbox of every recipient.
    pub fn backlog(&self) -> usize {
        self.options.backlog.saturating_sub(self.permits.available_permits())
    }

    /// Publishes the events in order. Returns once each one is in the outbox of every recipient.
    ///
    /// # Errors
    ///
    /// More events than `--backlog` are in flight, and nothing is published, or NATS did not store the
    /// events in time.
    pub async fn submit(&self, source: Source, events: Vec<IncomingEvent>) -> Result<(), SubmitError> {
        let _permits = self.permits.try_acquire_many(self.cost(&events)).map_err(|_| {
            self.stats.refused(Refused::Overloaded).add(1);
            SubmitError::Overloaded
        })?;
        self.count(source, &events);
        Ok(self.backplane.publish(events).await?)
    }

    /// Publishes the events like `submit`, but waits for permits.
    pub async fn submit_patiently(&self, source: Source, events: Vec<IncomingEvent>) {
        self.submit_noted(source, events, None).await;
    }

    /// Publishes the events like `submit_patiently`, and then a note of the source for all servers.
    pub async fn submit_noted(&self, source: Source, events: Vec<IncomingEvent>, note: Option<String>) {
        let permits = self.permits.acquire_many(self.cost(&events)).await;
        let _permits = permits.expect("the intake never closes its permits");
        self.count(source, &events);
        self.backplane.publish_patiently(source, events, note).await;
    }

    /// Returns when a source runs on this server, if it runs on one server at a time.
    pub fn leadership(&self, source: Source) -> Leadership {
        self.backplane.leadership(source)
    }

    /// Returns when this server publishes over MQTT, which one server does at a time.
    pub fn mirror_leadership(&self) -> Leadership {
        self.backplane.mirror_leadership()
    }

    /// Returns the servers that share the stream, each with the time since it was heard of. `None` without
    /// others.
    pub fn nodes(&self) -> Option<Vec<(NodeReport, Duration)>> {
        self.backplane.nodes()
    }

    /// Ends what runs on one server at a time, so that another server runs it.
    pub async fn resign(&self) {
        self.backplane.resign().await;
    }

    fn cost(&self, events: &[IncomingEvent]) -> u32 {
        events.len().min(self.options.backlog) as u32
    }

    fn count(&self, source: Source, events: &[IncomingEvent]) {
        if !events.is_empty() {
            self.stats.source(source).took(events.len() as u64, clock::now());
        }
        for incoming in events.iter().filter(|incoming| incoming.dropped_previous_status) {
            let kind = incoming.event.kind().as_str();
            log::warn!("a {kind} event came with a previous_status, which is dropped");
        }
    }
}
