//! Events of an unmodified Flamenco Manager: what it tells its own page, this server hears over the same live connection and
//! tells all browsers.

mod api;
mod follow;
mod link;
mod reading;
mod recent;
mod sent;
mod snapshot;
mod subscriptions;
mod tail;
mod wanted;

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::sync::oneshot;

pub use self::api::{Api, ApiError};
use self::link::Relay;
use super::{Intake, decode::IncomingEvent};
use crate::{
    actors::Hub,
    client::Address,
    farm::FarmEvent,
    interest::Interest,
    stats::{Source, SourceState, SourceStats},
};

/// How long to wait before a relay that failed is started anew.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Where browsers' task logs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskLogs {
    /// What the Manager's version is good for: up to 3.4 it sends them, later ones are followed
    Auto,
    /// The Manager sends them to who subscribes
    Subscribe,
    /// This server reads the log files of the Manager as they grow
    Follow,
    /// Nowhere: there are no live logs
    Off,
}

/// What the relay and its parts share.
struct Shared {
    manager: Address,
    task_logs: TaskLogs,
    api: Api,
    hub: Arc<Hub>,
    intake: Arc<Intake>,
    interest: Arc<Interest>,
}

/// Relays the Manager's events for as long as the server runs. What is returned ends as soon as browsers may come: when what
/// happens at the Manager is told.
pub fn start(
    manager: Address,
    task_logs: TaskLogs,
    hub: Arc<Hub>,
    intake: Arc<Intake>,
    interest: Arc<Interest>,
) -> oneshot::Receiver<()> {
    let (connected, first_connection) = oneshot::channel();
    let api = Api::new(manager.clone());
    let shared = Rc::new(Shared { manager, task_logs, api, hub, intake, interest });
    shared.stats().enter(SourceState::Away);
    actix_rt::spawn(supervise(shared, connected));
    first_connection
}

/// Starts the relay anew should it fail. It then knows nothing of what was told, and tells all that there is.
async fn supervise(shared: Rc<Shared>, connected: oneshot::Sender<()>) {
    let mut connected = Some(connected);
    loop {
        let relay = Relay::new(shared.clone(), connected.take());
        let Err(panic) = actix_rt::spawn(relay.run()).await;
        log::error!("the relay failed and is restarted: {panic}");
        shared.hub.stats.restarts.add(1);
        shared.stats().enter(SourceState::Away);
        actix_rt::time::sleep(RESTART_PAUSE).await;
    }
}

impl Shared {
    /// Tells these events, in their order.
    async fn publish(&self, events: Vec<FarmEvent>) {
        if events.is_empty() {
            return;
        }
        let incoming = |event| IncomingEvent { id: None, event, dropped_previous_status: false };
        self.intake.submit_patiently(Source::Relay, events.into_iter().map(incoming).collect()).await;
    }

    fn stats(&self) -> &'static SourceStats {
        self.intake.stats().source(Source::Relay)
    }
}
