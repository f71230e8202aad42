//! What threads share outboxes with. `tests/outbox_model` puts a model checker's parts in this place: what the outboxes are made
//! of comes from here only.

pub use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

pub use tokio::sync::Notify;
