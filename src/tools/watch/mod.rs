//! `watch`: what a server tells browsers, for the terminal.
//!
//! ```text
//! server ──▶ Client ──▶ Narrator (lines in colours) or one JSON object each ──▶ stdout
//! stdin ──▶ chat lines ──▶ Client ──▶ server
//! ```

mod chat_input;
mod narrator;
mod paint;
mod screen;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use fastrand::Rng;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::screen::Screen;
use crate::client::{Address, Backoff, Client, ConnectError, Disconnect, EmitError, Incoming, Limits};
use crate::farm::chat::CHAT_SENT;
use crate::farm::{ChatMessage, Op, Room, SubscriptionRequest};

/// What is subscribed to unless rooms are named.
const DEFAULT_ROOMS: [Room; 4] = [Room::Jobs, Room::Workers, Room::LastRendered, Room::WorkerTags];

/// Show live what happens on a farm; lines typed in are sent to its chat.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address of the server, or of a Flamenco Manager
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub url: Address,

    /// Room to look into: Jobs, Workers, Last-Rendered, Worker-Tags, job-<uuid> or tasklog-<uuid>; may be given several
    /// times [default: the first four]
    #[arg(long = "room", value_name = "ROOM")]
    pub rooms: Vec<Room>,

    /// Print one JSON object an event, {"time", "event", "args"}
    #[arg(long)]
    pub json: bool,

    /// Send the lines of stdin to the chat even if it is no terminal
    #[arg(long)]
    pub chat: bool,

    /// Name to chat under
    #[arg(long, value_name = "NAME", env = "USER", default_value = "somebody", hide_env_values = true)]
    pub name: String,
}

/// Why there is nothing more to see.
#[derive(Debug, Error)]
pub enum WatchError {
    #[error("cannot start: {0}")]
    Start(io::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("{0} cannot be watched: {1}")]
    Hopeless(Address, ConnectError),
}

/// Shows what happens until it is interrupted. That nobody reads any more is no error.
pub fn run(options: &Options) -> Result<(), WatchError> {
    let typed = if options.chat || io::stdin().is_terminal() {
        chat_input::lines(io::stdin()).map_err(WatchError::Start)?
    } else {
        chat_input::none()
    };
    let screen = Screen::new(options.json, options.url.clone(), anstream::stdout());
    let ended = actix_rt::System::new().block_on(async {
        let mut watch = Watch { options, screen, typed, client: None, said: String::new() };
        let ended = tokio::select! {
            result = watch.forever() => result,
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
    /// Connects, shows, and connects again; ends only when nothing can be shown any more, or never could.
    async fn forever(&mut self) -> Result<(), WatchError> {
        let (backoff, mut rng) = (Backoff::default(), Rng::new());
        let (mut failures, mut was_there) = (0, false);
        loop {
            match Client::connect(&self.options.url, Limits::default()).await {
                Ok(client) => {
                    (failures, was_there) = (0, true);
                    self.say(format!("connected to {}", self.options.url))?;
                    let client = self.client.insert(client);
                    let reason = match subscribe(client, &self.options.rooms) {
                        Ok(asked) => self.show(&asked).await?,
                        Err(_) => Disconnect::NotReading,
                    };
                    self.client = None;
                    self.say(format!("{reason}; connecting again"))?;
                }
                Err(error @ ConnectError::Untrusted(_)) if !was_there => {
                    return Err(WatchError::Hopeless(self.options.url.clone(), error));
                }
                Err(error) => self.say(format!("{error}; trying again"))?,
            }
            failures += 1;
            sleep(backoff.wait(failures, &mut rng)).await;
        }
    }

    /// Shows what comes until the connection ends, and says why it did. `asked` are the rooms that were subscribed to.
    async fn show(&mut self, asked: &HashMap<u64, Room>) -> io::Result<Disconnect> {
        let Self { options, screen, typed, client, .. } = self;
        let Some(client) = client else { return Ok(Disconnect::Closed(String::new())) };
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
        if notice == self.said {
            return Ok(());
        }
        self.screen.notice(&notice)?;
        self.said = notice;
        Ok(())
    }
}

/// Subscriptions belong to a connection: each new one needs them again. Tells under which ids they will be answered.
fn subscribe(client: &mut Client, rooms: &[Room]) -> Result<HashMap<u64, Room>, EmitError> {
    let rooms = if rooms.is_empty() { DEFAULT_ROOMS.as_slice() } else { rooms };
    let mut asked = HashMap::new();
    for room in rooms {
        // Nobody has to ask for the chat.
        if let Some(argument) = (SubscriptionRequest { op: Op::Subscribe, room: *room }).to_argument() {
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
