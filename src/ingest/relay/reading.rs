//! From what the Manager sends to events.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::farm::{
    Audience, EventKind, FarmEvent, FieldError, Room, Unread,
    json::{self, Members},
};

/// Names of events that are complained about, each once.
const MAX_COMPLAINTS: usize = 100;

/// Bytes of a name that the log shows.
const MAX_NAME: usize = 60;

/// Reads events. Remembers of which kinds there was one that it could not read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    complaints: HashSet<Box<str>>,
}

impl Reader {
    /// What an event under `name` says. One that cannot be read goes on as it is to those whom its name is for; `None` where
    /// that cannot be told.
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
                "the Manager sends an event {name:?} that cannot be read: {problem}; such events go on as they are"
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
    let audience = match EventKind::from_wire_name(name) {
        Some(EventKind::NewJob | EventKind::JobUpdate) => Audience::Room(Room::Jobs),
        Some(EventKind::TaskUpdate) => Audience::Room(Room::Job(id(first, "job_id")?)),
        Some(EventKind::TaskLogUpdate) => Audience::Room(Room::TaskLog(id(first, "task_id")?)),
        Some(EventKind::LastRendered) => match id(first, "job_id") {
            Some(job) => Audience::Rooms([Room::Job(job), Room::LastRendered]),
            None => Audience::Room(Room::LastRendered),
        },
        Some(EventKind::NewWorker | EventKind::WorkerUpdate) => Audience::Room(Room::Workers),
        Some(EventKind::WorkerTagUpdate) => Audience::Room(Room::WorkerTags),
        Some(EventKind::ChatMessage) => Audience::Room(Room::Chat),
        Some(EventKind::LifeCycle | EventKind::FarmStatus | EventKind::Unread) | None => Audience::Everyone,
    };
    Some(FarmEvent::Unread(Unread { name: name.into(), audience, json: texts.join(",").into() }))
}

fn id<T: json::FromJson>(payload: &str, name: &str) -> Option<T> {
    let read = || Members::of(payload).map_err(FieldError::from)?.required(name);
    read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn read(name: &str, arguments: &[&str]) -> Option<FarmEvent> {
        let arguments: Vec<_> =
            arguments.iter().map(|text| RawValue::from_string((*text).to_owned()).unwrap()).collect();
        Reader::default().read(name, &arguments)
    }

    #[test]
    fn what_is_known_is_read() {
        assert!(matches!(read("/status", &[r#"{"status":"idle"}"#]), Some(FarmEvent::FarmStatus(_))));
        assert!(matches!(read("/message", &[r#"{"name":"a","text":"b"}"#]), Some(FarmEvent::ChatMessage(_))));
    }

    #[test]
    fn what_is_not_goes_on_as_it_came() {
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
    fn what_is_for_nobody_in_particular_or_too_deep_is_dropped() {
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
