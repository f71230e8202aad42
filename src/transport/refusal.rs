//! The requests that the browsers' listener refuses: one row each for what the client gets and what
//! is counted.

use std::borrow::Cow;

use actix_http::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::{protocol::HandshakeError, stats::Refused};

/// The response to a page that may not connect: an error of Engine.IO, and the option that helps.
const FOREIGN_ORIGIN: &str =
    r#"{"code":4,"message":"Forbidden","reason":"--allow-origin lets pages of this origin in"}"#;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An error with an Engine.IO code.
    Engine(HandshakeError),
    /// The body is over the limit.
    TooBig,
    /// The server has reached its limit of sessions.
    Full,
    /// The auth endpoint denied access.
    Denied,
    /// The auth endpoint does not answer.
    AuthUnavailable,
    /// The client's address has reached its limit of sessions.
    AddressFull,
    /// The request target is too long.
    UrlTooLong,
    /// The head is too large.
    HeadTooLong,
    /// The server is shutting down.
    Stopping,
    /// The server gets no events.
    CutOff,
    /// The `Host` header is invalid.
    BadHost,
    /// The server does not answer for the requested host.
    ForeignHost,
    /// The path is, or may be read as, another server's Socket.IO.
    ClosedPath,
    /// Nothing is served at the path.
    NoPath,
    /// `--static` has no such file.
    NoFile,
    /// An unsupported WebSocket version.
    WebSocketVersion,
    /// An unsupported content encoding.
    ContentEncoding,
    /// The body arrives too slowly.
    TooSlow,
    /// The server has reached its limit of connections.
    ConnectionsFull,
    /// The client's address has reached its limit of connections.
    AddressConnectionsFull,
    /// The session has reached its limit of concurrent requests with a body.
    PostsFull,
}

/// What the client gets, and what counts it.
struct Row {
    status: StatusCode,
    /// The metric, unless it is counted elsewhere.
    counted: Option<Refused>,
    body: Body,
}

/// What the response says.
enum Body {
    /// A sentence for people.
    Plain(&'static str),
    /// An error of Engine.IO, with what helps in this case.
    Json(&'static str),
    Engine(HandshakeError),
}

impl Row {
    fn new(status: StatusCode, counted: impl Into<Option<Refused>>, text: &'static str) -> Self {
        Self { status, counted: counted.into(), body: Body::Plain(text) }
    }

    fn engine(error: HandshakeError, counted: Refused) -> Self {
        Self {
            status: StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST),
            counted: Some(counted),
            body: Body::Engine(error),
        }
    }
}

impl Refusal {
    fn row(self) -> Row {
        use StatusCode as Status;
        match self {
            Self::Engine(error @ HandshakeError::Forbidden) => {
                Row { body: Body::Json(FOREIGN_ORIGIN), ..Row::engine(error, Refused::ForbiddenOrigin) }
            }
            Self::Engine(
                error @ (HandshakeError::TransportUnknown
                | HandshakeError::SessionUnknown
                | HandshakeError::BadMethod
                | HandshakeError::BadRequest
                | HandshakeError::UnsupportedVersion
                | HandshakeError::NewerRevision(_)),
            ) => Row::engine(error, Refused::BadHandshake),
            Self::Denied => Row::engine(HandshakeError::Forbidden, Refused::AuthDenied),
            Self::TooBig => Row::new(Status::PAYLOAD_TOO_LARGE, None, "the message is too big\n"),
            Self::Full => {
                Row::new(Status::SERVICE_UNAVAILABLE, Refused::TooManySessions, "too many sessions, try again later\n")
            }
            Self::AuthUnavailable => Row::new(
                Status::SERVICE_UNAVAILABLE,
                Refused::AuthUnavailable,
                "the auth service does not answer, try again later\n",
            ),
            Self::AddressFull => Row::new(
                Status::TOO_MANY_REQUESTS,
                Refused::TooManySessionsPerAddress,
                "too many sessions from your address, try again later\n",
            ),
            Self::UrlTooLong => {
                Row::new(Status::URI_TOO_LONG, Refused::HeadTooLarge, "the request target is too long\n")
            }
            Self::HeadTooLong => Row::new(
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Refused::HeadTooLarge,
                "the request's headers are too long\n",
            ),
            Self::Stopping => {
                Row::new(Status::SERVICE_UNAVAILABLE, None, "this server is shutting down, try again in a second\n")
            }
            Self::CutOff => Row::new(
                Status::SERVICE_UNAVAILABLE,
                None,
                "this server is cut off from the events of the farm, try another one\n",
            ),
            Self::BadHost => {
                Row::new(Status::BAD_REQUEST, Refused::ForbiddenHost, "the Host header is not a host and port\n")
            }
            Self::ForeignHost => Row::new(
                Status::MISDIRECTED_REQUEST,
                Refused::ForbiddenHost,
                "this server does not answer for this host; --allowed-host lets the name in\n",
            ),
            Self::ClosedPath => Row::new(
                Status::NOT_FOUND,
                Refused::BadHandshake,
                "this path is, or may be read as, the path of another Socket.IO: this server has it at --path\n",
            ),
            Self::NoPath => Row::new(
                Status::NOT_FOUND,
                None,
                "this is the browsers' port of a web-update server: it answers Socket.IO at --path, and \
                GET /healthz; the Manager's events go to the other port\n",
            ),
            Self::NoFile => Row::new(Status::NOT_FOUND, None, "there is no such file in the folder of --static\n"),
            Self::WebSocketVersion => Row::new(
                Status::UPGRADE_REQUIRED,
                Refused::BadHandshake,
                "this server speaks version 13 of WebSocket\n",
            ),
            Self::ContentEncoding => Row::new(
                Status::UNSUPPORTED_MEDIA_TYPE,
                Refused::BadHandshake,
                "the body must not be compressed: send it without Content-Encoding\n",
            ),
            Self::TooSlow => Row::new(Status::REQUEST_TIMEOUT, None, "the request arrives too slowly\n"),
            Self::ConnectionsFull => Row::new(
                Status::SERVICE_UNAVAILABLE,
                Refused::TooManyHttpConnections,
                "too many connections, try again later\n",
            ),
            Self::AddressConnectionsFull => Row::new(
                Status::TOO_MANY_REQUESTS,
                Refused::TooManyHttpConnectionsPerAddress,
                "too many connections from your address, try again later\n",
            ),
            Self::PostsFull => Row::new(
                Status::TOO_MANY_REQUESTS,
                Refused::TooManyPosts,
                "too many concurrent requests of this session\n",
            ),
        }
    }

    pub(super) fn status(self) -> StatusCode {
        self.row().status
    }

    pub(super) fn content_type(self) -> &'static str {
        match self.row().body {
            Body::Plain(_) => "text/plain",
            Body::Json(_) | Body::Engine(_) => "application/json",
        }
    }

    pub(super) fn text(self) -> Cow<'static, str> {
        match self.row().body {
            Body::Plain(text) | Body::Json(text) => text.into(),
            Body::Engine(error) => error.to_json().into(),
        }
    }

    /// Returns the metric that counts it, unless it is counted elsewhere.
    pub(super) fn counted(self) -> Option<Refused> {
        self.row().counted
    }

    /// Returns the headers that belong to its status.
    pub(super) fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let header = |name, value| (name, HeaderValue::from_static(value));
        match self.status() {
            StatusCode::UPGRADE_REQUIRED => {
                vec![header(header::UPGRADE, "websocket"), header(header::SEC_WEBSOCKET_VERSION, "13")]
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => vec![header(header::RETRY_AFTER, "1")],
            StatusCode::UNSUPPORTED_MEDIA_TYPE => vec![header(header::ACCEPT_ENCODING, "identity")],
            _ => Vec::new(),
        }
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Engine(error)
    }
}
