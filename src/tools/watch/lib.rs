//! `watch`: prints incoming events in the terminal.
//!
//! ```text
//! server ──▶ Client ──▶ Narrator (lines in colours) or one JSON object each ──▶ stdout
//! stdin ──▶ chat lines ──▶ Client ──▶ server
//! ```
#![allow(rustdoc::invalid_html_tags, reason = "--help prints these texts as they are")]

mod broker;
mod chat_input;
mod fit;
mod narrator;
mod paint;
mod screen;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use fastrand::Rng;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::screen::Screen;
use client::mqtt::{Broker, InvalidBroker, MqttError};
use client::{
    Address, Backoff, Client, ConnectError, ConnectionEnd, EmitError, Header, Incoming, InvalidAddress, Limits,
    TrustOptions,
};
use farm::chat::CHAT_SENT;
use farm::{ChatMessage, Op, Room, SubscriptionRequest};

/// Print the live events of a farm; typed lines are sent to its chat
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address of the server, of a Flamenco Manager, or of an MQTT broker (mqtt://broker:1883)
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub url: Place,

    /// Room to subscribe to: Jobs, Workers, Last-Rendered, Worker-Tags, job-<uuid> or tasklog-<uuid>; may be given several
    /// times [default: the first four]
    #[arg(long = "room", value_name = "ROOM")]
    pub rooms: Vec<Room>,

    /// Beginning of the topics at an MQTT broker
    #[arg(long, value_name = "TOPIC", default_value = "flamenco")]
    pub mqtt_prefix: String,

    /// Print one JSON object per event, {"time", "event", "args"}
    #[arg(long)]
    pub json: bool,

    /// Send the lines of stdin to the chat even if it is not a terminal
    #[arg(long)]
    pub chat: bool,

    /// Header of the requests to a server, for one behind a log-in: 'Cookie: session=…' or 'Authorization: Bearer …';
    /// may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,

    #[command(flatten)]
    pub trust: TrustOptions,

    /// Name for chat messages
    #[arg(long, value_name = "NAME", env = "USER", default_value = "somebody", hide_env_values = true)]
    pub name: String,
}

/// Where the events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Server(Address),
    Broker(Broker),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `ws` and `wss` are servers here, whose addresses may begin with them.
        let is_broker = ["mqtt:", "mqtts:"].iter().any(|scheme| text.starts_with(scheme));
        if is_broker {
            text.parse().map(Self::Broker).map_err(|error: InvalidBroker| error.to_string())
        } else {
            text.parse().map(Self::Server).map_err(|error: InvalidAddress| error.to_string())
        }
    }
}

/// Why `watch` ended.
#[derive(Debug, Error)]
pub enum WatchError {
    #[error("cannot start: {0}")]
    Start(io::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("{0} cannot be watched: {1}")]
    Hopeless(Box<Address>, ConnectError),
    #[error("{0} cannot be watched: {1}")]
    Broker(String, MqttError),
}

/// Prints events until it is interrupted. A closed output is not an error.
///
/// # Errors
///
/// The server or broker cannot be watched at all, as opposed to not now, or the output cannot be
/// written.
pub fn run(options: &Options) -> Result<(), WatchError> {
    options.trust.apply().map_err(WatchError::Start)?;
    let typed = if options.chat || io::stdin().is_terminal() {
        chat_input::lines(io::stdin()).map_err(WatchError::Start)?
    } else {
        chat_input::none()
    };
    let address = if let Place::Server(address) = &options.url { Some(address.clone()) } else { None };
    let stdout = anstream::stdout();
    let columns = || terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| width.0.into());
    let screen = Screen::new(options.json, address, stdout.is_terminal().then_some(columns), stdout);
    let ended = actix_rt::System::new().block_on(async {
        let mut watch = Watch { options, screen, typed, client: None, said: String::new() };
        let ended = tokio::select! {
            result = watch.run() => result,
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(WatchError::Output),
        };
        if let Some(client) = watch.client {
            client.close().await;
        }
        ended
    });
    match ended {
        Err(WatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

struct Watch<'a, W> {
    options: &'a Options,
    screen: Screen<W>,
    typed: mpsc::Receiver<String>,
    /// The connection, while there is one.
    client: Option<Client>,
    /// The last notice about the connection: while it stays the same, one is enough.
    said: String,
}

impl<W: io::Write> Watch<'_, W> {
    async fn run(&mut self) -> Result<(), WatchError> {
        match &self.options.url {
            Place::Server(address) => self.forever(&address.clone().with_headers(&self.options.headers)).await,
            Place::Broker(broker) => {
                broker::forever(broker, &self.options.mqtt_prefix, &mut self.screen, &mut self.said).await
            }
        }
    }

    /// Connects, shows, and connects again; ends only when nothing can be shown any more, or never could.
    async fn forever(&mut self, address: &Address) -> Result<(), WatchError> {
        let (backoff, mut rng) = (Backoff::default(), Rng::new());
        let (mut failures, mut was_there) = (0, false);
        loop {
            match Client::connect(address, Limits::default()).await {
                Ok(client) => {
                    (failures, was_there) = (0, true);
                    self.say(format!("connected to {address}"))?;
                    let client = self.client.insert(client);
                    let reason = match subscribe(client, &self.options.rooms) {
                        Ok(asked) => self.show(&asked).await?,
                        Err(_) => ConnectionEnd::NotReading,
                    };
                    self.client = None;
                    self.say(format!("{reason}; connecting again"))?;
                }
                Err(error @ ConnectError::Untrusted(_)) if !was_there => {
                    return Err(WatchError::Hopeless(Box::new(address.clone()), error));
                }
                Err(error) => self.say(format!("{error}; trying again"))?,
            }
            failures += 1;
            sleep(backoff.wait(failures, &mut rng)).await;
        }
    }

    /// Shows what comes until the connection ends, and says why it did. `asked` are the rooms that were subscribed to.
    async fn show(&mut self, asked: &HashMap<u64, Room>) -> io::Result<ConnectionEnd> {
        let Self { options, screen, typed, client, .. } = self;
        let Some(client) = client else { return Ok(ConnectionEnd::Closed(String::new())) };
        loop {
            tokio::select! {
                incoming = client.next() => match incoming {
                    Ok(Incoming::Event { name, args }) => screen.event(&name, &args)?,
                    Ok(Incoming::Ack { id, args }) => {
                        if let Some(refusal) = refusal(&args) {
                            let what = asked.get(&id).map_or_else(|| "chat".to_owned(), Room::to_string);
                            screen.notice(&format!("{what}: the server answers {refusal:?}"))?;
                        }
                    }
                    Err(reason) => return Ok(reason),
                },
                Some(text) = typed.recv() => {
                    let message = ChatMessage { name: options.name.clone(), text };
                    if client.emit_with_ack("/chat", &message).is_err() {
                        screen.notice("the message was not sent: the server does not read")?;
                    }
                }
            }
        }
    }

    fn say(&mut self, notice: String) -> io::Result<()> {
        say(&mut self.screen, &mut self.said, notice)
    }
}

/// Prints a notice about the connection, unless it was the last one.
fn say<W: io::Write>(screen: &mut Screen<W>, said: &mut String, notice: String) -> io::Result<()> {
    if notice != *said {
        screen.notice(&notice)?;
        *said = notice;
    }
    Ok(())
}

/// Subscribes on a new connection, because subscriptions end with their connection. Returns the ids
/// of the expected acknowledgements.
fn subscribe(client: &mut Client, rooms: &[Room]) -> Result<HashMap<u64, Room>, EmitError> {
    let rooms = if rooms.is_empty() { Room::FIXED.as_slice() } else { rooms };
    let mut asked = HashMap::new();
    for room in rooms {
        // The chat room needs no subscription.
        if let Some(argument) = (SubscriptionRequest { op: Op::Subscribe, room: *room, state: false }).to_argument() {
            asked.insert(client.emit_with_ack("/subscription", &RawValue::from_string(argument)?)?, *room);
        }
    }
    Ok(asked)
}

/// The text of an answer that says no.
fn refusal(args: &[Box<RawValue>]) -> Option<String> {
    let answer: String = serde_json::from_str(args.first()?.get()).ok()?;
    (answer != "ok" && answer != CHAT_SENT).then_some(answer)
}
