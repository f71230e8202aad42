//! Notifications to systemd, if it started this process: ready, healthy, stopping.

use std::{sync::Arc, time::Duration};

use crate::{
    actors::Hub,
    system::{Notification, notify, watchdog},
};

/// Reports that browsers and the Manager can connect.
pub fn ready() {
    notify(Notification::Ready);
}

/// Reports that the server accepts no more browsers.
pub fn stopping() {
    notify(Notification::Stopping);
}

/// Reports regularly that the server is healthy, by the same check as `/healthz`. Does nothing if
/// systemd does not watch this process.
pub async fn keep_watchdog(hub: Arc<Hub>) {
    if let Some(patience) = watchdog() {
        // One of three notifications may be late.
        watch(patience / 3, async || hub.is_well().await, || notify(Notification::Watchdog)).await;
    }
}

async fn watch(interval: Duration, is_well: impl AsyncFn() -> bool, notify: impl Fn()) {
    loop {
        if is_well().await {
            notify();
        }
        actix_rt::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[actix_rt::test]
    async fn only_a_server_that_is_well_says_so() {
        let answers = RefCell::new(vec![true, false, false, true]);
        let notified = Cell::new(0);
        let is_well = async || {
            let answer = answers.borrow_mut().pop();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        let watching = watch(Duration::from_millis(1), is_well, || notified.set(notified.get() + 1));
        let _ = actix_rt::time::timeout(Duration::from_millis(200), watching).await;
        assert_eq!((answers.borrow().len(), notified.get()), (0, 2));
    }
}
