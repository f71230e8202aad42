//! The last hour of the metrics that the console plots, in bounded memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::console;
use crate::{
    actors::Hub,
    clock,
    disconnect::Disconnect,
    farm::EventKind,
    stats::{LATENCY_BUCKETS, Refused, Source, Stats},
};

/// The time that a sample covers.
const INTERVAL: Duration = Duration::from_secs(10);

/// One hour.
const SAMPLES: usize = 360;

/// An interval.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Seconds from the start of the server to the end of the interval.
    at_s: f64,
    /// Seconds that it covers.
    for_s: f64,
    /// Sessions at its end.
    websocket: usize,
    polling: usize,
    /// Bytes that waited in all outboxes at the end of the last complete interval.
    waiting_bytes: usize,
    /// What it added.
    #[serde(flatten)]
    added: Counts,
}

/// Counters that the console plots.
#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    deliveries: u64,
    bytes_out: u64,
    events: [u64; EventKind::ALL.len()],
    sources: [u64; Source::ALL.len()],
    refused: u64,
    disconnects: u64,
    /// Rounds of the flusher by the time from publish to write, one for each bucket.
    latencies: [u64; LATENCY_BUCKETS.len() + 1],
}

impl Counts {
    fn of(stats: &Stats) -> Self {
        Self {
            deliveries: stats.deliveries.get(),
            bytes_out: stats.bytes_out.get(),
            events: EventKind::ALL.map(|kind| stats.event(kind).get()),
            sources: Source::ALL.map(|source| stats.source(source).events.get()),
            refused: Refused::ALL.into_iter().map(|reason| stats.refused(reason).get()).sum(),
            disconnects: Disconnect::ALL.into_iter().map(|reason| stats.disconnect(reason).get()).sum(),
            latencies: stats.publish_to_write.counts(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            deliveries: self.deliveries.saturating_sub(before.deliveries),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            events: minus(self.events, before.events),
            sources: minus(self.sources, before.sources),
            refused: self.refused.saturating_sub(before.refused),
            disconnects: self.disconnects.saturating_sub(before.disconnects),
            latencies: minus(self.latencies, before.latencies),
        }
    }
}

fn minus<const N: usize>(now: [u64; N], before: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| now[at].saturating_sub(before[at]))
}

/// Rounds seconds to milliseconds.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The samples of the last hour, oldest first. Besides them nothing is kept, and taking one reads a few
/// dozen counters and lists the sessions.
#[derive(Debug)]
pub(super) struct Samples {
    stats: &'static Stats,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    samples: VecDeque<Sample>,
    /// The end of the last sample, and the counters then.
    began: Instant,
    before: Counts,
    waiting_bytes: usize,
}

impl Kept {
    fn sample(&self, stats: &Stats, now: Instant, counts: &Counts) -> Sample {
        let seconds = |from: Instant| milliseconds(now.saturating_duration_since(from).as_secs_f64());
        Sample {
            at_s: seconds(stats.started),
            for_s: seconds(self.began),
            websocket: stats.websocket_sessions.get(),
            polling: stats.polling_sessions(),
            waiting_bytes: self.waiting_bytes,
            added: counts.since(&self.before),
        }
    }
}

/// What the console gets.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    interval_s: u64,
    /// The upper bounds of the latencies' buckets in seconds; the last bucket has none.
    buckets_s: [f64; LATENCY_BUCKETS.len()],
    events: [&'static str; EventKind::ALL.len()],
    sources: [&'static str; Source::ALL.len()],
    samples: Vec<Sample>,
    /// The interval that has not ended.
    current: Sample,
}

impl Samples {
    pub(super) fn new(stats: &'static Stats) -> Self {
        let samples = VecDeque::with_capacity(SAMPLES);
        let kept = Kept { samples, began: clock::now(), before: Counts::of(stats), waiting_bytes: 0 };
        Self { stats, kept: Mutex::new(kept) }
    }

    /// Takes samples for as long as the server runs.
    pub(super) async fn keep(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            actix_rt::time::sleep(INTERVAL).await;
            let waiting_bytes = console::waiting_bytes(&hub).await;
            self.take(clock::now(), waiting_bytes);
        }
    }

    /// `waiting_bytes` is `None` if the registry does not answer.
    fn take(&self, now: Instant, waiting_bytes: Option<usize>) {
        let mut kept = self.kept();
        kept.waiting_bytes = waiting_bytes.unwrap_or(kept.waiting_bytes);
        let counts = Counts::of(self.stats);
        let sample = kept.sample(self.stats, now, &counts);
        (kept.began, kept.before) = (now, counts);
        if kept.samples.len() == SAMPLES {
            kept.samples.pop_front();
        }
        kept.samples.push_back(sample);
    }

    /// Returns the samples that ended after `since`, in seconds from the start of the server.
    pub(super) fn report(&self, since: f64) -> Report {
        let kept = self.kept();
        Report {
            interval_s: INTERVAL.as_secs(),
            buckets_s: LATENCY_BUCKETS,
            events: EventKind::ALL.map(EventKind::as_str),
            sources: Source::ALL.map(Source::as_str),
            samples: kept.samples.iter().filter(|sample| sample.at_s > since).copied().collect(),
            current: kept.sample(self.stats, clock::now(), &Counts::of(self.stats)),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let stats = Stats::leak(clock::now());
        let samples = Samples::new(stats);
        for turn in 0..2 * SAMPLES as u64 {
            stats.deliveries.add(turn);
            stats.publish_to_write.observe(0.003);
            stats.event(EventKind::JobUpdate).add(2);
            samples.take(stats.started + INTERVAL * (turn as u32 + 1), (turn % 2 == 0).then_some(turn as usize));
        }
        stats.deliveries.add(5);
        stats.publish_to_write.observe(11.0);
        let report = samples.report(0.0);
        assert_eq!(report.samples.len(), SAMPLES);
        let (first, last) = (&report.samples[0], report.samples.last().unwrap());
        assert_eq!((first.added.deliveries, last.added.deliveries), (SAMPLES as u64, 2 * SAMPLES as u64 - 1));
        assert_eq!((last.at_s, last.for_s, last.added.latencies[3]), (7200.0, 10.0, 1));
        let waiting = report.samples.iter().rev().take(3).map(|sample| sample.waiting_bytes);
        assert!(waiting.eq([718, 718, 716]), "the last that is known");
        assert_eq!(last.added.events[EventKind::JobUpdate as usize], 2);
        assert_eq!((report.current.added.deliveries, report.current.added.latencies[LATENCY_BUCKETS.len()]), (5, 1));
        assert_eq!(samples.report(last.at_s).samples.len(), 0);
        assert_eq!(samples.report(last.at_s - 10.0).samples.len(), 1);
        assert!(samples.kept().samples.capacity() <= 2 * SAMPLES, "the ring does not grow");
    }
}
