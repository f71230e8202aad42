//! The relay: receives the events of an unmodified Flamenco Manager over the live connection that
//! its own page uses, and publishes them.

mod api;
mod comparison;
mod follow;
mod known;
mod link;
mod note;
mod reading;
mod rooms;
mod sent;
mod snapshot;
mod subscriptions;
mod tail;
mod wanted;
mod witness;

use std::{
    collections::HashMap,
    future::{pending, ready},
    io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_rt::time::timeout;
use clap::Args;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

pub use self::api::{Api, ApiError};
use self::{known::Known, link::Relay, note::Note, sent::Sent, snapshot::Version, tail::Position};
use super::{
    EventSource, Intake, SourceContext,
    mqtt::{Fed, Feed},
};
use crate::{
    actors::Hub,
    client::Address,
    disconnect::Disconnect,
    farm::{FarmEvent, IncomingEvent, TaskId},
    interest::Interest,
    options::heading,
    slots::Shrink,
    stats::{RelayStats, Source, SourceState, SourceStats},
};

/// How long clients wait at the start for the first connection to the Manager. After that they may
/// connect without it.
const HEAD_START: Duration = Duration::from_secs(2);

/// The interval of the log lines that are limited in number.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// The time over which browsers are closed after the Manager was replaced by another version, so
/// that they do not reconnect at once.
const SPREAD: Duration = Duration::from_secs(2);

/// The pause before a failed relay is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The source of browsers' task logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskLogs {
    /// Depends on the Manager's version: up to 3.4 it sends them, later versions are followed
    Auto,
    /// The Manager sends them to subscribers
    Subscribe,
    /// This server reads the Manager's log files as they grow
    Follow,
    /// None: there are no live logs
    Off,
}

/// The options of the relay.
#[derive(Debug, Clone, Args)]
pub struct RelayOptions {
    /// Run in front of the Flamenco Manager at this address: relay its updates and proxy all other
    /// requests
    #[arg(long, value_name = "URL", env = "WEBUPDATES_MANAGER", hide_env_values = true, help_heading = heading::EVENTS)]
    pub manager: Option<Address>,

    /// Source of live task logs in front of a Manager
    #[arg(long, value_name = "HOW", env = "WEBUPDATES_TASK_LOGS", value_enum, default_value = "auto", help_heading = heading::EVENTS, hide_short_help = true)]
    pub task_logs: TaskLogs,
}

/// The context that the relay and its parts share.
struct RelayContext {
    manager: Address,
    task_logs: TaskLogs,
    api: Api,
    hub: Arc<Hub>,
    intake: Arc<Intake>,
    interest: Arc<Interest>,
    /// Where the Manager's events come from, if not from the link.
    mqtt: Option<Feed>,
    /// What was published, if the relay may have run on another server.
    published: Option<Arc<super::Published>>,
}

/// What a relay knows of what was published.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    sent: Sent,
    known: Known,
    /// How far the logs were published that are followed.
    logs: HashMap<TaskId, Position>,
    /// The Manager's version.
    version: Option<Version>,
}

impl Published {
    pub(super) fn note(&mut self, event: &FarmEvent) {
        self.sent.admit(event);
        for room in event.shown_rooms() {
            self.known.add(room);
        }
    }

    fn remember(&mut self, note: Note) {
        match note {
            Note::Log { task, position } => drop(self.logs.insert(task.into(), position)),
            Note::Left(tasks) => {
                tasks.into_iter().for_each(|task| drop(self.logs.remove(&task.into())));
                self.logs.shrink_if_sparse();
            }
            Note::Manager { version, .. } => self.version = Some(Version::new(version)),
        }
    }
}

/// Takes a note of the relay, on whichever server it runs.
pub(super) fn take_note(note: &str, published: Option<&Mutex<Published>>, hub: &Arc<Hub>) {
    let Ok(note) = serde_json::from_str(note) else { return log::warn!("a note of the relay cannot be decoded") };
    if let Note::Manager { has_changed: true, .. } = note {
        log::info!("the Manager's version has changed: closing all browsers so that their pages reload");
        let hub = hub.clone();
        actix_rt::spawn(async move { hub.close_all(Disconnect::ManagerChanged, SPREAD).await });
    }
    if let Some(published) = published {
        published.lock().unwrap_or_else(PoisonError::into_inner).remember(note);
    }
}

/// The relay of a Manager as a source.
#[derive(Debug)]
pub struct ManagerRelay {
    manager: Address,
    task_logs: TaskLogs,
    mqtt: Option<Feed>,
}

impl ManagerRelay {
    /// Returns the relay if there is a Manager to relay. With `mqtt` the events come from there, and
    /// the link is used only for what MQTT does not carry.
    pub fn of(options: &RelayOptions, mqtt: Option<Feed>) -> Option<Self> {
        Some(Self { manager: options.manager.clone()?, task_logs: options.task_logs, mqtt })
    }
}

impl EventSource for ManagerRelay {
    fn name(&self) -> Source {
        Source::Relay
    }

    /// Waits for the first connection to the Manager, but no longer than `HEAD_START`.
    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>> {
        let (connected, first_connection) = oneshot::channel();
        let (manager, hub) = (self.manager.clone(), context.hub.clone());
        // Without interest there is nothing to relay to.
        let Some(interest) = hub.interest.clone() else { return Box::pin(ready(Ok(()))) };
        let api = Api::new(manager.clone());
        let intake = context.intake.clone();
        let (task_logs, mqtt, published) = (self.task_logs, self.mqtt.take(), context.published.clone());
        let shared = Rc::new(RelayContext { manager, task_logs, api, hub, intake, interest, mqtt, published });
        shared.stats().enter(SourceState::Away);
        supervise(shared, connected);
        Box::pin(async {
            let _ = timeout(HEAD_START, first_connection).await;
            Ok(())
        })
    }
}

/// Runs the relay while it is this server's turn, and restarts it after a panic. Alone it then knows
/// nothing of what was published, and publishes all that there is. The pauses keep it within the restart
/// budget: without it the server is still of use.
fn supervise(shared: Rc<RelayContext>, connected: oneshot::Sender<()>) {
    let mut connected = Some(connected);
    let supervisor = shared.hub.supervisor.clone();
    supervisor.keep("relay", move |is_restart| {
        let (shared, connected) = (shared.clone(), connected.take());
        async move {
            if is_restart {
                shared.stats().enter(SourceState::Away);
                actix_rt::time::sleep(RESTART_PAUSE).await;
            }
            run(shared, connected).await;
        }
    });
}

async fn run(shared: Rc<RelayContext>, mut connected: Option<oneshot::Sender<()>>) {
    let mut leadership = shared.intake.leadership(Source::Relay);
    loop {
        let stand_by = || {
            shared.stats().enter(SourceState::Standby);
            // The waiting task may have ended.
            connected.take().map(|connected| connected.send(()));
        };
        let mut turn = leadership.begin(stand_by).await;
        shared.stats().enter(SourceState::Away);
        tokio::select! {
            never = Relay::new(shared.clone(), connected.take()).run() => match never {},
            () = turn.ended() => shared.relay_stats().set_next_attempt(None),
        }
    }
}

impl RelayContext {
    /// Publishes these events, in their order.
    async fn publish(&self, events: Vec<FarmEvent>) {
        self.publish_from(Source::Relay, events).await;
    }

    async fn publish_from(&self, source: Source, events: Vec<FarmEvent>) {
        if !events.is_empty() {
            self.intake.submit_patiently(source, incoming(events)).await;
        }
    }

    /// Publishes these events, in their order, and a note with them if a server has use for it.
    async fn publish_noted(&self, events: Vec<FarmEvent>, note: Option<&Note>) {
        let note = note.filter(|note| self.published.is_some() || !note.is_for_another_server());
        let note = note.map(|note| serde_json::to_string(note).expect("texts and numbers serialize"));
        if !events.is_empty() || note.is_some() {
            self.intake.submit_noted(Source::Relay, incoming(events), note).await;
        }
    }

    /// Returns what comes from MQTT.
    async fn fed(&self) -> Fed {
        let fed = match &self.mqtt {
            Some(feed) => feed.next().await,
            None => None,
        };
        match fed {
            Some(fed) => fed,
            None => pending().await,
        }
    }

    fn stats(&self) -> &'static SourceStats {
        self.intake.stats().source(Source::Relay)
    }

    fn relay_stats(&self) -> &'static RelayStats {
        &self.intake.stats().relay
    }
}

fn incoming(events: Vec<FarmEvent>) -> Vec<IncomingEvent> {
    events.into_iter().map(|event| IncomingEvent { id: None, event, dropped_previous_status: false }).collect()
}

/// Returns the part of a log line that counts the lines left out before it.
fn and_more(left_out: u64) -> String {
    if left_out == 0 { String::new() } else { format!(" (and {left_out} more since the last such line)") }
}
