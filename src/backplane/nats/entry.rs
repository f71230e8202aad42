//! Events as messages of the stream: the kind is in the subject, the payload is the Manager's JSON.

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::farm::{Audience, EventId, EventKind, FarmEvent, Room, Unread};

pub(super) const MSG_ID: &str = "Nats-Msg-Id";

/// The subject whose last message must have the offset of `EXPECTED`, or the message is refused.
pub(super) const FENCE: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// The beginning of the last part of a fence's subject. No kind of event begins like that.
const LEADER: &str = "leader-";

/// The last part of a note's subject.
const NOTE: &str = "note";

/// An event that this server cannot decode, with what its kind would say.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    name: &'a str,
    /// `None` for everyone.
    rooms: Option<Vec<String>>,
    #[serde(borrow)]
    json: &'a RawValue,
}

/// What a message of the stream says.
#[derive(Debug)]
pub(super) enum Content {
    Event(Arc<FarmEvent>),
    /// What a source that exists once notes for all nodes.
    Note(String),
}

impl Content {
    /// Returns the last part of the subject.
    fn kind(&self) -> &str {
        match self {
            Self::Event(event) => event.kind().as_str(),
            Self::Note(_) => NOTE,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Event(event) => event.json(),
            Self::Note(note) => note,
        }
    }
}

/// Returns the subject of a message.
pub(super) fn subject(stream: &str, content: &Content) -> String {
    format!("{stream}.events.{}", content.kind())
}

/// Returns the subject of the fences of a lock.
pub(super) fn fence_subject(stream: &str, lock: &str) -> String {
    format!("{stream}.events.{LEADER}{lock}")
}

/// Returns the lock whose fence the message is. A fence is no event.
pub(super) fn fence_of(message: &Message) -> Option<&str> {
    last_part(message).strip_prefix(LEADER)
}

/// Returns whether the event was published by a source that exists once.
pub(super) fn is_fenced(message: &Message) -> bool {
    message.headers.as_ref().is_some_and(|headers| headers.get(FENCE).is_some())
}

/// Returns the payload of a message.
pub(super) fn payload(content: &Content) -> Bytes {
    let Content::Event(event) = content else { return Bytes::copy_from_slice(content.text().as_bytes()) };
    let FarmEvent::Unread(Unread { name, audience, json }) = &**event else {
        return Bytes::copy_from_slice(event.json().as_bytes());
    };
    let rooms = match audience {
        Audience::Everyone => None,
        Audience::Room(room) => Some(vec![room.to_string()]),
        Audience::Rooms(rooms) => Some(rooms.iter().map(Room::to_string).collect()),
    };
    let json = serde_json::from_str(json).unwrap_or(RawValue::NULL);
    serde_json::to_vec(&Envelope { name, rooms, json }).expect("texts serialize").into()
}

/// Decodes a message of the stream.
pub(super) fn decode(message: &Message) -> Result<Content, String> {
    let json = std::str::from_utf8(&message.payload).map_err(|_| "it is not UTF-8".to_owned())?;
    let kind = last_part(message);
    if kind == NOTE {
        return Ok(Content::Note(json.to_owned()));
    }
    let event = if kind == EventKind::Unread.as_str() {
        unread(json).ok_or_else(|| "its envelope is not valid".to_owned())?
    } else {
        let kind: EventKind = kind.parse().map_err(|_| "its kind is not known".to_owned())?;
        FarmEvent::parse(kind, json).map_err(|error| error.to_string())?
    };
    Ok(Content::Event(Arc::new(event)))
}

fn last_part(message: &Message) -> &str {
    message.subject.rsplit('.').next().unwrap_or_default()
}

fn unread(json: &str) -> Option<FarmEvent> {
    let Envelope { name, rooms, json } = serde_json::from_str(json).ok()?;
    let rooms = rooms.map(|rooms| rooms.iter().map(|room| room.parse()).collect::<Result<Vec<Room>, _>>());
    let audience = match rooms.transpose().ok()?.as_deref() {
        None => Audience::Everyone,
        Some([room]) => Audience::Room(*room),
        Some([one, other]) => Audience::Rooms([*one, *other]),
        Some(_) => return None,
    };
    Some(FarmEvent::Unread(Unread { name: name.into(), audience, json: json.get().into() }))
}

/// Ids may hold any character, and headers must not.
pub(super) fn encode_id(id: &EventId) -> String {
    id.as_str().bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the id of a message, for the log.
pub(super) fn decode_id(headers: Option<&HeaderMap>) -> Option<EventId> {
    let hex = headers?.get(MSG_ID)?.as_str();
    let bytes: Option<Vec<u8>> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    String::from_utf8(bytes?).ok().map(EventId::from)
}
