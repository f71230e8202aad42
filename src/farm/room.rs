//! Rooms: who is interested in what.

use std::fmt;
use std::str::FromStr;

use super::ids::{JobId, TaskId};

/// A set of browsers that get the same events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    Jobs,
    Workers,
    LastRendered,
    WorkerTags,
    Chat,
    /// Task updates and last-rendered images of one job.
    Job(JobId),
    /// The log of one task.
    TaskLog(TaskId),
}

/// Where an event goes. Whoever is in several of the rooms gets it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    Everyone,
    Room(Room),
    Rooms([Room; 2]),
}

/// The text names no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a room: rooms are Jobs, Workers, Last-Rendered, Worker-Tags, Chat, job-<uuid> and tasklog-<uuid>")]
pub struct UnknownRoom;

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jobs => f.write_str("Jobs"),
            Self::Workers => f.write_str("Workers"),
            Self::LastRendered => f.write_str("Last-Rendered"),
            Self::WorkerTags => f.write_str("Worker-Tags"),
            Self::Chat => f.write_str("Chat"),
            Self::Job(id) => write!(f, "job-{id}"),
            Self::TaskLog(id) => write!(f, "tasklog-{id}"),
        }
    }
}

impl FromStr for Room {
    type Err = UnknownRoom;

    fn from_str(name: &str) -> Result<Self, UnknownRoom> {
        match name {
            "Jobs" => Ok(Self::Jobs),
            "Workers" => Ok(Self::Workers),
            "Last-Rendered" => Ok(Self::LastRendered),
            "Worker-Tags" => Ok(Self::WorkerTags),
            "Chat" => Ok(Self::Chat),
            _ => match name.split_once('-') {
                Some(("job", id)) => id.parse().map(Self::Job).map_err(|_| UnknownRoom),
                Some(("tasklog", id)) => id.parse().map(Self::TaskLog).map_err(|_| UnknownRoom),
                _ => Err(UnknownRoom),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    #[test]
    fn names_are_those_of_the_contract_and_come_back() {
        for (room, name) in [
            (Room::Jobs, "Jobs".to_owned()),
            (Room::Workers, "Workers".to_owned()),
            (Room::LastRendered, "Last-Rendered".to_owned()),
            (Room::WorkerTags, "Worker-Tags".to_owned()),
            (Room::Chat, "Chat".to_owned()),
            (Room::Job(ID.parse().unwrap()), format!("job-{ID}")),
            (Room::TaskLog(ID.parse().unwrap()), format!("tasklog-{ID}")),
        ] {
            assert_eq!(room.to_string(), name);
            assert_eq!(name.parse(), Ok(room));
        }
        assert_eq!(format!("job-{}", ID.to_uppercase()).parse(), Ok(Room::Job(ID.parse().unwrap())));
    }

    #[test]
    fn anything_else_is_no_room() {
        let simple = format!("job-{}", ID.replace('-', ""));
        for name in ["", "jobs", "Jobs ", "job-", "job", "tasklog-1", ID, simple.as_str(), &format!("Job-{ID}")] {
            assert_eq!(name.parse::<Room>(), Err(UnknownRoom), "{name}");
        }
    }
}
