//! A server process, its Manager, and browsers of all manners.

pub(crate) mod browser;
pub(crate) mod events;
pub(crate) mod http;
pub(crate) mod server;

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whether the tests are to run at the size of a big farm.
pub(crate) fn long() -> bool {
    std::env::var("WEBUPDATES_LONG_TESTS").is_ok_and(|value| value == "1")
}

/// `short` or `long`, whichever is asked for.
pub(crate) fn sized<T>(short: T, long_value: T) -> T {
    if long() { long_value } else { short }
}

/// Runs a test by itself, and for no longer than `limit`.
pub(crate) fn run<F: Future>(limit: Duration, test: impl FnOnce() -> F) -> F::Output {
    let _alone = alone();
    run_beside_others(limit, test)
}

/// Runs a test that neither loads the machine nor minds its load, for no longer than `limit`.
pub(crate) fn run_beside_others<F: Future>(limit: Duration, test: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, test()).await.expect("the test takes too long") })
}

/// Most tests load the machine, and some of them measure: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each browser takes a file here, and one in the server, which inherits the limit.
pub(crate) fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Waits until `is_so` holds, and fails after `limit`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, limit: Duration, mut is_so: impl FnMut() -> F) {
    let attempt = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, attempt).await.is_ok(), "not in {limit:?}: {what}");
}
