//! Thin shells that perform what the plain structs decide.
//!
//! Publishers are built with the address of the registry, sessions with those of the registry and the chat; nobody knows
//! who is upstream, so the graph has no cycles.

mod chat;
mod farm_updates;
mod job_updates;
pub mod messages;
mod publisher;
mod room_registry;
mod session;
mod supervisor;
mod worker_updates;

pub use self::{
    chat::Chat,
    farm_updates::FarmUpdates,
    job_updates::JobUpdates,
    room_registry::RoomRegistry,
    session::{Hub, SessionActor},
    supervisor::{GivenUp, RestartBudget, Supervisor},
    worker_updates::WorkerUpdates,
};
