//! The types of a render farm: ids, rooms, events, payloads, and the requests of browsers.
//!
//! Everything here is plain data and pure functions: no sockets, no packets, no clock. A value that
//! exists is valid, because parsing is the only way to create one.

pub mod chat;
pub mod decode;
pub mod event;
pub mod ids;
pub mod json;
mod labels;
pub mod mqtt;
pub mod payload;
pub mod room;
pub mod subscription;
pub mod supersede;
pub mod timestamp;

pub use decode::{BodyError, DecodeError, IncomingEvent};
pub use event::{EventKind, FarmEvent, Route, Topic, Unread};
pub use ids::{Entity, EventId, JobId, Subject, TagId, TaskId, WorkerId};
pub use json::{FieldError, Problem};
pub use payload::*;
pub use room::{Audience, Room, RoomEntity, UnknownRoom};
pub use subscription::{Op, Refusal, ResumeRequest, SubscriptionRequest};
pub use timestamp::Timestamp;
