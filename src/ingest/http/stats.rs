//! `GET /api/stats`.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::{
    actors::{Hub, messages::TakeCensus},
    clock,
    disconnect::Disconnect,
    farm::EventKind,
    stats::{Refused, Source, SourceState, Stats},
};

/// How long the registry may take to count its rooms.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct Query {
    /// A farm may have thousands of rooms.
    #[serde(default = "yes")]
    rooms: bool,
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
    /// How often a status word came that this server does not know.
    unknown_status: u64,
    deliveries: u64,
    bytes_out: u64,
    coalesced: u64,
    disconnects: BTreeMap<&'static str, u64>,
    sources: BTreeMap<&'static str, SourceFigures>,
    restarts: u64,
    poisoned: u64,
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

pub(super) async fn stats(hub: web::Data<Hub>, query: web::Query<Query>) -> HttpResponse {
    let rooms = if query.rooms {
        match actix_rt::time::timeout(TIMEOUT, hub.registry.send(TakeCensus { rooms: true })).await {
            Ok(Ok(census)) => Some(census.rooms.into_iter().map(|(room, size)| (room.to_string(), size)).collect()),
            // The figures matter most when something is wrong.
            Ok(Err(_)) | Err(_) => None,
        }
    } else {
        None
    };
    HttpResponse::Ok().json(figures(hub.stats, rooms))
}

fn figures(stats: &Stats, rooms: Option<BTreeMap<String, usize>>) -> Figures {
    let now = clock::now();
    let (total, websocket) = (stats.sessions.get(), stats.websocket_sessions.get());
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
        sessions: Sessions { total, websocket, polling: total.saturating_sub(websocket) },
        http_connections: stats.http_connections.get(),
        rooms,
        events: EventKind::ALL.into_iter().map(|kind| (kind.as_str(), stats.event(kind).get())).collect(),
        refused: Refused::ALL.into_iter().map(|reason| (reason.as_str(), stats.refused(reason).get())).collect(),
        unknown_status: stats.unknown_statuses.get(),
        deliveries: stats.deliveries.get(),
        bytes_out: stats.bytes_out.get(),
        coalesced: stats.coalesced.get(),
        disconnects: Disconnect::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), stats.disconnect(reason).get()))
            .collect(),
        sources: sources.collect(),
        restarts: stats.restarts.get(),
        poisoned: stats.poisoned.get(),
    }
}

/// Seconds, to the millisecond.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
