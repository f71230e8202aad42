//! The nodes of the cluster: each holds its name in the bucket of what expires, and hears the others
//! renew theirs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_rt::time::sleep;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    connection::{Connection, NatsError},
    lease::{LEASE, Lease, RENEWAL},
};
use crate::{
    actors::Hub,
    clock,
    stats::{Source, Stats},
};

/// How long a node that starts waits for its name: the process that had it before may have been killed.
const PATIENCE: Duration = Duration::from_secs(7);

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    pub name: String,
    pub version: String,
    /// Sessions over any transport, and those of them over a WebSocket.
    pub sessions: usize,
    pub websocket: usize,
    /// The offset of the newest event that it has published.
    pub offset: usize,
    /// The sources that it runs of those that run on one node at a time.
    pub sources: Vec<String>,
    pub uptime_s: u64,
}

/// The value of a node's key.
#[derive(Serialize, Deserialize)]
struct Value {
    id: String,
    /// The offset of the newest event that was published over MQTT, as far as the node knows.
    #[serde(default)]
    mirrored: usize,
    #[serde(flatten)]
    report: NodeReport,
}

/// The nodes as this one knows them.
pub(super) struct Nodes {
    connection: Arc<Connection>,
    name: String,
    id: String,
    stats: &'static Stats,
    /// The last report of each node, and when it came.
    heard: Mutex<BTreeMap<String, (NodeReport, Instant)>>,
    resigned: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

impl Nodes {
    pub(super) fn new(connection: Arc<Connection>, name: String, id: String, stats: &'static Stats) -> Self {
        let (resigned, released) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { connection, name, id, stats, heard: Mutex::default(), resigned, released }
    }

    /// Takes this node's name.
    ///
    /// # Errors
    ///
    /// Another node has it.
    pub(super) async fn take_name(&self) -> Result<(), NatsError> {
        let deadline = clock::now() + PATIENCE;
        let mut lease = self.lease();
        let mut has_said = false;
        loop {
            match lease.take(self.value()).await {
                Ok(true) => return Ok(()),
                Ok(false) if clock::now() > deadline => return Err(NatsError::NameInUse(self.name.clone())),
                Ok(false) => {
                    if !std::mem::replace(&mut has_said, true) {
                        log::info!("another node is named {}: waiting in case it is gone", self.name);
                    }
                }
                Err(error) => log::debug!("the name {} cannot be taken: {error}", self.name),
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Keeps the name, and hears the other nodes.
    pub(super) fn start(self: &Arc<Self>, hub: &Hub) {
        let keeping = self.clone();
        hub.supervisor.keep("backplane-name", move |_| {
            let nodes = keeping.clone();
            async move { nodes.keep_name().await }
        });
        let hearing = self.clone();
        hub.supervisor.keep("backplane-nodes", move |_| {
            let nodes = hearing.clone();
            async move { nodes.hear().await }
        });
    }

    /// Gives the name up, so that a node with it may start.
    pub(super) async fn resign(&self) {
        self.resigned.send_replace(true);
        // It is never closed while this waits.
        let _ = self.released.subscribe().wait_for(|is_released| *is_released).await;
    }

    /// Returns the nodes that were heard of lately, each with the time since.
    pub(super) fn list(&self) -> Vec<(NodeReport, Duration)> {
        let now = clock::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let ages = heard.values().map(|(report, at)| (report.clone(), now.saturating_duration_since(*at)));
        ages.filter(|(_, age)| *age <= LEASE).collect()
    }

    async fn keep_name(&self) {
        let mut lease = self.lease();
        let mut resigned = self.resigned.subscribe();
        let mut complained = false;
        while !*resigned.borrow() {
            match lease.take(self.value()).await {
                Ok(true) => {
                    complained = false;
                    let is_resigned = resigned.wait_for(|is_resigned| *is_resigned);
                    if lease.hold_until(|| self.value(), is_resigned).await.is_some() {
                        break;
                    }
                }
                Ok(false) if !std::mem::replace(&mut complained, true) => {
                    log::error!("another node is named {}: give each node a --node-name of its own", self.name);
                }
                Ok(false) => {}
                Err(error) => log::debug!("the name {} cannot be taken: {error}", self.name),
            }
            sleep(RETRY_PAUSE).await;
        }
        lease.release().await;
        self.released.send_replace(true);
    }

    async fn hear(&self) {
        loop {
            let subject = format!("$KV.{}.node.*", self.connection.bucket_name());
            if let Ok(mut messages) = self.connection.client.subscribe(subject).await {
                while let Some(message) = messages.next().await {
                    let name = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
                    let value = serde_json::from_slice(&message.payload);
                    let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    let now = clock::now();
                    heard.retain(|_, (_, at)| now.saturating_duration_since(*at) <= LEASE);
                    match value {
                        Ok(Value { report, mirrored, .. }) => {
                            self.stats.backplane.mirrored.raise(mirrored);
                            heard.insert(name, (report, now));
                        }
                        // It gave its name up.
                        Err(_) => drop(heard.remove(&name)),
                    }
                }
            }
            sleep(RENEWAL).await;
        }
    }

    fn lease(&self) -> Lease {
        Lease::new(self.connection.clone(), format!("node.{}", self.name), self.id.clone())
    }

    fn value(&self) -> Bytes {
        let stats = self.stats;
        let runs = |source: &Source| stats.backplane.leads[*source as usize].get() > 0;
        let report = NodeReport {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: stats.sessions.get(),
            websocket: stats.websocket_sessions.get(),
            offset: stats.backplane.offset.get(),
            sources: Source::ALL.into_iter().filter(runs).map(|source| source.to_string()).collect(),
            uptime_s: clock::now().saturating_duration_since(stats.started).as_secs(),
        };
        let value = Value { id: self.id.clone(), mirrored: stats.backplane.mirrored.get(), report };
        serde_json::to_vec(&value).expect("texts and numbers serialize").into()
    }
}
