//! Events: what happened on the farm, where it goes and under which name.

use std::fmt;
use std::str::FromStr;

use super::json::{self, FieldError, FromJson, Problem};
use super::payload::{
    ChatMessage, FarmStatusReport, JobUpdate, LastRenderedUpdate, LifeCycle, Payload, TaskLogHead, TaskUpdate,
    WorkerTagUpdate, WorkerUpdate,
};
use super::room::{Audience, Room};

/// Something happened on the farm.
#[derive(Debug, Clone, PartialEq)]
pub enum FarmEvent {
    NewJob(Payload<JobUpdate>),
    JobUpdate(Payload<JobUpdate>),
    TaskUpdate(Payload<TaskUpdate>),
    TaskLogUpdate(Payload<TaskLogHead>),
    LastRendered(Payload<LastRenderedUpdate>),
    NewWorker(Payload<WorkerUpdate>),
    WorkerUpdate(Payload<WorkerUpdate>),
    WorkerTagUpdate(Payload<WorkerTagUpdate>),
    LifeCycle(Payload<LifeCycle>),
    FarmStatus(Payload<FarmStatusReport>),
    ChatMessage(Payload<ChatMessage>),
    Unread(Unread),
}

/// What a Manager sends that this server cannot read, because a newer one has more to say. It goes on as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Unread {
    /// Under which browsers get it.
    pub name: Box<str>,
    pub audience: Audience,
    /// The payload: JSON, whatever it says.
    pub json: Box<str>,
}

/// The kinds of [`FarmEvent`], under the names the Manager has for them. `kind as usize` is its position in
/// [`EventKind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    NewJob,
    JobUpdate,
    TaskUpdate,
    TaskLogUpdate,
    LastRendered,
    NewWorker,
    WorkerUpdate,
    WorkerTagUpdate,
    LifeCycle,
    FarmStatus,
    ChatMessage,
    /// No Manager calls an event so: see [`Unread`].
    Unread,
}

/// The text names no kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known kind of event")]
pub struct UnknownKind;

const JOB_STATUSES: &[&str] = &[
    "active",
    "canceled",
    "completed",
    "failed",
    "paused",
    "pause-requested",
    "queued",
    "cancel-requested",
    "requeueing",
    "under-construction",
];
const TASK_STATUSES: &[&str] = &["active", "canceled", "completed", "failed", "queued", "soft-failed", "paused"];
const WORKER_STATUSES: &[&str] = &["starting", "awake", "asleep", "error", "testing", "offline", "restart"];
const FARM_STATUSES: &[&str] = &["active", "idle", "waiting", "asleep", "inoperative", "unknown", "starting"];
const LIFE_CYCLE_TYPES: &[&str] = &["manager-startup", "manager-shutdown"];

impl FarmEvent {
    /// Reads the payload of an event of the kind `kind`.
    pub fn parse(kind: EventKind, json: &str) -> Result<Self, FieldError> {
        fn read<T: FromJson>(json: &str, event: fn(Payload<T>) -> FarmEvent) -> Result<FarmEvent, FieldError> {
            Payload::parse(json).map(event)
        }
        match kind {
            EventKind::NewJob => read(json, Self::NewJob),
            EventKind::JobUpdate => read(json, Self::JobUpdate),
            EventKind::TaskUpdate => read(json, Self::TaskUpdate),
            EventKind::TaskLogUpdate => read(json, Self::TaskLogUpdate),
            EventKind::LastRendered => read(json, Self::LastRendered),
            EventKind::NewWorker => read(json, Self::NewWorker),
            EventKind::WorkerUpdate => read(json, Self::WorkerUpdate),
            EventKind::WorkerTagUpdate => read(json, Self::WorkerTagUpdate),
            EventKind::LifeCycle => read(json, Self::LifeCycle),
            EventKind::FarmStatus => read(json, Self::FarmStatus),
            EventKind::ChatMessage => read(json, Self::ChatMessage),
            EventKind::Unread => Err(Problem::UnknownKind.into()),
        }
    }

    pub fn kind(&self) -> EventKind {
        match self {
            Self::NewJob(_) => EventKind::NewJob,
            Self::JobUpdate(_) => EventKind::JobUpdate,
            Self::TaskUpdate(_) => EventKind::TaskUpdate,
            Self::TaskLogUpdate(_) => EventKind::TaskLogUpdate,
            Self::LastRendered(_) => EventKind::LastRendered,
            Self::NewWorker(_) => EventKind::NewWorker,
            Self::WorkerUpdate(_) => EventKind::WorkerUpdate,
            Self::WorkerTagUpdate(_) => EventKind::WorkerTagUpdate,
            Self::LifeCycle(_) => EventKind::LifeCycle,
            Self::FarmStatus(_) => EventKind::FarmStatus,
            Self::ChatMessage(_) => EventKind::ChatMessage,
            Self::Unread(_) => EventKind::Unread,
        }
    }

    /// The name under which browsers get the event.
    pub fn wire_name(&self) -> &str {
        if let Self::Unread(unread) = self { &unread.name } else { self.kind().wire_name() }
    }

    pub fn audience(&self) -> Audience {
        match self {
            Self::NewJob(_) | Self::JobUpdate(_) => Audience::Room(Room::Jobs),
            Self::TaskUpdate(task) => Audience::Room(Room::Job(task.fields.job_id)),
            Self::TaskLogUpdate(log) => Audience::Room(Room::TaskLog(log.fields.task_id)),
            Self::LastRendered(image) => Audience::Rooms([Room::Job(image.fields.job_id), Room::LastRendered]),
            Self::NewWorker(_) | Self::WorkerUpdate(_) => Audience::Room(Room::Workers),
            Self::WorkerTagUpdate(_) => Audience::Room(Room::WorkerTags),
            Self::LifeCycle(_) | Self::FarmStatus(_) => Audience::Everyone,
            Self::ChatMessage(_) => Audience::Room(Room::Chat),
            Self::Unread(unread) => unread.audience,
        }
    }

    /// The payload's text, for browsers.
    pub fn json(&self) -> &str {
        match self {
            Self::NewJob(job) | Self::JobUpdate(job) => &job.json,
            Self::TaskUpdate(task) => &task.json,
            Self::TaskLogUpdate(log) => &log.json,
            Self::LastRendered(image) => &image.json,
            Self::NewWorker(worker) | Self::WorkerUpdate(worker) => &worker.json,
            Self::WorkerTagUpdate(tag) => &tag.json,
            Self::LifeCycle(life_cycle) => &life_cycle.json,
            Self::FarmStatus(report) => &report.json,
            Self::ChatMessage(message) => &message.json,
            Self::Unread(unread) => &unread.json,
        }
    }

    /// The first of the event's status words that this server does not know, if any. Such an event goes out as it came;
    /// the word is worth a line in the log. It may be empty, and of any length.
    pub fn unknown_status(&self) -> Option<&str> {
        let (known, words) = match self {
            Self::NewJob(job) | Self::JobUpdate(job) if job.fields.was_deleted => return None,
            Self::NewJob(job) | Self::JobUpdate(job) => {
                (JOB_STATUSES, [Some(&job.fields.status), job.fields.previous_status.as_ref(), None])
            }
            Self::TaskUpdate(task) => {
                (TASK_STATUSES, [Some(&task.fields.status), task.fields.previous_status.as_ref(), None])
            }
            Self::NewWorker(worker) | Self::WorkerUpdate(worker) => {
                let fields = &worker.fields;
                let wanted = fields.status_change.as_ref().map(|change| &change.status);
                (WORKER_STATUSES, [Some(&fields.status), fields.previous_status.as_ref(), wanted])
            }
            Self::FarmStatus(report) => (FARM_STATUSES, [Some(&report.fields.status), None, None]),
            Self::LifeCycle(life_cycle) => {
                let word = life_cycle.fields.kind.as_str();
                return (!LIFE_CYCLE_TYPES.contains(&word)).then_some(word);
            }
            Self::TaskLogUpdate(_)
            | Self::LastRendered(_)
            | Self::WorkerTagUpdate(_)
            | Self::ChatMessage(_)
            | Self::Unread(_) => return None,
        };
        words.into_iter().flatten().map(|status| status.as_str()).find(|word| !known.contains(word))
    }
}

impl EventKind {
    pub const ALL: [Self; 12] = [
        Self::NewJob,
        Self::JobUpdate,
        Self::TaskUpdate,
        Self::TaskLogUpdate,
        Self::LastRendered,
        Self::NewWorker,
        Self::WorkerUpdate,
        Self::WorkerTagUpdate,
        Self::LifeCycle,
        Self::FarmStatus,
        Self::ChatMessage,
        Self::Unread,
    ];

    /// The Manager's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewJob => "new-job",
            Self::JobUpdate => "job-update",
            Self::TaskUpdate => "task-update",
            Self::TaskLogUpdate => "task-log-update",
            Self::LastRendered => "last-rendered",
            Self::NewWorker => "new-worker",
            Self::WorkerUpdate => "worker-update",
            Self::WorkerTagUpdate => "worker-tag-update",
            Self::LifeCycle => "life-cycle",
            Self::FarmStatus => "farm-status",
            Self::ChatMessage => "chat-message",
            Self::Unread => "unread",
        }
    }

    /// The name under which browsers get it.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::NewJob | Self::JobUpdate => "/jobs",
            Self::TaskUpdate => "/task",
            Self::TaskLogUpdate => "/tasklog",
            Self::LastRendered => "/last-rendered",
            Self::NewWorker | Self::WorkerUpdate => "/workers",
            Self::WorkerTagUpdate => "/workertags",
            Self::LifeCycle => "/lifecycle",
            Self::FarmStatus => "/status",
            Self::ChatMessage => "/message",
            // Each has its own.
            Self::Unread => "",
        }
    }

    /// The kind that browsers get under `name`. On the wire a new job or worker is an update like any other.
    pub fn from_wire_name(name: &str) -> Option<Self> {
        match name {
            "/jobs" => Some(Self::JobUpdate),
            "/task" => Some(Self::TaskUpdate),
            "/tasklog" => Some(Self::TaskLogUpdate),
            "/last-rendered" => Some(Self::LastRendered),
            "/workers" => Some(Self::WorkerUpdate),
            "/workertags" => Some(Self::WorkerTagUpdate),
            "/lifecycle" => Some(Self::LifeCycle),
            "/status" => Some(Self::FarmStatus),
            "/message" => Some(Self::ChatMessage),
            _ => None,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
    fn status_words_of_a_newer_manager_are_told() {
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
