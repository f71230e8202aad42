//! What systemd is told of this process, where it started it: that it is ready, that it is well, that it stops.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use crate::actors::Hub;

/// Browsers and the Manager can connect.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// No new browser is let in any more.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Says again and again that the server is well, as long as it is: by the same measure as `/healthz`. Nothing if nobody waits
/// for it.
pub async fn keep_watchdog(hub: Arc<Hub>) {
    if let Some(patience) = sd_notify::watchdog_enabled() {
        // One answer in three may be late.
        watch(patience / 3, async || hub.is_well().await, || tell(NotifyState::Watchdog)).await;
    }
}

async fn watch(interval: Duration, is_well: impl AsyncFn() -> bool, tell: impl Fn()) {
    loop {
        if is_well().await {
            tell();
        }
        actix_rt::time::sleep(interval).await;
    }
}

/// Nothing happens where systemd did not start this process.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("systemd cannot be told how this server is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[actix_rt::test]
    async fn only_a_server_that_is_well_says_so() {
        let answers = RefCell::new(vec![true, false, false, true]);
        let told = Cell::new(0);
        let is_well = async || {
            let answer = answers.borrow_mut().pop();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        let watching = watch(Duration::from_millis(1), is_well, || told.set(told.get() + 1));
        let _ = actix_rt::time::timeout(Duration::from_millis(200), watching).await;
        assert_eq!((answers.borrow().len(), told.get()), (0, 2));
    }
}
