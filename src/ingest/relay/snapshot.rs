//! The current state of the farm according to the Manager's API.

use crate::farm::{
    FieldError, JobUpdate, Problem, Status, Timestamp, WorkerTag, WorkerUpdate,
    json::{self, FromJson, Members},
};

/// The state of the farm.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) jobs: Listing<JobUpdate>,
    pub(super) workers: Listing<WorkerUpdate>,
    /// `None` for a Manager without tags.
    pub(super) tags: Option<Listing<WorkerTag>>,
    /// `None` for a Manager that does not report it.
    pub(super) farm: Option<Status>,
}

/// One of the Manager's lists, without its invalid entries.
#[derive(Debug)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    /// Whether the list is complete, so that entities missing from it do not exist.
    pub(super) is_complete: bool,
}

impl<T> Listing<T> {
    /// Decodes the list under `name` of a JSON object, skipping invalid entries.
    pub(super) fn parse(json: &str, name: &str, read: fn(&str) -> Result<T, FieldError>) -> Result<Self, FieldError> {
        json::check_depth(json)?;
        let members = Members::of(json)?;
        let Some(Elements(elements)) = members.optional(name)? else {
            return Ok(Self { items: Vec::new(), is_complete: true });
        };
        let items: Vec<T> = elements.iter().filter_map(|element| read(element).ok()).collect();
        Ok(Self { is_complete: items.len() == elements.len(), items })
    }
}

/// Converts a job of `GET /api/v3/jobs` into an update.
pub(super) fn job(json: &str) -> Result<JobUpdate, FieldError> {
    let members = Members::of(json)?;
    Ok(JobUpdate {
        delete_requested_at: members.optional("delete_requested_at")?,
        id: members.required("id")?,
        name: members.optional("name")?,
        previous_status: None,
        priority: members.required("priority")?,
        refresh_tasks: false,
        status: members.required("status")?,
        steps_completed: members.optional("steps_completed")?,
        steps_total: members.optional("steps_total")?,
        kind: members.required("type")?,
        updated: members.required("updated")?,
        was_deleted: false,
    })
}

/// Converts a worker of `GET /api/v3/worker-mgt/workers` into an update. The list does not contain
/// the time of its last update.
pub(super) fn worker(json: &str) -> Result<WorkerUpdate, FieldError> {
    let members = Members::of(json)?;
    Ok(WorkerUpdate {
        can_restart: members.optional("can_restart")?,
        deleted_at: None,
        id: members.required("id")?,
        last_seen: members.optional("last_seen")?,
        name: members.required("name")?,
        previous_status: None,
        status: members.required("status")?,
        status_change: members.optional("status_change")?,
        updated: Timestamp::zero(),
        version: members.required("version")?,
    })
}

pub(super) fn tag(json: &str) -> Result<WorkerTag, FieldError> {
    WorkerTag::from_json(json)
}

/// Returns the JSON texts of an array's elements.
struct Elements(Vec<String>);

impl FromJson for Elements {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let elements = json::elements(json).map_err(|problem: Problem| FieldError::from(problem))?;
        Ok(Self(elements.into_iter().map(str::to_owned).collect()))
    }
}

/// The version of a Manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    /// `None` if the text does not begin with two numbers.
    number: Option<(u32, u32)>,
}

impl Version {
    pub(super) fn new(text: String) -> Self {
        let number = || {
            let (major, rest) = text.split_once('.')?;
            let minor = rest.split(|char: char| !char.is_ascii_digit()).next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        Self { number: number(), text }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the Manager sends task logs. Up to 3.4 it sends them to subscribers; since
    /// the event bus of 3.5 it does not. An unknown version counts as new.
    pub(super) fn sends_task_logs(&self) -> bool {
        self.number.is_some_and(|number| number < (3, 5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_distinguished() {
        for (text, sends_task_logs) in [
            ("3.0-beta-set-during-build", true),
            ("3.4", true),
            ("3.4.1", true),
            ("3.5-alpha1", false),
            ("3.9-alpha0 (set-during-build)", false),
            ("3.10", false),
            ("4.0", false),
            ("2.9", true),
            ("v3", false),
            ("", false),
        ] {
            assert_eq!(Version::new(text.to_owned()).sends_task_logs(), sends_task_logs, "{text}");
        }
    }

    #[test]
    fn invalid_entries_are_skipped_and_recorded() {
        let job_of = |rest: &str| {
            format!(
                r#"{{"id":"4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21","name":"one","priority":50,"type":"t",{rest}"updated":"2026-11-23T21:40:54.09Z"}}"#
            )
        };
        let read =
            |jobs: &[String]| Listing::parse(&format!(r#"{{"jobs":[{}]}}"#, jobs.join(",")), "jobs", job).unwrap();
        let good = job_of(r#""status":"queued","settings":{"a":[1]},"steps_total":4,"#);
        let listing = read(std::slice::from_ref(&good));
        assert!(listing.is_complete);
        assert_eq!((listing.items[0].steps_total, listing.items[0].steps_completed), (Some(4), None));
        let listing = read(&[job_of(""), good]);
        assert_eq!((listing.items.len(), listing.is_complete), (1, false));
        let empty = Listing::parse(r#"{"jobs":null}"#, "jobs", job).unwrap();
        assert!(empty.items.is_empty() && empty.is_complete);
        assert!(Listing::parse("[]", "jobs", job).is_err());
    }
}
