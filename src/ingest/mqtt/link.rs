//! The connection to the broker: connects, subscribes, publishes, acknowledges.
//!
//! ```text
//!          connect            SUBACK
//! Away ─────────────▶ Comparing ─────▶ Connected
//!  ▲ (patience.wait)      │                │
//!  └── the connection ends┴────────────────┘   the farm becomes `unknown`
//! ```

use std::pin::pin;

use actix_rt::time::sleep;
use fastrand::Rng;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    super::{allowance::Allowance, patience::Patience},
    MqttContext, advice,
    decoder::{Decoder, Published},
};
use crate::{
    client::mqtt::{Connection, Incoming, Message, MqttError, RECEIVE_MAXIMUM, Sender},
    clock, faults,
    stats::{MqttStats, Source, SourceState, SourceStats},
};

/// Messages between the connection and the publishers. Messages with an acknowledgement never fill
/// it, so the connection keeps its heartbeat however long they take.
const QUEUE: usize = 2 * RECEIVE_MAXIMUM as usize;

/// The number of connections that are logged, at once and per interval.
const LOGGED_CONNECTIONS: u32 = 5;
const LOGGED_CONNECTIONS_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// The link to one broker.
pub(super) struct Link {
    shared: MqttContext,
    decoder: Decoder,
    stopped: watch::Receiver<bool>,
    /// Waits for the first connection.
    connected: Option<oneshot::Sender<()>>,
    log: Allowance,
    rng: Rng,
}

impl Link {
    pub(super) fn new(
        shared: MqttContext,
        stopped: watch::Receiver<bool>,
        connected: Option<oneshot::Sender<()>>,
    ) -> Self {
        let published = shared.published.as_ref().map(|published| published.of_mqtt());
        let decoder = Decoder::new(published.unwrap_or_else(|| Published::new(&shared.prefix)));
        let log = Allowance::new(LOGGED_CONNECTIONS, LOGGED_CONNECTIONS_EVERY, clock::now());
        Self { shared, decoder, stopped, connected, log, rng: Rng::new() }
    }

    /// Runs until the server shuts down.
    pub(super) async fn run(mut self) {
        let (mut patience, mut complaint) = (Patience::default(), String::new());
        // Resumed connections in a row that the broker soon closed.
        let mut rejected = 0_u32;
        let mut had_session = false;
        let mut stopped = self.stopped.clone();
        let is_stopped = async move { drop(stopped.wait_for(|is_stopped| *is_stopped).await) };
        let mut is_stopped = pin!(is_stopped);
        loop {
            let opened = tokio::select! {
                opened = Connection::open(&self.shared.broker, &self.shared.session) => opened,
                () = &mut is_stopped => return,
            };
            let (error, is_worth_a_line) = match opened {
                Ok(connection) => {
                    let connected_at = clock::now();
                    self.mqtt_stats().connections.add(1);
                    let is_logged = self.log.take(connected_at).is_some();
                    if is_logged {
                        let (broker, prefix) = (&self.shared.broker, &self.shared.prefix);
                        log::info!("taking events from the MQTT broker at {broker}, topics {prefix}/#");
                    }
                    self.decoder.begin();
                    let is_resumed = connection.is_resumed;
                    if !is_resumed && std::mem::replace(&mut had_session, true) {
                        self.shared.sink.begin_session().await;
                    }
                    let Some(mut error) = self.listen(connection, is_stopped.as_mut()).await else { return };
                    let is_short = patience.ended(clock::now().saturating_duration_since(connected_at));
                    self.stats().enter(SourceState::Away);
                    self.shared.sink.lose_touch().await;
                    // Mosquitto does not say that another client took the session over. If it did not
                    // fail either, it kept the session.
                    let is_closed = is_short && is_resumed && matches!(error, MqttError::Closed);
                    rejected = if is_closed { rejected + 1 } else { 0 };
                    if rejected > 1 {
                        error = MqttError::TakenOver;
                    }
                    let is_new = rejected == 2;
                    (error, is_logged || is_new)
                }
                Err(error) => {
                    patience.failed();
                    let is_new = error.to_string() != complaint;
                    (error, is_new)
                }
            };
            complaint = error.to_string();
            let wait = patience.wait(&mut self.rng);
            if is_worth_a_line {
                let (broker, advice, seconds) = (&self.shared.broker, advice(&error), wait.as_secs_f32());
                log::warn!(
                    "no events from the MQTT broker at {broker}: {error}{advice}; next attempt in {seconds:.1} s"
                );
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut is_stopped => return,
            }
        }
    }

    /// Publishes what comes until the connection ends. Returns why it did, or `None` if the server
    /// shuts down.
    async fn listen(&mut self, mut connection: Connection, is_stopped: impl Future<Output = ()>) -> Option<MqttError> {
        self.stats().enter(SourceState::Comparing);
        let (stats, mut connected) = (self.stats(), self.connected.take());
        if connection.is_resumed {
            are_subscribed(stats, &mut connected);
        } else if let Err(error) = connection.subscribe(&format!("{}/#", self.shared.prefix)) {
            return Some(error);
        }
        let sender = connection.sender();
        let (queue, messages) = mpsc::channel(QUEUE);
        let reading = async {
            let ended = read(&mut connection, queue, stats, connected).await;
            (ended, connection)
        };
        let publishing = self.publish(messages, sender);
        // Both go on until the end: a message is never lost between them.
        let (mut reading, mut publishing, mut is_stopped) = (pin!(reading), pin!(publishing), pin!(is_stopped));
        let mut is_published = false;
        loop {
            tokio::select! {
                (ended, _) = &mut reading => {
                    if !is_published {
                        publishing.await;
                    }
                    return Some(ended);
                }
                () = &mut publishing, if !is_published => is_published = true,
                () = &mut is_stopped => return None,
            }
        }
    }

    /// Publishes messages in their order, and acknowledges them, until the connection ends.
    async fn publish(&mut self, mut messages: mpsc::Receiver<Message>, sender: Sender) {
        while let Some(first) = messages.recv().await {
            faults::running("mqtt");
            let mut batch = vec![first];
            while let Ok(message) = messages.try_recv() {
                batch.push(message);
            }
            let (stats, mqtt_stats) = (self.stats(), self.mqtt_stats());
            let decoder = &mut self.decoder;
            let events = batch.iter().filter_map(|message| decoder.decode(message, stats, mqtt_stats)).collect();
            self.shared.sink.publish(events).await;
            batch.iter().for_each(|message| sender.acknowledge(message));
        }
    }

    fn stats(&self) -> &'static SourceStats {
        self.shared.intake.stats().source(Source::Mqtt)
    }

    fn mqtt_stats(&self) -> &'static MqttStats {
        &self.shared.intake.stats().mqtt
    }
}

/// Passes messages on until the connection ends.
async fn read(
    connection: &mut Connection,
    queue: mpsc::Sender<Message>,
    stats: &SourceStats,
    mut connected: Option<oneshot::Sender<()>>,
) -> MqttError {
    loop {
        match connection.next().await {
            // The queue closes only after this future.
            Ok(Incoming::Message(message)) => drop(queue.send(message).await),
            Ok(Incoming::Subscribed) => are_subscribed(stats, &mut connected),
            Ok(Incoming::Published) => {}
            Err(error) => return error,
        }
    }
}

fn are_subscribed(stats: &SourceStats, connected: &mut Option<oneshot::Sender<()>>) {
    stats.enter(SourceState::Connected);
    // The waiting task may have ended.
    connected.take().map(|connected| connected.send(()));
}
