//! Thin shells that perform what the plain structs decide.
//!
//! Publishers are built with the address of the registry, sessions with those of the registry and
//! the chat. No actor knows its upstream, so the graph has no cycles.

mod chat;
mod hub;
mod job_updates;
pub mod messages;
mod publisher;
mod room_registry;
mod session;
mod supervisor;

pub use self::{
    chat::Chat,
    hub::Hub,
    job_updates::JobUpdates,
    publisher::{FarmUpdates, WorkerUpdates},
    room_registry::RoomRegistry,
    session::{NewClient, Session},
    supervisor::{GivenUp, RestartBudget, Supervisor},
};
