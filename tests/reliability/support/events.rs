//! Numbered events, and whether a browser got each of them once and in order.

use std::fmt::Write;

/// Every number has an id of its own, so that no event takes the place of another in the outbox of one that lags.
const PREFIX: &str = "00000000-0000-4000-8000-";

/// A job update with this number, of about 330 bytes.
pub(crate) fn job(number: u64) -> String {
    padded_job(number, 120)
}

/// A job update with this number and a name of so many bytes.
pub(crate) fn padded_job(number: u64, padding: usize) -> String {
    format!(
        r#"{{"type":"job-update","id":"event-{number}","payload":{{"id":"{PREFIX}{number:012x}","name":"{:x<padding$}","updated":"2026-11-23T08:00:00Z","status":"active","previous_status":"queued","type":"simple-blender-render","priority":50,"refresh_tasks":false}}}}"#,
        "job"
    )
}

/// A worker update with this number.
pub(crate) fn worker(number: u64) -> String {
    format!(
        r#"{{"type":"worker-update","payload":{{"id":"{PREFIX}{number:012x}","name":"worker","updated":"2026-11-23T08:00:00Z","status":"awake","version":"3.9","can_restart":false}}}}"#
    )
}

/// The events of these numbers, as one request body.
pub(crate) fn batch(numbers: impl Iterator<Item = u64>, event: impl Fn(u64) -> String) -> String {
    let mut body = "[".to_owned();
    for number in numbers {
        let separator = if body.len() == 1 { "" } else { "," };
        write!(body, "{separator}{}", event(number)).unwrap();
    }
    body + "]"
}

/// Which number an event has that a browser got.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.strip_prefix("42[\"")?.strip_prefix(name)?;
    let start = rest.find(PREFIX)? + PREFIX.len();
    u64::from_str_radix(rest.get(start..start + 12)?, 16).ok()
}

/// Checks that numbers come one after the other.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    first: Option<u64>,
    last: u64,
}

impl InOrder {
    pub(crate) fn took(&mut self, number: u64) {
        match self.first {
            None => self.first = Some(number),
            Some(_) => assert_eq!(number, self.last + 1, "lost, doubled or out of order"),
        }
        self.last = number;
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.first
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}
