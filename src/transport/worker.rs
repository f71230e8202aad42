//! The part of a worker thread that its connections share: the flusher, the sweep and the buffers.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    actors::Hub,
    clock,
    disconnect::Disconnect,
    faults,
    outbox::{Burst, Home, Log, Position, WorkerId, Workers},
    slots::Slots,
    stats::Stats,
};

/// The number of sessions flushed before others may run. Broadcasts that arrive meanwhile join the
/// outboxes that are not flushed yet, and go out in the same write.
const SLICE: usize = 16;

/// The maximum number of bytes written to one client at once.
pub(super) const SCRATCH: usize = 256 * 1024;

/// The maximum number of bytes read from one client at once.
const READ_BUFFER: usize = 16 * 1024;

/// The interval at which connections are checked for silence, stalls and overdue outboxes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection, as its worker sees it.
pub(super) trait Carrier {
    /// Writes the waiting frames of the outbox. `scratch` is empty before the call and has
    /// arbitrary content after it.
    fn flush(&self, scratch: &mut Vec<u8>);

    /// Writes what the outbox lacks of the log, if it is attached. Returns the position from which
    /// it still lacks the log afterwards.
    fn flush_log(&self, round: &mut Round<'_>) -> Option<Position>;

    /// Ends the connection if it has been silent or overdue for too long.
    fn sweep(&self, now: Instant);

    /// Ends the session once all waiting frames are written.
    fn close(&self, reason: Disconnect);

    /// Ends the session now.
    fn abort(&self, reason: Disconnect);
}

/// One round of the flusher through the outboxes that are attached to the log.
pub(super) struct Round<'a> {
    pub(super) log: &'a Log,
    /// The end of the log when the round began.
    pub(super) began: Position,
    pub(super) burst: &'a mut Burst,
    /// Empty before each connection.
    pub(super) scratch: &'a mut Vec<u8>,
}

/// How much of its time a round of the flusher has given away to other threads.
struct Courtesy {
    /// The number of broadcasts when the round began.
    published: u64,
    began: Instant,
    away: Duration,
}

impl Courtesy {
    fn new(published: u64) -> Self {
        Self { published, began: clock::now(), away: Duration::ZERO }
    }
}

/// The connections of a worker thread.
pub(super) struct Worker {
    id: WorkerId,
    workers: Arc<Workers>,
    stats: &'static Stats,
    slots: RefCell<Slots<Option<Rc<dyn Carrier>>>>,
    read_buffer: RefCell<Box<[u8]>>,
}

impl Worker {
    /// Starts the flusher and the sweep of a worker on this thread. Returns `None` if the server
    /// has too many workers.
    pub(super) fn start(hub: &Hub) -> Option<Rc<Self>> {
        let id = hub.workers.claim()?;
        let worker = Rc::new(Self {
            id,
            workers: hub.workers.clone(),
            stats: hub.stats,
            slots: RefCell::new(Slots::new()),
            read_buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
        });
        let (flushing, sweeping) = (worker.clone(), worker.clone());
        hub.supervisor.keep("flusher", move |is_restart| flushing.clone().flush_dirty(is_restart));
        hub.supervisor.keep("sweep", move |_| sweeping.clone().sweep());
        Some(worker)
    }

    /// Reserves a free slot, which stays taken until [`leave`](Self::leave).
    pub(super) fn reserve(&self) -> Home {
        Home { worker: self.id, slot: self.slots.borrow_mut().insert(None) }
    }

    /// Puts a connection into its slot.
    pub(super) fn enter(&self, home: Home, carrier: Rc<dyn Carrier>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(home.slot) {
            *slot = Some(carrier);
        }
    }

    pub(super) fn leave(&self, home: Home) {
        // A destructor may access the slots, so they must not be borrowed during the drop.
        let left = self.slots.borrow_mut().remove(home.slot);
        drop(left);
    }

    /// Lends the buffer for one read. Its content is not kept.
    pub(super) fn with_read_buffer<R>(&self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        read(&mut self.read_buffer.borrow_mut())
    }

    /// After a panic it is unknown which slots of the list in hand were flushed, so all are
    /// visited.
    async fn flush_dirty(self: Rc<Self>, after_panic: bool) {
        let mut scratch = Vec::with_capacity(SCRATCH);
        let mut dirty = Vec::new();
        let mut burst = Burst::default();
        if after_panic {
            self.workers.mark_worker(self.id, self.slots.borrow().numbers());
            if self.workers.is_closing() {
                self.close_everyone(Disconnect::ServerShutdown);
            }
        }
        loop {
            let taken = self.workers.take(self.id, &mut dirty).await;
            faults::running("flusher");
            if let Some(reason) = taken.close {
                self.close_everyone(reason);
            }
            let mut courtesy = Courtesy::new(taken.published);
            for slice in dirty.chunks(SLICE) {
                for &slot in slice {
                    let carrier = self.slots.borrow().get(slot).cloned().flatten();
                    if let Some(carrier) = carrier {
                        scratch.clear();
                        alone(&*carrier, |carrier| carrier.flush(&mut scratch));
                    }
                }
                self.pause(&mut courtesy).await;
            }
            if taken.log {
                self.flush_log(&mut courtesy, &mut burst, &mut scratch).await;
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

    /// Visits all outboxes that are attached to the log, once.
    async fn flush_log(&self, courtesy: &mut Courtesy, burst: &mut Burst, scratch: &mut Vec<u8>) {
        let log = &**self.workers.log();
        let began = log.end();
        let mut taken = began;
        // A connection that enters during the round attaches at a position behind `began`.
        let slots = self.slots.borrow().numbers().to_vec();
        for slice in slots.chunks(SLICE) {
            burst.extend(log);
            for &slot in slice {
                let carrier = self.slots.borrow().get(slot).cloned().flatten();
                if let Some(carrier) = carrier {
                    scratch.clear();
                    let mut round = Round { log, began, burst, scratch };
                    let lacks = alone(&*carrier, |carrier| carrier.flush_log(&mut round)).flatten();
                    taken = taken.min(lacks.unwrap_or(began));
                }
            }
            self.pause(courtesy).await;
        }
        log.taken(self.id, taken);
        burst.clear(SCRATCH);
    }

    /// Lets other tasks run. If more was published since the round began, other threads may run as
    /// well: where cores are few, a thread that the next broadcast needs would wait for a core until
    /// the kernel takes it from a flusher, which is after 4 ms. Another program may keep the core for as
    /// long, so a round gives away at most half of its time.
    async fn pause(&self, courtesy: &mut Courtesy) {
        if self.workers.has_newer(courtesy.published) {
            let now = clock::now();
            if 2 * courtesy.away <= now.saturating_duration_since(courtesy.began) {
                std::thread::yield_now();
                courtesy.away += clock::now().saturating_duration_since(now);
            }
        }
        tokio::task::yield_now().await;
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            actix_rt::time::sleep(SWEEP_INTERVAL).await;
            faults::running("sweep");
            faults::ending_thread("sweep");
            let now = clock::now();
            for carriers in self.everyone().chunks(1024) {
                carriers.iter().for_each(|carrier| {
                    alone(&**carrier, |carrier| carrier.sweep(now));
                });
                tokio::task::yield_now().await;
            }
        }
    }

    fn close_everyone(&self, reason: Disconnect) {
        self.everyone().iter().for_each(|carrier| {
            alone(&**carrier, |carrier| carrier.close(reason));
        });
    }

    fn everyone(&self) -> Vec<Rc<dyn Carrier>> {
        self.slots.borrow().iter().filter_map(|(_, carrier)| carrier.clone()).collect()
    }
}

/// Confines a panic to its connection: no other thread would flush the remaining ones.
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

    /// Panics when it is closed, or records that it was.
    struct Closing(Option<Rc<Cell<bool>>>);

    impl Carrier for Closing {
        fn flush(&self, _: &mut Vec<u8>) {}

        fn flush_log(&self, _: &mut Round<'_>) -> Option<Position> {
            None
        }

        fn sweep(&self, _: Instant) {}

        fn close(&self, _: Disconnect) {
            self.0.as_ref().expect("it panics on purpose").set(true);
        }

        fn abort(&self, _: Disconnect) {}
    }

    fn worker(workers: &Arc<Workers>) -> Rc<Worker> {
        Rc::new(Worker {
            id: workers.claim().unwrap(),
            workers: workers.clone(),
            stats: Stats::leak(clock::now()),
            slots: RefCell::new(Slots::new()),
            read_buffer: RefCell::new(Box::default()),
        })
    }

    /// A broadcast and a sweep visit no slot that a peak left behind, wherever the taken slots are.
    #[actix_rt::test]
    async fn the_cost_of_a_broadcast_does_not_depend_on_past_load() {
        let worker = worker(&Arc::new(Workers::new()));
        let enter = || {
            let home = worker.reserve();
            worker.enter(home, Rc::new(Closing(None)));
            home
        };
        let came: Vec<Home> = (0..9000).map(|_| enter()).collect();
        let (staying, leaving): (Vec<_>, Vec<_>) = came.into_iter().partition(|home| home.slot % 1800 == 1799);
        leaving.into_iter().for_each(|home| worker.leave(home));
        let staying = staying.len() + [enter(), enter(), enter()].len();
        worker.slots.borrow().take_visits();
        worker.flush_log(&mut Courtesy::new(0), &mut Burst::default(), &mut Vec::new()).await;
        assert_eq!(worker.slots.borrow().take_visits(), staying);
        assert_eq!(worker.everyone().len(), staying);
        assert_eq!(worker.slots.borrow().take_visits(), staying);
    }

    #[actix_rt::test]
    async fn a_connection_that_fails_to_close_leaves_the_others_their_flusher() {
        let workers = Arc::new(Workers::new());
        let worker = worker(&workers);
        let was_closed = Rc::new(Cell::new(false));
        for carrier in [Closing(None), Closing(Some(was_closed.clone()))] {
            worker.enter(worker.reserve(), Rc::new(carrier));
        }
        let flusher = actix_rt::spawn(worker.flush_dirty(false));
        workers.close_all(Disconnect::ServerShutdown);
        tokio::task::yield_now().await;
        assert!(was_closed.get());
        assert!(!flusher.is_finished());
    }
}
