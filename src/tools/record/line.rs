//! The lines of a recording.

use std::time::Duration;

use farm::decode::decode_event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A line as `replay` takes it: one that `record` or the page's inspector wrote, or any event that
/// could be posted.
#[derive(Deserialize)]
struct Line<'a> {
    id: Option<String>,
    /// RFC 3339.
    time: Option<String>,
    /// Milliseconds from the start of the recording.
    t_ms: Option<u64>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    payload: &'a RawValue,
}

/// An event to be posted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) json: String,
    /// When it was published, from any one time on, if the recording says so.
    pub(crate) at: Option<Duration>,
}

/// Reads a line. `new_id` is the id of an event that has none, or that `is_renamed`.
///
/// # Errors
///
/// Says why the line is no event.
pub(crate) fn read(line: &str, new_id: &str, is_renamed: bool) -> Result<Posting, String> {
    decode_event(line.as_bytes()).map_err(|error| error.to_string())?;
    let Line { id, time, t_ms, kind, payload } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let id = id.filter(|id| !id.is_empty() && !is_renamed);
    let event = Event { id: id.as_deref().unwrap_or(new_id), kind: &kind, payload };
    let json = serde_json::to_string(&event).map_err(|error| error.to_string())?;
    let time: Option<Timestamp> =
        time.map(|time| time.parse()).transpose().map_err(|error| format!("time is not a time: {error}"))?;
    let at = time.map(|time| time.as_millisecond().max(0) as u64);
    Ok(Posting { json, at: at.or(t_ms).map(Duration::from_millis) })
}

/// Returns the id of a recorded line.
pub(crate) fn id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_slice(line).ok().map(|Id { id }| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#""type":"farm-status","payload":{"status":"idle"}"#;

    #[test]
    fn lines_of_all_origins_are_taken() {
        let posted = |id: &str| format!(r#"{{"id":"{id}",{STATUS}}}"#);
        for (line, is_renamed, id, at) in [
            (format!(r#"{{"t_ms":28,{STATUS}}}"#), false, "new", Some(Duration::from_millis(28))),
            (format!("{{{STATUS}}}"), false, "new", None),
            (
                format!(r#"{{"id":"1-2-3","offset":2,"time":"1970-01-01T00:00:01.5Z",{STATUS}}}"#),
                false,
                "1-2-3",
                Some(Duration::from_millis(1500)),
            ),
            (format!(r#"{{"id":"1-2-3",{STATUS}}}"#), true, "new", None),
        ] {
            assert_eq!(read(&line, "new", is_renamed), Ok(Posting { json: posted(id), at }), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        for (line, error) in [
            ("{", "not JSON"),
            (r#"{"type":"farm-status"}"#, "payload"),
            (r#"{"type":"farm-status","payload":{"status":"idle"},"time":"noon"}"#, "time"),
        ] {
            let refused = read(line, "new", false).unwrap_err();
            assert!(refused.contains(error), "{line}: {refused}");
        }
    }
}
