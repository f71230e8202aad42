//! Payloads of events: the fields that this server reads, beside the JSON text that browsers get.
//!
//! Fields are declared in the order in which Go prints them, and omitted where Go omits them, so
//! that an event created here looks like one of the Manager's.

use std::fmt;
use std::ops::Not;

use serde::Serialize;
use uuid::Uuid;

use super::ids::{Entity, JobId, Subject, TagId, TaskId, WorkerId};
use super::json::{self, FieldError, FromJson, JsonType, Members};
use super::room::Room;
use super::timestamp::Timestamp;

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

/// The fields that this server reads of a payload, beside the unchanged JSON text that browsers
/// get.
#[derive(Clone, PartialEq)]
pub struct Payload<T> {
    pub fields: T,
    pub json: Box<str>,
}

/// The state of a job, a task, a worker or the farm: a word, which may be unknown to this server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Status(String);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_requested_at: Option<Timestamp>,
    pub id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent for new jobs, and while the status does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<Status>,
    pub priority: i64,
    /// Whether so many tasks changed that a page should load them all again.
    pub refresh_tasks: bool,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_completed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_total: Option<i64>,
    #[serde(rename = "type")]
    pub kind: String,
    pub updated: Timestamp,
    /// If true, only `id` has a meaning: all other fields have Go's zero value.
    #[serde(skip_serializing_if = "Not::not")]
    pub was_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskUpdate {
    pub activity: String,
    pub id: TaskId,
    pub job_id: JobId,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<Status>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_completed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_total: Option<i64>,
    pub updated: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<TaskWorker>,
}

/// The worker of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskWorker {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<WorkerId>,
}

/// A chunk of a task's log, as it is created and as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskLogUpdate {
    pub log: String,
    pub task_id: TaskId,
}

/// The fields that the server reads of a [`TaskLogUpdate`]. The log itself, which may be large and
/// must never be logged, is only checked to be a string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskLogHead {
    pub task_id: TaskId,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastRenderedUpdate {
    pub job_id: JobId,
    pub thumbnail: Thumbnail,
}

/// The addresses of an image's sizes: `base + "/" + suffix`, relative to the Manager's address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thumbnail {
    pub base: String,
    pub suffixes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_restart: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    pub id: WorkerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<Status>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_change: Option<StatusChange>,
    /// Go's zero time for a worker that has just registered.
    pub updated: Timestamp,
    pub version: String,
}

/// The requested status of a worker; if `is_lazy`, it applies after the current task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusChange {
    pub is_lazy: bool,
    pub status: Status,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerTagUpdate {
    pub tag: WorkerTag,
    #[serde(skip_serializing_if = "Not::not")]
    pub was_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerTag {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<TagId>,
    /// Empty if the tag was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LifeCycle {
    /// `manager-startup` or `manager-shutdown`.
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FarmStatusReport {
    pub status: Status,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    pub name: String,
    pub text: String,
}

impl<T> Payload<T> {
    /// Creates the payload with these `fields`. Of `fields` it keeps what the server reads of a
    /// received payload.
    pub fn new<S: Serialize + Into<T>>(fields: S) -> Self {
        let json = serde_json::to_string(&fields).expect("every payload is an object with names for keys");
        Self { fields: fields.into(), json: json.into() }
    }
}

impl<T: FromJson> Payload<T> {
    /// Decodes the payload in `json`, and keeps that text. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// The text is not JSON, is nested too deep, or a field is missing or invalid; the error names
    /// the field.
    pub fn parse(json: &str) -> Result<Self, FieldError> {
        json::check_depth(json)?;
        Ok(Self { fields: T::from_json(json)?, json: json.into() })
    }
}

/// Omits the text, which may be a task's log.
impl<T: fmt::Debug> fmt::Debug for Payload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.json.len();
        f.debug_struct("Payload").field("fields", &self.fields).field("json", &format_args!("{length} bytes")).finish()
    }
}

impl Status {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Status {
    fn from(word: &str) -> Self {
        Self(word.to_owned())
    }
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        Self(word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TaskLogUpdate> for TaskLogHead {
    fn from(update: TaskLogUpdate) -> Self {
        Self { task_id: update.task_id }
    }
}

/// What the server derives from a payload. A kind of payload overrides what applies to it.
pub trait EventPayload {
    /// Returns the id that the [`Route`](super::event::Route) of the payload's event needs.
    fn routing_id(&self) -> Option<Uuid> {
        None
    }

    /// Returns the entity whose whole state the payload carries, so that a later event of the same
    /// entity supersedes this one.
    ///
    /// A job whose deletion is requested keeps that state in later updates, and a new job or worker
    /// that is merged with later updates stays new. Returns `None` for events that must each be
    /// delivered: deletions, logs, images, tags, life cycle, farm status, chat.
    fn entity(&self) -> Option<Entity> {
        None
    }

    /// Returns what the payload is the last known state of, and whether that still exists. Returns
    /// `None` for events that are no state: logs, life cycle, chat.
    fn subject(&self) -> Option<(Subject, bool)> {
        None
    }

    /// Returns the rooms of the jobs and tasks that the event proves to exist.
    fn shown_rooms(&self) -> [Option<Room>; 2] {
        [None, None]
    }

    /// Returns the status words that this server knows, and those of the payload. They may be empty,
    /// and of any length.
    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        (&[], [None; 3])
    }
}

impl EventPayload for JobUpdate {
    fn entity(&self) -> Option<Entity> {
        (!self.was_deleted).then_some(Entity::Job(self.id))
    }

    fn subject(&self) -> Option<(Subject, bool)> {
        Some((Subject::Job(self.id), !self.was_deleted))
    }

    fn shown_rooms(&self) -> [Option<Room>; 2] {
        [(!self.was_deleted).then_some(Room::Job(self.id)), None]
    }

    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        match self.was_deleted {
            true => (JOB_STATUSES, [None; 3]),
            false => {
                (JOB_STATUSES, [Some(self.status.as_str()), self.previous_status.as_ref().map(Status::as_str), None])
            }
        }
    }
}

impl EventPayload for TaskUpdate {
    fn routing_id(&self) -> Option<Uuid> {
        Some(self.job_id.into())
    }

    fn entity(&self) -> Option<Entity> {
        Some(Entity::Task(self.id))
    }

    fn subject(&self) -> Option<(Subject, bool)> {
        Some((Subject::Task { id: self.id, job: self.job_id }, true))
    }

    fn shown_rooms(&self) -> [Option<Room>; 2] {
        [Some(Room::Job(self.job_id)), Some(Room::TaskLog(self.id))]
    }

    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        (TASK_STATUSES, [Some(self.status.as_str()), self.previous_status.as_ref().map(Status::as_str), None])
    }
}

impl EventPayload for TaskLogHead {
    fn routing_id(&self) -> Option<Uuid> {
        Some(self.task_id.into())
    }

    fn shown_rooms(&self) -> [Option<Room>; 2] {
        [Some(Room::TaskLog(self.task_id)), None]
    }
}

impl EventPayload for LastRenderedUpdate {
    fn routing_id(&self) -> Option<Uuid> {
        Some(self.job_id.into())
    }

    fn subject(&self) -> Option<(Subject, bool)> {
        Some((Subject::Image(self.job_id), true))
    }

    fn shown_rooms(&self) -> [Option<Room>; 2] {
        [Some(Room::Job(self.job_id)), None]
    }
}

impl EventPayload for WorkerUpdate {
    fn entity(&self) -> Option<Entity> {
        self.deleted_at.is_none().then_some(Entity::Worker(self.id))
    }

    fn subject(&self) -> Option<(Subject, bool)> {
        Some((Subject::Worker(self.id), self.deleted_at.is_none()))
    }

    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        let requested = self.status_change.as_ref().map(|change| change.status.as_str());
        let previous = self.previous_status.as_ref().map(Status::as_str);
        (WORKER_STATUSES, [Some(self.status.as_str()), previous, requested])
    }
}

impl EventPayload for FarmStatusReport {
    fn subject(&self) -> Option<(Subject, bool)> {
        Some((Subject::Farm, true))
    }

    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        (FARM_STATUSES, [Some(self.status.as_str()), None, None])
    }
}

impl EventPayload for LifeCycle {
    fn statuses(&self) -> (&'static [&'static str], [Option<&str>; 3]) {
        (LIFE_CYCLE_TYPES, [Some(self.kind.as_str()), None, None])
    }
}

impl EventPayload for WorkerTagUpdate {
    fn subject(&self) -> Option<(Subject, bool)> {
        self.tag.id.map(|id| (Subject::Tag(id), !self.was_deleted))
    }
}

impl EventPayload for ChatMessage {}

impl FromJson for Status {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        String::from_json(json).map(Self)
    }
}

impl FromJson for JobUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self {
            id: members.required("id")?,
            name: members.optional("name")?,
            updated: members.required("updated")?,
            status: members.required("status")?,
            previous_status: members.optional("previous_status")?,
            kind: members.required("type")?,
            priority: members.required("priority")?,
            refresh_tasks: members.required("refresh_tasks")?,
            steps_completed: members.optional("steps_completed")?,
            steps_total: members.optional("steps_total")?,
            delete_requested_at: members.optional("delete_requested_at")?,
            was_deleted: members.optional("was_deleted")?.unwrap_or(false),
        })
    }
}

impl FromJson for TaskUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self {
            id: members.required("id")?,
            job_id: members.required("job_id")?,
            name: members.required("name")?,
            updated: members.required("updated")?,
            status: members.required("status")?,
            previous_status: members.optional("previous_status")?,
            activity: members.required("activity")?,
            worker: members.optional("worker")?,
            steps_completed: members.optional("steps_completed")?,
            steps_total: members.optional("steps_total")?,
        })
    }
}

impl FromJson for TaskWorker {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { name: members.optional("name")?, uuid: members.optional("uuid")? })
    }
}

impl FromJson for TaskLogUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { task_id: members.required("task_id")?, log: members.required("log")? })
    }
}

impl FromJson for TaskLogHead {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        let task_id = members.required("task_id")?;
        let UnreadText = members.required("log")?;
        Ok(Self { task_id })
    }
}

impl FromJson for LastRenderedUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { job_id: members.required("job_id")?, thumbnail: members.required("thumbnail")? })
    }
}

impl FromJson for Thumbnail {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { base: members.required("base")?, suffixes: members.required("suffixes")? })
    }
}

impl FromJson for WorkerUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self {
            id: members.required("id")?,
            name: members.required("name")?,
            updated: members.required("updated")?,
            last_seen: members.optional("last_seen")?,
            status: members.required("status")?,
            previous_status: members.optional("previous_status")?,
            status_change: members.optional("status_change")?,
            version: members.required("version")?,
            deleted_at: members.optional("deleted_at")?,
            can_restart: members.optional("can_restart")?,
        })
    }
}

impl FromJson for StatusChange {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { status: members.required("status")?, is_lazy: members.required("is_lazy")? })
    }
}

impl FromJson for WorkerTagUpdate {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { tag: members.required("tag")?, was_deleted: members.optional("was_deleted")?.unwrap_or(false) })
    }
}

impl FromJson for WorkerTag {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self {
            id: members.optional("id")?,
            name: members.optional("name")?,
            description: members.optional("description")?,
        })
    }
}

impl FromJson for LifeCycle {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        Ok(Self { kind: Members::of(json)?.required("type")? })
    }
}

impl FromJson for FarmStatusReport {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        Ok(Self { status: Members::of(json)?.required("status")? })
    }
}

impl FromJson for ChatMessage {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let members = Members::of(json)?;
        Ok(Self { name: members.required("name")?, text: members.required("text")? })
    }
}

/// A text of which only the type matters.
struct UnreadText;

impl FromJson for UnreadText {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        JsonType::String.expect(json)?;
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    #[test]
    fn payloads_are_printed_as_go_prints_them() {
        let deleted: Payload<JobUpdate> = Payload::new(JobUpdate {
            delete_requested_at: None,
            id: ID.parse().unwrap(),
            name: None,
            previous_status: None,
            priority: 0,
            refresh_tasks: false,
            status: Status::from(""),
            steps_completed: Some(0),
            steps_total: Some(0),
            kind: String::new(),
            updated: Timestamp::zero(),
            was_deleted: true,
        });
        let expected = format!(
            r#"{{"id":"{ID}","priority":0,"refresh_tasks":false,"status":"","steps_completed":0,"steps_total":0,"type":"","updated":"0001-01-01T00:00:00Z","was_deleted":true}}"#
        );
        assert_eq!(&*deleted.json, expected);
        assert_eq!(Payload::parse(&expected), Ok(deleted));
    }

    #[test]
    fn a_log_is_forwarded_but_neither_decoded_nor_printed() {
        let update = TaskLogUpdate { log: "secret\n".to_owned(), task_id: ID.parse().unwrap() };
        let log: Payload<TaskLogHead> = Payload::new(update);
        assert_eq!(&*log.json, format!(r#"{{"log":"secret\n","task_id":"{ID}"}}"#));
        assert_eq!(Payload::parse(&log.json), Ok(log.clone()));
        assert!(!format!("{log:?}").contains("secret"), "{log:?}");
    }
}
