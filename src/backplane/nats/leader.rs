//! Decides which node runs the sources that exist once: a lock that expires, and a fence.
//!
//! The lock decides who leads. It cannot stop a node that was paused for longer than the lock lives, so
//! each term begins with a message in the stream, the *fence*, and every event of such a source names
//! the offset of its fence. The stream refuses the event if there is a newer fence. Because a term
//! begins only once this node has applied everything before its fence, it knows all that earlier terms
//! published, and nothing of them can follow.

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};

use super::{
    super::leadership::{Office, Term},
    connection::Connection,
    entry,
    lease::Lease,
    publish::{Fence, Writer},
};
use crate::{
    history::Reached,
    stats::{Source, Stats},
};

/// The pause between two attempts to take the lock, or to raise the fence.
const PAUSE: Duration = Duration::from_millis(250);

/// The lock of this node's sources that exist once.
pub(super) struct Leader {
    connection: Arc<Connection>,
    writer: Writer,
    node: String,
    /// The id of this process.
    id: String,
    duty: Duty,
    reached: watch::Receiver<Reached>,
    office: watch::Sender<Office>,
    /// The last fence because of which an event was refused.
    challenged: watch::Sender<u64>,
    resigned: watch::Sender<bool>,
    /// Whether the lock is released for good.
    released: watch::Sender<bool>,
    /// A replicated stream refuses events whose fence is being checked for another one.
    publishing: Mutex<()>,
    stats: &'static Stats,
}

/// What runs while a lock is held.
pub(super) struct Duty {
    /// The name of the lock.
    pub(super) name: &'static str,
    /// For people, in the log.
    pub(super) title: String,
    pub(super) sources: Vec<Source>,
}

/// Why a term ends.
enum End {
    Resigned,
    /// The lock expired, or another node has it.
    LockLost,
    /// Another node raised a fence.
    FenceLost,
}

impl Leader {
    pub(super) fn new(
        connection: Arc<Connection>,
        writer: Writer,
        (node, id): (String, String),
        duty: Duty,
        reached: watch::Receiver<Reached>,
        stats: &'static Stats,
    ) -> Self {
        Self {
            connection,
            writer,
            node,
            id,
            duty,
            reached,
            office: watch::Sender::new(Office::Undecided),
            challenged: watch::Sender::new(0),
            resigned: watch::Sender::new(false),
            released: watch::Sender::new(false),
            publishing: Mutex::default(),
            stats,
        }
    }

    pub(super) fn runs(&self, source: Source) -> bool {
        self.duty.sources.contains(&source)
    }

    pub(super) fn office(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    /// Leads whenever no other node does. Ends once it has resigned.
    pub(super) async fn run(&self) {
        let key = format!("lock.{}", self.duty.name);
        let mut lease = Lease::new(self.connection.clone(), key, self.id.clone());
        let mut resigned = self.resigned.subscribe();
        self.enter(Office::Following);
        while !*resigned.borrow_and_update() {
            match lease.take(self.value()).await {
                Ok(true) => self.lead(&mut lease).await,
                Ok(false) => {}
                Err(error) => log::debug!("the lock of {} cannot be taken: {error}", self.duty.title),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = resigned.changed() => {}
            }
        }
        self.released.send_replace(true);
    }

    /// Stops leading for good, and waits until the lock is released.
    pub(super) async fn resign(&self) {
        self.resigned.send_replace(true);
        // It is never closed while this waits.
        let _ = self.released.subscribe().wait_for(|is_released| *is_released).await;
    }

    /// Returns the fence of the current term.
    pub(super) fn fence(&self) -> Option<Fence> {
        let offset = self.office.borrow().term()?.fence;
        Some(Fence { subject: self.fence_subject(), offset })
    }

    /// Waits for the turn to publish.
    pub(super) async fn publishing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.publishing.lock().await
    }

    /// Reports that an event was refused because of its fence. Returns once there is a newer one of this
    /// node, or it does not lead any more.
    pub(super) async fn challenge(&self, fence: &Fence) {
        self.stats.backplane.fenced.add(1);
        self.challenged.send_replace(fence.offset);
        let is_over = |office: &Office| office.term().is_none_or(|term| term.fence != fence.offset);
        let _ = self.office.subscribe().wait_for(is_over).await;
    }

    /// Leads for one term.
    async fn lead(&self, lease: &mut Lease) {
        let (kept, mut gone) = mpsc::channel(1);
        let end = self.term(lease, kept).await;
        self.enter(Office::Following);
        // The sources stop before another node may know of it.
        let _ = gone.recv().await;
        let title = &self.duty.title;
        match end {
            End::Resigned => log::info!("this node gives up {title}: another one may run it"),
            End::LockLost => log::warn!("this node does not run {title} any more: its lock expired"),
            End::FenceLost => {
                log::warn!("this node does not run {title} any more: another node took over");
            }
        }
        if !matches!(end, End::LockLost) {
            lease.release().await;
        }
    }

    async fn term(&self, lease: &mut Lease, kept: mpsc::Sender<()>) -> End {
        let value = || self.value();
        let Some(fence) = lease.hold_until(value, self.raise_fence(None)).await else { return End::LockLost };
        let Some(mut fence) = fence else { return End::FenceLost };
        let mut reached = self.reached.clone();
        let is_applied = reached.wait_for(|reached| reached.offset >= fence);
        if lease.hold_until(value, is_applied).await.is_none() {
            return End::LockLost;
        }
        log::info!("this node runs {}", self.duty.title);
        self.enter(Office::Leading(Term { fence, kept: kept.clone() }));
        let (mut resigned, mut challenged) = (self.resigned.subscribe(), self.challenged.subscribe());
        loop {
            let happens = async {
                tokio::select! {
                    _ = resigned.wait_for(|is_resigned| *is_resigned) => true,
                    _ = challenged.wait_for(|challenged| *challenged == fence) => false,
                }
            };
            match lease.hold_until(value, happens).await {
                None => return End::LockLost,
                Some(true) => return End::Resigned,
                Some(false) => {}
            }
            // The stream may have removed the fence, as it removes all old messages. Another node's is not
            // replaced.
            match lease.hold_until(value, self.raise_fence(Some(0))).await {
                None => return End::LockLost,
                Some(None) => return End::FenceLost,
                Some(Some(offset)) => fence = offset,
            }
            self.enter(Office::Leading(Term { fence, kept: kept.clone() }));
        }
    }

    /// Raises a fence, if the last one has the offset `expected`. Returns its offset, or `None` if
    /// another one is there.
    async fn raise_fence(&self, expected: Option<u64>) -> Option<u64> {
        loop {
            match self.writer.raise(&self.fence_subject(), self.value(), expected).await {
                Ok(fence) => return fence,
                Err(error) => log::debug!("the fence of {} is not raised: {error}", self.duty.title),
            }
            sleep(PAUSE).await;
        }
    }

    fn enter(&self, office: Office) {
        for source in &self.duty.sources {
            self.stats.backplane.leads[*source as usize].set(usize::from(office.term().is_some()));
        }
        self.office.send_replace(office);
    }

    fn fence_subject(&self) -> String {
        entry::fence_subject(&self.connection.config.name, self.duty.name)
    }

    fn value(&self) -> Bytes {
        json!({"id": self.id, "node": self.node}).to_string().into()
    }
}
