//! Rooms: sets of clients that receive the same events. To add one, add a row to the table in this file.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::ids::{JobId, TaskId};
use super::subscription::Refusal;

/// Defines the rooms. A fixed room has a name and, if clients may subscribe to it, the `type` of
/// `/subscription`; a room of an entity is `<type>-<uuid>` and has the refusal of a subscription
/// that lacks the UUID.
macro_rules! rooms {
    (
        fixed { $($(#[$fixed_doc:meta])* $fixed:ident = $name:literal, $subscription:expr;)+ }
        entities { $($(#[$entity_doc:meta])* $entity:ident($id:ty) = $kind:literal, $missing:expr;)+ }
    ) => {
        /// A set of clients that receive the same events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Room {
            $($(#[$fixed_doc])* $fixed,)+
            $($(#[$entity_doc])* $entity($id),)+
        }

        /// The job or task that a room belongs to. A farm has many rooms of each of these kinds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RoomEntity {
            $($entity($id),)+
        }

        /// The text is not the name of a room.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error("not a room: rooms are {}", Room::NAMES)]
        pub struct UnknownRoom;

        impl Room {
            /// The rooms that every farm has.
            pub const FIXED: [Self; [$($name),+].len()] = [$(Self::$fixed),+];

            /// The names of all rooms, for people.
            pub const NAMES: &str = concat!($($name, ", ",)+ $($kind, "-<uuid>, ",)+ "with <uuid> in 36 characters");

            /// Returns the `type` of `/subscription` for the room, and the `uuid` if it needs one,
            /// or `None` for a room that is joined only by default.
            pub fn subscription(self) -> Option<(&'static str, Option<Uuid>)> {
                match self {
                    $(Self::$fixed => $subscription.map(|kind| (kind, None)),)+
                    $(Self::$entity(id) => Some(($kind, Some(id.into()))),)+
                }
            }

            /// Returns the room that a subscription of this `type` asks for.
            ///
            /// # Errors
            ///
            /// Returns a [`Refusal`] if there is no such type, or if it needs a UUID and has none.
            pub fn of_subscription(kind: &str, uuid: Option<Uuid>) -> Result<Self, Refusal> {
                $(if $subscription == Some(kind) {
                    return Ok(Self::$fixed);
                })+
                match kind {
                    $($kind => Ok(Self::$entity(uuid.ok_or($missing)?.into())),)+
                    _ => Err(Refusal::UnknownType),
                }
            }

            /// Returns the job or task that the room belongs to, or `None` for a room that every farm
            /// has.
            pub fn entity(self) -> Option<RoomEntity> {
                match self {
                    $(Self::$fixed => None,)+
                    $(Self::$entity(id) => Some(RoomEntity::$entity(id)),)+
                }
            }

            /// Returns whether the room belongs to one job or task.
            pub fn is_of_entity(self) -> bool {
                self.entity().is_some()
            }
        }

        impl fmt::Display for Room {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$fixed => f.write_str($name),)+
                    $(Self::$entity(id) => write!(f, concat!($kind, "-{}"), id),)+
                }
            }
        }

        impl FromStr for Room {
            type Err = UnknownRoom;

            fn from_str(name: &str) -> Result<Self, UnknownRoom> {
                match name {
                    $($name => return Ok(Self::$fixed),)+
                    _ => {}
                }
                match name.split_once('-') {
                    $(Some(($kind, id)) => id.parse().map(Self::$entity).map_err(|_| UnknownRoom),)+
                    _ => Err(UnknownRoom),
                }
            }
        }
    };
}

rooms! {
    fixed {
        /// Updates of all jobs.
        Jobs = "Jobs", Some("allJobs");
        /// Updates of all workers.
        Workers = "Workers", Some("allWorkers");
        /// Images of all jobs, throttled per job.
        LastRendered = "Last-Rendered", Some("allLastRendered");
        /// Updates of all worker tags.
        WorkerTags = "Worker-Tags", Some("allWorkerTags");
        /// Chat messages.
        Chat = "Chat", None::<&str>;
    }
    entities {
        /// Task updates and last-rendered images of one job.
        Job(JobId) = "job", Refusal::JobWithoutUuid;
        /// The log of one task.
        TaskLog(TaskId) = "tasklog", Refusal::TaskWithoutUuid;
    }
}

/// The audience of an event. A client in several of the rooms receives it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    Everyone,
    Room(Room),
    Rooms([Room; 2]),
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
