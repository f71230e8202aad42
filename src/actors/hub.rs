//! The context that all sessions of a server share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Chat, RoomRegistry, Supervisor,
    messages::{ListSessions, Said, TakeCensus},
};
use crate::{
    clock,
    disconnect::Disconnect,
    frame::Frame,
    history::Reached,
    interest::Interest,
    log_budget::LogBudget,
    outbox::{self, Outbox, Workers},
    session_state::Rules,
    stats::{Source, SourceStats, Stats},
};

/// The maximum time for the registry to answer before the server reports itself unhealthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of steps in which all sessions are closed.
const CLOSING_STEPS: u32 = 40;

/// The context that all sessions of a server share.
pub struct Hub {
    pub registry: Addr<RoomRegistry>,
    pub chat: Addr<Chat>,
    pub workers: Arc<Workers>,
    pub rules: Rules,
    pub outbox_limits: outbox::OutboxLimits,
    /// The demand for rooms, read by a source. `None` if every source publishes everything without
    /// being asked.
    pub interest: Option<Arc<Interest>>,
    /// Stores chat messages where all servers of the farm read them. Without it they are published here.
    pub chats: Option<mpsc::Sender<Said>>,
    /// Whether this server gets no events, so that clients must go to another one.
    pub cut_off: AtomicBool,
    /// How far this server has come in the history of all servers.
    pub reached: watch::Sender<Reached>,
    pub supervisor: Supervisor,
    /// The lines about sessions that begin and end.
    pub log_budget: LogBudget,
    /// Has the server drain and stop.
    pub stop: Notify,
    pub stats: &'static Stats,
}

impl Hub {
    /// Sends a frame to one client and marks its outbox for the flusher.
    pub fn send(&self, outbox: &Outbox, frame: &Arc<Frame>) {
        let pushed = outbox.push_direct(frame, &self.outbox_limits);
        pushed.unmarked().into_iter().for_each(|home| self.workers.mark(home));
    }

    /// Returns whether the registry answers. Without it nothing is delivered.
    pub async fn is_well(&self) -> bool {
        let answer = self.registry.send(TakeCensus { rooms: false });
        matches!(actix_rt::time::timeout(HEALTH_TIMEOUT, answer).await, Ok(Ok(_)))
    }

    /// Returns whether the server is healthy, with a text for people. An unreachable Manager does
    /// not make it unhealthy.
    pub async fn health(&self) -> (bool, String) {
        if !self.is_well().await {
            return (false, "the room registry does not answer\n".to_owned());
        }
        if self.cut_off.load(Ordering::Relaxed) {
            return (false, "nats: away\ncut off from the events of the farm\n".to_owned());
        }
        let manager = self.stats.source(Source::Relay).state();
        let manager = manager.map_or_else(String::new, |state| format!("manager: {state}{}\n", self.next_attempt()));
        let line = |name: &str, source: &SourceStats| {
            source.state().map_or_else(String::new, |state| format!("{name}: {state}\n"))
        };
        let mqtt = line("mqtt", self.stats.source(Source::Mqtt)) + &line("mqtt-publish", &self.stats.mirror);
        let nats = self.stats.backplane.state().map_or_else(String::new, |state| format!("nats: {state}\n"));
        (true, format!("ok\n{manager}{mqtt}{}{nats}", self.node()))
    }

    /// Describes this server among those that share its stream.
    fn node(&self) -> String {
        let Some(name) = self.rules.node() else { return String::new() };
        let runs = |source: &Source| self.stats.backplane.leads[*source as usize].get() > 0;
        let sources: Vec<_> = Source::ALL.into_iter().filter(runs).map(Source::as_str).collect();
        let runs = if sources.is_empty() { String::new() } else { format!(", runs {}", sources.join(" and ")) };
        format!("node: {name}{runs}\n")
    }

    /// Describes when the relay reconnects, if that takes longer than it takes to find a Manager
    /// that restarts.
    fn next_attempt(&self) -> String {
        let wait = self.stats.relay.next_attempt().map(|at| at.saturating_duration_since(clock::now()).as_secs());
        match wait {
            Some(wait @ 4..) => format!(", next attempt in {wait} s"),
            Some(0..4) | None => String::new(),
        }
    }

    /// Ends a session once its waiting frames are sent.
    pub fn close(&self, outbox: &Outbox, reason: Disconnect) {
        if let Some(home) = outbox.close(reason) {
            self.workers.mark(home);
        }
    }

    /// Closes every session that exists now, spread evenly over this time.
    pub async fn close_all(&self, reason: Disconnect, over: Duration) {
        // Without a registry the server is shutting down.
        let Ok(sessions) = self.registry.send(ListSessions).await else { return };
        let step = sessions.0.len().div_ceil(CLOSING_STEPS as usize).max(1);
        for sessions in sessions.0.chunks(step) {
            let homes = sessions.iter().filter_map(|seat| seat.outbox.close(reason));
            homes.for_each(|home| self.workers.mark(home));
            actix_rt::time::sleep(over / CLOSING_STEPS).await;
        }
    }
}
