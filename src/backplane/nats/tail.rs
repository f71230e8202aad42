//! Reads the stream from an offset on, without a gap.
//!
//! ```text
//!            info of the stream         consumer from `last + 1`
//! Away ───────────────────────▶ Checked ───────────────────────▶ Following
//!  ▲   another epoch, or a gap:   │                                  │
//!  │   every session is closed    │                                  │
//!  └── no answer, 3 s of silence ─┴── a message is missing ──────────┘
//! ```
//!
//! The library's ordered consumers begin at 1 again when the server dies before their first message,
//! and hide gaps. So this is a plain ephemeral push consumer that is made anew from the last offset.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, UNIX_EPOCH},
};

use actix_rt::time::{sleep, timeout};
use async_nats::{
    Message, StatusCode,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, push},
        stream::{Info, PeerInfo},
    },
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::{
    super::{Apply, Outside},
    connection::Connection,
    entry::{self, Content},
};
use crate::{
    actors::{
        Hub,
        messages::{Accepted, BeginHistory, Enqueue, Lapse, Refuse},
    },
    clock,
    disconnect::Disconnect,
    history::{Place, Reached},
    stats::{Source, SourceState},
};

/// The interval of the consumer's heartbeats, and the silence after which it is made anew.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(3);

const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The maximum number of messages that are handed to the publishers together.
const MAX_RUN: usize = 512;

/// Where the node is in the stream. It outlives a panic of the task.
pub(super) struct Position {
    /// The stream's epoch, once there is one.
    epoch: Cell<Option<u64>>,
    last: Cell<u64>,
    /// When this node last had everything that was in the stream.
    heard: Cell<Instant>,
    reached: watch::Sender<Reached>,
}

impl Position {
    pub(super) fn new(reached: watch::Sender<Reached>) -> Self {
        Self { epoch: Cell::new(None), last: Cell::new(0), heard: Cell::new(clock::now()), reached }
    }

    fn hear(&self) {
        self.heard.set(clock::now());
    }

    fn advance(&self, last: u64) {
        self.last.set(last);
        self.reached.send_replace(Reached { epoch: self.epoch.get().unwrap_or_default(), offset: last });
    }
}

/// Follows the stream for as long as the server runs. `caught_up` is called once the node has
/// everything that was in the stream when it started.
pub(super) struct Tail {
    pub(super) connection: Arc<Connection>,
    pub(super) apply: Arc<Apply>,
    pub(super) hub: Arc<Hub>,
    pub(super) position: Position,
    pub(super) caught_up: watch::Sender<bool>,
}

impl Tail {
    pub(super) async fn run(&self) {
        let mut complained = false;
        loop {
            match self.connection.stream().await {
                Ok(info) => {
                    complained = false;
                    self.check(&info);
                    if let Err(error) = self.follow(info.state.last_sequence).await {
                        log::info!("reading the stream again after offset {}: {error}", self.position.last.get());
                    }
                }
                Err(problem) => {
                    if !std::mem::replace(&mut complained, true) {
                        log::warn!("the stream of NATS cannot be read: {problem}");
                    }
                }
            }
            self.hub.stats.backplane.enter(SourceState::Away);
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Compares the stream with what this node has of it. If something between is lost, every session
    /// is closed, because its client must not miss it silently.
    fn check(&self, info: &Info) {
        let epoch = epoch_of(info);
        let (first, newest) = (info.state.first_sequence.max(1), info.state.last_sequence);
        let before_first = (first - 1).min(newest);
        match self.position.epoch.get() {
            None => self.begin(epoch, before_first, None),
            Some(known) if known != epoch => self.begin(epoch, before_first, Some("the stream was lost and made anew")),
            Some(_) if self.position.last.get() > newest => {
                self.begin(epoch, before_first, Some("the end of the stream was lost"));
            }
            Some(_) if before_first > self.position.last.get() => {
                self.begin(epoch, before_first, Some("events were removed from the stream before they were read"));
            }
            Some(_) => {}
        }
    }

    fn begin(&self, epoch: u64, offset: u64, lost: Option<&str>) {
        if let Some(lost) = lost {
            self.hub.stats.backplane.lost.add(1);
            log::error!("{lost}: every client is closed, because it may have missed events");
        }
        let close = lost.map(|_| Disconnect::HistoryLost);
        let (now, wall) = (clock::now(), clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default());
        let began = now.checked_sub(wall.saturating_sub(Duration::from_nanos(epoch))).unwrap_or(now);
        self.hub.registry.enqueue(BeginHistory { epoch, offset, began, close });
        self.position.epoch.set(Some(epoch));
        self.position.advance(offset);
    }

    /// Reads messages until one is missing or there is silence. Returns why.
    async fn follow(&self, newest: u64) -> Result<(), String> {
        let (client, name) = (&self.connection.client, &self.connection.config.name);
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
        let config = push::Config {
            deliver_subject: inbox,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.position.last.get() + 1 },
            ack_policy: AckPolicy::None,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        let created = self.connection.context.create_consumer_on_stream(config, name).await;
        created.map_err(|error| error.to_string())?;
        let (mut delivered, stats) = (0, &self.hub.stats.backplane);
        stats.connections.add(1);
        let is_caught_up = |last| {
            if last >= newest {
                stats.enter(SourceState::Connected);
                self.caught_up.send_replace(true);
            } else {
                stats.enter(SourceState::Comparing);
            }
        };
        is_caught_up(self.position.last.get());
        loop {
            let first = match timeout(SILENCE, messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err("the subscription ended".to_owned()),
                Err(_) => return Err("NATS is silent".to_owned()),
            };
            let mut run = vec![first];
            while run.len() < MAX_RUN
                && let Some(Some(next)) = messages.next().now_or_never()
            {
                run.push(next);
            }
            let mut entries = Vec::with_capacity(run.len());
            let mut last = self.position.last.get();
            let (mut problem, mut has_new_relay) = (None, false);
            for message in run {
                if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
                    if self.silence() > SILENCE {
                        return Err("it is not known what the stream has".to_owned());
                    }
                    self.answer(&message).await;
                    continue;
                }
                match self.place(&message, last, &mut delivered) {
                    Ok(None) => {}
                    Ok(Some(place)) => {
                        last = place.offset;
                        has_new_relay |= entry::fence_of(&message) == Some(Source::Relay.as_str());
                        entries.extend(self.accept(&message, place));
                    }
                    Err(error) => {
                        problem = Some(error);
                        break;
                    }
                }
            }
            if last > self.position.last.get() {
                self.position.hear();
                let topic = |accepted: &Accepted| accepted.event.kind().topic();
                self.apply.apply(entries, topic, |run| run).await;
                if has_new_relay {
                    // Between two leaders nobody followed the rooms of jobs and logs.
                    self.hub.registry.enqueue(Lapse { room: None });
                }
                self.position.advance(last);
                self.position.hear();
                stats.offset.set(usize::try_from(last).unwrap_or(usize::MAX));
                is_caught_up(last);
            }
            if let Some(problem) = problem {
                return Err(problem);
            }
        }
    }

    /// Answers a request of flow control; a heartbeat while the consumer waits for an answer names it.
    async fn answer(&self, message: &Message) {
        let stalled = message.headers.as_ref().and_then(|headers| headers.get("Nats-Consumer-Stalled"));
        let reply = message
            .reply
            .as_ref()
            .map(|reply| reply.to_string())
            .or_else(|| stalled.map(|value| value.as_str().to_owned()));
        if let Some(reply) = reply {
            // If the connection is gone, so is the consumer.
            let _ = self.connection.client.publish(reply, Bytes::new()).await;
        }
    }

    /// Returns the place of a message, or `None` for one that this node has.
    fn place(&self, message: &Message, last: u64, delivered: &mut u64) -> Result<Option<Place>, String> {
        let reply = message.reply.as_deref().unwrap_or_default();
        let (offset, number, nanoseconds) = place_of(reply).ok_or("a message has no place")?;
        *delivered += 1;
        if number != *delivered {
            return Err("a message was lost on the way".to_owned());
        }
        if offset <= last {
            return Ok(None);
        }
        let micros = nanoseconds.saturating_sub(self.position.epoch.get().unwrap_or_default()) / 1000;
        if offset > last + 1 {
            // The consumer delivered everything that the stream has.
            let epoch = self.position.epoch.get().unwrap_or_default();
            self.begin(epoch, offset - 1, Some("events were removed from the stream before they were read"));
            return Err("the stream has a gap".to_owned());
        }
        Ok(Some(Place { offset, micros }))
    }

    fn accept(&self, message: &Message, place: Place) -> Option<Accepted> {
        if entry::fence_of(message).is_some() {
            return None;
        }
        match entry::decode(message) {
            Ok(Content::Event(event)) => {
                self.apply.count(&event);
                if entry::is_fenced(message) {
                    self.apply.is_of_outside(Outside::Event(&event));
                }
                // What was published before this node started is not new.
                if *self.caught_up.borrow() {
                    self.apply.is_new(&event, Some(place.offset));
                }
                let id = entry::decode_id(message.headers.as_ref());
                Some(Accepted { id, event, place: Some(place) })
            }
            Ok(Content::Note(note)) => {
                self.apply.is_of_outside(Outside::Note(&note));
                None
            }
            Err(error) => {
                if self.hub.stats.backplane.unread.get() == 0 {
                    log::warn!(
                        "offset {} of the stream cannot be decoded: {error}; such messages are dropped and counted",
                        place.offset
                    );
                }
                self.hub.stats.backplane.unread.add(1);
                None
            }
        }
    }

    /// Closes every session if nothing is heard of the stream for too long, and refuses new ones until
    /// something is.
    pub(super) async fn guard(&self, grace: Duration) {
        loop {
            sleep(RETRY_PAUSE).await;
            self.probe().await;
            let silence = self.silence();
            let was_cut_off = self.hub.cut_off.load(Ordering::Relaxed);
            if !was_cut_off && silence > grace {
                log::error!("nothing was heard of NATS for {} s: every client is closed", silence.as_secs());
                self.hub.cut_off.store(true, Ordering::Relaxed);
                self.hub.registry.enqueue(Refuse(Some(Disconnect::CutOff)));
            } else if was_cut_off && silence < SILENCE {
                log::info!("NATS is back");
                self.hub.registry.enqueue(Refuse(None));
                self.hub.cut_off.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Asks whether this node has everything, unless messages have just shown it. A consumer's heartbeats
    /// do not: a server of NATS that is cut off from the others goes on sending them.
    async fn probe(&self) {
        if self.silence() < HEARTBEAT {
            return;
        }
        let Connection { context, config, .. } = &*self.connection;
        if let Ok(Ok(stream)) = timeout(HEARTBEAT, context.get_stream(&config.name)).await {
            let info = stream.cached_info();
            let is_same = self.position.epoch.get() == Some(epoch_of(info));
            if is_same && has_majority(info) && info.state.last_sequence <= self.position.last.get() {
                self.position.hear();
            }
        }
    }

    fn silence(&self) -> Duration {
        clock::now().saturating_duration_since(self.position.heard.get())
    }
}

/// Returns when the stream was created, in nanoseconds since 1970.
fn epoch_of(info: &Info) -> u64 {
    info.created.unix_timestamp_nanos() as u64
}

/// Returns whether the answer is that of a leader with a majority of the servers that store the stream. Without
/// one a server answers from what it has.
fn has_majority(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let is_there = |peer: &&PeerInfo| !peer.active.is_zero() && peer.active < SILENCE;
    let there = 1 + cluster.replicas.iter().filter(is_there).count();
    cluster.leader.is_some() && 2 * there > 1 + cluster.replicas.len()
}

/// Returns the offset, the number of the delivery and the time in nanoseconds that JetStream puts into
/// the reply subject: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`,
/// with the domain and the account in front since version 2.
fn place_of(reply: &str) -> Option<(u64, u64, u64)> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let first = if tokens.len() >= 9 { 5 } else { 3 };
    let number = |at: usize| tokens.get(first + at)?.parse().ok();
    Some((number(0)?, number(1)?, number(2)?))
}

#[cfg(test)]
mod tests {
    use super::place_of;

    #[test]
    fn places_are_read_from_both_forms() {
        assert_eq!(place_of("$JS.ACK.s.c.1.7.3.99.0"), Some((7, 3, 99)));
        assert_eq!(place_of("$JS.ACK._.hash.s.c.1.7.3.99.0.token"), Some((7, 3, 99)));
        for reply in ["", "$JS.ACK", "$JS.ACK.s.c", "$JS.ACK.s.c.1.x.3.99.0"] {
            assert_eq!(place_of(reply), None, "{reply}");
        }
    }
}
