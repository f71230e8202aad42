//! MQTT over WebSocket: a byte stream that is carried in binary messages (MQTT 5, chapter 6).

use std::{io, sync::Arc};

use actix_codec::Framed;
use actix_http::ws::{Codec, Message as Outgoing};
use awc::{BoxedSocket, Connector};
use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::mpsc,
};

use super::{MAX_PACKET, MqttError};
use crate::{
    ConnectError,
    message::{Assembly, Message},
};

/// The sub-protocol of MQTT.
const MQTT: &str = "mqtt";

/// Bytes that wait on the way to and from the socket, in each direction.
const BUFFER: usize = 64 * 1024;

/// Bytes of a frame besides its payload, at most.
const HEADER: usize = 14;

/// Connects to a broker, and carries the returned stream until either end closes.
///
/// # Errors
///
/// The broker cannot be reached or trusted, or does not answer as a WebSocket.
pub(super) async fn connect(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<DuplexStream, MqttError> {
    let connector = match tls {
        Some(tls) => Connector::new().rustls_0_23(tls),
        None => Connector::new(),
    };
    let client = awc::Client::builder().connector(connector).finish();
    let request = client.ws(url).protocols([MQTT]).max_frame_size(MAX_PACKET as usize + HEADER);
    let (_, socket) = request.connect().await.map_err(ConnectError::from)?;
    let (stream, carried) = duplex(BUFFER);
    actix_rt::spawn(carry(socket, carried));
    Ok(stream)
}

async fn carry(socket: Framed<BoxedSocket, Codec>, stream: DuplexStream) {
    let (to_broker, from_broker) = socket.split();
    let (from_client, to_client) = split(stream);
    let (pong, pongs) = mpsc::channel(1);
    // Each direction goes on while the other waits. Whatever ends one ends the stream.
    let ended = tokio::select! {
        ended = receive(from_broker, to_client, pong) => ended,
        ended = send(to_broker, from_client, pongs) => ended,
    };
    if let Err(error) = ended {
        log::debug!("a WebSocket to an MQTT broker has ended: {error}");
    }
}

async fn receive(
    mut from: impl Stream<Item = Result<actix_http::ws::Frame, actix_http::ws::ProtocolError>> + Unpin,
    mut to: WriteHalf<DuplexStream>,
    pong: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut assembly = Assembly::new(MAX_PACKET as usize + HEADER);
    while let Some(frame) = from.next().await {
        match assembly.take(frame.map_err(io::Error::other)?).map_err(io::Error::other)? {
            Message::Binary(data) => to.write_all(&data).await?,
            // If one waits already, it answers both (RFC 6455 §5.5.3).
            Message::Ping(data) => drop(pong.try_send(data)),
            Message::Close(_) => return Ok(()),
            Message::Text(_) => return Err(io::Error::other("a text message")),
            Message::Pong | Message::Part => {}
        }
    }
    Ok(())
}

async fn send(
    mut to: impl Sink<Outgoing, Error = actix_http::ws::ProtocolError> + Unpin,
    mut from: ReadHalf<DuplexStream>,
    mut pongs: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        let message = tokio::select! {
            read = from.read_buf(&mut buffer) => match read? {
                0 => Outgoing::Close(None),
                _ => Outgoing::Binary(buffer.split().freeze()),
            },
            Some(data) = pongs.recv() => Outgoing::Pong(data),
        };
        let is_last = matches!(message, Outgoing::Close(_));
        to.send(message).await.map_err(io::Error::other)?;
        if is_last {
            return Ok(());
        }
        buffer.reserve(BUFFER);
    }
}

impl From<ConnectError> for MqttError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Untrusted(why) => Self::Untrusted(why),
            ConnectError::Refused(status) => Self::NotAWebSocket(format!("it answers with status {status}")),
            ConnectError::NotAWebSocket(why) => Self::NotAWebSocket(why),
            ConnectError::Unreachable(why) => Self::Unreachable(io::Error::other(why)),
            ConnectError::Timeout(_) | ConnectError::Disconnected(_) => {
                Self::Unreachable(io::Error::other(error.to_string()))
            }
        }
    }
}
