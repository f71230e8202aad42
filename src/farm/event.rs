//! Events: their payload, audience and name. To add a kind, add a row to the table in this file.

use std::str::FromStr;

use uuid::Uuid;

use super::ids::{Entity, Subject};
use super::json::{self, FieldError, FromJson, Problem};
use super::payload::{
    ChatMessage, EventPayload, FarmStatusReport, JobUpdate, LastRenderedUpdate, LifeCycle, Payload, TaskLogHead,
    TaskUpdate, WorkerTagUpdate, WorkerUpdate,
};
use super::room::{Audience, Room};

/// An event of a newer Manager that this server cannot decode. It is forwarded unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Unread {
    /// The event name that browsers get.
    pub name: Box<str>,
    pub audience: Audience,
    /// The payload, any JSON.
    pub json: Box<str>,
}

/// The text is not a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known kind of event")]
pub struct UnknownKind;

/// The audience of a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Everyone,
    Room(Room),
    /// The room of the job in the payload's `job_id`.
    Job,
    /// The log room of the task in the payload's `task_id`.
    TaskLog,
    /// The room of the job, and this one, which gets the event even if the payload has no job.
    JobAnd(Room),
}

impl Route {
    /// Returns the audience of a payload whose ids `id` returns by the name of their field, or
    /// `None` if the id that decides is missing.
    pub fn audience(self, id: impl FnOnce(&'static str) -> Option<Uuid>) -> Option<Audience> {
        match self {
            Self::Everyone => Some(Audience::Everyone),
            Self::Room(room) => Some(Audience::Room(room)),
            Self::Job => id("job_id").map(|job| Audience::Room(Room::Job(job.into()))),
            Self::TaskLog => id("task_id").map(|task| Audience::Room(Room::TaskLog(task.into()))),
            Self::JobAnd(room) => Some(match id("job_id") {
                Some(job) => Audience::Rooms([Room::Job(job.into()), room]),
                None => Audience::Room(room),
            }),
        }
    }
}

/// The publisher of an event. Events of one topic keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Jobs,
    Workers,
    Farm,
    Chat,
}

/// Defines the kinds of events: the Manager's name, the name on the wire, the topic and the route of each.
macro_rules! events {
    ($($(#[$doc:meta])* $kind:ident($payload:ty) = $name:literal, $wire:literal, $topic:expr, $route:expr;)+) => {
        /// An event on the farm.
        #[derive(Debug, Clone, PartialEq)]
        pub enum FarmEvent {
            $($(#[$doc])* $kind(Payload<$payload>),)+
            /// An event of a newer Manager that this server cannot decode.
            Unread(Unread),
        }

        $crate::labels! {
            /// The kinds of [`FarmEvent`], labelled with the Manager's names for them.
            pub enum EventKind {
                $($(#[$doc])* $kind = $name,)+
                /// No Manager uses this name: see [`Unread`].
                Unread = "unread",
            }
        }

        impl FarmEvent {
            /// Decodes the payload of an event of the kind `kind`.
            ///
            /// # Errors
            ///
            /// Returns a [`FieldError`] for the first invalid field.
            pub fn parse(kind: EventKind, json: &str) -> Result<Self, FieldError> {
                match kind {
                    $(EventKind::$kind => Payload::parse(json).map(Self::$kind),)+
                    EventKind::Unread => Err(Problem::UnknownKind.into()),
                }
            }

            pub fn kind(&self) -> EventKind {
                match self {
                    $(Self::$kind(_) => EventKind::$kind,)+
                    Self::Unread(_) => EventKind::Unread,
                }
            }

            pub fn audience(&self) -> Audience {
                match self {
                    $(Self::$kind(payload) => {
                        let id = |_: &str| payload.fields.routing_id();
                        EventKind::$kind.route().audience(id).expect("a payload has the id that its route needs")
                    })+
                    Self::Unread(unread) => unread.audience,
                }
            }

            /// Returns the decoded payload, or `None` for [`Unread`].
            pub(crate) fn payload(&self) -> Option<&dyn EventPayload> {
                match self {
                    $(Self::$kind(payload) => Some(&payload.fields),)+
                    Self::Unread(_) => None,
                }
            }

            /// Returns the payload's text, which clients receive byte for byte.
            pub fn json(&self) -> &str {
                match self {
                    $(Self::$kind(payload) => &payload.json,)+
                    Self::Unread(unread) => &unread.json,
                }
            }
        }

        impl EventKind {
            /// Returns the event name that clients receive; empty for [`Unread`](Self::Unread), each of which has its own.
            pub const fn wire_name(self) -> &'static str {
                match self {
                    $(Self::$kind => $wire,)+
                    Self::Unread => "",
                }
            }

            pub const fn topic(self) -> Topic {
                match self {
                    $(Self::$kind => $topic,)+
                    Self::Unread => Topic::Farm,
                }
            }

            pub const fn route(self) -> Route {
                match self {
                    $(Self::$kind => $route,)+
                    Self::Unread => Route::Everyone,
                }
            }
        }
    };
}

events! {
    /// A new job of the Manager.
    NewJob(JobUpdate) = "new-job", "/jobs", Topic::Jobs, Route::Room(Room::Jobs);
    JobUpdate(JobUpdate) = "job-update", "/jobs", Topic::Jobs, Route::Room(Room::Jobs);
    TaskUpdate(TaskUpdate) = "task-update", "/task", Topic::Jobs, Route::Job;
    TaskLogUpdate(TaskLogHead) = "task-log-update", "/tasklog", Topic::Jobs, Route::TaskLog;
    LastRendered(LastRenderedUpdate) = "last-rendered", "/last-rendered", Topic::Jobs, Route::JobAnd(Room::LastRendered);
    /// A new worker of the Manager.
    NewWorker(WorkerUpdate) = "new-worker", "/workers", Topic::Workers, Route::Room(Room::Workers);
    WorkerUpdate(WorkerUpdate) = "worker-update", "/workers", Topic::Workers, Route::Room(Room::Workers);
    WorkerTagUpdate(WorkerTagUpdate) = "worker-tag-update", "/workertags", Topic::Workers, Route::Room(Room::WorkerTags);
    LifeCycle(LifeCycle) = "life-cycle", "/lifecycle", Topic::Farm, Route::Everyone;
    FarmStatus(FarmStatusReport) = "farm-status", "/status", Topic::Farm, Route::Everyone;
    ChatMessage(ChatMessage) = "chat-message", "/message", Topic::Chat, Route::Room(Room::Chat);
}

impl FarmEvent {
    /// Returns the event name that clients receive.
    pub fn wire_name(&self) -> &str {
        if let Self::Unread(unread) = self { &unread.name } else { self.kind().wire_name() }
    }

    /// Returns the entity whose whole state the event carries, so that a later event of the same
    /// entity supersedes this one.
    pub fn entity(&self) -> Option<Entity> {
        self.payload()?.entity()
    }

    /// Returns what the event is the last known state of, and whether that still exists.
    pub fn subject(&self) -> Option<(Subject, bool)> {
        self.payload()?.subject()
    }

    /// Returns the rooms of the jobs and tasks that the event proves to exist.
    pub fn shown_rooms(&self) -> impl Iterator<Item = Room> {
        self.payload().map(EventPayload::shown_rooms).into_iter().flatten().flatten()
    }

    /// Returns the first of the event's status words that this server does not know, if any. Such
    /// an event is forwarded unchanged; the word is logged. It may be empty, and of any length.
    pub fn unknown_status(&self) -> Option<&str> {
        let (known, words) = self.payload()?.statuses();
        words.into_iter().flatten().find(|word| !known.contains(word))
    }
}

impl EventKind {
    /// Returns the kind that clients receive under `name`. On the wire a new job or worker is an update like any other.
    pub fn from_wire_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().rfind(|kind| kind.wire_name() == name && *kind != Self::Unread)
    }
}

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        kind.filter(|&kind| kind != Self::Unread).ok_or(UnknownKind)
    }
}

impl FromJson for EventKind {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        Ok(json::text(json)?.parse().map_err(|UnknownKind| Problem::UnknownKind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    #[test]
    fn kinds_have_their_place_and_come_back_from_their_names() {
        for (place, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            if kind == EventKind::Unread {
                assert_eq!(kind.as_str().parse::<EventKind>(), Err(UnknownKind));
                continue;
            }
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(EventKind::from_wire_name(kind.wire_name()).unwrap().wire_name(), kind.wire_name());
        }
        assert_eq!("jobs".parse::<EventKind>(), Err(UnknownKind));
        assert_eq!(EventKind::from_wire_name("jobs"), None);
    }

    #[test]
    fn status_words_of_a_newer_manager_are_reported() {
        let job = |fields: &str| {
            format!(
                r#"{{"id":"{ID}","priority":0,"refresh_tasks":false,"type":"","updated":"0001-01-01T00:00:00Z",{fields}}}"#
            )
        };
        let task = |fields: &str| {
            format!(
                r#"{{"id":"{ID}","job_id":"{ID}","name":"","activity":"","updated":"0001-01-01T00:00:00Z",{fields}}}"#
            )
        };
        let worker = |fields: &str| {
            format!(r#"{{"id":"{ID}","name":"","version":"","updated":"0001-01-01T00:00:00Z",{fields}}}"#)
        };
        for (kind, json, expected) in [
            (EventKind::JobUpdate, job(r#""status":"requeueing","previous_status":"paused""#), None),
            (EventKind::JobUpdate, job(r#""status":"napping""#), Some("napping")),
            (EventKind::NewJob, job(r#""status":"""#), Some("")),
            (EventKind::JobUpdate, job(r#""status":"","was_deleted":true"#), None),
            (EventKind::JobUpdate, job(r#""status":"active","previous_status":"napping""#), Some("napping")),
            (EventKind::TaskUpdate, task(r#""status":"soft-failed""#), None),
            (EventKind::TaskUpdate, task(r#""status":"requeueing""#), Some("requeueing")),
            (EventKind::WorkerUpdate, worker(r#""status":"awake""#), None),
            (
                EventKind::WorkerUpdate,
                worker(r#""status":"awake","status_change":{"status":"dreaming","is_lazy":true}"#),
                Some("dreaming"),
            ),
            (EventKind::FarmStatus, r#"{"status":"inoperative"}"#.to_owned(), None),
            (EventKind::FarmStatus, r#"{"status":"on-fire"}"#.to_owned(), Some("on-fire")),
            (EventKind::LifeCycle, r#"{"type":"manager-shutdown"}"#.to_owned(), None),
            (EventKind::LifeCycle, r#"{"type":"manager-reborn"}"#.to_owned(), Some("manager-reborn")),
            (EventKind::ChatMessage, r#"{"name":"a","text":"napping"}"#.to_owned(), None),
        ] {
            assert_eq!(FarmEvent::parse(kind, &json).unwrap().unknown_status(), expected, "{json}");
        }
    }
}
