//! A small Socket.IO v2 client over WebSocket, based on the server's own protocol code.
//!
//! Its owner calls [`Client::next`] in a loop, which reads, writes the events queued by
//! [`Client::emit`], and keeps the heartbeat. It does not reconnect by itself, because only its
//! owner knows what to subscribe to again; [`Backoff`] returns the waits in between.
//!
//! It runs on an actix runtime, like the server.

mod address;
mod backoff;
pub mod clock;
mod conversation;
mod http;
mod message;
pub mod mqtt;
#[cfg(any(test, feature = "test-peer"))]
#[expect(clippy::unwrap_used, reason = "only tests use it")]
pub mod peer;
#[cfg(test)]
mod tests;
mod trust;

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
use protocol::ProtocolError;

pub use address::{Address, Header, InvalidAddress, InvalidHeader};
pub use backoff::Backoff;
pub use http::{http_client, untrusted};
pub use message::{Assembly, AssemblyError, Message};
pub use trust::{TrustOptions, connect, explain, trust, trust_only};

/// The limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time for everything from the resolution of the name to the server's connect packet. The
    /// default is 10 s.
    pub connect: Duration,
    /// The maximum size of a message from the server, in bytes; a longer one ends the connection.
    /// The default is 16 MiB, because a worker may upload a log of megabytes at once.
    pub message: usize,
    /// The maximum number of bytes queued for a server that does not read; more are refused. The
    /// default is 1 MiB.
    pub unsent: usize,
}

/// A message from the server.
#[derive(Debug)]
pub enum Incoming {
    /// An event with its arguments, each as unchanged JSON text.
    Event { name: String, args: Vec<Box<RawValue>> },
    /// The acknowledgement of the event that [`Client::emit_with_ack`] sent with this id.
    Ack { id: u64, args: Vec<Box<RawValue>> },
}

/// Why a connection could not be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("cannot connect: {0}")]
    Untrusted(String),
    #[error("the server responds with status {0} instead of opening a WebSocket")]
    Refused(u16),
    #[error("the server does not speak WebSocket: {0}")]
    NotAWebSocket(String),
    #[error("no connect packet within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error(transparent)]
    Disconnected(#[from] ConnectionEnd),
}

/// Why a connection ended. A new connection may succeed in each case.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionEnd {
    #[error("the server closed the connection{}{}", if .0.is_empty() { "" } else { ": " }, .0)]
    Closed(String),
    #[error("the server disconnected the client")]
    Dismissed,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("no sign of life within the ping timeout")]
    PingTimeout,
    #[error("the server does not read")]
    NotReading,
    #[error(transparent)]
    Fragments(#[from] AssemblyError),
    #[error("a message is not UTF-8")]
    NotUtf8,
    #[error("the server violates the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Why an event was not queued.
#[derive(Debug, Error)]
pub enum EmitError {
    #[error("too many bytes are queued for the server")]
    Backlog,
    #[error("the argument cannot be written as JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// A connection to the namespace `/` of a server.
pub struct Client {
    socket: Framed<BoxedSocket, ws::Codec>,
    conversation: Conversation,
    assembly: Assembly,
    /// Fires when the conversation must check the time next.
    timer: Pin<Box<Sleep>>,
    /// An upper bound of the bytes that are queued and not written.
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
    /// Connects and waits until the server has admitted the client.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or trusted, does not speak WebSocket, refuses the client, or
    /// does not admit it in time.
    pub async fn connect(address: &Address, limits: Limits) -> Result<Self, ConnectError> {
        let attempt = async {
            let mut client = Self::open(address, limits).await?;
            client.welcome().await?;
            Ok(client)
        };
        tokio::time::timeout(limits.connect, attempt).await.unwrap_or(Err(ConnectError::Timeout(limits.connect)))
    }

    /// Queues an event with one argument.
    ///
    /// # Errors
    ///
    /// Too many bytes are queued already, or the argument cannot be written as JSON. Nothing is
    /// queued then.
    pub fn emit(&mut self, event: &str, argument: &impl Serialize) -> Result<(), EmitError> {
        self.send_event(event, argument, "")
    }

    /// Queues an event with one argument and requests an acknowledgement, which arrives as
    /// [`Incoming::Ack`] with the returned id.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub fn emit_with_ack(&mut self, event: &str, argument: &impl Serialize) -> Result<u64, EmitError> {
        let id = self.acks;
        self.send_event(event, argument, &id.to_string())?;
        self.acks = self.acks.wrapping_add(1);
        Ok(id.into())
    }

    /// Waits for the next message, in the order in which the server sent them; meanwhile writes and
    /// keeps the heartbeat. Cancel-safe: a dropped call loses nothing. After an error the client is
    /// unusable.
    ///
    /// # Errors
    ///
    /// The connection has ended, and how.
    pub async fn next(&mut self) -> Result<Incoming, ConnectionEnd> {
        loop {
            if let Received::Incoming(incoming) = self.received().await? {
                return Ok(incoming);
            }
        }
    }

    /// Closes the connection with a close frame, which may take up to 1 s.
    pub async fn close(mut self) {
        let goodbye = ws::Message::Close(Some(ws::CloseCode::Normal.into()));
        if Pin::new(&mut self.socket).write(goodbye).is_ok() {
            let flush = poll_fn(|cx| self.poll_flush(cx));
            // A server that does not read the close frame notices the end of the connection.
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

    async fn welcome(&mut self) -> Result<(), ConnectionEnd> {
        while !matches!(self.received().await?, Received::Entered) {}
        Ok(())
    }

    fn send_event(&mut self, event: &str, argument: &impl Serialize, ack: &str) -> Result<(), EmitError> {
        let text = format!("42{ack}{}", serde_json::to_string(&(event, argument))?);
        self.write(ws::Message::Text(text.into())).map_err(|_| EmitError::Backlog)
    }

    /// Queues a message unless too many bytes are queued already.
    fn write(&mut self, message: ws::Message) -> Result<(), ConnectionEnd> {
        const HEADER: usize = 14;
        let size = HEADER + payload_size(&message);
        if self.unsent + size > self.limits.unsent {
            return Err(ConnectionEnd::NotReading);
        }
        self.unsent += size;
        Pin::new(&mut self.socket).write(message).map_err(|error| ConnectionEnd::Broken(error.to_string()))
    }

    /// Reads and writes until a packet has arrived.
    async fn received(&mut self) -> Result<Received, ConnectionEnd> {
        loop {
            let frame = poll_fn(|cx| self.poll_frame(cx)).await?;
            match self.assembly.take(frame)? {
                Message::Text(text) => {
                    let received = self.receive(&text)?;
                    let Received::Answer(answer) = received else { return Ok(received) };
                    self.write(ws::Message::Text(answer.into()))?;
                }
                Message::Ping(data) => self.write(ws::Message::Pong(data))?,
                Message::Close(reason) => {
                    // The answer to a close frame (RFC 6455 §5.5.1). If it does not fit, it is
                    // dropped.
                    let _ = self.write(ws::Message::Close(None));
                    let _ = poll_fn(|cx| Poll::Ready(self.poll_flush(cx))).await;
                    return Err(ConnectionEnd::Closed(describe(reason)));
                }
                Message::Binary(_) | Message::Pong | Message::Part => {}
            }
        }
    }

    fn receive(&mut self, text: &Bytes) -> Result<Received, ConnectionEnd> {
        let text = std::str::from_utf8(text).map_err(|_| ConnectionEnd::NotUtf8)?;
        self.conversation.receive(text, clock::now())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<ws::Frame, ConnectionEnd>> {
        self.poll_timer(cx)?;
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.socket).next_item(cx).map(|frame| match frame {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(ws::ProtocolError::Overflow)) => Err(AssemblyError::TooLong.into()),
            Some(Err(error)) => Err(ConnectionEnd::Broken(error.to_string())),
            None => Err(ConnectionEnd::Closed(String::new())),
        })
    }

    /// Pings when due, and sets the timer for the next check.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionEnd> {
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

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        if self.socket.is_write_buf_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).flush::<ws::Message>(cx).map(|result| {
            self.unsent = 0;
            result.map_err(|error| ConnectionEnd::Broken(error.to_string()))
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

/// Formats the status and reason of a close frame for people.
fn describe(reason: Option<ws::CloseReason>) -> String {
    reason.map_or_else(String::new, |reason| {
        let code = u16::from(reason.code);
        reason.description.map_or_else(|| code.to_string(), |why| format!("{code} {why}"))
    })
}

fn payload_size(message: &ws::Message) -> usize {
    match message {
        ws::Message::Text(text) => text.len(),
        ws::Message::Binary(data) | ws::Message::Ping(data) | ws::Message::Pong(data) => data.len(),
        ws::Message::Close(_) | ws::Message::Continuation(_) | ws::Message::Nop => 0,
    }
}
