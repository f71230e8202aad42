//! Ids of jobs, tasks, workers, tags and events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::json::{self, FieldError, FromJson, Problem};

/// The length of `4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21`, the only form of a UUID that is accepted.
const HYPHENATED_LENGTH: usize = 36;

/// The maximum length of an event's id, in bytes.
pub const MAX_EVENT_ID: usize = 128;

/// The text is not a UUID of 36 characters with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct InvalidUuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// Parsed in any case, printed in lower case with hyphens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidUuid;

            fn from_str(text: &str) -> Result<Self, InvalidUuid> {
                hyphenated(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl FromJson for $name {
            fn from_json(json: &str) -> Result<Self, FieldError> {
                Ok(json::text(json)?.parse().map_err(|InvalidUuid| Problem::NotAUuid)?)
            }
        }
    )*};
}

ids! {
    /// A job, submitted by an artist.
    JobId;
    /// A task: the part of a job that one worker does.
    TaskId;
    /// A worker: a machine that does tasks.
    WorkerId;
    /// A tag that groups workers.
    TagId;
}

/// The Manager's id of an event, which makes a retry idempotent. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventId(Arc<str>);

impl From<String> for EventId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl EventId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromJson for EventId {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        let id = json::text(json)?;
        match id.len() <= MAX_EVENT_ID {
            true => Ok(Self(id.into())),
            false => Err(Problem::TooLong { max_bytes: MAX_EVENT_ID }.into()),
        }
    }
}

/// Parses a UUID of 36 characters with hyphens.
pub(super) fn hyphenated(text: &str) -> Result<Uuid, InvalidUuid> {
    if text.len() != HYPHENATED_LENGTH {
        return Err(InvalidUuid);
    }
    Uuid::try_parse(text).map_err(|_| InvalidUuid)
}

/// An entity whose state an update carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    Job(JobId),
    Task(TaskId),
    Worker(WorkerId),
}

/// What an update can be the last known state of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Job(JobId),
    Task {
        id: TaskId,
        job: JobId,
    },
    /// The last rendered image of the job.
    Image(JobId),
    Worker(WorkerId),
    Tag(TagId),
    Farm,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWER: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    #[test]
    fn any_case_is_read_and_lower_case_is_printed() {
        let id: JobId = LOWER.to_uppercase().parse().unwrap();
        assert_eq!(id, LOWER.parse().unwrap());
        assert_eq!(id.to_string(), LOWER);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{LOWER}\""));
    }

    #[test]
    fn no_other_form_is_read() {
        let simple = LOWER.replace('-', "");
        for text in [
            "",
            "job",
            simple.as_str(),
            &format!("{{{LOWER}}}"),
            &format!("urn:uuid:{LOWER}"),
            &format!(" {LOWER}"),
            &LOWER[1..],
            &LOWER.replace('-', "_"),
            &LOWER.replace('b', "g"),
            "4b2c1f0e7-c3f-4f0f-9a53-2f6d1b7f6c21",
            "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6cé",
        ] {
            assert_eq!(text.parse::<TaskId>(), Err(InvalidUuid), "{text}");
        }
    }
}
