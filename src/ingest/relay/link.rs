//! The live connection to the Manager: made, kept, and made good for after it broke.

use std::{
    convert::Infallible,
    future::pending,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_rt::time::{sleep, sleep_until};
use fastrand::Rng;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{
    Shared, TaskLogs,
    api::ApiError,
    follow::Followers,
    reading::Reader,
    sent::Sent,
    snapshot::{Snapshot, Version},
    subscriptions::{Answered, Subscriptions},
    wanted::Wanted,
};
use crate::{
    client::{Backoff, Client, ConnectError, Disconnect, EmitError, Incoming, Limits},
    clock, disconnect,
    farm::{FarmEvent, FarmStatusReport, Payload, Room, Timestamp},
    stats::SourceState,
};

/// Rooms whose events are always relayed.
const ALWAYS: [Room; 4] = [Room::Jobs, Room::Workers, Room::LastRendered, Room::WorkerTags];

/// Events that are handed over together, when they are there already.
const MAX_BATCH: usize = 256;

/// How long after a failure the Manager is asked again for what was missed.
const COMPARE_AGAIN: Duration = Duration::from_secs(2);

/// Browsers whose Manager was replaced by one of another version are closed over this time, so that they do not all come back
/// at once.
const SPREAD: Duration = Duration::from_secs(2);

/// Relays events from one Manager.
pub(super) struct Relay {
    shared: Rc<Shared>,
    sent: Sent,
    wanted: Wanted,
    subscriptions: Subscriptions,
    followers: Followers,
    reader: Reader,
    /// Of the Manager that was there last.
    version: Option<Version>,
    /// Whoever waits for the first connection.
    connected: Option<oneshot::Sender<()>>,
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    NotConnected(#[from] ConnectError),
    #[error("{0}")]
    Disconnected(#[from] Disconnect),
}

type Asking = Pin<Box<dyn Future<Output = Result<Snapshot, ApiError>>>>;

/// How far it is with finding out what was missed.
enum Comparison {
    /// The Manager has yet to acknowledge the subscriptions: what happens meanwhile would be missed too.
    Subscribing,
    Asking(Asking),
    /// The Manager did not answer.
    Again(Instant),
    Done,
}

/// What happened.
enum Turn {
    Incoming(Result<Incoming, Disconnect>),
    Interest(Vec<(Room, bool)>),
    Answer(Result<Snapshot, ApiError>),
    Time,
}

impl Relay {
    pub(super) fn new(shared: Rc<Shared>, connected: Option<oneshot::Sender<()>>) -> Self {
        let mut subscriptions = Subscriptions::default();
        ALWAYS.into_iter().for_each(|room| subscriptions.want(room));
        let mut relay = Self {
            sent: Sent::default(),
            wanted: Wanted::default(),
            subscriptions,
            followers: Followers::new(shared.clone()),
            reader: Reader::default(),
            version: None,
            connected,
            shared,
        };
        for room in relay.shared.interest.occupied() {
            relay.shared.interest.set_supplied(room, false);
            relay.wanted.note(room, true, clock::now());
        }
        relay
    }

    pub(super) async fn run(mut self) -> Infallible {
        let (backoff, mut rng, mut failures) = (Backoff::default(), Rng::new(), 0);
        let mut complaint = String::new();
        loop {
            let (was_connected, broken) = match self.connect().await {
                Ok(client) => (true, self.listen(client).await),
                Err(broken) => (false, broken),
            };
            failures = if was_connected { 1 } else { failures + 1_u32 };
            // The same again and again is worth one line.
            let reason = broken.to_string();
            if was_connected || reason != complaint {
                log::warn!("the relay from the Manager at {} is down: {reason}", self.shared.manager);
            }
            complaint = reason;
            self.lose_touch(was_connected).await;
            self.pause(backoff.wait(failures, &mut rng)).await;
        }
    }

    /// Waits before the next try. Browsers come and go all the while.
    async fn pause(&mut self, time: Duration) {
        let mut over = std::pin::pin!(sleep(time));
        loop {
            tokio::select! {
                () = &mut over => return,
                changes = self.shared.interest.changes() => self.note_interest(changes),
            }
        }
    }

    async fn connect(&mut self) -> Result<Client, Broken> {
        let version = self.shared.api.version().await?;
        let client = Client::connect(&self.shared.manager, Limits::default()).await?;
        log::info!("relaying from the Manager at {}, version {}", self.shared.manager, version.as_str());
        self.meet(version);
        Ok(client)
    }

    /// Prepares for a Manager of this version.
    fn meet(&mut self, version: Version) {
        let before = self.version.replace(version);
        if before.is_some() && before != self.version {
            log::info!("the Manager's version has changed: browsers are told to come anew");
            let hub = self.shared.hub.clone();
            actix_rt::spawn(async move { hub.close_all(disconnect::Disconnect::ManagerChanged, SPREAD).await });
        }
        let rooms: Vec<Room> = self.wanted.rooms().collect();
        rooms.into_iter().for_each(|room| self.supply(room));
        self.subscriptions.reset();
    }

    /// Relays until the connection breaks.
    async fn listen(&mut self, mut client: Client) -> Broken {
        self.shared.stats().enter(SourceState::Comparing);
        let mut comparison = Comparison::Subscribing;
        loop {
            self.ask_for_rooms(&mut client);
            if matches!(comparison, Comparison::Subscribing) && self.subscriptions.is_complete() {
                comparison = self.begin_comparison();
            }
            let deadline = [self.wanted.deadline(), self.subscriptions.deadline(), comparison.deadline()];
            let deadline = deadline.into_iter().flatten().min();
            let turn = tokio::select! {
                incoming = client.next() => Turn::Incoming(incoming),
                changes = self.shared.interest.changes() => Turn::Interest(changes),
                answer = comparison.answer() => Turn::Answer(answer),
                () = at(deadline) => Turn::Time,
            };
            match turn {
                Turn::Incoming(Ok(incoming)) => {
                    if let Err(broken) = self.take_batch(incoming, &mut client).await {
                        return broken.into();
                    }
                }
                Turn::Incoming(Err(broken)) => return broken.into(),
                Turn::Interest(changes) => self.note_interest(changes),
                Turn::Answer(Ok(snapshot)) => {
                    self.compare(snapshot).await;
                    comparison = Comparison::Done;
                }
                Turn::Answer(Err(error)) => {
                    log::warn!("what was missed cannot be found out yet: {error}");
                    comparison = Comparison::Again(clock::now() + COMPARE_AGAIN);
                }
                Turn::Time => {
                    if comparison.deadline().is_some_and(|at| at <= clock::now()) {
                        comparison = self.begin_comparison();
                    }
                    self.tidy();
                }
            }
        }
    }

    /// Subscribes to what is wanted and unsubscribes from what is not, as far as the connection takes it.
    fn ask_for_rooms(&mut self, client: &mut Client) {
        while let Some(request) = self.subscriptions.next() {
            let argument = request.to_argument().and_then(|argument| RawValue::from_string(argument).ok());
            let argument = argument.expect("rooms that are subscribed to have an argument, which is JSON");
            match client.emit_with_ack("/subscription", &argument) {
                Ok(number) => self.subscriptions.asked(request, number, clock::now()),
                // What comes next from the Manager shows that it reads again.
                Err(EmitError::Backlog | EmitError::NotJson(_)) => return,
            }
        }
    }

    /// Takes what has come and what else is there already, and tells it.
    async fn take_batch(&mut self, first: Incoming, client: &mut Client) -> Result<(), Disconnect> {
        let mut events = Vec::new();
        let mut next = Some(Ok(first));
        let mut ended = Ok(());
        while let Some(incoming) = next {
            match incoming {
                Ok(incoming) => self.take(incoming, &mut events),
                Err(broken) => {
                    ended = Err(broken);
                    break;
                }
            }
            next = if events.len() < MAX_BATCH { client.next().now_or_never() } else { None };
        }
        self.shared.publish(events).await;
        ended
    }

    fn take(&mut self, incoming: Incoming, events: &mut Vec<FarmEvent>) {
        match incoming {
            Incoming::Ack { id, .. } => self.take_answer(id),
            Incoming::Event { name, args } => {
                let event = self.reader.read(&name, &args).filter(|event| self.admit(event));
                match event {
                    Some(event) => events.push(event),
                    None => self.shared.stats().dropped.add(1),
                }
            }
        }
    }

    fn admit(&mut self, event: &FarmEvent) -> bool {
        if let FarmEvent::LastRendered(image) = event {
            let job = image.fields.job_id;
            return self.sent.admit_image(job, self.subscriptions.is_in(Room::Job(job)), clock::now());
        }
        if let FarmEvent::TaskUpdate(task) = event {
            self.followers.wake(task.fields.id);
        }
        self.sent.admit(event)
    }

    fn take_answer(&mut self, number: u64) {
        match self.subscriptions.answered(number) {
            Some(Answered::Joined(room)) => self.shared.interest.set_supplied(room, true),
            Some(Answered::Left(room)) => self.shared.interest.set_supplied(room, false),
            None => {}
        }
    }

    fn note_interest(&mut self, changes: Vec<(Room, bool)>) {
        for (room, is_occupied) in changes {
            if self.wanted.note(room, is_occupied, clock::now()) {
                self.supply(room);
            }
        }
    }

    /// Sees to it that what happens reaches the room.
    fn supply(&mut self, room: Room) {
        match room {
            Room::TaskLog(task) => match self.task_logs() {
                TaskLogs::Subscribe => {
                    self.followers.leave(task);
                    self.subscriptions.want(room);
                }
                TaskLogs::Follow => {
                    self.subscriptions.unwant(room);
                    self.followers.follow(task);
                }
                TaskLogs::Auto | TaskLogs::Off => self.shared.interest.set_supplied(room, true),
            },
            Room::Job(_) | Room::Jobs | Room::Workers | Room::LastRendered | Room::WorkerTags | Room::Chat => {
                self.subscriptions.want(room);
            }
        }
    }

    fn task_logs(&self) -> TaskLogs {
        match self.shared.task_logs {
            TaskLogs::Auto if self.version.as_ref().is_some_and(Version::sends_task_logs) => TaskLogs::Subscribe,
            TaskLogs::Auto => TaskLogs::Follow,
            chosen @ (TaskLogs::Subscribe | TaskLogs::Follow | TaskLogs::Off) => chosen,
        }
    }

    /// Gives up rooms that nobody was in for a while, and answers that do not come.
    fn tidy(&mut self) {
        let now = clock::now();
        while let Some(room) = self.wanted.expire(now) {
            self.shared.interest.set_supplied(room, false);
            self.subscriptions.unwant(room);
            if let Room::TaskLog(task) = room {
                self.followers.leave(task);
            }
        }
        while let Some(number) = self.subscriptions.overdue(now) {
            log::debug!("the Manager has not answered request {number}");
            self.take_answer(number);
        }
    }

    fn begin_comparison(&mut self) -> Comparison {
        self.sent.begin_comparison();
        let shared = self.shared.clone();
        Comparison::Asking(Box::pin(async move { shared.api.snapshot().await }))
    }

    /// Tells what was missed.
    async fn compare(&mut self, snapshot: Snapshot) {
        let wanted = &self.wanted;
        let now = Timestamp::from(jiff::Timestamp::try_from(clock::wall()).unwrap_or_default());
        let events = self.sent.compare(snapshot, |job| wanted.is_watched(Room::Job(job)), now);
        log::info!("{} things have changed at the Manager meanwhile", events.len());
        self.shared.publish(events).await;
        self.shared.stats().enter(SourceState::Connected);
        // Nobody may be waiting any more.
        self.connected.take().map(|connected| connected.send(()));
    }

    /// The Manager is away: browsers are told so, and those who come to a room do not wait for it.
    async fn lose_touch(&mut self, was_connected: bool) {
        self.shared.stats().enter(SourceState::Away);
        let subscribed = self.wanted.rooms().filter(|&room| self.subscriptions.is_in(room));
        subscribed.for_each(|room| self.shared.interest.set_supplied(room, false));
        self.sent.lose_touch();
        if was_connected {
            let unknown = FarmEvent::FarmStatus(Payload::new(FarmStatusReport { status: "unknown".into() }));
            self.sent.admit(&unknown);
            self.shared.publish(vec![unknown]).await;
        }
    }
}

impl Comparison {
    /// When it is to be begun again.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Again(at) => Some(*at),
            Self::Subscribing | Self::Asking(_) | Self::Done => None,
        }
    }

    /// What the Manager says, once it does.
    async fn answer(&mut self) -> Result<Snapshot, ApiError> {
        match self {
            Self::Asking(asking) => asking.await,
            Self::Subscribing | Self::Again(_) | Self::Done => pending().await,
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
