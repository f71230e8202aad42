//! The server's metrics. Every thread writes them; `GET /api/stats` and `GET /metrics` read them.

mod counters;

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use self::counters::Latest;
pub use self::counters::{Counter, Gauge, LATENCY_BUCKETS, Latencies, Presence};
use crate::{
    disconnect::Disconnect,
    farm::{EventKind, mqtt::TopicKind},
};

/// The maximum number of unknown status words that are logged, and the maximum length of each.
const MAX_STATUS_WORDS: usize = 100;
const MAX_STATUS_WORD: usize = 40;

farm::labels! {
    /// The sources of events.
    pub enum Source {
        Http = "http",
        Stdin = "stdin",
        Demo = "demo",
        Relay = "relay",
        Mqtt = "mqtt",
    }
}

farm::labels! {
    /// The state of a source that connects to its Manager or broker by itself.
    pub enum SourceState {
        /// It does not answer, or has not answered yet.
        Away = "away",
        /// It answers, and the source is finding out what it missed.
        Comparing = "comparing",
        /// The source publishes what happens.
        Connected = "connected",
        /// Another server runs the source.
        Standby = "standby",
    }
}

farm::labels! {
    /// Why something was refused.
    pub enum Refused {
        /// From the Manager: the body is not JSON.
        BadJson = "bad-json",
        /// From the Manager: the JSON is not a valid event.
        InvalidEvent = "invalid-event",
        /// From the Manager: the token is missing or wrong.
        Unauthorized = "unauthorized",
        /// From the Manager: over the size limit.
        TooLarge = "too-large",
        /// From the Manager: an unsupported content type.
        MediaType = "media-type",
        /// From the Manager: too many events in flight.
        Overloaded = "overloaded",
        /// From the Manager: NATS did not store the events in time.
        NotStored = "not-stored",
        /// From the Manager: an id that was already accepted.
        Repeated = "repeated",
        /// From a browser: an invalid handshake.
        BadHandshake = "bad-handshake",
        /// From a browser: a page of another origin.
        ForbiddenOrigin = "forbidden-origin",
        /// From a browser: a host that this server does not answer for.
        ForbiddenHost = "forbidden-host",
        /// From a browser: too many sessions.
        TooManySessions = "too-many-sessions",
        /// From a browser: the auth endpoint denied access.
        AuthDenied = "auth-denied",
        /// From a browser: the auth endpoint does not answer.
        AuthUnavailable = "auth-unavailable",
        /// From a browser: too many sessions of its address.
        TooManySessionsPerAddress = "too-many-sessions-per-address",
        /// From a browser: too many connections that are not WebSockets.
        TooManyHttpConnections = "too-many-http-connections",
        /// From a browser: too many connections of its address that are not WebSockets.
        TooManyHttpConnectionsPerAddress = "too-many-http-connections-per-address",
        /// From a browser: too many concurrent requests with a body for one polling session.
        TooManyPosts = "too-many-posts",
        /// From a browser: the head of a request is too large.
        HeadTooLarge = "head-too-large",
        /// From a browser: the head of a request arrives too slowly.
        HeadTooSlow = "head-too-slow",
        /// The body of a request arrives too slowly.
        BodyTooSlow = "body-too-slow",
        /// The bytes are not an HTTP/1.1 request.
        BadHttp = "bad-http",
        /// From a browser: a subscription beyond the rooms of its session.
        TooManyRooms = "too-many-rooms",
        /// From a browser: a room of a job or task that the Manager does not know.
        UnknownEntity = "unknown-entity",
        /// From a browser: a room for which the relay has no place.
        RelayFull = "relay-full",
        /// From a browser: a room that the Manager refused, or did not confirm.
        SubscriptionFailed = "subscription-failed",
        /// From a browser: a subscription beyond the rooms of its address, or of all sessions.
        TooManySubscriptions = "too-many-subscriptions",
        /// From a browser: more chat messages per second than allowed.
        TooManyChats = "too-many-chats",
        /// From a browser: more chat than all browsers, or those of its address, may send.
        TooMuchChat = "too-much-chat",
        /// From a browser: a chat message that is too long.
        ChatTooLong = "chat-too-long",
    }
}

/// The metrics of one source.
#[derive(Debug, Default)]
pub struct SourceStats {
    pub events: Counter,
    /// Events that were not published: older than the published state, or the same again.
    pub dropped: Counter,
    last_event: Latest<Instant>,
    state: Latest<SourceState>,
}

impl SourceStats {
    pub fn took(&self, events: u64, now: Instant) {
        self.events.add(events);
        self.last_event.set(Some(now));
    }

    pub fn last_event(&self) -> Option<Instant> {
        self.last_event.get()
    }

    pub fn enter(&self, state: SourceState) {
        self.state.set(Some(state));
    }

    /// Returns the state, or `None` for a source that is not in use or needs no connection.
    pub fn state(&self) -> Option<SourceState> {
        self.state.get()
    }
}

farm::labels! {
    /// The state of the rooms of jobs and task logs that browsers are in.
    pub enum RelayedRooms {
        /// Subscribed at the Manager, about to be, or polled over HTTP.
        Supplied = "supplied",
        /// Without a place.
        Waiting = "waiting",
        /// Of jobs and tasks that the Manager does not know.
        Unknown = "unknown",
        /// Refused, or not confirmed, by the Manager.
        Failed = "failed",
    }
}

/// The metrics of the relay.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Connections made to the Manager.
    pub connections: Counter,
    /// Those of them that ended early.
    pub short_connections: Counter,
    /// Indexed by [`RelayedRooms`].
    pub rooms: [Gauge; RelayedRooms::ALL.len()],
    next_attempt: Latest<Instant>,
}

impl RelayStats {
    /// Returns when the relay reconnects, or `None` while it is connected or about to be.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.next_attempt.get()
    }

    pub fn set_next_attempt(&self, at: Option<Instant>) {
        self.next_attempt.set(at);
    }
}

farm::labels! {
    /// How the wait of a proxied request for a Manager that is away ended.
    pub enum Waited {
        /// The Manager was back in time.
        Connected = "connected",
        /// It was not.
        Expired = "expired",
        /// The request did not wait, because too many others did.
        Full = "full",
    }
}

/// The metrics of the proxy.
#[derive(Debug, Default)]
pub struct ProxyStats {
    /// Requests that wait for the Manager.
    pub waiting: Gauge,
    waits: [Counter; Waited::ALL.len()],
}

impl ProxyStats {
    pub fn waited(&self, outcome: Waited) -> &Counter {
        &self.waits[outcome as usize]
    }
}

/// The metrics of the MQTT source.
#[derive(Debug, Default)]
pub struct MqttStats {
    /// Connections that the broker accepted.
    pub connections: Counter,
    /// Comparisons with the lists of the Manager because it had events that did not arrive.
    pub comparisons: Counter,
    /// Messages that could not be decoded, indexed by [`TopicKind`].
    pub unread: [Counter; TopicKind::ALL.len()],
}

farm::labels! {
    /// How requests of clients to go on where they ended are answered.
    pub enum Resumed {
        /// With all that the client missed.
        Recovered = "recovered",
        /// The client had no token.
        New = "new",
        /// The token is of another history.
        Epoch = "epoch",
        /// The history does not go back as far.
        TooOld = "too-old",
        /// It is more than one client gets at once.
        TooMany = "too-many",
        /// A relay did not follow one of the rooms meanwhile.
        NotFollowed = "not-followed",
        /// The text is not a token.
        Invalid = "invalid",
    }
}

impl Resumed {
    /// Returns the sentence for the client's developer, if something is wrong.
    pub fn message(self) -> Option<&'static str> {
        match self {
            Self::Recovered | Self::New => None,
            Self::Epoch => Some("the token is of another history, as after a restart of the server: fetch the state"),
            Self::TooOld => Some("the server no longer has what came after the token: fetch the state"),
            Self::TooMany => Some("too much came after the token: fetch the state"),
            Self::NotFollowed => {
                Some("the server did not follow one of the rooms meanwhile, as nobody was in it: fetch the state")
            }
            Self::Invalid => Some("the token is not one that a server gave: pass it back unchanged, or null"),
        }
    }
}

/// The metrics of a stream that several servers share.
#[derive(Debug, Default)]
pub struct BackplaneStats {
    /// The offset of the newest event that this server has published.
    pub offset: Gauge,
    /// How often reading the stream began.
    pub connections: Counter,
    /// How often events were lost before this server had read them.
    pub lost: Counter,
    /// Requests whose events could not be stored.
    pub unavailable: Counter,
    /// Messages that could not be decoded.
    pub unread: Counter,
    /// The offset of the newest event that some server published over MQTT.
    pub mirrored: Gauge,
    /// Whether this server runs the source, if the source runs on one server at a time.
    pub leads: [Gauge; Source::ALL.len()],
    /// Events that were refused because another server may run their source.
    pub fenced: Counter,
    state: Latest<SourceState>,
}

impl BackplaneStats {
    pub fn enter(&self, state: SourceState) {
        self.state.set(Some(state));
    }

    /// Returns the state, or `None` without a stream.
    pub fn state(&self) -> Option<SourceState> {
        self.state.get()
    }
}

/// All metrics of a server, which live as long as the process.
#[derive(Debug)]
pub struct Stats {
    pub started: Instant,
    /// All sessions. A session that upgrades from polling to a WebSocket counts once throughout.
    pub sessions: Gauge,
    /// Sessions over a WebSocket.
    pub websocket_sessions: Gauge,
    /// Connections of browsers that are not WebSockets, or not yet.
    pub http_connections: Gauge,
    pub deliveries: Counter,
    pub bytes_out: Counter,
    /// Updates that replaced an older one, for a client that lags.
    pub coalesced: Counter,
    /// Chat messages that were left out for a client that does not read.
    pub chat_left_out: Counter,
    /// Events that were sent again to clients that resumed.
    pub replayed_events: Counter,
    /// The memory that recent events take.
    pub history_bytes: Gauge,
    /// Entities of which the last state is known.
    pub state_entities: Gauge,
    /// Seconds from the oldest broadcast that started a worker's flush until the last client that
    /// accepts bytes has them. Observed once per round of a worker, so that a delivery costs
    /// nothing extra; broadcasts that join a running flush are not timed.
    pub publish_to_write: Latencies,
    /// Messages that were dropped because they made an actor panic twice.
    pub poisoned: Counter,
    /// Restarts of actors after a panic.
    pub restarts: Counter,
    /// Status words that this server does not know and forwarded.
    pub unknown_statuses: Counter,
    /// Only meaningful with a relay.
    pub relay: RelayStats,
    /// Only meaningful with a Manager.
    pub proxy: ProxyStats,
    /// Only meaningful with NATS.
    pub backplane: BackplaneStats,
    /// Only meaningful with an MQTT broker.
    pub mqtt: MqttStats,
    /// The copies that `--mqtt-publish` sends to a broker.
    pub mirror: SourceStats,
    named_statuses: Mutex<BTreeSet<(EventKind, String)>>,
    events: [Counter; EventKind::ALL.len()],
    sources: [SourceStats; Source::ALL.len()],
    disconnects: [Counter; Disconnect::ALL.len()],
    refused: [Counter; Refused::ALL.len()],
    resumes: [Counter; Resumed::ALL.len()],
}

impl Stats {
    /// Creates the one set of counters that everything in the server refers to, for as long as it
    /// runs.
    pub fn leak(started: Instant) -> &'static Self {
        Box::leak(Box::new(Self {
            started,
            sessions: Gauge::default(),
            websocket_sessions: Gauge::default(),
            http_connections: Gauge::default(),
            deliveries: Counter::default(),
            bytes_out: Counter::default(),
            coalesced: Counter::default(),
            chat_left_out: Counter::default(),
            replayed_events: Counter::default(),
            history_bytes: Gauge::default(),
            state_entities: Gauge::default(),
            publish_to_write: Latencies::new(),
            poisoned: Counter::default(),
            restarts: Counter::default(),
            unknown_statuses: Counter::default(),
            relay: RelayStats::default(),
            proxy: ProxyStats::default(),
            backplane: BackplaneStats::default(),
            mqtt: MqttStats::default(),
            mirror: SourceStats::default(),
            named_statuses: Mutex::default(),
            events: Default::default(),
            sources: Default::default(),
            disconnects: Default::default(),
            refused: Default::default(),
            resumes: Default::default(),
        }))
    }

    /// Returns the number of sessions over long-polling.
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
                "a {} event has the unknown status {word:?}; it is forwarded, and so is every later one",
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

    pub fn resumed(&self, outcome: Resumed) -> &Counter {
        &self.resumes[outcome as usize]
    }

    pub fn refused(&self, reason: Refused) -> &Counter {
        &self.refused[reason as usize]
    }
}
