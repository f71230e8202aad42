//! Who may come in, and how refusals look.

use std::borrow::Cow;

use actix_http::{
    RequestHead, StatusCode,
    header::{self, HeaderValue},
};
use url::Url;

use super::HEALTH_PATH;
use crate::{protocol::HandshakeError, stats::Refused};

/// Pages that may connect.
#[derive(Debug, Clone)]
pub enum Origins {
    /// Any page. Only when asked for by name.
    Any,
    /// Pages of the host that the request goes to, and of these origins.
    SameHostAnd(Vec<String>),
}

impl Origins {
    /// `origin` and `host` as the request's headers have them. A request without an origin is no page's.
    fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let (Some(origin), Self::SameHostAnd(allowed)) = (origin, self) else { return true };
        let same_host = || origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
        allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || same_host()
    }
}

/// An origin as browsers write it: scheme, host and, where it is not the scheme's own, port; `*` for any.
pub fn parse_origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("no origin such as https://farm.example: {error}"))?;
    let origin = url.origin();
    if origin.is_tuple() && url.path() == "/" && url.query().is_none() {
        Ok(origin.ascii_serialization())
    } else {
        Err("an origin is scheme://host or scheme://host:port, nothing more".to_owned())
    }
}

/// A path without its last slash: `/socket.io`, or one below it, as a proxy may show it.
pub fn parse_path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let mut segments = path.split('/');
    let plain = |segment: &str| {
        let allowed = |char: char| char.is_ascii_alphanumeric() || "-._~".contains(char);
        !segment.is_empty() && segment.chars().all(allowed) && !matches!(segment, "." | "..")
    };
    if segments.next() != Some("") || path.is_empty() || !segments.all(plain) {
        return Err("no path such as /socket.io or /updates/socket.io".to_owned());
    }
    if path == HEALTH_PATH {
        return Err(format!("{HEALTH_PATH} is where the server says whether it is well"));
    }
    Ok(path.to_owned())
}

/// The origin of the page that a request comes from, if it comes from one: it may connect.
pub(super) fn origin<'a>(head: &'a RequestHead, origins: &Origins) -> Result<Option<&'a HeaderValue>, Refusal> {
    let text = |name| head.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if origins.allow(text(header::ORIGIN), text(header::HOST)) {
        Ok(head.headers().get(header::ORIGIN))
    } else {
        Err(HandshakeError::Forbidden.into())
    }
}

/// The page of a script, of which browsers tell no origin, may connect. It is known by the request's `Referer` alone, so one
/// that hides it is refused: any page of the web could read what comes back.
pub(super) fn script(head: &RequestHead, origins: &Origins) -> Result<(), Refusal> {
    let text = |name| head.headers().get(name).and_then(|value| value.to_str().ok());
    if matches!(origins, Origins::Any) || head.headers().contains_key(header::ORIGIN) {
        return Ok(());
    }
    let page =
        text(header::REFERER).and_then(|page| Url::parse(page).ok()).map(|page| page.origin().ascii_serialization());
    match page {
        Some(page) if origins.allow(Some(&page), text(header::HOST)) => Ok(()),
        Some(_) | None => Err(HandshakeError::Forbidden.into()),
    }
}

/// Bytes of a request's first line and headers, about as they were sent.
pub(super) fn check_size(head: &RequestHead, limit: usize) -> Result<(), Refusal> {
    let url = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if url > limit {
        return Err(Refusal::UrlTooLong);
    }
    let headers: usize = head.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if url + headers > limit { Err(Refusal::HeadTooLong) } else { Ok(()) }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// For a reason that Engine.IO has a number for.
    Engine(HandshakeError),
    /// Its body is over the limit.
    TooBig,
    /// There are as many sessions as there may be.
    Full,
    /// Who is asked does not want it in.
    Denied,
    /// Who is asked does not answer.
    AuthUnavailable,
    /// There are as many sessions from its address as there may be.
    AddressFull,
    /// The address that it asks for is too long.
    UrlTooLong,
    /// What stands before its body is too long.
    HeadTooLong,
    /// This server stops.
    Stopping,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Engine(error) => StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST),
            Self::TooBig => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Full | Self::AuthUnavailable | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::AddressFull => StatusCode::TOO_MANY_REQUESTS,
            Self::UrlTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Engine(_) | Self::Denied => "application/json",
            Self::TooBig
            | Self::Full
            | Self::AddressFull
            | Self::UrlTooLong
            | Self::HeadTooLong
            | Self::AuthUnavailable
            | Self::Stopping => "text/plain",
        }
    }

    pub(super) fn text(self) -> Cow<'static, str> {
        match self {
            Self::Engine(error) => error.to_json().into(),
            Self::TooBig => "the message is too big\n".into(),
            Self::Full => "too many sessions, try again later\n".into(),
            Self::Denied => HandshakeError::Forbidden.to_json().into(),
            Self::AuthUnavailable => "whoever says who may come in does not answer, try again later\n".into(),
            Self::AddressFull => "too many sessions from your address, try again later\n".into(),
            Self::UrlTooLong => "the address is too long\n".into(),
            Self::HeadTooLong => "the request's headers are too long\n".into(),
            Self::Stopping => "this server is stopping, try again in a second\n".into(),
        }
    }

    /// As what it is counted, where nothing else counts it.
    pub(super) fn counted(self) -> Option<Refused> {
        match self {
            Self::Engine(HandshakeError::Forbidden) => Some(Refused::ForbiddenOrigin),
            Self::Engine(
                HandshakeError::TransportUnknown
                | HandshakeError::SessionUnknown
                | HandshakeError::BadMethod
                | HandshakeError::BadRequest
                | HandshakeError::UnsupportedVersion,
            ) => Some(Refused::BadHandshake),
            Self::Full => Some(Refused::TooManySessions),
            Self::Denied => Some(Refused::AuthDenied),
            Self::AuthUnavailable => Some(Refused::AuthUnavailable),
            Self::AddressFull => Some(Refused::TooManySessionsPerAddress),
            Self::UrlTooLong | Self::HeadTooLong => Some(Refused::HeadTooLarge),
            Self::TooBig | Self::Stopping => None,
        }
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Engine(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_host_and_listed_ones_may_connect() {
        let origins = Origins::SameHostAnd(vec!["https://dashboard.example".to_owned()]);
        let host = Some("farm:8081");
        for (origin, allowed) in [
            (None, true),
            (Some("http://farm:8081"), true),
            (Some("https://farm:8081"), true),
            (Some("https://dashboard.example"), true),
            (Some("HTTPS://Dashboard.example"), true),
            (Some("http://farm:8080"), false),
            (Some("http://farm:8081.evil.example"), false),
            (Some("http://evil.example/farm:8081"), false),
            (Some("null"), false),
            (Some(""), false),
        ] {
            assert_eq!(origins.allow(origin, host), allowed, "{origin:?}");
        }
        assert!(!origins.allow(Some("http://farm"), None));
        assert!(Origins::Any.allow(Some("null"), host));
    }

    #[test]
    fn a_path_is_plain_segments() {
        for (text, path) in [
            ("/socket.io", Some("/socket.io")),
            ("/socket.io/", Some("/socket.io")),
            ("/farm-1/socket.io", Some("/farm-1/socket.io")),
            ("", None),
            ("/", None),
            ("socket.io", None),
            ("//socket.io", None),
            ("/a//b", None),
            ("/a/../b", None),
            ("/{name}", None),
            ("/a?b", None),
            ("/a b", None),
            ("/healthz", None),
        ] {
            assert_eq!(parse_path(text).ok().as_deref(), path, "{text:?}");
        }
    }

    #[test]
    fn an_origin_is_normalised() {
        assert_eq!(parse_origin("https://Farm.example:443/"), Ok("https://farm.example".to_owned()));
        assert_eq!(parse_origin("*"), Ok("*".to_owned()));
        assert!(parse_origin("farm.example").is_err());
        assert!(parse_origin("https://farm.example/page").is_err());
        assert!(parse_origin("file:///home").is_err());
    }
}
