//! The live connection to the Manager: connects, relays, and makes up for what was missed while
//! disconnected.
//!
//! ```text
//!                 connect              all subscriptions are acknowledged,
//!                                      or MAX_SUBSCRIBING has passed
//! Away ──────────────────▶ Subscribing ────────────────▶ Asking ── snapshot ──▶ Done
//!  ▲  (patience.wait)          │                          │  ▲                   │
//!  │                           │            request failed│  │COMPARE_AGAIN      │
//!  │                           │                          ▼  │                   │
//!  │                           │                          Again                  │
//!  └── the connection ends ◀───┴────────────────────────────┴────────────────────┘
//! ```
//!
//! Events are relayed in every state except Away. `Away`, `Comparing` and `Connected` are the
//! states in `/healthz` and the metrics; Subscribing, Asking and Again all count as `Comparing`.

use std::{convert::Infallible, future::pending, rc::Rc, time::Instant};

use actix_rt::time::{sleep, sleep_until};
use fastrand::Rng;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{
    LOGGED_EVERY, RelayContext, and_more,
    api::ApiError,
    comparison::{Asking, Comparison},
    reading::Reader,
    rooms::{RoomNews, Rooms},
    sent::Sent,
    snapshot::{Snapshot, Version},
    witness::Witness,
};
use crate::{
    client::{Client, ConnectError, ConnectionEnd, Incoming, Limits},
    clock,
    farm::{
        Audience, EventKind, FarmEvent, FarmStatusReport, JobId, JobUpdate, Payload, Room, Timestamp, Unread, mqtt,
    },
    ingest::{allowance::Allowance, mqtt::Fed, patience::Patience},
    stats::{Source, SourceState},
};

/// The maximum number of events that are submitted together, if they have already arrived.
const MAX_BATCH: usize = 256;

/// The number of connections that are logged in full, at once and per interval. The log has only
/// the number of the others.
const LOGGED_CONNECTIONS: u32 = 5;

/// Relays events from one Manager.
pub(super) struct Relay {
    shared: Rc<RelayContext>,
    sent: Sent,
    rooms: Rooms,
    /// Used with MQTT only.
    witness: Witness,
    reader: Reader,
    connections_log: Allowance,
    missing_log: Allowance,
    /// Whether the current connection is logged.
    is_logged: bool,
    rng: Rng,
    /// Waits for the first connection.
    connected: Option<oneshot::Sender<()>>,
}

/// Why there is no connection, or why it ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    NotConnected(#[from] ConnectError),
    #[error("{0}")]
    Disconnected(#[from] ConnectionEnd),
}

/// An event in the main loop.
enum Happening {
    Incoming(Result<Incoming, ConnectionEnd>),
    Fed(Fed),
    Rooms(RoomNews),
    Answer(Result<Snapshot, ApiError>),
    Time,
}

impl Relay {
    pub(super) fn new(shared: Rc<RelayContext>, connected: Option<oneshot::Sender<()>>) -> Self {
        let now = clock::now();
        let published = shared.published.as_ref().map(|published| published.of_relay()).unwrap_or_default();
        Self {
            rooms: Rooms::new(shared.clone(), published.known, published.logs, published.version),
            sent: published.sent,
            witness: Witness::default(),
            reader: Reader::default(),
            connections_log: Allowance::new(LOGGED_CONNECTIONS, LOGGED_EVERY, now),
            missing_log: Allowance::new(1, LOGGED_EVERY, now),
            is_logged: true,
            rng: Rng::new(),
            connected,
            shared,
        }
    }

    /// Connects, relays and reconnects, without end.
    pub(super) async fn run(mut self) -> Infallible {
        let mut patience = Patience::default();
        let mut complaint = String::new();
        loop {
            let (connected_at, broken) = match self.connect().await {
                Ok(client) => {
                    let connected_at = clock::now();
                    (Some(connected_at), self.listen(client).await)
                }
                Err(broken) => (None, broken),
            };
            let is_repeated = std::mem::replace(&mut complaint, broken.to_string()) == complaint;
            let is_worth_a_line = match connected_at {
                Some(connected_at) => {
                    if patience.ended(clock::now().saturating_duration_since(connected_at)) {
                        self.shared.relay_stats().short_connections.add(1);
                    }
                    self.is_logged
                }
                None => {
                    patience.failed();
                    !is_repeated
                }
            };
            let wait = patience.wait(&mut self.rng);
            if is_worth_a_line {
                let (manager, seconds) = (&self.shared.manager, wait.as_secs_f32());
                log::warn!("the relay from the Manager at {manager} is down: {broken}; next attempt in {seconds:.1} s");
            }
            self.lose_touch(connected_at.is_some()).await;
            self.shared.relay_stats().set_next_attempt(Some(clock::now() + wait));
            self.meanwhile(sleep(wait)).await;
            self.shared.relay_stats().set_next_attempt(None);
        }
    }

    /// Waits while there is no connection; browsers come and go, and MQTT does not need one.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let (mut what, shared) = (std::pin::pin!(what), self.shared.clone());
        loop {
            tokio::select! {
                result = &mut what => return result,
                news = self.rooms.next() => self.rooms.take(news),
                fed = shared.fed() => drop(self.take_fed(fed).await),
            }
        }
    }

    async fn connect(&mut self) -> Result<Client, Broken> {
        let shared = self.shared.clone();
        let connecting = async {
            let version = shared.api.version().await?;
            Ok::<_, Broken>((version, Client::connect(&shared.manager, Limits::default()).await?))
        };
        let (version, client) = self.meanwhile(connecting).await?;
        self.shared.relay_stats().connections.add(1);
        self.log_connection(&version);
        if let Some(note) = self.rooms.meet(version) {
            self.shared.publish_noted(Vec::new(), Some(&note)).await;
        }
        Ok(client)
    }

    fn log_connection(&mut self, version: &Version) {
        let left_out = self.connections_log.take(clock::now());
        self.is_logged = left_out.is_some();
        let (manager, version) = (&self.shared.manager, version.as_str());
        let more = and_more(left_out.unwrap_or_default());
        log::log!(self.level(), "relaying from the Manager at {manager}, version {version}{more}");
    }

    fn level(&self) -> log::Level {
        if self.is_logged { log::Level::Info } else { log::Level::Debug }
    }

    /// Relays until the connection breaks.
    async fn listen(&mut self, mut client: Client) -> Broken {
        self.shared.stats().enter(SourceState::Comparing);
        let mut comparison = Comparison::after_subscribing(clock::now());
        let shared = self.shared.clone();
        loop {
            self.rooms.ask(&mut client);
            if comparison.is_due(self.rooms.is_settled(), clock::now()) {
                comparison.begin(self.ask_for_snapshot());
            }
            let missing = self.witness.deadline().filter(|_| comparison.is_done());
            let deadline = [self.rooms.deadline(), comparison.deadline(), missing].into_iter().flatten().min();
            let happening = tokio::select! {
                incoming = client.next() => Happening::Incoming(incoming),
                fed = shared.fed() => Happening::Fed(fed),
                news = self.rooms.next() => Happening::Rooms(news),
                answer = comparison.answer() => Happening::Answer(answer),
                () = at(deadline) => Happening::Time,
            };
            match happening {
                Happening::Incoming(incoming) => {
                    if let Err(end) = self.take_batch(incoming, &mut client).await {
                        return end.into();
                    }
                }
                Happening::Fed(fed) => {
                    let has_gap = self.take_fed(fed).await;
                    if has_gap && comparison.is_done() {
                        comparison.begin(self.ask_for_snapshot());
                    }
                }
                Happening::Rooms(news) => self.rooms.take(news),
                Happening::Answer(Ok(snapshot)) => {
                    self.compare(snapshot).await;
                    comparison.finish();
                }
                Happening::Answer(Err(error)) => {
                    let complaint = comparison.failed(&error, &mut self.rng, clock::now());
                    if let Some(error) = complaint.filter(|_| self.is_logged) {
                        log::warn!("the comparison with the Manager failed and is retried: {error}");
                    }
                }
                Happening::Time => {
                    if missing.is_some_and(|at| at <= clock::now()) {
                        self.note_missing();
                        comparison.begin(self.ask_for_snapshot());
                    }
                    self.rooms.tidy();
                }
            }
        }
    }

    /// Takes the event and those that have already arrived, and publishes them.
    async fn take_batch(
        &mut self,
        first: Result<Incoming, ConnectionEnd>,
        client: &mut Client,
    ) -> Result<(), ConnectionEnd> {
        let mut events = Vec::new();
        let mut next = Some(first);
        let mut ended = Ok(());
        while let Some(incoming) = next {
            match incoming {
                Ok(incoming) => events.extend(self.take(incoming)),
                Err(end) => {
                    ended = Err(end);
                    break;
                }
            }
            next = if events.len() < MAX_BATCH { client.next().now_or_never() } else { None };
        }
        self.shared.publish(events).await;
        ended
    }

    /// Returns the event to publish for a message of the Manager, if there is one.
    fn take(&mut self, incoming: Incoming) -> Option<FarmEvent> {
        match incoming {
            Incoming::Ack { id, args } => self.rooms.answered(id, is_ok(&args)).and_then(|job| self.refresh(job)),
            Incoming::Event { name, args } => self.take_event(&name, &args),
        }
    }

    fn take_event(&mut self, name: &str, args: &[Box<RawValue>]) -> Option<FarmEvent> {
        let event = self.reader.read(name, args);
        if let (Some(event), Some(_)) = (&event, &self.shared.mqtt)
            && mqtt::carries(event.kind())
        {
            self.witness.announced(event, clock::now());
            return None;
        }
        let admitted = event.filter(|event| self.admit(event));
        if admitted.is_none() {
            self.shared.stats().dropped.add(1);
        }
        admitted
    }

    /// Publishes what comes from MQTT. Returns whether events may be missing.
    async fn take_fed(&mut self, fed: Fed) -> bool {
        match fed {
            Fed::Events { mut events, published } => {
                let received = events.len();
                events.retain(|event| {
                    self.witness.arrived(event);
                    self.admit(event)
                });
                let dropped = (received - events.len()) as u64;
                self.shared.intake.stats().source(Source::Mqtt).dropped.add(dropped);
                self.shared.publish_from(Source::Mqtt, events).await;
                // The source may be shutting down.
                let _ = published.send(());
                false
            }
            Fed::Gap => true,
        }
    }

    fn note_missing(&mut self) {
        self.shared.intake.stats().mqtt.comparisons.add(1);
        if let Some(left_out) = self.missing_log.take(clock::now()) {
            let more = and_more(left_out);
            log::warn!("the Manager has events that do not arrive over MQTT: comparing its lists{more}");
        }
    }

    /// Records an event. Returns whether it is to be published.
    fn admit(&mut self, event: &FarmEvent) -> bool {
        self.rooms.learn(event.shown_rooms());
        if let FarmEvent::JobUpdate(job) = event
            && job.fields.was_deleted
        {
            self.rooms.forget(job.fields.id);
        }
        if let FarmEvent::LastRendered(image) = event {
            let job = image.fields.job_id;
            // Over MQTT only the first copy is read.
            let comes_twice = self.shared.mqtt.is_none() && self.rooms.is_in(Room::Job(job));
            return self.sent.admit_image(job, comes_twice, clock::now());
        }
        if let FarmEvent::TaskUpdate(task) = event {
            self.rooms.wake_log(task.fields.id);
        }
        self.sent.admit(event)
    }

    /// Returns an event that makes the pages of a job reload its tasks, and only those pages.
    fn refresh(&self, job: JobId) -> Option<FarmEvent> {
        let update = self.sent.refresh(job)?;
        let (name, json) = (EventKind::JobUpdate.wire_name().into(), Payload::<JobUpdate>::new(update).json);
        let audience = Audience::Room(Room::Job(job));
        Some(FarmEvent::Unread(Unread { name, audience, json: json.to_string().into() }))
    }

    /// Requests the state that the record is compared with.
    fn ask_for_snapshot(&mut self) -> Asking {
        self.sent.begin_comparison();
        self.witness.begin_comparison(clock::now());
        let shared = self.shared.clone();
        Box::pin(async move { shared.api.snapshot().await })
    }

    /// Publishes what was missed.
    async fn compare(&mut self, snapshot: Snapshot) {
        self.rooms.learn(snapshot.jobs.items.iter().map(|job| Room::Job(job.id)));
        let rooms = &self.rooms;
        let now = Timestamp::from(jiff::Timestamp::try_from(clock::wall()).unwrap_or_default());
        let events = self.sent.compare(snapshot, |job| rooms.is_watched(job), now);
        let found = match self.connected {
            Some(_) => "jobs, workers and tags, as the Manager lists them",
            None => "changes since the connection was lost",
        };
        log::log!(self.level(), "publishing {} {found}", events.len());
        self.shared.publish(events).await;
        self.shared.stats().enter(SourceState::Connected);
        // The waiting task may have ended.
        self.connected.take().map(|connected| connected.send(()));
    }

    /// Reports that the Manager is away, so that clients that join a room do not wait for it.
    async fn lose_touch(&mut self, was_connected: bool) {
        self.shared.stats().enter(SourceState::Away);
        self.rooms.lose_touch();
        self.sent.lose_touch();
        if was_connected {
            let unknown = FarmEvent::FarmStatus(Payload::new(FarmStatusReport { status: "unknown".into() }));
            self.sent.admit(&unknown);
            self.shared.publish(vec![unknown]).await;
        }
    }
}

/// Returns whether an answer accepts a subscription. A refusal is a text with the reason.
fn is_ok(args: &[Box<RawValue>]) -> bool {
    args.first().and_then(|answer| serde_json::from_str::<String>(answer.get()).ok()).is_none_or(|text| text == "ok")
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
