//! An MQTT 5 client: one connection to a broker, over TCP, TLS or WebSocket.
//!
//! The library behind it is `rumqttc-v5-next`. Nothing outside this file depends on that. Each
//! connection has an event loop of its own, so neither acknowledgements nor publications of an
//! earlier connection are repeated.

mod websocket;

use std::{
    fmt, io,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use actix_rt::{net::TcpStream, time::timeout};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event,
    EventLoop, MqttOptions, Packet, Publish, PublishOptions, PublishProperties, QoS, StateError, SubscribeReasonCode,
};
use rustls::ClientConfig;
use thiserror::Error;
use tokio_util::either::Either;
use url::{Position, Url};

use crate::trust::{connect_with, explain as explain_trust, trust};

/// How long a connection may take, from the name look-up to the broker's CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of the client's pings. The broker ends a connection after one and a half of it.
const KEEP_ALIVE: u16 = 15;

/// The maximum number of messages that the broker may send before they are acknowledged.
pub const RECEIVE_MAXIMUM: u16 = 20;

/// The maximum size of a packet, in bytes. A broker does not send larger ones to this client.
pub const MAX_PACKET: u32 = 4 * 1024 * 1024;

/// Requests that wait for the event loop: all acknowledgements, and as many publications.
const REQUESTS: usize = 4 * RECEIVE_MAXIMUM as usize;

/// The user property that names the process that published a message.
const PUBLISHER: &str = "flamenco-webupdates-publisher";

/// Distinguishes what this process publishes from what others do. Client ids do not: two processes
/// may have the same at different brokers, between which a bridge passes messages on.
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:016x}", fastrand::u64(..)));

/// How long a DISCONNECT may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The address of a broker: `mqtt://host:1883`, `mqtts://host:8883` with TLS, `ws://host/path` or
/// `wss://host/path`. May contain a user name and a password, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    transport: Transport,
    host: String,
    port: u16,
    /// Where the broker offers a WebSocket, with the query.
    path: String,
    user: String,
    password: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
}

impl Transport {
    const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::WebSocket, Self::SecureWebSocket];

    fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::WebSocket => "ws",
            Self::SecureWebSocket => "wss",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::WebSocket => 80,
            Self::SecureWebSocket => 443,
        }
    }

    fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::SecureWebSocket)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidBroker {
    #[error("not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    #[error("the URL begins with {0}:// instead of mqtt://, mqtts://, ws:// or wss://")]
    UnknownScheme(String),
    #[error("the URL has no host")]
    NoHost,
    #[error("the URL has a path; --mqtt-prefix sets the topics")]
    Path,
}

/// A client's session at a broker.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    pub client_id: String,
    /// How long the broker keeps the session of a client that is away. With zero every connection
    /// begins a new session.
    pub expiry: Duration,
    /// Overrides the password of the broker's address.
    pub password: Option<String>,
    /// The authorities for TLS; by default the program's.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    /// Whether the broker sent the message before and got no acknowledgement.
    pub is_repeated: bool,
    /// Whether a [`Sender`] of this process published the message.
    pub is_own: bool,
    publish: Box<Publish>,
}

/// What the broker sends.
#[derive(Debug)]
pub enum Incoming {
    Message(Message),
    /// The broker accepted the subscription.
    Subscribed,
    /// The broker accepted a publication.
    Published,
}

/// Why there is no connection, or why it ended.
#[derive(Debug, Error)]
pub enum MqttError {
    #[error("the broker cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the broker cannot be trusted: {0}")]
    Untrusted(String),
    #[error("the broker does not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the broker refuses the user name or password")]
    Unauthorized,
    #[error("the broker offers no MQTT over WebSocket at this address: {0}")]
    NotAWebSocket(String),
    #[error("the broker does not speak MQTT 5")]
    OldProtocol,
    #[error("the broker refuses the client: {0}")]
    Refused(String),
    #[error("the broker does not allow a subscription to {0}")]
    NotAllowed(String),
    #[error("another client with the same client id took the session over")]
    TakenOver,
    #[error("the broker ended the connection: {0}")]
    Ended(String),
    #[error("the broker closed the connection without giving a reason")]
    Closed,
    #[error("the connection to the broker broke: {0}")]
    Broken(String),
}

impl Message {
    /// Creates a message that no broker sent, for tests.
    #[doc(hidden)]
    pub fn new(topic: &str, payload: &[u8], is_repeated: bool) -> Self {
        let payload = Bytes::copy_from_slice(payload);
        let publish = Publish::new(topic, QoS::AtLeastOnce, payload.clone(), None);
        Self { topic: topic.to_owned(), payload, is_repeated, is_own: false, publish: Box::new(publish) }
    }
}

impl Broker {
    /// Returns the broker's host (a name or an IP address) and port.
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Returns the address without user and password.
    fn url(&self) -> String {
        let (scheme, port, path) = (self.transport.scheme(), self.port, &self.path);
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{port}/{path}", self.host)
    }
}

impl FromStr for Broker {
    type Err = InvalidBroker;

    fn from_str(text: &str) -> Result<Self, InvalidBroker> {
        let url = Url::parse(text)?;
        let transport = Transport::ALL.into_iter().find(|transport| transport.scheme() == url.scheme());
        let transport = transport.ok_or_else(|| InvalidBroker::UnknownScheme(url.scheme().to_owned()))?;
        let path = &url[Position::BeforePath..Position::AfterQuery];
        if !transport.is_websocket() && !matches!(path, "" | "/") {
            return Err(InvalidBroker::Path);
        }
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(InvalidBroker::NoHost);
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Self {
            transport,
            host: host.to_owned(),
            port: url.port().unwrap_or(transport.port()),
            path: path.trim_start_matches('/').to_owned(),
            user: decode(url.username()),
            password: url.password().map(decode),
        })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        // A query may be a secret.
        f.write_str(url.split('?').next().unwrap_or_default().trim_end_matches('/'))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connection that the broker has accepted.
pub struct Connection {
    client: Sender,
    events: EventLoop,
    /// Whether the broker kept the session of an earlier connection.
    pub is_resumed: bool,
    filter: String,
}

/// Sends acknowledgements and publications of one connection.
#[derive(Clone)]
pub struct Sender(AsyncClient);

impl Connection {
    /// Connects to a broker.
    ///
    /// # Errors
    ///
    /// Returns an [`MqttError`] that names what to correct where the user can.
    pub async fn open(broker: &Broker, session: &SessionOptions) -> Result<Self, MqttError> {
        timeout(CONNECT_TIMEOUT, Self::connect(broker, session)).await.unwrap_or(Err(MqttError::Timeout))
    }

    async fn connect(broker: &Broker, session: &SessionOptions) -> Result<Self, MqttError> {
        let tls = || session.tls.clone().unwrap_or_else(trust);
        let stream = match broker.transport {
            Transport::Tcp => Either::Left(tcp(broker).await?),
            Transport::Tls => {
                let tls = connect_with(tls(), tcp(broker).await?, &broker.host).await;
                Either::Right(Either::Left(tls.map_err(|error| match explain_trust(&error) {
                    Some(why) => MqttError::Untrusted(why),
                    None => MqttError::Unreachable(error),
                })?))
            }
            Transport::WebSocket => Either::Right(Either::Right(websocket::connect(&broker.url(), None).await?)),
            Transport::SecureWebSocket => {
                Either::Right(Either::Right(websocket::connect(&broker.url(), Some(tls())).await?))
            }
        };
        let mut options = MqttOptions::new(session.client_id.clone(), (broker.host.clone(), broker.port));
        let expiry = u32::try_from(session.expiry.as_secs()).unwrap_or(u32::MAX);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(expiry == 0)
            .set_session_expiry_interval(Some(expiry))
            .set_receive_maximum(Some(RECEIVE_MAXIMUM))
            .set_max_packet_size(Some(MAX_PACKET))
            .set_ack_mode(AckMode::Manual)
            // Each connection has a new event loop, which knows nothing of the broker's session.
            .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
        let password = session.password.as_ref().or(broker.password.as_ref());
        match password {
            Some(password) => drop(options.set_credentials(broker.user.clone(), password.clone())),
            None if !broker.user.is_empty() => drop(options.set_username(broker.user.clone())),
            None => {}
        }
        let stream = Arc::new(Mutex::new(Some(stream)));
        options.set_socket_connector(move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let (client, mut events) = AsyncClient::builder(options).capacity(REQUESTS).build();
        loop {
            if let Event::Incoming(Packet::ConnAck(answer)) = events.poll().await.map_err(explain)? {
                let (client, filter) = (Sender(client), String::new());
                return Ok(Self { client, events, is_resumed: answer.session_present, filter });
            }
        }
    }

    /// Subscribes to a filter, at least once. The answer is [`Incoming::Subscribed`]. Only for a new
    /// session: a resumed one has its subscriptions, and the library refuses further ones there.
    ///
    /// # Errors
    ///
    /// The filter is invalid.
    pub fn subscribe(&mut self, filter: &str) -> Result<(), MqttError> {
        filter.clone_into(&mut self.filter);
        let subscribed = self.client.0.try_subscribe(filter, QoS::AtLeastOnce);
        subscribed.map_err(|_| MqttError::NotAllowed(filter.to_owned()))
    }

    /// Returns a handle that sends while [`next`](Self::next) waits.
    pub fn sender(&self) -> Sender {
        self.client.clone()
    }

    /// Returns what the broker sends next. Also performs what was requested, so it must be polled
    /// to send anything.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn next(&mut self) -> Result<Incoming, MqttError> {
        loop {
            let Event::Incoming(packet) = self.events.poll().await.map_err(explain)? else { continue };
            #[expect(clippy::wildcard_enum_match_arm, reason = "all other packets are the event loop's")]
            match packet {
                Packet::Publish(publish) => {
                    return Ok(Incoming::Message(Message {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        payload: publish.payload.clone(),
                        is_repeated: publish.dup,
                        is_own: is_own(&publish),
                        publish: Box::new(publish),
                    }));
                }
                Packet::SubAck(answer) => {
                    let is_accepted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                    if answer.return_codes.iter().all(is_accepted) {
                        return Ok(Incoming::Subscribed);
                    }
                    return Err(MqttError::NotAllowed(self.filter.clone()));
                }
                Packet::PubAck(_) => return Ok(Incoming::Published),
                Packet::Disconnect(disconnect) => return Err(ended(disconnect.reason_code)),
                _ => {}
            }
        }
    }

    /// Ends the connection. The broker keeps the session.
    pub async fn close(mut self) {
        if self.client.0.try_disconnect().is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, async { while self.events.poll().await.is_ok() {} }).await;
        }
    }
}

impl Sender {
    /// Acknowledges a message, so that the broker does not send it again. Without a connection
    /// nothing is sent, and the broker repeats the message.
    pub fn acknowledge(&self, message: &Message) {
        let _ = self.0.try_ack(&message.publish);
    }

    /// Publishes a message, at least once while the connection lasts. Returns false if too many
    /// requests wait.
    pub fn publish(&self, topic: String, payload: Bytes, is_retained: bool) -> bool {
        let user_properties = vec![(PUBLISHER.to_owned(), PROCESS.to_string())];
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(is_retained).properties(properties);
        self.0.try_publish(topic, payload, options).is_ok()
    }
}

fn is_own(publish: &Publish) -> bool {
    let properties = publish.properties.iter().flat_map(|properties| &properties.user_properties);
    properties.into_iter().any(|(name, value)| name == PUBLISHER && *value == *PROCESS)
}

async fn tcp(broker: &Broker) -> Result<TcpStream, MqttError> {
    let stream = TcpStream::connect(broker.host_and_port()).await.map_err(MqttError::Unreachable)?;
    stream.set_nodelay(true).map_err(MqttError::Unreachable)?;
    Ok(stream)
}

fn explain(error: ConnectionError) -> MqttError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's other errors have no better text")]
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => MqttError::Unauthorized,
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                MqttError::OldProtocol
            }
            other => MqttError::Refused(format!("{other:?}")),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => ended(reason_code),
        ConnectionError::MqttState(StateError::ConnectionAborted) => MqttError::Closed,
        ConnectionError::Io(error) => MqttError::Broken(error.to_string()),
        other => MqttError::Broken(other.to_string()),
    }
}

fn ended(reason: DisconnectReasonCode) -> MqttError {
    if reason == DisconnectReasonCode::SessionTakenOver {
        MqttError::TakenOver
    } else {
        MqttError::Ended(format!("{reason:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_never_printed() {
        for (text, shown, user) in [
            ("mqtt://farm", "mqtt://farm:1883", ""),
            ("mqtts://[::1]/", "mqtts://[::1]:8883", ""),
            ("mqtt://a%20b:secret@farm:1", "mqtt://farm:1", "a b"),
            ("ws://farm:9001", "ws://farm:9001", ""),
            ("wss://me:secret@farm/mqtt?site=1", "wss://farm:443/mqtt", "me"),
        ] {
            let broker: Broker = text.parse().unwrap();
            assert_eq!((broker.to_string().as_str(), format!("{broker:?}").as_str()), (shown, shown));
            assert_eq!(broker.user, user);
        }
        for (text, reason) in [
            ("farm", "not a URL: relative URL without a base"),
            ("http://farm", "the URL begins with http:// instead of mqtt://, mqtts://, ws:// or wss://"),
            ("mqtt:///x", "the URL has a path; --mqtt-prefix sets the topics"),
            ("mqtt://", "the URL has no host"),
        ] {
            assert_eq!(text.parse::<Broker>().unwrap_err().to_string(), reason, "{text}");
        }
    }
}
