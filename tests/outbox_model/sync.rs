//! In the place of `src/sync.rs`: the model checker's parts, which let it decide which thread continues after each of their steps.

use std::future::{self, Ready};

use loom::sync::Condvar;

pub(crate) use std::sync::PoisonError;

pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// As tokio's, for one waiter: a notification that nobody waits for is kept, and a second one is nothing more.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        *self.notified.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// Blocks its thread. When all threads are blocked, the model checker says so.
    pub(crate) fn notified(&self) -> Ready<()> {
        let mut notified = self.notified.lock().unwrap();
        while !std::mem::take(&mut *notified) {
            notified = self.changed.wait(notified).unwrap();
        }
        future::ready(())
    }
}
