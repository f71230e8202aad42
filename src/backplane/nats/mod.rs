//! The backplane of several nodes: a stream of NATS JetStream, which gives one order to all events,
//! recognises repetitions, and keeps events for nodes that were away.
//!
//! ```text
//! Intake ──▶ Writer ──▶ stream ──▶ Tail ──▶ Apply ──▶ publishers      (a tail on every node)
//! chat   ──▶   ▲                     └─ history-lost, cut-off ──▶ RoomRegistry
//! ```

mod connection;
mod entry;
mod leader;
mod lease;
mod nodes;
mod options;
mod publish;
mod sharing;
mod tail;

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_rt::time::{sleep, timeout};
use tokio::sync::{Mutex, mpsc, watch};
use uuid::Uuid;

pub use self::{
    connection::{Connection, NatsError},
    nodes::NodeReport,
    options::{NatsOptions, NatsUrl},
    publish::StoreError,
};
use self::{
    entry::Content,
    leader::{Duty, Leader},
    nodes::Nodes,
    publish::{Fence, Outgoing, WriteError, Writer},
    sharing::Sharing,
    tail::{Position, Tail},
};
use super::{Apply, Leadership};
use crate::{
    actors::{Hub, messages::Said},
    farm::{EventId, FarmEvent, IncomingEvent},
    history::Reached,
    stats::{Refused, Source},
};

/// The pause of a source that waits until its events can be stored.
const PATIENT_PAUSE: Duration = Duration::from_millis(500);

/// The maximum number of chat messages that are stored together.
const MAX_CHATS: usize = 100;

/// Publishes events by way of the stream.
pub struct Nats {
    writer: Writer,
    apply: Arc<Apply>,
    reached: watch::Receiver<Reached>,
    grace: Duration,
    leader: Option<Arc<Leader>>,
    mirror_leader: Option<Arc<Leader>>,
    nodes: Arc<Nodes>,
}

/// What this server is among the nodes.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    /// The sources of this node that run on one node at a time.
    pub once: Vec<Source>,
    /// Whether it can publish events over MQTT, which one node does at a time.
    pub mirrors: bool,
    /// How long clients stay while NATS cannot be reached.
    pub grace: Duration,
}

impl Nats {
    /// Starts reading the stream. Resolves once this node has everything that was in it.
    ///
    /// # Errors
    ///
    /// Another node has the name.
    pub async fn start(
        connection: Connection,
        Node { name, once, mirrors, grace }: Node,
        apply: Apply,
        hub: &Arc<Hub>,
        chats: mpsc::Receiver<Said>,
    ) -> Result<Self, NatsError> {
        let (apply, connection) = (Arc::new(apply), Arc::new(connection));
        let id = Uuid::new_v4().simple().to_string();
        let nodes = Arc::new(Nodes::new(connection.clone(), name.clone(), id.clone(), hub.stats));
        nodes.take_name().await?;
        nodes.start(hub);
        let writer = Writer::new(connection.client.clone(), connection.config.name.clone());
        let reached = hub.reached.subscribe();
        let (caught_up, mut is_caught_up) = watch::channel(false);
        let position = Position::new(hub.reached.clone());
        let (hub_of_tail, apply_of_tail) = (hub.clone(), apply.clone());
        let identity = (name, id.clone());
        let lead = |duty| {
            let identity = identity.clone();
            Arc::new(Leader::new(connection.clone(), writer.clone(), identity, duty, reached.clone(), hub.stats))
        };
        let leader = once.first().map(|source| {
            let title = format!("the source {source}");
            lead(Duty { name: source.as_str(), title, sources: once.clone() })
        });
        let mirror_leader = mirrors
            .then(|| lead(Duty { name: "mqtt-publish", title: "--mqtt-publish".to_owned(), sources: Vec::new() }));
        if let Some((interest, leader)) = hub.interest.clone().zip(leader.clone()) {
            let (connection, hub) = (connection.clone(), hub.clone());
            let sharing = Rc::new(Sharing { connection, hub: hub.clone(), interest, leader, id });
            hub.supervisor.keep("backplane-sharing", move |_| {
                let sharing = sharing.clone();
                async move { sharing.run().await }
            });
        }
        let tail = Rc::new(Tail { connection, apply: apply_of_tail, hub: hub_of_tail, position, caught_up });
        let reading = tail.clone();
        hub.supervisor.keep("backplane", move |_| {
            let tail = reading.clone();
            async move { tail.run().await }
        });
        hub.supervisor.keep("backplane-guard", move |_| {
            let tail = tail.clone();
            async move { tail.guard(grace).await }
        });
        let chat_writer = writer.clone();
        let chats = Rc::new(Mutex::new(chats));
        hub.supervisor.keep("backplane-chat", move |_| store_chats(chat_writer.clone(), chats.clone()));
        // The tail lives as long as the server.
        let _ = is_caught_up.wait_for(|is_caught_up| *is_caught_up).await;
        for leader in leader.iter().chain(&mirror_leader) {
            let leader = leader.clone();
            hub.supervisor.keep("backplane-leader", move |_| {
                let leader = leader.clone();
                async move { leader.run().await }
            });
        }
        Ok(Self { writer, apply, reached, grace, leader, mirror_leader, nodes })
    }

    /// Stores the events, and waits until this node has published them.
    pub(super) async fn publish(&self, events: Vec<IncomingEvent>) -> Result<(), StoreError> {
        let events: Vec<_> = events.into_iter().map(|incoming| outgoing(incoming.id, incoming.event)).collect();
        match self.store(&events, None).await {
            Err(WriteError::Store(error)) => Err(error),
            // Without a fence none is missing.
            Ok(()) | Err(WriteError::Fenced) => Ok(()),
        }
    }

    /// Publishes the events like `publish`, and tries again until they are stored. Ids make that safe.
    /// Events of a source that runs on another node now are dropped: that node has them. The note is stored
    /// with them.
    pub(super) async fn publish_patiently(&self, source: Source, events: Vec<IncomingEvent>, note: Option<String>) {
        let with_id = |incoming: IncomingEvent| outgoing(incoming.id.or_else(|| Some(random_id())), incoming.event);
        let mut events: Vec<_> = events.into_iter().map(with_id).collect();
        events.extend(note.map(|note| Outgoing { id: Some(random_id()), content: Content::Note(note) }));
        let leader = self.leader.as_ref().filter(|leader| leader.runs(source));
        let _publishing = match leader {
            Some(leader) => Some(leader.publishing().await),
            None => None,
        };
        loop {
            let fence = leader.map(|leader| leader.fence());
            if let Some(None) = fence {
                return;
            }
            let fence = fence.flatten();
            match self.store(&events, fence.as_ref()).await {
                Ok(()) => return,
                Err(WriteError::Store(StoreError::Unavailable)) => sleep(PATIENT_PAUSE).await,
                Err(WriteError::Fenced) => {
                    if let Some((leader, fence)) = leader.zip(fence) {
                        leader.challenge(&fence).await;
                    }
                }
                Err(WriteError::Store(error @ StoreError::TooLarge { limit })) => {
                    log::error!("an event is dropped: {error}");
                    events.retain(|outgoing| outgoing.content.text().len() <= limit);
                    self.apply.stats.refused(Refused::TooLarge).add(1);
                }
            }
        }
    }

    /// Returns when a source of this node runs.
    pub(super) fn leadership(&self, source: Source) -> Leadership {
        let leader = self.leader.as_ref().filter(|leader| leader.runs(source));
        leader.map_or_else(Leadership::alone, |leader| Leadership::of(leader.office()))
    }

    /// Returns when this node publishes over MQTT.
    pub(super) fn mirror_leadership(&self) -> Leadership {
        self.mirror_leader.as_ref().map_or_else(Leadership::alone, |leader| Leadership::of(leader.office()))
    }

    /// Ends what runs on one node at a time, so that another node runs it, and gives the name up.
    pub(super) async fn resign(&self) {
        for leader in self.leader.iter().chain(&self.mirror_leader) {
            leader.resign().await;
        }
        self.nodes.resign().await;
    }

    pub(super) fn nodes(&self) -> Vec<(NodeReport, Duration)> {
        self.nodes.list()
    }

    async fn store(&self, events: &[Outgoing], fence: Option<&Fence>) -> Result<(), WriteError> {
        let stored = self.writer.store(events, fence).await.inspect_err(|error| {
            if matches!(error, WriteError::Store(StoreError::Unavailable)) {
                self.apply.stats.backplane.unavailable.add(1);
            }
        })?;
        for (outgoing, is_new) in events.iter().zip(&stored.is_new) {
            if matches!(outgoing.content, Content::Event(_)) && !is_new {
                self.apply.stats.refused(Refused::Repeated).add(1);
            }
        }
        // After the grace time this node closes its clients, so none of them misses the events.
        let _ = timeout(self.grace, self.reached.clone().wait_for(|reached| reached.offset >= stored.last)).await;
        Ok(())
    }
}

fn random_id() -> EventId {
    EventId::from(Uuid::new_v4().simple().to_string())
}

fn outgoing(id: Option<EventId>, event: FarmEvent) -> Outgoing {
    Outgoing { id, content: Content::Event(Arc::new(event)) }
}

/// Stores the chat messages of this node's clients, and reports each one that is stored.
async fn store_chats(writer: Writer, chats: Rc<Mutex<mpsc::Receiver<Said>>>) {
    let mut chats = chats.lock().await;
    let mut said = Vec::new();
    while chats.recv_many(&mut said, MAX_CHATS).await > 0 {
        // The client of an older one was told that chat is not available.
        said.retain(|said| !said.stored.is_closed());
        let messages: Vec<_> =
            said.iter().map(|said| outgoing(Some(random_id()), FarmEvent::ChatMessage(said.message.clone()))).collect();
        let is_stored = messages.is_empty() || writer.store(&messages, None).await.is_ok();
        for said in said.drain(..).filter(|_| is_stored) {
            // The session may have ended.
            let _ = said.stored.send(());
        }
    }
}
