//! The started server and everything that is needed to talk to it by hand.

pub(crate) mod authority;
pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod stub;

use std::{future::Future, time::Duration};

/// Far above what a healthy server needs on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
