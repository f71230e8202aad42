//! What a request for Socket.IO or a WebSocket must satisfy.

use actix_http::{
    RequestHead, Response,
    header::{self, HeaderValue},
    ws,
};

use super::{paths::HEALTH_PATH, refusal::Refusal};
use crate::protocol::HandshakeError;

/// Parses a path and removes its last slash: `/socket.io`, or a path below a proxy's prefix.
pub(super) fn parse_path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let mut segments = path.split('/');
    let plain = |segment: &str| {
        let allowed = |char: char| char.is_ascii_alphanumeric() || "-._~".contains(char);
        !segment.is_empty() && segment.chars().all(allowed) && !matches!(segment, "." | "..")
    };
    if segments.next() != Some("") || path.is_empty() || !segments.all(plain) {
        return Err("not a path; expected for example /socket.io or /updates/socket.io".to_owned());
    }
    if path == HEALTH_PATH {
        return Err(format!("{HEALTH_PATH} is reserved for the health check"));
    }
    Ok(path.to_owned())
}

/// Returns the approximate number of bytes of a request's first line and headers.
pub(super) fn check_size(head: &RequestHead, limit: usize) -> Result<(), Refusal> {
    let url = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if url > limit {
        return Err(Refusal::UrlTooLong);
    }
    let headers: usize = head.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if url + headers > limit { Err(Refusal::HeadTooLong) } else { Ok(()) }
}

/// Returns whether the client asks in its query to go on where an earlier connection ended.
pub(super) fn can_resume(head: &RequestHead) -> bool {
    let query = head.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "resume" && value == "1")
}

/// Answers a WebSocket upgrade request (RFC 6455 §4.2). The response names the first offered
/// sub-protocol, as the reference implementation does; many clients give up a connection without
/// one.
pub(super) fn websocket(head: &RequestHead) -> Result<Response<()>, Refusal> {
    let patched;
    let head = if head.upgrade() {
        head
    } else {
        // A connection that is to close afterwards (`Connection: close, Upgrade`) may still upgrade.
        let mut copy = head.clone();
        copy.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        patched = copy;
        &patched
    };
    let mut response = ws::handshake(head).map_err(|error| match error {
        ws::HandshakeError::UnsupportedVersion => Refusal::WebSocketVersion,
        ws::HandshakeError::GetMethodRequired
        | ws::HandshakeError::NoWebsocketUpgrade
        | ws::HandshakeError::NoConnectionUpgrade
        | ws::HandshakeError::NoVersionHeader
        | ws::HandshakeError::BadWebsocketKey => HandshakeError::BadRequest.into(),
    })?;
    let offers = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).flat_map(|list| list.as_bytes().split(is_comma));
    let first = offers.map(<[u8]>::trim_ascii).find(|offer| !offer.is_empty());
    let first = first.filter(|offer| offer.iter().copied().all(is_token_byte));
    if let Some(Ok(protocol)) = first.map(HeaderValue::from_bytes) {
        response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    Ok(response.finish().drop_body())
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

/// Returns whether a token may contain this byte (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
