//! The hand-off between the threads that fill outboxes and the worker threads that flush them.
//!
//! A push into an outbox that is idle puts its slot on the dirty list of its worker. A worker takes
//! its whole list at once. While it flushes, any number of broadcasts therefore cost one list entry
//! per client and at most one wake-up.
//!
//! ```text
//! worker: Awake ── take() finds nothing ──▶ Asleep ── List::add sets asleep = false and wakes ──▶ Awake
//! list:   Clean ── mark, mark_all, close_all ──▶ Dirty ── take() swaps the list out ──▶ Clean
//! ```
//!
//! Memory orderings: the content of a list is guarded by its mutex. `published` and `flushed` are
//! `Acquire`/`Release`, because the registry decides by them whether a worker has caught up.
//! `closing` is `SeqCst`, so that a session that opens after `close_all` went over the lists sees
//! it. `claimed` is `Relaxed`: see its two uses.

use std::{sync::Arc, time::Instant};

use super::Log;
use crate::{
    disconnect::Disconnect,
    slots::decay,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Notify, Ordering, PoisonError},
};

/// How far publishing may run ahead of flushing, in bytes of distinct frames. A higher value would
/// only use more memory, because a worker writes at most 256 KiB to a client per round.
const WINDOW: u64 = 1 << 20;

/// The number of worker threads that a server may have, including replacements of failed ones.
pub(super) const MAX_WORKERS: usize = 64;

/// Identifies a worker thread by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId(u16);

impl WorkerId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Identifies where an outbox is flushed: a slot of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    pub worker: WorkerId,
    pub slot: u32,
}

/// The dirty lists of all workers.
#[derive(Debug)]
pub struct Workers {
    lists: Box<[List]>,
    log: Arc<Log>,
    claimed: AtomicUsize,
    published: AtomicU64,
    progress: Notify,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct List {
    dirty: Mutex<Dirty>,
    wake: Notify,
    /// How much of `published` this worker has flushed to all its clients that were not blocked.
    flushed: AtomicU64,
}

#[derive(Debug, Default)]
struct Dirty {
    slots: Vec<u32>,
    /// Whether the log has grown.
    log: bool,
    /// Whether the worker waits for a wake-up. Set under the same lock under which the list is
    /// read, so no wake-up is lost.
    asleep: bool,
    /// When the oldest broadcast that marked a slot was published.
    oldest: Option<Instant>,
    close: Option<Disconnect>,
}

/// The work that a worker takes from its list.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The value to pass to [`Workers::flushed`] once the slots are flushed.
    pub published: u64,
    /// When the oldest broadcast to be flushed was published.
    pub oldest: Option<Instant>,
    /// Whether to visit the outboxes that are attached to the log.
    pub log: bool,
    /// The reason for closing all connections, if they are to be closed.
    pub close: Option<Disconnect>,
}

impl Workers {
    pub fn new() -> Self {
        Self {
            lists: (0..MAX_WORKERS).map(|_| List::default()).collect(),
            log: Arc::new(Log::new()),
            claimed: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            progress: Notify::new(),
            closing: AtomicBool::new(false),
        }
    }

    /// Claims a list for the calling worker. Returns `None` when there are none left.
    pub fn claim(&self) -> Option<WorkerId> {
        // Relaxed: only the number must be unique; no other memory is published with it.
        let number = self.claimed.fetch_add(1, Ordering::Relaxed);
        (number < self.lists.len()).then_some(WorkerId(number as u16))
    }

    /// Returns the number of workers that have claimed a list.
    pub fn count(&self) -> usize {
        self.claimed().len()
    }

    /// Puts one slot on its worker's list.
    pub fn mark(&self, home: Home) {
        self.list(home.worker).add(&self.published, |dirty| dirty.slots.push(home.slot));
    }

    /// Puts all of `marks` on their workers' lists, with at most one wake-up each, and leaves
    /// `marks` empty. `published` is the time of the broadcast that made the marks, if there is
    /// one.
    pub fn mark_all(&self, marks: &mut Marks, published: Option<Instant>) {
        let log = std::mem::take(&mut marks.log);
        for (list, slots) in self.claimed().iter().zip(&mut marks.slots) {
            if log || !slots.is_empty() {
                let held = slots.len();
                list.add(&self.published, |dirty| {
                    dirty.slots.append(slots);
                    dirty.log |= log;
                    dirty.oldest = dirty.oldest.or(published);
                });
                decay(slots, held);
            }
        }
    }

    /// Puts these slots on the list of their worker, and has it visit the outboxes attached to the
    /// log.
    pub fn mark_worker(&self, worker: WorkerId, slots: &[u32]) {
        self.list(worker).add(&self.published, |dirty| {
            dirty.slots.extend_from_slice(slots);
            dirty.log = true;
        });
    }

    /// Returns the log that the outboxes of these workers may attach to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Waits until there is work, then replaces the content of `slots` with the slots marked since
    /// the last call.
    pub async fn take(&self, worker: WorkerId, slots: &mut Vec<u32>) -> Taken {
        let held = slots.len();
        slots.clear();
        decay(slots, held);
        let list = self.list(worker);
        loop {
            {
                let mut dirty = list.lock();
                if !dirty.slots.is_empty() || dirty.log || dirty.close.is_some() {
                    std::mem::swap(&mut dirty.slots, slots);
                    let published = self.published.load(Ordering::Acquire);
                    return Taken {
                        published,
                        oldest: dirty.oldest.take(),
                        log: std::mem::take(&mut dirty.log),
                        close: dirty.close.take(),
                    };
                }
                dirty.asleep = true;
            }
            // A sleeping worker has nothing left to flush, whatever it reported last.
            self.progress.notify_one();
            list.wake.notified().await;
        }
    }

    /// Makes every worker close all its connections once their frames are sent.
    pub fn close_all(&self, reason: Disconnect) {
        // A session that opens after its worker has closed all others sees this flag.
        self.closing.store(true, Ordering::SeqCst);
        for list in &self.lists {
            list.add(&self.published, |dirty| dirty.close = Some(reason));
        }
    }

    /// Returns whether all connections are closing, so that no new session may open.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Records that the worker has visited all slots it took.
    pub fn flushed(&self, worker: WorkerId, published: u64) {
        self.list(worker).flushed.store(published, Ordering::Release);
        self.progress.notify_one();
    }

    /// Counts a broadcast of `bytes`. Returns whether publishing is now too far ahead of the
    /// workers.
    pub fn published(&self, bytes: usize) -> bool {
        self.published.fetch_add(bytes as u64, Ordering::AcqRel);
        self.is_ahead()
    }

    /// Returns whether more was published than when a worker took its list.
    pub fn has_newer(&self, published: u64) -> bool {
        self.published.load(Ordering::Acquire) != published
    }

    /// Waits until the workers have caught up. Only one caller at a time.
    pub async fn caught_up(&self) {
        while self.is_ahead() {
            self.progress.notified().await;
        }
    }

    fn is_ahead(&self) -> bool {
        let published = self.published.load(Ordering::Acquire);
        self.claimed().iter().any(|list| {
            let behind = published.saturating_sub(list.flushed.load(Ordering::Acquire));
            behind > WINDOW && !list.lock().asleep
        })
    }

    fn claimed(&self) -> &[List] {
        // Relaxed: a caller that must see a worker has learned of it under a lock, that of an outbox with a
        // home there or of the log, and the claim happened before. Missing any other worker is harmless.
        let claimed = self.claimed.load(Ordering::Relaxed).min(self.lists.len());
        &self.lists[..claimed]
    }

    fn list(&self, worker: WorkerId) -> &List {
        &self.lists[worker.index()]
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// Adds to the list and wakes the worker if it sleeps. A sleeping worker has flushed everything
    /// published so far.
    fn add(&self, published: &AtomicU64, add: impl FnOnce(&mut Dirty)) {
        let was_asleep = {
            let mut dirty = self.lock();
            add(&mut dirty);
            std::mem::take(&mut dirty.asleep)
        };
        if was_asleep {
            self.flushed.store(published.load(Ordering::Acquire), Ordering::Release);
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots that a broadcast made dirty, by worker, and whether it was appended to the log.
#[derive(Debug)]
pub struct Marks {
    slots: Vec<Vec<u32>>,
    log: bool,
}

impl Marks {
    pub fn new() -> Self {
        Self { slots: (0..MAX_WORKERS).map(|_| Vec::new()).collect(), log: false }
    }

    /// Records that the log has grown.
    pub fn add_log(&mut self) {
        self.log = true;
    }

    pub fn add(&mut self, home: Home) {
        self.slots[home.worker.index()].push(home.slot);
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// The worker reports what was published when it took its list, which is less than what it has
    /// written by then.
    #[test]
    fn the_registry_is_woken_when_a_worker_falls_asleep() {
        let workers = Workers::new();
        let home = Home { worker: workers.claim().unwrap(), slot: 7 };
        let (mut slots, mut more, woken) = (Vec::new(), Vec::new(), Arc::new(Flag::default()));
        let waker = Waker::from(woken.clone());
        let (mut quiet, mut noticing) = (Context::from_waker(Waker::noop()), Context::from_waker(&waker));
        assert!(!workers.published(1));
        workers.mark(home);
        let Poll::Ready(taken) = pin!(workers.take(home.worker, &mut slots)).poll(&mut quiet) else {
            panic!("a slot is marked")
        };
        assert!(!workers.has_newer(taken.published));
        assert!(workers.published(2 * WINDOW as usize));
        assert!(workers.has_newer(taken.published));
        let mut caught_up = pin!(workers.caught_up());
        assert!(caught_up.as_mut().poll(&mut noticing).is_pending());
        workers.flushed(home.worker, taken.published);
        assert!(caught_up.as_mut().poll(&mut noticing).is_pending(), "the worker is still awake");
        woken.0.store(false, Ordering::Relaxed);
        let mut sleeping = pin!(workers.take(home.worker, &mut more));
        assert!(sleeping.as_mut().poll(&mut quiet).is_pending());
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(caught_up.poll(&mut noticing).is_ready());
    }
}
