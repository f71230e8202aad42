//! The part of a worker thread that all its connections share: the flusher, the sweep and the buffers.

use std::{
    cell::{OnceCell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;

use crate::{
    actors::Hub,
    clock,
    disconnect::Disconnect,
    outbox::{Burst, Home, Log, Position, WorkerId, Workers},
    stats::Stats,
};

/// Sessions that are flushed before others may run: broadcasts that arrive meanwhile join the outboxes of those that were not
/// flushed yet, and go out in the same write.
const SLICE: usize = 32;

/// Bytes that are written to one client at once.
pub(super) const SCRATCH: usize = 256 * 1024;

/// Bytes that are read from one client at once.
const READ_BUFFER: usize = 16 * 1024;

/// How often connections are looked over for those that are silent, stalled or overdue.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection, as its worker sees it.
pub(super) trait Carrier {
    /// Writes what waits in the outbox. `scratch` is empty before and may hold anything after.
    fn flush(&self, scratch: &mut Vec<u8>);

    /// Writes what it lacks of the log, if it follows that. Returns where what it then still lacks begins.
    fn flush_log(&self, round: &mut Round<'_>) -> Option<Position>;

    /// Ends what has waited too long.
    fn sweep(&self, now: Instant);

    /// Ends the session politely once all that waits is written.
    fn close(&self, reason: Disconnect);

    /// Ends the session now.
    fn abort(&self, reason: Disconnect);
}

/// The flusher's way around all that follow the log.
pub(super) struct Round<'a> {
    pub(super) log: &'a Log,
    /// Where the log ended when it began.
    pub(super) began: Position,
    pub(super) burst: &'a mut Burst,
    /// Empty before each connection.
    pub(super) scratch: &'a mut Vec<u8>,
}

/// A worker thread's connections.
pub(super) struct Worker {
    id: WorkerId,
    workers: Arc<Workers>,
    stats: &'static Stats,
    slots: RefCell<Slab<Option<Rc<dyn Carrier>>>>,
    read_buffer: RefCell<Box<[u8]>>,
}

thread_local! {
    static WORKER: OnceCell<Option<Rc<Worker>>> = const { OnceCell::new() };
}

impl Worker {
    /// The worker of this thread, made when it is first asked for; `None` when the server has too many.
    pub(super) fn current(hub: &Hub) -> Option<Rc<Self>> {
        WORKER.with(|worker| worker.get_or_init(|| Self::start(hub)).clone())
    }

    fn start(hub: &Hub) -> Option<Rc<Self>> {
        let id = hub.workers.claim()?;
        let worker = Rc::new(Self {
            id,
            workers: hub.workers.clone(),
            stats: hub.stats,
            slots: RefCell::new(Slab::new()),
            read_buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
        });
        actix_rt::spawn(worker.clone().flush_dirty());
        actix_rt::spawn(worker.clone().sweep());
        Some(worker)
    }

    /// A free slot. It stays taken until [`leave`](Self::leave).
    pub(super) fn reserve(&self) -> Home {
        Home { worker: self.id, slot: self.slots.borrow_mut().insert(None) as u32 }
    }

    /// Puts a connection into its slot.
    pub(super) fn enter(&self, home: Home, carrier: Rc<dyn Carrier>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(home.slot as usize) {
            *slot = Some(carrier);
        }
    }

    pub(super) fn leave(&self, home: Home) {
        // What is dropped here may end in a destructor that looks at the slots: not while they are borrowed.
        let left = self.slots.borrow_mut().try_remove(home.slot as usize);
        drop(left);
    }

    /// Room for one read. Nothing is kept in it.
    pub(super) fn with_read_buffer<R>(&self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        read(&mut self.read_buffer.borrow_mut())
    }

    async fn flush_dirty(self: Rc<Self>) {
        let mut scratch = Vec::with_capacity(SCRATCH);
        let mut dirty = Vec::new();
        let mut burst = Burst::default();
        loop {
            let taken = self.workers.take(self.id, &mut dirty).await;
            if let Some(reason) = taken.close {
                self.everyone().iter().for_each(|carrier| {
                    alone(&**carrier, |carrier| carrier.close(reason));
                });
            }
            for slice in dirty.chunks(SLICE) {
                for &slot in slice {
                    let carrier = self.slots.borrow().get(slot as usize).cloned().flatten();
                    if let Some(carrier) = carrier {
                        scratch.clear();
                        alone(&*carrier, |carrier| carrier.flush(&mut scratch));
                    }
                }
                tokio::task::yield_now().await;
            }
            if taken.log {
                self.flush_log(&mut burst, &mut scratch).await;
            }
            self.workers.flushed(self.id, taken.published);
            if let Some(published) = taken.oldest {
                let waited = clock::now().saturating_duration_since(published);
                self.stats.publish_to_write.observe(waited.as_secs_f64());
            }
            scratch.clear();
            scratch.shrink_to(SCRATCH);
        }
    }

    /// Goes around all that follow the log, once.
    async fn flush_log(&self, burst: &mut Burst, scratch: &mut Vec<u8>) {
        let log = &**self.workers.log();
        let began = log.end();
        let mut taken = began;
        let slots = self.slots.borrow().capacity();
        for first in (0..slots).step_by(SLICE) {
            burst.extend(log);
            for slot in first..slots.min(first + SLICE) {
                let carrier = self.slots.borrow().get(slot).cloned().flatten();
                if let Some(carrier) = carrier {
                    scratch.clear();
                    let mut round = Round { log, began, burst, scratch };
                    let lacks = alone(&*carrier, |carrier| carrier.flush_log(&mut round)).flatten();
                    taken = taken.min(lacks.unwrap_or(began));
                }
            }
            tokio::task::yield_now().await;
        }
        log.taken(self.id, taken);
        burst.clear(SCRATCH);
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            actix_rt::time::sleep(SWEEP_INTERVAL).await;
            let now = clock::now();
            for carriers in self.everyone().chunks(1024) {
                carriers.iter().for_each(|carrier| {
                    alone(&**carrier, |carrier| carrier.sweep(now));
                });
                tokio::task::yield_now().await;
            }
        }
    }

    fn everyone(&self) -> Vec<Rc<dyn Carrier>> {
        self.slots.borrow().iter().filter_map(|(_, carrier)| carrier.clone()).collect()
    }
}

/// Keeps a panic to the connection that it happens in: the others of this thread have nobody else to flush them.
fn alone<R>(carrier: &dyn Carrier, work: impl FnOnce(&dyn Carrier) -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(|| work(carrier)));
    if done.is_err() {
        carrier.abort(Disconnect::SessionFailed);
    }
    done.ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Fails when it is closed, or notes that it was.
    struct Closing(Option<Rc<Cell<bool>>>);

    impl Carrier for Closing {
        fn flush(&self, _: &mut Vec<u8>) {}

        fn flush_log(&self, _: &mut Round<'_>) -> Option<Position> {
            None
        }

        fn sweep(&self, _: Instant) {}

        fn close(&self, _: Disconnect) {
            self.0.as_ref().expect("it fails on purpose").set(true);
        }

        fn abort(&self, _: Disconnect) {}
    }

    #[actix_rt::test]
    async fn a_connection_that_fails_to_close_leaves_the_others_their_flusher() {
        let workers = Arc::new(Workers::new());
        let worker = Rc::new(Worker {
            id: workers.claim().unwrap(),
            workers: workers.clone(),
            stats: Stats::leak(clock::now()),
            slots: RefCell::new(Slab::new()),
            read_buffer: RefCell::new(Box::default()),
        });
        let was_closed = Rc::new(Cell::new(false));
        for carrier in [Closing(None), Closing(Some(was_closed.clone()))] {
            worker.enter(worker.reserve(), Rc::new(carrier));
        }
        let flusher = actix_rt::spawn(worker.flush_dirty());
        workers.close_all(Disconnect::ServerShutdown);
        tokio::task::yield_now().await;
        assert!(was_closed.get());
        assert!(!flusher.is_finished());
    }
}
