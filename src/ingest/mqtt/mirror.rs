//! Publishes all accepted events to an MQTT broker, as Flamenco 3.5 and later does.
//!
//! ```text
//! backplane ──▶ queue (QUEUE events; full: dropped and counted) ──▶ Connection ──▶ broker
//! ```
//!
//! Of several servers one publishes, in the order of their stream. The others keep the newest events, and
//! the next one goes on after the last event that it heard of.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use bytes::Bytes;
use fastrand::Rng;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    super::{allowance::Allowance, patience::Patience},
    MqttOptions, RESTART_PAUSE, advice,
};
use crate::{
    actors::Hub,
    backplane::Leadership,
    client::mqtt::{Broker, Connection, Incoming, MqttError, RECEIVE_MAXIMUM, Sender, SessionOptions},
    clock,
    farm::{FarmEvent, mqtt},
    faults,
    history::Offset,
    stats::{SourceState, Stats},
};

/// The maximum number of events that wait for the broker.
const QUEUE: usize = 4096;

/// The maximum number of messages that the broker has not acknowledged yet.
const IN_FLIGHT: usize = RECEIVE_MAXIMUM as usize;

/// How long waiting events may take at shutdown.
const FLUSH: Duration = Duration::from_secs(1);

const LOGGED_CONNECTIONS: u32 = 5;
const LOGGED_CONNECTIONS_EVERY: Duration = Duration::from_secs(60);

/// Queues events for the broker. Never waits.
#[derive(Debug, Clone)]
pub struct Mirror {
    queue: Arc<Queue>,
    stats: &'static Stats,
}

/// Events that wait for the broker.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With their offsets in the stream of several servers.
    events: VecDeque<(Option<Offset>, Arc<FarmEvent>)>,
    /// Whether this server publishes them. Otherwise another one does, and the newest ones are kept in case
    /// it fails.
    is_my_turn: bool,
}

impl Mirror {
    /// Queues an event. If too many wait, drops and counts it.
    pub fn publish(&self, event: &Arc<FarmEvent>, offset: Option<Offset>) {
        if !mqtt::carries(event.kind()) {
            return;
        }
        let mut waiting = self.queue.waiting();
        if waiting.events.len() >= QUEUE {
            if waiting.is_my_turn {
                self.stats.mirror.dropped.add(1);
                return;
            }
            waiting.events.pop_front();
        }
        waiting.events.push_back((offset, event.clone()));
        self.queue.grown.notify_one();
    }
}

impl Queue {
    /// Begins a turn of this server: what another one published is not published again.
    fn begin(&self, mirrored: usize) {
        let mut waiting = self.waiting();
        waiting.is_my_turn = true;
        waiting.events.retain(|(offset, _)| offset.is_none_or(|offset| offset > mirrored as Offset));
    }

    fn end(&self) {
        self.waiting().is_my_turn = false;
    }

    fn pop(&self) -> Option<(Option<Offset>, Arc<FarmEvent>)> {
        self.waiting().events.pop_front()
    }

    /// Waits for the next event. May be cancelled.
    async fn next(&self) -> (Option<Offset>, Arc<FarmEvent>) {
        loop {
            if let Some(event) = self.pop() {
                return event;
            }
            self.grown.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mirror that runs.
pub struct RunningMirror {
    stop: watch::Sender<bool>,
    /// Closes when the mirror has ended.
    ended: mpsc::Receiver<()>,
}

impl RunningMirror {
    /// Publishes what waits, within limits, and ends the connection.
    pub async fn drain(mut self) {
        let _ = self.stop.send(true);
        let _ = self.ended.recv().await;
    }
}

/// Returns the mirror, and what publishes its events, if the options ask for one.
///
/// # Errors
///
/// A file that the options name cannot be used, or the events would come back.
pub fn mirror(options: &MqttOptions, stats: &'static Stats) -> io::Result<Option<(Mirror, Publisher)>> {
    let Some(broker) = options.mqtt_publish.clone() else { return Ok(None) };
    if options.mqtt.as_ref().is_some_and(|source| source.host_and_port() == broker.host_and_port()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "--mqtt and --mqtt-publish name the same broker, so every event would come back",
        ));
    }
    let mut session = options.session()?;
    session.client_id.push_str("-publisher");
    session.expiry = Duration::ZERO;
    stats.mirror.enter(SourceState::Away);
    let queue = Arc::<Queue>::default();
    let (prefix, is_retained) = (options.mqtt_prefix.clone(), options.mqtt_retain);
    let publisher = Publisher { broker, session, prefix, is_retained, stats, queue: queue.clone() };
    Ok(Some((Mirror { queue, stats }, publisher)))
}

/// Publishes the events of the mirror.
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    session: SessionOptions,
    prefix: String,
    is_retained: bool,
    stats: &'static Stats,
    queue: Arc<Queue>,
}

impl Publisher {
    /// Starts to publish whenever it is this server's turn.
    pub fn start(self, hub: &Hub, leadership: Leadership) -> RunningMirror {
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = mpsc::channel(1);
        hub.supervisor.keep("mqtt-mirror", move |is_restart| {
            let (publisher, leadership) = (self.clone(), leadership.clone());
            let (stopped, alive) = (stopped.clone(), alive.clone());
            async move {
                if is_restart {
                    sleep(RESTART_PAUSE).await;
                }
                publisher.take_turns(leadership, stopped).await;
                drop(alive);
            }
        });
        RunningMirror { stop, ended }
    }

    async fn take_turns(&self, mut leadership: Leadership, stopped: watch::Receiver<bool>) {
        let mut is_stopped = stopped.clone();
        loop {
            let stand_by = || self.stats.mirror.enter(SourceState::Standby);
            let mut turn = tokio::select! {
                turn = leadership.begin(stand_by) => turn,
                _ = is_stopped.wait_for(|is_stopped| *is_stopped) => return,
            };
            self.stats.mirror.enter(SourceState::Away);
            self.queue.begin(self.stats.backplane.mirrored.get());
            let is_over = tokio::select! {
                () = self.run(stopped.clone()) => true,
                () = turn.ended() => false,
            };
            self.queue.end();
            if is_over {
                return;
            }
        }
    }

    /// Publishes until the server shuts down.
    async fn run(&self, stopped: watch::Receiver<bool>) {
        let (mut patience, mut rng, mut complaint) = (Patience::default(), Rng::new(), String::new());
        let mut log = Allowance::new(LOGGED_CONNECTIONS, LOGGED_CONNECTIONS_EVERY, clock::now());
        let mut waiting = stopped.clone();
        let mut is_stopped = pin!(async move { drop(waiting.wait_for(|is_stopped| *is_stopped).await) });
        loop {
            let opened = tokio::select! {
                opened = Connection::open(&self.broker, &self.session) => opened,
                () = &mut is_stopped => return,
            };
            let (error, is_worth_a_line) = match opened {
                Ok(connection) => {
                    let connected_at = clock::now();
                    let is_logged = log.take(connected_at).is_some();
                    if is_logged {
                        log::info!("publishing events to the MQTT broker at {}, topics {}/#", self.broker, self.prefix);
                    }
                    self.stats.mirror.enter(SourceState::Connected);
                    let ended = self.publish(connection, &stopped).await;
                    self.stats.mirror.enter(SourceState::Away);
                    patience.ended(clock::now().saturating_duration_since(connected_at));
                    let Some(error) = ended else { return };
                    (error, is_logged)
                }
                Err(error) => {
                    patience.failed();
                    let is_new = error.to_string() != complaint;
                    (error, is_new)
                }
            };
            complaint = error.to_string();
            let wait = patience.wait(&mut rng);
            if is_worth_a_line {
                let (broker, advice, seconds) = (&self.broker, advice(&error), wait.as_secs_f32());
                log::warn!("no events to the MQTT broker at {broker}: {error}{advice}; next attempt in {seconds:.1} s");
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut is_stopped => return,
            }
        }
    }

    /// Publishes until the connection ends. Returns why it did, or `None` if the server shuts down.
    async fn publish(&self, mut connection: Connection, stopped: &watch::Receiver<bool>) -> Option<MqttError> {
        let in_flight = Semaphore::new(IN_FLIGHT);
        let sender = connection.sender();
        let ended = {
            let driving = drive(&mut connection, &in_flight);
            let feeding = self.feed(&sender, &in_flight, stopped.clone());
            tokio::select! {
                error = driving => Some(error),
                () = feeding => None,
            }
        };
        self.stats.mirror.dropped.add((IN_FLIGHT - in_flight.available_permits()) as u64);
        if ended.is_none() {
            connection.close().await;
        }
        ended
    }

    /// Publishes events as the broker acknowledges them. Ends once the server shuts down and none is
    /// left, or `FLUSH` has passed.
    async fn feed(&self, sender: &Sender, in_flight: &Semaphore, mut stopped: watch::Receiver<bool>) {
        loop {
            let event = tokio::select! {
                event = self.queue.next() => event,
                _ = stopped.wait_for(|is_stopped| *is_stopped) => break,
            };
            self.send(event, sender, in_flight).await;
        }
        let flush = async {
            while let Some(event) = self.queue.pop() {
                self.send(event, sender, in_flight).await;
            }
            let _ = in_flight.acquire_many(IN_FLIGHT as u32).await;
        };
        let _ = timeout(FLUSH, flush).await;
    }

    async fn send(&self, (offset, event): (Option<Offset>, Arc<FarmEvent>), sender: &Sender, in_flight: &Semaphore) {
        faults::running("mqtt-mirror");
        self.stats.mirror.events.add(1);
        let event = &*event;
        let payload = Bytes::copy_from_slice(event.json().as_bytes());
        for topic in mqtt::topics(&self.prefix, event) {
            send(topic, payload.clone(), false, sender, in_flight).await;
        }
        if let Some((topic, exists)) = mqtt::state_topic(&self.prefix, event).filter(|_| self.is_retained) {
            // An empty payload removes what the broker holds.
            let payload = if exists { payload } else { Bytes::new() };
            send(topic, payload, true, sender, in_flight).await;
        }
        // Another server goes on after it.
        offset.into_iter().for_each(|offset| self.stats.backplane.mirrored.raise(offset as usize));
    }
}

async fn send(topic: String, payload: Bytes, is_retained: bool, sender: &Sender, in_flight: &Semaphore) {
    let permit = in_flight.acquire().await.expect("it is never closed");
    // The acknowledgement returns it.
    permit.forget();
    sender.publish(topic, payload, is_retained);
}

/// Performs the connection's work until it ends.
async fn drive(connection: &mut Connection, in_flight: &Semaphore) -> MqttError {
    let ended: Result<Infallible, MqttError> = async {
        loop {
            if let Incoming::Published = connection.next().await? {
                in_flight.add_permits(1);
            }
        }
    }
    .await;
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
