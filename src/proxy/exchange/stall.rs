//! How long an exchange may make no progress.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_rt::time::{Sleep, sleep};

use crate::clock;

/// How long a request may make no progress in either direction. An upload may take hours as long as
/// bytes flow, and a Manager may take minutes to respond.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Detects that nothing has moved for too long. Only time spent waiting counts, so a browser that
/// reads slowly is not a fault of the Manager.
#[derive(Default)]
pub(super) struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Records that bytes were transferred.
    pub(super) fn moved(&mut self) {
        self.since = None;
    }

    /// Ready when nothing has moved for [`STALL_TIMEOUT`] of waiting.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        let deadline = *self.since.get_or_insert(now) + STALL_TIMEOUT;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        while timer.as_mut().poll(task).is_ready() {
            if now >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}
