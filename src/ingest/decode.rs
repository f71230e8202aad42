//! From the Manager's bytes to events (EVENTS.md §4).

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use crate::farm::event::FarmEvent;
use crate::farm::ids::EventId;
use crate::farm::json::{self, FieldError, JsonType, Members, Problem, subject, with_member};
use crate::farm::payload::Status;

/// An event as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct IncomingEvent {
    /// Empty counts as none: an id that every event may have would make all but the first of them repetitions.
    pub id: Option<EventId>,
    pub event: FarmEvent,
    /// A new job or worker came with a `previous_status`, which was taken out. Worth a warning.
    pub dropped_previous_status: bool,
}

/// Why what came in is no event. Says where, and never quotes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not JSON: {reason} at {}", Position { line: *line, column: *column })]
    NotJson {
        reason: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 when there is nothing at all.
        column: usize,
    },
    #[error("{} {reason}", subject(field))]
    Invalid {
        /// Path of the field, for instance `payload.worker.uuid`; empty when the event as a whole is of a wrong type.
        field: String,
        reason: Problem,
    },
}

/// Why a body holds no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BodyError {
    pub error: DecodeError,
    /// Which element of the array is wrong, counted from 0; `None` when the body is no array, or not JSON.
    pub index: Option<usize>,
}

/// Reads one event.
pub fn decode_event(bytes: &[u8]) -> Result<IncomingEvent, DecodeError> {
    let text = utf8(bytes)?;
    read_event(text).map_err(|error| not_json(text).unwrap_or_else(|| error.into()))
}

/// Reads one event, or an array of them: all or none.
pub fn decode_body(bytes: &[u8]) -> Result<Vec<IncomingEvent>, BodyError> {
    let whole = |error| BodyError { error, index: None };
    let text = utf8(bytes).map_err(whole)?;
    if JsonType::of(text) != JsonType::Array {
        return Ok(vec![decode_event(bytes).map_err(whole)?]);
    }
    let elements = json::elements(text)
        .map_err(|problem| whole(not_json(text).unwrap_or_else(|| FieldError::from(problem).into())))?;
    let read = |(index, json)| read_event(json).map_err(|error| BodyError { error: error.into(), index: Some(index) });
    elements.into_iter().enumerate().map(read).collect()
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        DecodeError::NotJson { reason: "not UTF-8".to_owned(), line, column }
    })
}

/// Where `text` stops being JSON, if it does. Only what was refused is looked at a second time to tell that.
fn not_json(text: &str) -> Option<DecodeError> {
    let error = serde_json::from_str::<&RawValue>(text).err()?;
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let reason = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message).to_owned();
    Some(DecodeError::NotJson { reason, line, column })
}

fn read_event(json: &str) -> Result<IncomingEvent, FieldError> {
    let members = Members::of(json)?;
    let id = members.optional("id")?.filter(|id: &EventId| !id.as_str().is_empty());
    let kind = members.required("type")?;
    let payload = members.required_json("payload")?;
    let mut event = FarmEvent::parse(kind, payload).map_err(|error| error.within("payload"))?;
    let dropped_previous_status = drop_previous_status(&mut event);
    Ok(IncomingEvent { id, event, dropped_previous_status })
}

/// What is new has no status it had before.
fn drop_previous_status(event: &mut FarmEvent) -> bool {
    match event {
        FarmEvent::NewJob(job) => cut_previous_status(&mut job.fields.previous_status, &mut job.json),
        FarmEvent::NewWorker(worker) => cut_previous_status(&mut worker.fields.previous_status, &mut worker.json),
        FarmEvent::JobUpdate(_)
        | FarmEvent::TaskUpdate(_)
        | FarmEvent::TaskLogUpdate(_)
        | FarmEvent::LastRendered(_)
        | FarmEvent::WorkerUpdate(_)
        | FarmEvent::WorkerTagUpdate(_)
        | FarmEvent::LifeCycle(_)
        | FarmEvent::FarmStatus(_)
        | FarmEvent::ChatMessage(_)
        | FarmEvent::Unread(_) => false,
    }
}

fn cut_previous_status(field: &mut Option<Status>, json: &mut Box<str>) -> bool {
    *field = None;
    match with_member(json, "previous_status", None) {
        Cow::Borrowed(_) => false,
        Cow::Owned(rest) => {
            *json = rest.into();
            true
        }
    }
}

impl From<FieldError> for DecodeError {
    fn from(FieldError { field, reason }: FieldError) -> Self {
        Self::Invalid { field, reason }
    }
}

struct Position {
    line: usize,
    column: usize,
}

/// Most of what comes in is one line: then the line is not worth a word.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            1 => write!(f, "column {}", self.column),
            line => write!(f, "line {line} column {}", self.column),
        }
    }
}
