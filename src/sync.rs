//! The synchronisation primitives of the outboxes. `tests/outbox_model` replaces this module with a
//! model checker's, so `outbox/` imports them only from here.

pub use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

pub use tokio::sync::Notify;
