//! What the server counts. Written from every thread, read by `GET /api/stats`.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use prometheus_client::metrics::histogram::Histogram;

use crate::{disconnect::Disconnect, farm::EventKind};

/// Unknown status words that are logged, all in all, and how much of each.
const MAX_STATUS_WORDS: usize = 100;
const MAX_STATUS_WORD: usize = 40;

/// Seconds that tell apart a healthy flush, one under load, and one that somebody notices.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are right now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, as long as the guard lives.
    pub fn add(&'static self) -> Presence {
        self.0.fetch_add(1, Ordering::Relaxed);
        Presence(self)
    }

    /// The same; `None` when there are `limit` already.
    pub fn enter(&'static self, limit: usize) -> Option<Presence> {
        let entered =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1));
        entered.ok().map(|_| Presence(self))
    }
}

/// One that a [`Gauge`] counts.
#[derive(Debug)]
pub struct Presence(&'static Gauge);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where domain events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Http,
    Stdin,
    Demo,
    Relay,
}

impl Source {
    pub const ALL: [Self; 4] = [Self::Http, Self::Stdin, Self::Demo, Self::Relay];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stdin => "stdin",
            Self::Demo => "demo",
            Self::Relay => "relay",
        }
    }
}

/// How a source that has to find its Manager by itself stands with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// The Manager does not answer, or has not yet.
    Away,
    /// It answers, and what was missed is being found out.
    Comparing,
    /// What happens at the Manager is told.
    Connected,
}

impl SourceState {
    pub const ALL: [Self; 3] = [Self::Away, Self::Comparing, Self::Connected];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Comparing => "comparing",
            Self::Connected => "connected",
        }
    }
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// From the Manager: not JSON.
    BadJson,
    /// From the Manager: JSON that is no event.
    InvalidEvent,
    /// From the Manager: no or a wrong token.
    Unauthorized,
    /// From the Manager: over the size limit.
    TooLarge,
    /// From the Manager: another content type.
    MediaType,
    /// From the Manager: too many events wait already.
    Overloaded,
    /// From the Manager: the same id again.
    Repeated,
    /// From a browser: a handshake that is none.
    BadHandshake,
    /// From a browser: a page of another origin.
    ForbiddenOrigin,
    /// From a browser: too many sessions.
    TooManySessions,
    /// From a browser: who is asked does not want it in.
    AuthDenied,
    /// From a browser: who is asked whether it may come in does not answer.
    AuthUnavailable,
    /// From a browser: too many sessions of its address.
    TooManySessionsPerAddress,
    /// From a browser: too many connections that are no WebSockets.
    TooManyHttpConnections,
    /// From a browser: the head of its request is too big.
    HeadTooLarge,
    /// From a browser: the head of its request takes too long to come.
    HeadTooSlow,
    /// From a browser: a subscription to one room more than it may be in.
    TooManyRooms,
    /// From a browser: more chat messages a second than it may send.
    TooManyChats,
    /// From a browser: a chat message that is too long.
    ChatTooLong,
}

impl Refused {
    pub const ALL: [Self; 19] = [
        Self::BadJson,
        Self::InvalidEvent,
        Self::Unauthorized,
        Self::TooLarge,
        Self::MediaType,
        Self::Overloaded,
        Self::Repeated,
        Self::BadHandshake,
        Self::ForbiddenOrigin,
        Self::TooManySessions,
        Self::AuthDenied,
        Self::AuthUnavailable,
        Self::TooManySessionsPerAddress,
        Self::TooManyHttpConnections,
        Self::HeadTooLarge,
        Self::HeadTooSlow,
        Self::TooManyRooms,
        Self::TooManyChats,
        Self::ChatTooLong,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad-json",
            Self::InvalidEvent => "invalid-event",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too-large",
            Self::MediaType => "media-type",
            Self::Overloaded => "overloaded",
            Self::Repeated => "repeated",
            Self::BadHandshake => "bad-handshake",
            Self::ForbiddenOrigin => "forbidden-origin",
            Self::TooManySessions => "too-many-sessions",
            Self::AuthDenied => "auth-denied",
            Self::AuthUnavailable => "auth-unavailable",
            Self::TooManySessionsPerAddress => "too-many-sessions-per-address",
            Self::TooManyHttpConnections => "too-many-http-connections",
            Self::HeadTooLarge => "head-too-large",
            Self::HeadTooSlow => "head-too-slow",
            Self::TooManyRooms => "too-many-rooms",
            Self::TooManyChats => "too-many-chats",
            Self::ChatTooLong => "chat-too-long",
        }
    }
}

/// What came from one source.
#[derive(Debug, Default)]
pub struct SourceStats {
    pub events: Counter,
    /// Of what came, that which was not told: older than what was told already, or the same again.
    pub dropped: Counter,
    last_event: Mutex<Option<Instant>>,
    state: Mutex<Option<SourceState>>,
}

impl SourceStats {
    pub fn took(&self, events: u64, now: Instant) {
        self.events.add(events);
        *self.last_event.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub fn last_event(&self) -> Option<Instant> {
        *self.last_event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, state: SourceState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// `None` for a source that is not in use, or that is there as long as the server.
    pub fn state(&self) -> Option<SourceState> {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All counters of a server; lives as long as the process.
#[derive(Debug)]
pub struct Stats {
    pub started: Instant,
    /// All sessions. One that moves from polling to a WebSocket counts once all the while.
    pub sessions: Gauge,
    /// Those that a WebSocket carries.
    pub websocket_sessions: Gauge,
    /// Connections of browsers that are no WebSockets, or not yet.
    pub http_connections: Gauge,
    pub deliveries: Counter,
    pub bytes_out: Counter,
    /// Updates that took the place of an older one, for a client that lags.
    pub coalesced: Counter,
    /// Seconds from the oldest broadcast that began a worker's flush until the last client that takes bytes has it. Once for each
    /// time that a worker goes around, so that a delivery costs nothing more; what joins a flush under way is not timed.
    pub publish_to_write: Histogram,
    /// Messages that made an actor panic twice, and were dropped.
    pub poisoned: Counter,
    /// Restarts of actors after a panic.
    pub restarts: Counter,
    /// Status words that this server does not know, and forwarded.
    pub unknown_statuses: Counter,
    named_statuses: Mutex<BTreeSet<(EventKind, String)>>,
    events: [Counter; EventKind::ALL.len()],
    sources: [SourceStats; Source::ALL.len()],
    disconnects: [Counter; Disconnect::ALL.len()],
    refused: [Counter; Refused::ALL.len()],
}

impl Stats {
    /// A server has one set of counters for as long as it runs, and everything refers to it.
    pub fn leak(started: Instant) -> &'static Self {
        Box::leak(Box::new(Self {
            started,
            sessions: Gauge::default(),
            websocket_sessions: Gauge::default(),
            http_connections: Gauge::default(),
            deliveries: Counter::default(),
            bytes_out: Counter::default(),
            coalesced: Counter::default(),
            publish_to_write: Histogram::new(LATENCY_BUCKETS),
            poisoned: Counter::default(),
            restarts: Counter::default(),
            unknown_statuses: Counter::default(),
            named_statuses: Mutex::default(),
            events: Default::default(),
            sources: Default::default(),
            disconnects: Default::default(),
            refused: Default::default(),
        }))
    }

    /// Sessions that requests carry.
    pub fn polling_sessions(&self) -> usize {
        let websocket = self.websocket_sessions.get();
        self.sessions.get().saturating_sub(websocket)
    }

    pub fn event(&self, kind: EventKind) -> &Counter {
        &self.events[kind as usize]
    }

    /// Counts a status word that this server does not know, and logs it the first time.
    pub fn unknown_status(&self, kind: EventKind, word: &str) {
        self.unknown_statuses.add(1);
        let mut named = self.named_statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let word: String = word.chars().take(MAX_STATUS_WORD).collect();
        if named.len() < MAX_STATUS_WORDS && named.insert((kind, word.clone())) {
            log::warn!(
                "a {} event has the unknown status {word:?}; it is forwarded, as all of its kind will be",
                kind.as_str()
            );
        }
    }

    pub fn source(&self, source: Source) -> &SourceStats {
        &self.sources[source as usize]
    }

    pub fn disconnect(&self, reason: Disconnect) -> &Counter {
        &self.disconnects[reason.index()]
    }

    pub fn refused(&self, reason: Refused) -> &Counter {
        &self.refused[reason as usize]
    }
}
