//! The two requests the floor knows: a WebSocket handshake and a publish.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use crate::frame;

/// RFC 6455, section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_BODY: usize = 64 * 1024 * 1024;

pub enum Request {
    /// Answer with these bytes; from then on the stream is a WebSocket.
    Handshake(Vec<u8>),
    /// Send these frames, `count` of them, to everybody.
    Publish {
        frames: Vec<u8>,
        count: usize,
    },
    Other,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Takes one request off the front of `bytes`: its length and what it asks for. `Ok(None)` asks for more bytes.
pub fn decode(bytes: &[u8]) -> Result<Option<(usize, Request)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes).map_err(|error| error.to_string())? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let length = header("content-length").map_or(Ok(0), str::parse::<usize>).map_err(|error| error.to_string())?;
    if length > MAX_BODY {
        return Err("body too long".into());
    }
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let path = request.path.unwrap_or_default();
    let asks = match (header("sec-websocket-key"), request.method) {
        (Some(key), _) if path.starts_with("/socket.io/") => Request::Handshake(handshake(key)),
        (None, Some("POST")) if path == "/api/events" => publish(body).map_err(|error| error.to_string())?,
        _ => Request::Other,
    };
    Ok(Some((head + length, asks)))
}

pub fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The switch of protocols, the Engine.IO open packet and the Socket.IO connect packet. The session has no second
/// request, so nobody ever needs its id.
fn handshake(key: &str) -> Vec<u8> {
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let open = br#"0{"sid":"floor","upgrades":[],"pingInterval":25000,"pingTimeout":60000}"#;
    [head.into_bytes(), frame::text(open), frame::text(b"40")].concat()
}

fn publish(body: &[u8]) -> serde_json::Result<Request> {
    let events: Vec<Event<'_>> = match body.first() {
        Some(b'[') => serde_json::from_slice(body)?,
        _ => vec![serde_json::from_slice(body)?],
    };
    let encode = |event: &Event<'_>| frame::text(format!(r#"42["/jobs",{}]"#, event.payload.get()).as_bytes());
    Ok(Request::Publish { count: events.len(), frames: events.iter().flat_map(encode).collect() })
}
