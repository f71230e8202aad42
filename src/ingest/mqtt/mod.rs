//! Events that a Flamenco Manager of 3.5 or later publishes to an MQTT broker.
//!
//! ```text
//! broker ──▶ Connection ──▶ queue (RECEIVE_MAXIMUM) ──▶ Decoder ──▶ Sink ──▶ PUBACK
//! ```
//!
//! A message is acknowledged after its event was published, so the broker repeats those that a
//! broken connection left unacknowledged, and the decoder drops repetitions. A server that cannot
//! keep up acknowledges later, and the broker holds the rest back.

mod decoder;
mod link;
mod mirror;
mod sink;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use actix_rt::time::timeout;
use clap::Args;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::decoder::Published;
use self::{link::Link, sink::Sink};
pub use self::{
    mirror::{Mirror, Publisher, RunningMirror, mirror},
    sink::{Fed, Feed, feed},
};
use super::{EventSource, Intake, SourceContext};
use crate::{
    client::{
        mqtt::{Broker, MqttError, SessionOptions},
        trust_only,
    },
    options::heading,
    stats::{Source, SourceState},
};

/// How long clients wait at the start for the first connection to the broker. After that they may
/// connect without it.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long the broker keeps messages for a server that is away. Older changes are of no use to a
/// page.
const SESSION_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// The pause before a source that failed is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The options of the MQTT source.
#[derive(Debug, Clone, Args)]
pub struct MqttOptions {
    /// Take the events that a Flamenco Manager of 3.5 or later publishes to this MQTT broker:
    /// mqtt://HOST:1883, with a user mqtt://NAME@HOST:1883, with TLS mqtts://HOST:8883, over WebSocket
    /// ws://HOST/PATH or wss://HOST/PATH
    #[arg(long, value_name = "URL", env = "WEBUPDATES_MQTT", hide_env_values = true, help_heading = heading::EVENTS)]
    pub mqtt: Option<Broker>,

    /// Beginning of the topics, as in the Manager's topic_prefix
    #[arg(long, value_name = "TOPIC", env = "WEBUPDATES_MQTT_PREFIX", default_value = "flamenco", value_parser = prefix, help_heading = heading::EVENTS, hide_short_help = true)]
    pub mqtt_prefix: String,

    /// Name of this server at the broker; two servers with one name disconnect each other
    #[arg(long, value_name = "ID", env = "WEBUPDATES_MQTT_CLIENT_ID", default_value = "flamenco-webupdates", help_heading = heading::EVENTS, hide_short_help = true)]
    pub mqtt_client_id: String,

    /// File with the broker's password, on one line
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_MQTT_PASSWORD_FILE", help_heading = heading::EVENTS, hide_short_help = true)]
    pub mqtt_password_file: Option<PathBuf>,

    /// PEM file with the authorities that may sign the broker's certificate, instead of the system's
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_MQTT_CA", help_heading = heading::EVENTS, hide_short_help = true)]
    pub mqtt_ca: Option<PathBuf>,

    /// Publish all events to this MQTT broker too, under the topics that a Manager of 3.5 or later uses
    #[arg(long, value_name = "URL", env = "WEBUPDATES_MQTT_PUBLISH", hide_env_values = true, help_heading = heading::EVENTS)]
    pub mqtt_publish: Option<Broker>,

    /// Also publish the last state of every job, worker and tag below PREFIX/state, retained
    #[arg(long, env = "WEBUPDATES_MQTT_RETAIN", requires = "mqtt_publish", num_args = 0..=1, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true, help_heading = heading::EVENTS, hide_short_help = true)]
    pub mqtt_retain: bool,
}

fn prefix(text: &str) -> Result<String, String> {
    let is_topic = !text.is_empty() && !text.starts_with(['/', '$']) && !text.ends_with('/');
    if is_topic && !text.contains(['+', '#', '\0']) {
        Ok(text.to_owned())
    } else {
        Err("not the beginning of a topic such as flamenco or site/farm".to_owned())
    }
}

impl MqttOptions {
    /// Reads the files that the options name.
    fn session(&self) -> io::Result<SessionOptions> {
        let named = |option: &str, file: &PathBuf, error: io::Error| {
            io::Error::new(error.kind(), format!("the file {} of {option}: {error}", file.display()))
        };
        let password =
            |file: &PathBuf| fs::read_to_string(file).map_err(|error| named("--mqtt-password-file", file, error));
        let tls = |file: &PathBuf| trust_only(file).map_err(|error| named("--mqtt-ca", file, error));
        Ok(SessionOptions {
            client_id: self.mqtt_client_id.clone(),
            expiry: SESSION_EXPIRY,
            password: self.mqtt_password_file.as_ref().map(password).transpose()?.map(|text| text.trim().to_owned()),
            tls: self.mqtt_ca.as_ref().map(tls).transpose()?,
        })
    }
}

/// An MQTT broker as a source.
#[derive(Debug)]
pub struct Mqtt {
    broker: Broker,
    options: MqttOptions,
    relay: Option<mpsc::Sender<Fed>>,
    running: Option<Running>,
}

/// The link while it runs.
#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    /// Closes when the link has ended.
    ended: mpsc::Receiver<()>,
}

impl Mqtt {
    /// Returns the source if there is a broker to connect to. `relay` is the way to the relay, if
    /// there is one.
    pub fn of(options: &MqttOptions, relay: Option<mpsc::Sender<Fed>>) -> Option<Self> {
        Some(Self { broker: options.mqtt.clone()?, options: options.clone(), relay, running: None })
    }
}

/// What the link needs, and what survives its restarts.
#[derive(Clone)]
struct MqttContext {
    broker: Broker,
    session: SessionOptions,
    prefix: String,
    intake: Arc<Intake>,
    sink: Sink,
    /// What was published, if the source may have run on another server.
    published: Option<Arc<super::Published>>,
}

impl EventSource for Mqtt {
    fn name(&self) -> Source {
        Source::Mqtt
    }

    /// Waits for the first connection to the broker, but no longer than `HEAD_START`.
    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>> {
        Box::pin(async {
            let shared = MqttContext {
                broker: self.broker.clone(),
                session: self.options.session()?,
                prefix: self.options.mqtt_prefix.clone(),
                intake: context.intake.clone(),
                sink: Sink::new(context.intake.clone(), self.relay.clone()),
                published: context.published.clone(),
            };
            let (stop, stopped) = watch::channel(false);
            let (alive, ended) = mpsc::channel(1);
            let (connected, first_connection) = oneshot::channel();
            let mut connected = Some(connected);
            shared.intake.stats().source(Source::Mqtt).enter(SourceState::Away);
            context.hub.supervisor.keep("mqtt", move |is_restart| {
                let (shared, stopped, alive) = (shared.clone(), stopped.clone(), alive.clone());
                let connected = connected.take();
                async move {
                    if is_restart {
                        actix_rt::time::sleep(RESTART_PAUSE).await;
                    }
                    run(shared, stopped, connected).await;
                    drop(alive);
                }
            });
            self.running = Some(Running { stop, ended });
            let _ = timeout(HEAD_START, first_connection).await;
            Ok(())
        })
    }

    fn drain(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(Running { stop, mut ended }) = self.running.take() {
                let _ = stop.send(true);
                let _ = ended.recv().await;
            }
        })
    }
}

/// Runs the link while it is this server's turn, until the server shuts down.
async fn run(shared: MqttContext, stopped: watch::Receiver<bool>, mut connected: Option<oneshot::Sender<()>>) {
    let stats = shared.intake.stats().source(Source::Mqtt);
    let mut leadership = shared.intake.leadership(Source::Mqtt);
    let mut is_stopped = stopped.clone();
    loop {
        let stand_by = || {
            stats.enter(SourceState::Standby);
            // The waiting task may have ended.
            connected.take().map(|connected| connected.send(()));
        };
        let mut turn = tokio::select! {
            turn = leadership.begin(stand_by) => turn,
            _ = is_stopped.wait_for(|is_stopped| *is_stopped) => return,
        };
        stats.enter(SourceState::Away);
        tokio::select! {
            () = Link::new(shared.clone(), stopped.clone(), connected.take()).run() => return,
            () = turn.ended() => {}
        }
    }
}

/// Returns what the user can do about an error, as the end of a sentence.
fn advice(error: &MqttError) -> &'static str {
    match error {
        MqttError::Unauthorized => ": check the user in --mqtt and the file of --mqtt-password-file",
        MqttError::Untrusted(_) => ", and --mqtt-ca one for this broker alone",
        MqttError::TakenOver => ": give each server a --mqtt-client-id of its own",
        MqttError::NotAllowed(_) => ": check --mqtt-prefix and the broker's access list",
        MqttError::Unreachable(_)
        | MqttError::Timeout
        | MqttError::NotAWebSocket(_)
        | MqttError::OldProtocol
        | MqttError::Refused(_)
        | MqttError::Ended(_)
        | MqttError::Closed
        | MqttError::Broken(_) => "",
    }
}
