//! The console: a page that shows the connected clients and the state of the server, and its API.

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::samples::Samples;
use crate::{
    actors::{
        Hub,
        messages::{ListSessions, SeatedSession, TakeCensus},
    },
    clock,
    disconnect::Disconnect,
    http::EmbeddedFile,
    ingest::Intake,
    outbox::Taker,
};

/// How long the registry may take to list sessions or rooms.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of sessions or rooms in one response, and its default.
const MAX_PAGE: usize = 200;
const PAGE: usize = 50;

/// The maximum number of a session's rooms that are named.
const MAX_NAMED_ROOMS: usize = 20;

/// The folder of the page's files. The page itself is at the root.
pub(super) const FOLDER: &str = "/console/";

/// The page's name.
const INDEX: &str = "console.html";

macro_rules! files {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../../web/", $name)))),*] };
}

const FILES: [(&str, &str); 5] = files!["console.html" "console.css" "console.js" "page.css" "dom.js"];

/// The page's files, which hold nothing secret.
#[derive(Debug)]
pub(super) struct Files(Vec<EmbeddedFile>);

impl Files {
    pub(super) fn new() -> Self {
        let file = |(name, text): &(&'static str, &'static str)| {
            EmbeddedFile::new(name, Bytes::from_static(text.as_bytes()), false)
        };
        Self(FILES.iter().map(file).collect())
    }

    fn answer(&self, name: &str, request: &HttpRequest) -> HttpResponse {
        let file = self.0.iter().find(|file| file.name == name);
        file.map_or_else(super::not_found, |file| file.answer(request))
    }
}

/// Returns whether a request is for the page or one of its files. They need no token, because the page
/// asks for it.
pub(super) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with(FOLDER)
}

pub(super) async fn page(files: web::Data<Files>, request: HttpRequest) -> HttpResponse {
    files.answer(INDEX, &request)
}

pub(super) async fn file(files: web::Data<Files>, name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    if *name == INDEX { super::not_found() } else { files.answer(&name, &request) }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SortKey {
    #[default]
    Age,
    Address,
    Transport,
    Rooms,
    Waiting,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Descending,
    Ascending,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SessionsQuery {
    sort: SortKey,
    order: Order,
    offset: usize,
    limit: Option<usize>,
    /// Only sessions of this address.
    address: Option<IpAddr>,
}

#[derive(Serialize)]
struct SessionPage {
    total: usize,
    waiting_bytes: usize,
    sessions: Vec<SessionRow>,
}

#[derive(Serialize)]
struct SessionRow {
    id: u64,
    /// As limits count it: of IPv6 its /64 network.
    address: IpAddr,
    age_s: u32,
    transport: &'static str,
    room_count: usize,
    rooms: Vec<String>,
    waiting_bytes: usize,
}

/// A session with the values that it can be sorted by.
struct Entry {
    seat: SeatedSession,
    waiting: usize,
    rooms: usize,
    transport: &'static str,
}

impl Entry {
    fn new(seat: SeatedSession) -> Self {
        let transport = match seat.outbox.taker() {
            Taker::Polls => "polling",
            Taker::Stream => "websocket",
        };
        Self { waiting: seat.outbox.backlog(), rooms: seat.rooms.joined().len(), transport, seat }
    }

    fn compare(&self, other: &Self, key: SortKey) -> Ordering {
        let by_age = other.seat.session.0.cmp(&self.seat.session.0);
        match key {
            SortKey::Age => by_age,
            SortKey::Address => self.seat.client.cmp(&other.seat.client).then(by_age),
            SortKey::Transport => self.transport.cmp(other.transport).then(by_age),
            SortKey::Rooms => self.rooms.cmp(&other.rooms).then(by_age),
            SortKey::Waiting => self.waiting.cmp(&other.waiting).then(by_age),
        }
    }

    fn row(&self, uptime: u32) -> SessionRow {
        let rooms = self.seat.rooms.joined();
        SessionRow {
            id: self.seat.session.0,
            address: self.seat.client,
            age_s: uptime.saturating_sub(self.seat.opened),
            transport: self.transport,
            room_count: rooms.len(),
            rooms: rooms.iter().take(MAX_NAMED_ROOMS).map(ToString::to_string).collect(),
            waiting_bytes: self.waiting,
        }
    }
}

/// `GET /api/sessions`
pub(super) async fn sessions(hub: web::Data<Hub>, query: web::Query<SessionsQuery>) -> HttpResponse {
    let Some(seats) = list(&hub).await else { return busy() };
    let wanted = seats.into_iter().filter(|seat| query.address.is_none_or(|address| seat.client == address));
    let mut entries: Vec<Entry> = wanted.map(Entry::new).collect();
    entries.sort_unstable_by(|one, other| {
        let order = one.compare(other, query.sort);
        if query.order == Order::Ascending { order } else { order.reverse() }
    });
    let uptime = clock::now().saturating_duration_since(hub.stats.started).as_secs() as u32;
    let limit = query.limit.unwrap_or(PAGE).min(MAX_PAGE);
    let page = entries.iter().skip(query.offset).take(limit);
    HttpResponse::Ok().json(SessionPage {
        total: entries.len(),
        waiting_bytes: entries.iter().map(|entry| entry.waiting).sum(),
        sessions: page.map(|entry| entry.row(uptime)).collect(),
    })
}

/// `DELETE /api/sessions/{id}`
pub(super) async fn disconnect(hub: web::Data<Hub>, id: web::Path<u64>, request: HttpRequest) -> HttpResponse {
    let Some(seats) = list(&hub).await else { return busy() };
    let Some(seat) = seats.into_iter().find(|seat| seat.session.0 == *id) else { return no_session() };
    log::warn!("session {id} of {} is closed by an operator at {}", seat.client, peer(&request));
    hub.close(&seat.outbox, Disconnect::Operator);
    HttpResponse::Accepted().json(Done { done: "the session is closed" })
}

/// Returns the bytes that wait in all outboxes, or `None` if the registry does not answer.
pub(super) async fn waiting_bytes(hub: &Hub) -> Option<usize> {
    let seats = list(hub).await?;
    Some(seats.iter().map(|seat| seat.outbox.backlog()).sum())
}

async fn list(hub: &Hub) -> Option<Vec<SeatedSession>> {
    let listed = actix_rt::time::timeout(TIMEOUT, hub.registry.send(ListSessions)).await;
    listed.ok()?.ok().map(|sessions| sessions.0)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RoomsQuery {
    offset: usize,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct RoomPage {
    total: usize,
    rooms: Vec<RoomRow>,
}

#[derive(Serialize)]
struct RoomRow {
    name: String,
    members: usize,
}

/// `GET /api/rooms`, the largest first
pub(super) async fn rooms(hub: web::Data<Hub>, query: web::Query<RoomsQuery>) -> HttpResponse {
    let taken = actix_rt::time::timeout(TIMEOUT, hub.registry.send(TakeCensus { rooms: true })).await;
    let Ok(Ok(mut census)) = taken else { return busy() };
    census.rooms.sort_by(|(one, size), (other, other_size)| {
        other_size.cmp(size).then_with(|| one.to_string().cmp(&other.to_string()))
    });
    let page = census.rooms.iter().skip(query.offset).take(query.limit.unwrap_or(PAGE).min(MAX_PAGE));
    let rooms = page.map(|(room, members)| RoomRow { name: room.to_string(), members: *members }).collect();
    HttpResponse::Ok().json(RoomPage { total: census.rooms.len(), rooms })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HistoryQuery {
    since: f64,
}

#[derive(Serialize)]
struct HistoryReport {
    version: &'static str,
    /// Events in flight.
    backlog: usize,
    /// Threads that serve browsers.
    workers: usize,
    #[serde(flatten)]
    report: super::samples::Report,
}

/// `GET /api/history`
pub(super) async fn history(
    hub: web::Data<Hub>,
    samples: web::Data<Samples>,
    intake: web::Data<Intake>,
    query: web::Query<HistoryQuery>,
) -> HttpResponse {
    HttpResponse::Ok().json(HistoryReport {
        version: env!("CARGO_PKG_VERSION"),
        backlog: intake.backlog(),
        workers: hub.workers.count(),
        report: samples.report(query.since),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// Must be true, so that nobody drains a server by a slip.
    confirm: bool,
}

#[derive(Serialize)]
struct Done {
    done: &'static str,
}

#[derive(Serialize)]
struct Failed {
    error: &'static str,
}

/// `POST /api/drain`
pub(super) async fn drain(hub: web::Data<Hub>, drain: web::Json<Drain>, request: HttpRequest) -> HttpResponse {
    if !drain.confirm {
        return HttpResponse::UnprocessableEntity()
            .json(Failed { error: "send {\"confirm\": true} to drain the server" });
    }
    log::warn!("an operator at {} drains the server", peer(&request));
    hub.stop.notify_one();
    HttpResponse::Accepted().json(Done { done: "the server drains and stops" })
}

fn peer(request: &HttpRequest) -> String {
    request.peer_addr().map_or_else(|| "an unknown address".to_owned(), |peer| peer.ip().to_string())
}

fn no_session() -> HttpResponse {
    HttpResponse::NotFound().json(Failed { error: "there is no such session" })
}

fn busy() -> HttpResponse {
    HttpResponse::ServiceUnavailable().json(Failed { error: "the room registry does not answer" })
}
