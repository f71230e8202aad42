//! What metrics are made of: counters, gauges, histograms and last values. They can be written and
//! read by any thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use prometheus_client::metrics::histogram::Histogram;

/// Bucket bounds in seconds that separate a healthy flush, a flush under load, and a noticeable
/// delay.
pub const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The current number of something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// For a number that only one task writes.
    pub fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets it to a value that is not smaller. For a number that several tasks write.
    pub fn raise(&self, value: usize) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one, for as long as the guard lives.
    pub fn add(&'static self) -> Presence {
        self.0.fetch_add(1, Ordering::Relaxed);
        Presence(self)
    }

    /// Adds one, or returns `None` if there are `limit` already.
    pub fn enter(&'static self, limit: usize) -> Option<Presence> {
        let entered =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1));
        entered.ok().map(|_| Presence(self))
    }
}

/// One unit of a [`Gauge`].
#[derive(Debug)]
pub struct Presence(&'static Gauge);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A histogram of latencies, and its buckets one by one.
#[derive(Debug)]
pub struct Latencies {
    pub histogram: Histogram,
    /// One for each of [`LATENCY_BUCKETS`], and the last for everything longer.
    counts: [Counter; LATENCY_BUCKETS.len() + 1],
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { histogram: Histogram::new(LATENCY_BUCKETS), counts: Default::default() }
    }

    pub fn observe(&self, seconds: f64) {
        self.histogram.observe(seconds);
        self.counts[LATENCY_BUCKETS.partition_point(|bound| *bound < seconds)].add(1);
    }

    /// Returns the number of latencies in each bucket alone.
    pub fn counts(&self) -> [u64; LATENCY_BUCKETS.len() + 1] {
        std::array::from_fn(|bucket| self.counts[bucket].get())
    }
}

/// The last value that was set, of something that is not a number.
#[derive(Debug)]
pub(super) struct Latest<T>(Mutex<Option<T>>);

impl<T: Copy> Latest<T> {
    pub(super) fn set(&self, value: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    pub(super) fn get(&self) -> Option<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
