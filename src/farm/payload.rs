//! What an event says: the fields this server reads, beside the JSON text that browsers get.
//!
//! Fields are declared in the order in which Go prints them, and left out where Go leaves them out, so that an event made
//! here looks like one of the Manager's.

use std::fmt;
use std::ops::Not;

use serde::Serialize;

use super::ids::{JobId, TagId, TaskId, WorkerId};
use super::json::{self, FieldError, FromJson, JsonType, Members};
use super::timestamp::Timestamp;

/// What this server reads of a payload, beside the JSON text that goes on to browsers exactly as it came.
#[derive(Clone, PartialEq)]
pub struct Payload<T> {
    pub fields: T,
    pub json: Box<str>,
}

/// The state of a job, a task, a worker or the farm: a word, which may be one this server has never heard of.
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
    /// Absent for new jobs, and while the status stays what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<Status>,
    pub priority: i64,
    /// So many tasks changed that a page does best to fetch them all again.
    pub refresh_tasks: bool,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_completed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_total: Option<i64>,
    #[serde(rename = "type")]
    pub kind: String,
    pub updated: Timestamp,
    /// When true, only `id` means anything: every other field has Go's zero value.
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

/// Who does a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskWorker {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<WorkerId>,
}

/// A chunk of a task's log, as it is made and as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskLogUpdate {
    pub log: String,
    pub task_id: TaskId,
}

/// What the server reads of a [`TaskLogUpdate`] on its way through. The log itself, which may be large and must never be
/// logged, is only checked to be a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskLogHead {
    pub task_id: TaskId,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastRenderedUpdate {
    pub job_id: JobId,
    pub thumbnail: Thumbnail,
}

/// Where the sizes of an image are: at `base + "/" + suffix`, relative to the Manager's address.
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

/// What a worker is asked to become; when `is_lazy`, after the task it is doing.
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
    /// Empty when the tag was deleted.
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
    /// The payload that says what `fields` say. Of `fields` it keeps what the server reads of a payload that came in.
    pub fn new<S: Serialize + Into<T>>(fields: S) -> Self {
        let json = serde_json::to_string(&fields).expect("every payload is an object with names for keys");
        Self { fields: fields.into(), json: json.into() }
    }
}

impl<T: FromJson> Payload<T> {
    /// Reads the payload that `json` is the text of, and keeps that text. Fields that are not known are not looked at.
    pub fn parse(json: &str) -> Result<Self, FieldError> {
        json::check_depth(json)?;
        Ok(Self { fields: T::from_json(json)?, json: json.into() })
    }
}

/// Without the text, which may be a task's log.
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
    fn what_is_made_here_is_written_like_go_does_it() {
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
    fn a_log_is_carried_but_neither_read_nor_told() {
        let update = TaskLogUpdate { log: "secret\n".to_owned(), task_id: ID.parse().unwrap() };
        let log: Payload<TaskLogHead> = Payload::new(update);
        assert_eq!(&*log.json, format!(r#"{{"log":"secret\n","task_id":"{ID}"}}"#));
        assert_eq!(Payload::parse(&log.json), Ok(log.clone()));
        assert!(!format!("{log:?}").contains("secret"), "{log:?}");
    }
}
