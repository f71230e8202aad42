//! What browsers ask for and what the Manager tells.

use std::sync::Arc;

use flamenco_webupdates::clock;
use flamenco_webupdates::farm::decode::{DecodeError, IncomingEvent, decode_body, decode_event};
use flamenco_webupdates::farm::{Op, Room, SubscriptionRequest};
use flamenco_webupdates::frame::Frame;
use flamenco_webupdates::protocol::engine_payload::Payload;
use flamenco_webupdates::protocol::{EnginePacket, ProtocolError, SocketPacket};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// No error quotes what came in, so none is long.
const LONGEST_ERROR: usize = 200;

/// The argument of `/subscription`.
pub fn subscription(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = SubscriptionRequest::parse(text);
    match &parsed {
        Ok(request) => {
            let asked = request.to_argument().expect("nobody asks for the chat");
            assert_eq!(SubscriptionRequest::parse(&asked).as_ref(), Ok(request));
        }
        Err(refusal) => assert!(refusal.to_string().len() < LONGEST_ERROR),
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    let expected = request(&value);
    // What is given twice is refused, and a value has it only once.
    if parsed.is_ok() {
        assert_eq!(parsed.ok(), expected, "{text}");
    }
    assert_eq!(SubscriptionRequest::parse(&value.to_string()).ok(), expected, "{value}");
}

/// What the value asks for.
fn request(value: &Value) -> Option<SubscriptionRequest> {
    let members = value.as_object()?;
    let text = |name| match members.get(name) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    };
    let (op, kind, uuid) = (text("op")?, text("type")?, text("uuid")?);
    let given = members.get("uuid").is_some_and(|uuid| !uuid.is_null());
    let is_uuid = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if given && !is_uuid {
        return None;
    }
    let room = match kind {
        "allJobs" => "Jobs".to_owned(),
        "allWorkers" => "Workers".to_owned(),
        "allLastRendered" => "Last-Rendered".to_owned(),
        "allWorkerTags" => "Worker-Tags".to_owned(),
        "job" | "tasklog" => format!("{kind}-{uuid}"),
        _ => return None,
    };
    let op = match op {
        "subscribe" => Op::Subscribe,
        "unsubscribe" => Op::Unsubscribe,
        _ => return None,
    };
    room.parse::<Room>().ok().map(|room| SubscriptionRequest { op, room, state: false })
}

/// A body of the Manager: one event or an array.
pub fn ingest_json(data: &[u8]) {
    let events = match decode_body(data) {
        Ok(events) => events,
        Err(error) => {
            assert!(error.to_string().len() < LONGEST_ERROR, "{error}");
            let is_json = std::str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
            assert!(!(is_json && matches!(error.error, DecodeError::NotJson { .. })), "{error}");
            return;
        }
    };
    let told = serde_json::from_slice::<Value>(data).ok();
    for (index, incoming) in events.iter().enumerate() {
        // Of a member that is given twice a value knows only one.
        let payload = told.as_ref().map(|told| told.get(index).unwrap_or(told)).and_then(|event| event.get("payload"));
        if let (Some(payload), Ok(sent)) = (payload, serde_json::from_str::<Value>(incoming.event.json())) {
            says_the_same(incoming, payload.clone(), &sent);
        }
        again(incoming);
    }
    let frames: Vec<_> =
        events.into_iter().map(|incoming| Frame::event(clock::now(), &Arc::new(incoming.event))).collect();
    for (index, frame) in frames.iter().enumerate() {
        reaches_browsers(frame);
        if let Some(newer) =
            frames.get(index + 1).filter(|newer| newer.entity().is_some() && newer.entity() == frame.entity())
        {
            reaches_browsers(&frame.superseded_by(newer));
        }
    }
}

/// Browsers get the Manager's own payload, of which only the former status of what is new is taken away.
fn says_the_same(incoming: &IncomingEvent, mut payload: Value, sent: &Value) {
    let is_new = matches!(incoming.event.kind().as_str(), "new-job" | "new-worker");
    let dropped = is_new && payload.as_object_mut().is_some_and(|members| members.remove("previous_status").is_some());
    assert_eq!((&payload, dropped), (sent, incoming.dropped_previous_status));
}

/// The event as a Manager would send it that says the same.
fn again(incoming: &IncomingEvent) {
    let id = incoming.id.as_ref().map(|id| json!(id.as_str())).unwrap_or_default();
    let (kind, payload) = (incoming.event.kind().as_str(), incoming.event.json());
    let text = format!(r#"{{"id":{id},"type":"{kind}","payload":{payload}}}"#);
    let again = decode_event(text.as_bytes()).expect("it was read before");
    assert!(!again.dropped_previous_status && again.id == incoming.id && again.event == incoming.event, "{text}");
}

/// Both transports carry it as one packet that a client can read.
fn reaches_browsers(frame: &Frame) {
    let text = frame.packet().expect("an event is text");
    let Ok(EnginePacket::Message(message)) = EnginePacket::decode_text(text) else {
        unreachable!("no message: {text}")
    };
    match SocketPacket::decode(message) {
        Ok(SocketPacket::Event { event, .. }) => assert!(event.name.starts_with('/') && event.args.len() == 1),
        // The array around the payload is one level more than it may have.
        Err(ProtocolError::NestedTooDeep) => {}
        other => unreachable!("{other:?}: {text}"),
    }
    let body = Payload::decode(frame.polling(), 1).expect("a body of one packet");
    assert_eq!(body.packets().count(), 1);
}
