//! What a farm says and what a browser may ask about it: ids, rooms, events, payloads, requests.
//!
//! Everything here is plain data and pure functions: no sockets, no packets, no clock. A value that exists is valid;
//! parsing is the only way in.

pub mod chat;
pub mod event;
pub mod ids;
pub mod json;
pub mod payload;
pub mod room;
pub mod subscription;
pub mod supersede;
pub mod timestamp;

pub use event::{EventKind, FarmEvent, Unread};
pub use ids::{EventId, JobId, TagId, TaskId, WorkerId};
pub use json::{FieldError, Problem};
pub use payload::{
    ChatMessage, FarmStatusReport, JobUpdate, LastRenderedUpdate, LifeCycle, Payload, Status, StatusChange,
    TaskLogHead, TaskLogUpdate, TaskUpdate, TaskWorker, Thumbnail, WorkerTag, WorkerTagUpdate, WorkerUpdate,
};
pub use room::{Audience, Room};
pub use subscription::{Op, Refusal, SubscriptionRequest};
pub use timestamp::Timestamp;
