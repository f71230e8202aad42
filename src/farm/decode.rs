//! Decodes the Manager's bytes into events.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use crate::event::FarmEvent;
use crate::ids::EventId;
use crate::json::{self, FieldError, JsonType, Members, Problem, subject, with_member};
use crate::payload::Status;

/// A decoded event.
#[derive(Debug, Clone, PartialEq)]
pub struct IncomingEvent {
    /// Empty counts as absent: if every event had the same id, all but the first would be
    /// repetitions.
    pub id: Option<EventId>,
    pub event: FarmEvent,
    /// Whether a new job or worker had a `previous_status`, which was removed. Worth a warning.
    pub dropped_previous_status: bool,
}

/// Why the input is not an event. Names the place, and never quotes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not JSON: {reason} at {}", Position { line: *line, column: *column })]
    NotJson {
        reason: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 for empty input.
        column: usize,
    },
    #[error("{} {reason}", subject(field))]
    Invalid {
        /// Path of the field, for instance `payload.worker.uuid`; empty if the event as a whole has
        /// the wrong type.
        field: String,
        reason: Problem,
    },
}

/// Why a body contains no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BodyError {
    pub error: DecodeError,
    /// The index of the invalid element, counted from 0; `None` if the body is not an array, or not
    /// JSON.
    pub index: Option<usize>,
}

/// Decodes one event.
///
/// # Errors
///
/// The bytes are not UTF-8 or JSON, or a field of the event is missing or invalid.
pub fn decode_event(bytes: &[u8]) -> Result<IncomingEvent, DecodeError> {
    let text = utf8(bytes)?;
    read_event(text).map_err(|error| not_json(text).unwrap_or_else(|| error.into()))
}

/// Decodes one event, or an array of them, entirely or not at all.
///
/// # Errors
///
/// As [`decode_event`], with the index of the event in the array.
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

/// The byte order mark with which programs on Windows start a text. It is skipped (RFC 8259 §8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        DecodeError::NotJson { reason: "not UTF-8".to_owned(), line, column }
    })
}

/// Returns where `text` stops being JSON, if it does. Called only for refused input.
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

/// Removes the previous status of a new entity.
fn drop_previous_status(event: &mut FarmEvent) -> bool {
    if let FarmEvent::NewJob(job) = event {
        cut_previous_status(&mut job.fields.previous_status, &mut job.json)
    } else if let FarmEvent::NewWorker(worker) = event {
        cut_previous_status(&mut worker.fields.previous_status, &mut worker.json)
    } else {
        false
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

/// Most input is one line, which is not mentioned.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            1 => write!(f, "column {}", self.column),
            line => write!(f, "line {line} column {}", self.column),
        }
    }
}
