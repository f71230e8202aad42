//! The hand-off between those who fill outboxes and the worker threads that flush them.
//!
//! Whoever adds to an outbox that nobody looks after puts its slot on the list of its worker. A worker takes its whole list
//! at once, so while it flushes, any number of broadcasts cost one list entry a client and at most one wake.

use std::{sync::Arc, time::Instant};

use super::Log;
use crate::{
    disconnect::Disconnect,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Notify, Ordering, PoisonError},
};

/// How far publishing may run ahead of flushing, in bytes of distinct frames. More would only fill memory: a worker that
/// comes around writes at most 256 KiB to a client at once.
const WINDOW: u64 = 1 << 20;

/// Worker threads that a server may have, with those that took the place of failed ones.
pub(super) const MAX_WORKERS: usize = 64;

/// A worker thread, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId(u16);

impl WorkerId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Where an outbox is flushed: a slot of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    pub worker: WorkerId,
    pub slot: u32,
}

/// All workers' lists.
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
    /// What of `published` this worker has flushed to all its clients that were not blocked.
    flushed: AtomicU64,
}

#[derive(Debug, Default)]
struct Dirty {
    slots: Vec<u32>,
    /// The log has something new for those that follow it.
    log: bool,
    /// The worker waits to be woken. Set under the same lock as the list is read, so no wake is lost.
    asleep: bool,
    /// When the oldest broadcast was published that made a slot dirty.
    oldest: Option<Instant>,
    close: Option<Disconnect>,
}

/// What a worker has to do.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// To be told to [`Workers::flushed`] when the slots are.
    pub published: u64,
    /// When the oldest broadcast was published that is to be flushed.
    pub oldest: Option<Instant>,
    /// Go around those that follow the log.
    pub log: bool,
    /// Close everyone, for this reason.
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

    /// A list for the calling worker; `None` when there are none left.
    pub fn claim(&self) -> Option<WorkerId> {
        let number = self.claimed.fetch_add(1, Ordering::Relaxed);
        (number < self.lists.len()).then_some(WorkerId(number as u16))
    }

    /// Puts one slot on its worker's list.
    pub fn mark(&self, home: Home) {
        self.list(home.worker).add(&self.published, |dirty| dirty.slots.push(home.slot));
    }

    /// Puts all of `marks` on their workers' lists, with at most one wake each, and leaves `marks` empty. `published` is when the
    /// broadcast was that marked them, if one did.
    pub fn mark_all(&self, marks: &mut Marks, published: Option<Instant>) {
        let log = std::mem::take(&mut marks.log);
        for (list, slots) in self.claimed().iter().zip(&mut marks.slots) {
            if log || !slots.is_empty() {
                list.add(&self.published, |dirty| {
                    dirty.slots.append(slots);
                    dirty.log |= log;
                    dirty.oldest = dirty.oldest.or(published);
                });
            }
        }
    }

    /// The log that outboxes flushed by these workers may follow.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The slots that were marked since the last call, in `slots`, whose old content is dropped. Waits until there is something
    /// to do.
    pub async fn take(&self, worker: WorkerId, slots: &mut Vec<u32>) -> Taken {
        slots.clear();
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
            // A worker that sleeps has nothing left to catch up with, whatever it has said of what it flushed.
            self.progress.notify_one();
            list.wake.notified().await;
        }
    }

    /// Has every worker close all its connections once what waits for them is sent.
    pub fn close_all(&self, reason: Disconnect) {
        // Whoever comes after a worker has closed all sees this.
        self.closing.store(true, Ordering::SeqCst);
        for list in &self.lists {
            list.add(&self.published, |dirty| dirty.close = Some(reason));
        }
    }

    /// Whether all connections were told to close: nobody new shall be let in.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The worker has been around all slots it took.
    pub fn flushed(&self, worker: WorkerId, published: u64) {
        self.list(worker).flushed.store(published, Ordering::Release);
        self.progress.notify_one();
    }

    /// Counts a broadcast of `bytes`. Returns whether publishing now runs too far ahead of the workers.
    pub fn published(&self, bytes: usize) -> bool {
        self.published.fetch_add(bytes as u64, Ordering::AcqRel);
        self.is_ahead()
    }

    /// Returns when the workers have caught up. One caller at a time.
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
    /// A worker that slept was behind with nothing, whatever was published meanwhile.
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

/// What a broadcast made dirty: slots, by worker, and the log.
#[derive(Debug)]
pub struct Marks {
    slots: Vec<Vec<u32>>,
    log: bool,
}

impl Marks {
    pub fn new() -> Self {
        Self { slots: (0..MAX_WORKERS).map(|_| Vec::new()).collect(), log: false }
    }

    /// The log has something new for those that follow it.
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

    /// It tells what it had taken when it began, which is less than was published meanwhile and written along.
    #[test]
    fn who_waits_for_a_worker_is_woken_when_it_goes_to_sleep() {
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
        assert!(workers.published(2 * WINDOW as usize));
        let mut caught_up = pin!(workers.caught_up());
        assert!(caught_up.as_mut().poll(&mut noticing).is_pending());
        workers.flushed(home.worker, taken.published);
        assert!(caught_up.as_mut().poll(&mut noticing).is_pending(), "it is awake still");
        woken.0.store(false, Ordering::Relaxed);
        let mut sleeping = pin!(workers.take(home.worker, &mut more));
        assert!(sleeping.as_mut().poll(&mut quiet).is_pending());
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(caught_up.poll(&mut noticing).is_ready());
    }
}
