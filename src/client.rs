//! A small Socket.IO v2 client over WebSocket, on the server's own protocol code.
//!
//! It has one owner, who calls [`Client::next`] again and again: that reads, writes what [`Client::emit`] has queued and
//! keeps the heartbeat. It does not reconnect by itself, because only its owner knows what to subscribe to again; how
//! long to wait in between is what [`Backoff`] says.
//!
//! It runs on an actix runtime, like the server.

mod address;
mod backoff;
mod conversation;
mod http;
mod message;
#[cfg(test)]
pub(crate) mod peer;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_codec::Framed;
use actix_http::ws;
use awc::BoxedSocket;
use awc::error::WsClientError;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::time::Sleep;

use self::conversation::{Conversation, Due, Received};
use self::message::{Assembly, Message};
use crate::clock;
use crate::protocol::ProtocolError;

pub use address::{Address, InvalidAddress};
pub use backoff::Backoff;
pub use http::{http_client, untrusted};

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for everything from the name's resolution to the server's welcome. Default 10 s.
    pub connect: Duration,
    /// Longest message that is taken from the server, in bytes; more ends the connection. Default 16 MiB: a worker may
    /// upload a log of megabytes at once.
    pub message: usize,
    /// Bytes that may wait for a server that does not read; more is refused. Default 1 MiB.
    pub unsent: usize,
}

/// What comes from the server.
#[derive(Debug)]
pub enum Incoming {
    /// An event and its arguments, each the JSON text that came.
    Event { name: String, args: Vec<Box<RawValue>> },
    /// The answer to what [`Client::emit_with_ack`] sent under this id.
    Ack { id: u64, args: Vec<Box<RawValue>> },
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("cannot connect: {0}")]
    Untrusted(String),
    #[error("the server answers with status {0} instead of opening a WebSocket")]
    Refused(u16),
    #[error("the server does not speak WebSocket: {0}")]
    NotAWebSocket(String),
    #[error("no welcome within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error(transparent)]
    Disconnected(#[from] Disconnect),
}

/// Why a connection ended. Whatever it is, connecting anew may help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Disconnect {
    #[error("the server closed the connection{}{}", if .0.is_empty() { "" } else { ": " }, .0)]
    Closed(String),
    #[error("the server sent the client away")]
    Dismissed,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("no sign of life within the ping time-out")]
    PingTimeout,
    #[error("the server does not read")]
    NotReading,
    #[error("a message is longer than the limit")]
    MessageTooLong,
    #[error("a message is not UTF-8")]
    NotUtf8,
    #[error("the server breaks the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Why an event was not queued.
#[derive(Debug, Error)]
pub enum EmitError {
    #[error("too much waits for the server to read it")]
    Backlog,
    #[error("the argument cannot be written as JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// A connection to the namespace `/` of a server.
pub struct Client {
    socket: Framed<BoxedSocket, ws::Codec>,
    conversation: Conversation,
    assembly: Assembly,
    /// Goes off when the conversation next has to look at the time.
    timer: Pin<Box<Sleep>>,
    /// Upper bound of the bytes that are queued and not written.
    unsent: usize,
    limits: Limits,
    acks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), message: 16 << 20, unsent: 1 << 20 }
    }
}

impl Client {
    /// Connects and waits until the server has let the client in.
    pub async fn connect(address: &Address, limits: Limits) -> Result<Self, ConnectError> {
        let attempt = async {
            let mut client = Self::open(address, limits).await?;
            client.welcome().await?;
            Ok(client)
        };
        tokio::time::timeout(limits.connect, attempt).await.unwrap_or(Err(ConnectError::Timeout(limits.connect)))
    }

    /// Queues an event with one argument.
    pub fn emit(&mut self, event: &str, argument: &impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, argument, "")
    }

    /// Queues an event with one argument and asks for an answer, which comes as [`Incoming::Ack`] with the id returned.
    pub fn emit_with_ack(&mut self, event: &str, argument: &impl Serialize) -> Result<u64, EmitError> {
        let id = self.acks;
        self.send_event(event, argument, &id.to_string())?;
        self.acks = self.acks.wrapping_add(1);
        Ok(id.into())
    }

    /// Waits for what comes next, in the order in which the server sent it; meanwhile writes and keeps the heartbeat.
    /// A call that is dropped halfway loses nothing. After an error the client is of no more use.
    pub async fn next(&mut self) -> Result<Incoming, Disconnect> {
        loop {
            if let Received::Incoming(incoming) = self.received().await? {
                return Ok(incoming);
            }
        }
    }

    /// Says goodbye, as far as the server takes it within a second.
    pub async fn close(mut self) {
        let goodbye = ws::Message::Close(Some(ws::CloseCode::Normal.into()));
        if Pin::new(&mut self.socket).write(goodbye).is_ok() {
            let flush = poll_fn(|cx| self.poll_flush(cx));
            // Who does not read the goodbye notices that the connection is gone.
            let _ = tokio::time::timeout(Duration::from_secs(1), flush).await;
        }
    }

    async fn open(address: &Address, limits: Limits) -> Result<Self, ConnectError> {
        let connector = http_client(address, limits.connect);
        let request = connector.ws(address.websocket_url()).max_frame_size(limits.message);
        let (_, socket) = request.connect().await?;
        Ok(Self {
            socket,
            conversation: Conversation::new(),
            assembly: Assembly::new(limits.message),
            timer: Box::pin(tokio::time::sleep(limits.connect)),
            unsent: 0,
            limits,
            acks: 0,
        })
    }

    async fn welcome(&mut self) -> Result<(), Disconnect> {
        while !matches!(self.received().await?, Received::Entered) {}
        Ok(())
    }

    fn send_event(&mut self, event: &str, argument: &impl Serialize, ack: &str) -> Result<(), EmitError> {
        let text = format!("42{ack}{}", serde_json::to_string(&(event, argument))?);
        self.write(ws::Message::Text(text.into())).map_err(|_| EmitError::Backlog)
    }

    /// Queues a message unless too much is queued already.
    fn write(&mut self, message: ws::Message) -> Result<(), Disconnect> {
        const HEADER: usize = 14;
        let size = HEADER + payload_size(&message);
        if self.unsent + size > self.limits.unsent {
            return Err(Disconnect::NotReading);
        }
        self.unsent += size;
        Pin::new(&mut self.socket).write(message).map_err(|error| Disconnect::Broken(error.to_string()))
    }

    /// Performs the connection's side of things until a packet has come.
    async fn received(&mut self) -> Result<Received, Disconnect> {
        loop {
            let frame = poll_fn(|cx| self.poll_frame(cx)).await?;
            match self.assembly.take(frame)? {
                Message::Text(text) => {
                    let received = self.receive(&text)?;
                    let Received::Answer(answer) = received else { return Ok(received) };
                    self.write(ws::Message::Text(answer.into()))?;
                }
                Message::Ping(data) => self.write(ws::Message::Pong(data))?,
                Message::Close(why) => {
                    // The answer that ends the closing handshake (RFC 6455 §5.5.1); if it does not fit, so be it.
                    let _ = self.write(ws::Message::Close(None));
                    let _ = poll_fn(|cx| Poll::Ready(self.poll_flush(cx))).await;
                    return Err(Disconnect::Closed(why));
                }
                Message::Binary | Message::Nothing => {}
            }
        }
    }

    fn receive(&mut self, text: &Bytes) -> Result<Received, Disconnect> {
        let text = std::str::from_utf8(text).map_err(|_| Disconnect::NotUtf8)?;
        self.conversation.receive(text, clock::now())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<ws::Frame, Disconnect>> {
        self.poll_timer(cx)?;
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.socket).next_item(cx).map(|frame| match frame {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(ws::ProtocolError::Overflow)) => Err(Disconnect::MessageTooLong),
            Some(Err(error)) => Err(Disconnect::Broken(error.to_string())),
            None => Err(Disconnect::Closed(String::new())),
        })
    }

    /// Pings when it is time to; leaves the timer set for the next time.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), Disconnect> {
        while let Some(deadline) = self.conversation.deadline() {
            let deadline = tokio::time::Instant::from_std(deadline);
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                break;
            }
            if self.conversation.tick(clock::now())? == Due::Ping {
                self.write(ws::Message::Text("2".into()))?;
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        if self.socket.is_write_buf_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).flush::<ws::Message>(cx).map(|result| {
            self.unsent = 0;
            result.map_err(|error| Disconnect::Broken(error.to_string()))
        })
    }
}

impl From<WsClientError> for ConnectError {
    fn from(error: WsClientError) -> Self {
        match error {
            WsClientError::InvalidResponseStatus(status) => Self::Refused(status.as_u16()),
            WsClientError::SendRequest(error) => {
                untrusted(&error).map_or_else(|| Self::Unreachable(error.to_string()), Self::Untrusted)
            }
            WsClientError::InvalidUpgradeHeader
            | WsClientError::InvalidConnectionHeader(_)
            | WsClientError::MissingConnectionHeader
            | WsClientError::MissingWebSocketAcceptHeader
            | WsClientError::InvalidChallengeResponse(..)
            | WsClientError::Protocol(_) => Self::NotAWebSocket(error.to_string()),
        }
    }
}

fn payload_size(message: &ws::Message) -> usize {
    match message {
        ws::Message::Text(text) => text.len(),
        ws::Message::Binary(data) | ws::Message::Ping(data) | ws::Message::Pong(data) => data.len(),
        ws::Message::Close(_) | ws::Message::Continuation(_) | ws::Message::Nop => 0,
    }
}
