//! Decodes the Manager's messages into events.

use std::collections::HashSet;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::farm::{
    EventKind, FarmEvent, FieldError, Route, TaskId, Unread,
    json::{self, Members},
};

/// The maximum number of event names that are logged, each once.
const MAX_COMPLAINTS: usize = 100;

/// The maximum length of a name in the log, in bytes.
const MAX_NAME: usize = 60;

/// Decodes events, and remembers the kinds that it could not decode.
#[derive(Debug, Default)]
pub(super) struct Reader {
    complaints: HashSet<Box<str>>,
}

impl Reader {
    /// Decodes an event named `name`. An event that cannot be decoded is forwarded unchanged to the
    /// audience of its name. Returns `None` if the audience is unknown.
    pub(super) fn read(&mut self, name: &str, arguments: &[Box<RawValue>]) -> Option<FarmEvent> {
        let kind = EventKind::from_wire_name(name);
        let problem = match (kind, arguments) {
            (Some(kind), [payload]) => match FarmEvent::parse(kind, payload.get()) {
                Ok(event) => return Some(event),
                Err(error) => error.to_string(),
            },
            (Some(_), _) => format!("it has {} arguments", arguments.len()),
            (None, _) => "its name is not known".to_owned(),
        };
        self.complain(name, &problem);
        unread(name, arguments)
    }

    fn complain(&mut self, name: &str, problem: &str) {
        if self.complaints.len() < MAX_COMPLAINTS && self.complaints.insert(name.into()) {
            let name: String = name.chars().take(MAX_NAME).collect();
            log::warn!(
                "the Manager sends an event {name:?} that cannot be decoded: {problem}; such events are forwarded unchanged"
            );
        }
    }
}

fn unread(name: &str, arguments: &[Box<RawValue>]) -> Option<FarmEvent> {
    let first = arguments.first()?.get();
    let texts: Vec<&str> = arguments.iter().map(|argument| argument.get()).collect();
    if texts.iter().any(|text| json::check_depth(text).is_err()) {
        return None;
    }
    let route = EventKind::from_wire_name(name).map_or(Route::Everyone, EventKind::route);
    let audience = route.audience(|field| id(first, field))?;
    Some(FarmEvent::Unread(Unread { name: name.into(), audience, json: texts.join(",").into() }))
}

fn id(payload: &str, field: &str) -> Option<Uuid> {
    let read = || Members::of(payload).map_err(FieldError::from)?.required::<TaskId>(field);
    read().ok().map(Uuid::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::{Audience, Room};

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn read(name: &str, arguments: &[&str]) -> Option<FarmEvent> {
        let arguments: Vec<_> =
            arguments.iter().map(|text| RawValue::from_string((*text).to_owned()).unwrap()).collect();
        Reader::default().read(name, &arguments)
    }

    #[test]
    fn known_events_are_decoded() {
        assert!(matches!(read("/status", &[r#"{"status":"idle"}"#]), Some(FarmEvent::FarmStatus(_))));
        assert!(matches!(read("/message", &[r#"{"name":"a","text":"b"}"#]), Some(FarmEvent::ChatMessage(_))));
    }

    #[test]
    fn unknown_events_are_forwarded_unchanged() {
        let job = format!(r#"{{"job_id":"{ID}", "new":[1]}}"#);
        let room = Room::Job(ID.parse().unwrap());
        for (name, arguments, audience) in [
            ("/weather", vec![r#"{"rain": 1}"#], Audience::Everyone),
            ("/weather", vec!["1", "[2]"], Audience::Everyone),
            ("/jobs", vec!["null"], Audience::Room(Room::Jobs)),
            ("/jobs", vec!["{}", "{}"], Audience::Room(Room::Jobs)),
            ("/task", vec![&job], Audience::Room(room)),
            ("/last-rendered", vec![&job], Audience::Rooms([room, Room::LastRendered])),
            ("/last-rendered", vec!["{}"], Audience::Room(Room::LastRendered)),
            ("/status", vec!["\"new\""], Audience::Everyone),
        ] {
            let json = arguments.join(",").into();
            let expected = FarmEvent::Unread(Unread { name: name.into(), audience, json });
            assert_eq!(read(name, &arguments), Some(expected), "{name}");
        }
    }

    #[test]
    fn events_without_audience_or_too_deeply_nested_are_dropped() {
        assert_eq!(read("/weather", &[]), None);
        assert_eq!(read("/task", &[r#"{"job_id":1}"#]), None);
        assert_eq!(read("/tasklog", &["{}"]), None);
        assert_eq!(read("/weather", &[&("[".repeat(100) + &"]".repeat(100))]), None);
    }

    #[test]
    fn complaints_are_bounded() {
        let mut reader = Reader::default();
        for number in 0..1000 {
            reader.read(&format!("/{number}"), &[]);
        }
        assert_eq!(reader.complaints.len(), MAX_COMPLAINTS);
    }
}
