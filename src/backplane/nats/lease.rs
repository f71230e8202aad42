//! Keys of a bucket of NATS that expire unless they are renewed: locks, and the names of nodes.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_rt::time::{sleep_until, timeout};
use async_nats::{
    connection::State,
    jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::connection::Connection;
use crate::clock;

/// How long a key lives that is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// The interval of renewals.
pub(super) const RENEWAL: Duration = Duration::from_millis(1250);

/// How long an attempt to take or renew a key may take.
const ATTEMPT: Duration = Duration::from_millis(1250);

/// The part of every value by which a process recognises its own keys.
#[derive(Serialize, Deserialize)]
struct Owner {
    id: String,
}

/// A key that at most one process holds.
pub(super) struct Lease {
    connection: Arc<Connection>,
    store: Option<Store>,
    key: String,
    id: String,
    revision: u64,
    /// Until when it is held for certain. The bucket's own time begins later.
    until: Instant,
}

/// Whether a key is held after an attempt to renew it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Held,
    /// It expired, or another process has it.
    Lost,
}

impl Lease {
    /// Creates the lease of a key, which is not held yet. `id` is that of this process.
    pub(super) fn new(connection: Arc<Connection>, key: String, id: String) -> Self {
        Self { connection, store: None, key, id, revision: 0, until: clock::now() }
    }

    /// Tries to take the key. Returns whether it is held now.
    pub(super) async fn take(&mut self, value: Bytes) -> Result<bool, String> {
        let began = clock::now();
        let created = self.attempt(async |store, key| store.create(key, value.clone()).await).await?;
        match created {
            Ok(revision) => Ok(self.hold(revision, began)),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                // An attempt whose answer was lost may have been one of this process.
                Ok(self.adopt().await? && self.renew(value).await? == Renewed::Held)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Renews the key.
    pub(super) async fn renew(&mut self, value: Bytes) -> Result<Renewed, String> {
        for is_first in [true, false] {
            let (began, revision) = (clock::now(), self.revision);
            let updated = self.attempt(async |store, key| store.update(key, value.clone(), revision).await).await?;
            match updated {
                Ok(revision) => {
                    self.hold(revision, began);
                    return Ok(Renewed::Held);
                }
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                    // A renewal may have arrived although its answer did not.
                    if !is_first || !self.adopt().await? {
                        break;
                    }
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(Renewed::Lost)
    }

    /// Renews the key until `until` resolves. Returns `None` if the key is lost first.
    pub(super) async fn hold_until<T>(
        &mut self,
        value: impl Fn() -> Bytes,
        until: impl Future<Output = T>,
    ) -> Option<T> {
        let mut until = pin!(until);
        let mut next = clock::now() + RENEWAL;
        loop {
            let end = self.until;
            tokio::select! {
                biased;
                () = sleep_until(end.into()) => return None,
                result = &mut until => return Some(result),
                () = sleep_until(next.into()) => {}
            }
            next = clock::now() + RENEWAL;
            match timeout_at(end.into(), self.renew(value())).await {
                Ok(Ok(Renewed::Held)) => {}
                Ok(Ok(Renewed::Lost)) | Err(_) => return None,
                Ok(Err(error)) => log::debug!("the key {} is not renewed: {error}", self.key),
            }
        }
    }

    /// Gives the key up, so that another process can take it at once.
    pub(super) async fn release(&mut self) {
        let revision = self.revision;
        let released = self.attempt(async |store, key| store.delete_expect_revision(key, Some(revision)).await).await;
        if let Err(error) = released {
            log::debug!("the key {} is not released: {error}", self.key);
        }
    }

    fn hold(&mut self, revision: u64, began: Instant) -> bool {
        (self.revision, self.until) = (revision, began + LEASE);
        true
    }

    /// Takes over the revision of the key if it is this process's. Returns whether it is.
    async fn adopt(&mut self) -> Result<bool, String> {
        let entry = self.attempt(async |store, key| store.entry(key).await).await?;
        let entry = entry.map_err(|error| self.failed(&error))?;
        let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else { return Ok(false) };
        let owner: Option<Owner> = serde_json::from_slice(&entry.value).ok();
        self.revision = entry.revision;
        Ok(owner.is_some_and(|owner| owner.id == self.id))
    }

    async fn attempt<T>(&mut self, request: impl AsyncFnOnce(Store, String) -> T) -> Result<T, String> {
        // What is sent without a connection would be sent much later.
        if self.connection.client.connection_state() != State::Connected {
            return Err("it is not connected".to_owned());
        }
        let attempt = async {
            let store = match &self.store {
                Some(store) => store.clone(),
                None => {
                    let store = self.connection.bucket().await.map_err(|problem| problem.to_string())?;
                    self.store.insert(store).clone()
                }
            };
            Ok(request(store, self.key.clone()).await)
        };
        timeout(ATTEMPT, attempt).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
    }

    /// Looks the bucket up again before the next attempt: it may be gone.
    fn failed(&mut self, error: &dyn std::error::Error) -> String {
        self.store = None;
        error.to_string()
    }
}
