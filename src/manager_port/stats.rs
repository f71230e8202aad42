//! `GET /api/stats`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::{
    actors::{Hub, messages::TakeCensus},
    backplane::NodeReport,
    clock,
    disconnect::Disconnect,
    farm::{EventKind, mqtt::TopicKind},
    ingest::Intake,
    stats::{MqttStats, ProxyStats, Refused, RelayStats, RelayedRooms, Resumed, Source, SourceState, Stats, Waited},
};

/// How long the registry may take to count its rooms.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct Query {
    /// Whether to list the rooms. A farm may have thousands.
    #[serde(default = "yes")]
    rooms: bool,
    /// Whether to list the servers that share the stream, and to add up their sessions.
    #[serde(default)]
    cluster: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Figures {
    uptime_s: f64,
    sessions: Sessions,
    http_connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<BTreeMap<String, usize>>,
    events: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    /// How many events had a status word that this server does not know.
    unknown_status: u64,
    deliveries: u64,
    bytes_out: u64,
    coalesced: u64,
    chat_left_out: u64,
    resumes: BTreeMap<&'static str, u64>,
    replayed_events: u64,
    history_bytes: usize,
    state_entities: usize,
    disconnects: BTreeMap<&'static str, u64>,
    sources: BTreeMap<&'static str, SourceFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<RelayFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt: Option<MqttFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt_publish: Option<MirrorFigures>,
    restarts: u64,
    poisoned: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
}

/// All servers that share the stream.
#[derive(Serialize)]
struct Cluster {
    sessions: Sessions,
    nodes: Vec<NodeFigures>,
}

#[derive(Serialize)]
struct NodeFigures {
    name: String,
    version: String,
    sessions: Sessions,
    /// The offset of the newest event that it has published.
    offset: usize,
    /// The sources that it runs of those that run on one server at a time.
    sources: Vec<String>,
    uptime_s: u64,
    /// The time since it reported this.
    age_s: f64,
}

#[derive(Serialize)]
struct Sessions {
    total: usize,
    websocket: usize,
    polling: usize,
}

#[derive(Serialize)]
struct SourceFigures {
    events: u64,
    dropped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_age_s: Option<f64>,
}

#[derive(Serialize)]
struct RelayFigures {
    connections: u64,
    short_connections: u64,
    rooms: BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_s: Option<f64>,
}

#[derive(Serialize)]
struct ProxyFigures {
    /// How many requests wait for the Manager.
    waiting: usize,
    waits: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct MqttFigures {
    connections: u64,
    /// How often events were missing, so that the Manager's lists were compared.
    comparisons: u64,
    /// How many messages could not be decoded, by the kind of their topic.
    unread: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct MirrorFigures {
    state: &'static str,
    events: u64,
    dropped: u64,
}

pub(super) async fn stats(hub: web::Data<Hub>, intake: web::Data<Intake>, query: web::Query<Query>) -> HttpResponse {
    let rooms = if query.rooms {
        match actix_rt::time::timeout(TIMEOUT, hub.registry.send(TakeCensus { rooms: true })).await {
            Ok(Ok(census)) => Some(census.rooms.into_iter().map(|(room, size)| (room.to_string(), size)).collect()),
            // The metrics matter most when something is wrong.
            Ok(Err(_)) | Err(_) => None,
        }
    } else {
        None
    };
    let cluster = query.cluster.then(|| intake.nodes()).flatten().map(cluster);
    HttpResponse::Ok().json(figures(hub.stats, rooms, cluster))
}

fn cluster(nodes: Vec<(NodeReport, Duration)>) -> Cluster {
    let sum = |count: fn(&NodeReport) -> usize| nodes.iter().map(|(node, _)| count(node)).sum();
    Cluster {
        sessions: Sessions::new(sum(|node| node.sessions), sum(|node| node.websocket)),
        nodes: nodes
            .into_iter()
            .map(|(node, age)| NodeFigures {
                name: node.name,
                version: node.version,
                sessions: Sessions::new(node.sessions, node.websocket),
                offset: node.offset,
                sources: node.sources,
                uptime_s: node.uptime_s,
                age_s: milliseconds(age.as_secs_f64()),
            })
            .collect(),
    }
}

impl Sessions {
    fn new(total: usize, websocket: usize) -> Self {
        Self { total, websocket, polling: total.saturating_sub(websocket) }
    }
}

fn figures(stats: &Stats, rooms: Option<BTreeMap<String, usize>>, cluster: Option<Cluster>) -> Figures {
    let now = clock::now();
    let sources = Source::ALL.into_iter().filter_map(|source| {
        let figures = stats.source(source);
        let (state, last_event) = (figures.state(), figures.last_event());
        if state.is_none() && last_event.is_none() {
            return None;
        }
        let age = last_event.map(|at| milliseconds(now.saturating_duration_since(at).as_secs_f64()));
        Some((
            source.as_str(),
            SourceFigures {
                events: figures.events.get(),
                dropped: figures.dropped.get(),
                state: state.map(SourceState::as_str),
                last_event_age_s: age,
            },
        ))
    });
    Figures {
        uptime_s: milliseconds(now.saturating_duration_since(stats.started).as_secs_f64()),
        sessions: Sessions::new(stats.sessions.get(), stats.websocket_sessions.get()),
        http_connections: stats.http_connections.get(),
        rooms,
        events: EventKind::ALL.into_iter().map(|kind| (kind.as_str(), stats.event(kind).get())).collect(),
        refused: Refused::ALL.into_iter().map(|reason| (reason.as_str(), stats.refused(reason).get())).collect(),
        unknown_status: stats.unknown_statuses.get(),
        deliveries: stats.deliveries.get(),
        bytes_out: stats.bytes_out.get(),
        coalesced: stats.coalesced.get(),
        chat_left_out: stats.chat_left_out.get(),
        resumes: Resumed::ALL.into_iter().map(|outcome| (outcome.as_str(), stats.resumed(outcome).get())).collect(),
        replayed_events: stats.replayed_events.get(),
        history_bytes: stats.history_bytes.get(),
        state_entities: stats.state_entities.get(),
        disconnects: Disconnect::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), stats.disconnect(reason).get()))
            .collect(),
        sources: sources.collect(),
        relay: stats.source(Source::Relay).state().map(|_| relay(&stats.relay, now)),
        proxy: stats.source(Source::Relay).state().map(|_| proxy(&stats.proxy)),
        mqtt: stats.source(Source::Mqtt).state().map(|_| mqtt(&stats.mqtt)),
        mqtt_publish: stats.mirror.state().map(|state| MirrorFigures {
            state: state.as_str(),
            events: stats.mirror.events.get(),
            dropped: stats.mirror.dropped.get(),
        }),
        restarts: stats.restarts.get(),
        poisoned: stats.poisoned.get(),
        cluster,
    }
}

fn relay(relay: &RelayStats, now: Instant) -> RelayFigures {
    let wait = relay.next_attempt().map(|at| milliseconds(at.saturating_duration_since(now).as_secs_f64()));
    RelayFigures {
        connections: relay.connections.get(),
        short_connections: relay.short_connections.get(),
        rooms: RelayedRooms::ALL.into_iter().map(|state| (state.as_str(), relay.rooms[state as usize].get())).collect(),
        next_attempt_s: wait,
    }
}

fn proxy(proxy: &ProxyStats) -> ProxyFigures {
    let waits = Waited::ALL.into_iter().map(|outcome| (outcome.as_str(), proxy.waited(outcome).get()));
    ProxyFigures { waiting: proxy.waiting.get(), waits: waits.collect() }
}

fn mqtt(mqtt: &MqttStats) -> MqttFigures {
    let unread = TopicKind::ALL.into_iter().map(|topic| (topic.as_str(), mqtt.unread[topic.index()].get()));
    MqttFigures { connections: mqtt.connections.get(), comparisons: mqtt.comparisons.get(), unread: unread.collect() }
}

/// Rounds seconds to milliseconds.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
