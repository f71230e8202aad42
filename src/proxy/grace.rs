//! Requests that wait while the Manager restarts.

use std::{sync::Arc, time::Duration};

use actix_rt::time::{sleep, timeout};
use tokio::sync::{Mutex, Semaphore};

use super::{
    ForwardError,
    pool::{ManagerStream, Pool},
};
use crate::stats::{ProxyStats, Waited};

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// The maximum number of waiting requests, of all threads.
const MAX_WAITING: usize = 500;

/// The maximum number of KiB that their bodies occupy.
const MAX_WAITING_KIB: usize = 32 * 1024;

/// What a body occupies at most: it is not read meanwhile, but its connection buffers the beginning.
const MAX_BODY_KIB: u64 = 512;

/// The memory that waiting requests of all threads may use.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_WAITING_KIB)))
    }
}

/// What the requests of one thread share while they wait.
pub(super) struct Grace {
    /// How long each request waits.
    limit: Duration,
    /// Held by the request that attempts to connect. The others queue for it, so a thread makes one
    /// attempt at a time however many requests wait.
    turn: Mutex<()>,
    room: Room,
    stats: &'static ProxyStats,
}

impl Grace {
    pub(super) fn new(limit: Duration, room: Room, stats: &'static ProxyStats) -> Self {
        Self { limit, turn: Mutex::new(()), room, stats }
    }

    /// Waits until the Manager accepts a connection, for a request with a body of this many bytes.
    /// `failure` is why the Manager did not before, and what is returned if it does not in time.
    pub(super) async fn connect(
        &self,
        pool: &Pool,
        body: u64,
        failure: ForwardError,
    ) -> Result<ManagerStream, ForwardError> {
        if self.limit.is_zero() {
            return Err(failure);
        }
        let occupied = body.div_ceil(1024).min(MAX_BODY_KIB) as u32;
        let (Some(_waiting), Ok(_occupied)) =
            (self.stats.waiting.enter(MAX_WAITING), self.room.0.try_acquire_many(occupied))
        else {
            self.stats.waited(Waited::Full).add(1);
            return Err(failure);
        };
        let back = async {
            let _turn = self.turn.lock().await;
            loop {
                match pool.connect().await {
                    Err(ForwardError::Unreachable(_)) => sleep(PAUSE).await,
                    connected => return connected,
                }
            }
        };
        let connected = timeout(self.limit, back).await.unwrap_or(Err(failure));
        self.stats.waited(if connected.is_ok() { Waited::Connected } else { Waited::Expired }).add(1);
        connected
    }
}
