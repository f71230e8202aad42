//! What is measured: every receipt against what was published, and every connect.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::clock::Time;
use super::tracker::{Arrival, Tracker};
use super::traffic::{Marker, Traffic};

/// A connect that takes longer has failed for Flamenco's page, which gives up and tries again.
const PAGE_GIVES_UP: Duration = Duration::from_secs(1);

/// How a client behaves, and with that what may be asked of the server in its favour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads all the time and stays: is to get everything.
    Steady,
    /// Reads slowly or, at a rate of 0, not at all: may be thinned out or closed.
    Slow,
    /// Leaves and comes back: is to get everything between its first event and its leaving.
    Churning,
}

/// What is known of one client's events.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) role: Role,
    pub(super) audience: u32,
    pub(super) tracker: Tracker,
    /// The client was there when the publishing began and is to get all of it.
    pub(super) counted: bool,
}

/// Counts of receipts. A *delivery* is an event's first receipt by one client.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    pub(super) steady: u64,
    pub(super) slow: u64,
    pub(super) churning: u64,
    pub(super) doubled: u64,
    pub(super) out_of_order: u64,
    /// Events for others, that is of a room the client never joined.
    pub(super) misrouted: u64,
    /// Events that are not of this run.
    pub(super) foreign: u64,
}

impl Receipts {
    pub(super) fn deliveries(&self) -> u64 {
        self.steady + self.slow + self.churning
    }
}

/// The record of all receipts.
#[derive(Debug)]
pub(super) struct Tally {
    traffic: Traffic,
    marker: Marker,
    published: Vec<Time>,
    latency: Slices,
    pub(super) receipts: Receipts,
    pub(super) last_receipt: Time,
}

impl Tally {
    /// `events`: how many are published in all; `of_main_load`: how many of them the latency over time is drawn for.
    pub(super) fn new(traffic: Traffic, events: u32, of_main_load: u32) -> Self {
        Self {
            marker: traffic.marker(),
            traffic,
            published: Vec::with_capacity(events as usize),
            latency: Slices::new(of_main_load),
            receipts: Receipts::default(),
            last_receipt: Time::default(),
        }
    }

    /// Notes that the next event goes out now.
    pub(super) fn publishing(&mut self, now: Time) {
        self.published.push(now);
    }

    pub(super) fn received(&mut self, packet: &[u8], watch: &mut Watch, now: Time) {
        let published =
            self.marker.number(packet).and_then(|number| Some((number, *self.published.get(number as usize)?)));
        let Some((number, at)) = published else {
            self.receipts.foreign += 1;
            return;
        };
        let Some(position) = self.traffic.position(number, watch.audience) else {
            self.receipts.misrouted += 1;
            return;
        };
        match watch.tracker.arrived(position) {
            Arrival::InOrder => {}
            Arrival::Late => self.receipts.out_of_order += 1,
            Arrival::Doubled => {
                self.receipts.doubled += 1;
                return;
            }
        }
        let count = match watch.role {
            Role::Steady => {
                self.latency.record(number, now.nanos_since(at));
                self.last_receipt = now;
                &mut self.receipts.steady
            }
            Role::Slow => &mut self.receipts.slow,
            Role::Churning => &mut self.receipts.churning,
        };
        *count += 1;
    }

    /// When the first of the events from `first` on went out.
    pub(super) fn published_at(&self, first: u32) -> Option<Time> {
        self.published.get(first as usize).copied()
    }

    /// Latencies of steady clients so far, in nanoseconds.
    pub(super) fn latency(&self) -> Histogram<u64> {
        let mut all = nanoseconds();
        for slice in &self.latency.histograms {
            all.add(slice).expect("all have the same bounds");
        }
        all
    }

    /// The same, of each slice of the main load: when its first event was published, and its latencies.
    pub(super) fn latency_over_time(&self) -> impl Iterator<Item = (Time, &Histogram<u64>)> {
        let starts = (0_usize..).map(|slice| self.published.get(slice << self.latency.shift).copied());
        starts.zip(&self.latency.histograms).map_while(|(start, histogram)| Some((start?, histogram)))
    }
}

/// Latencies by the number of the event, in a bounded number of slices.
#[derive(Debug)]
struct Slices {
    shift: u32,
    histograms: Vec<Histogram<u64>>,
}

impl Slices {
    const MOST: u32 = 64;

    fn new(events: u32) -> Self {
        let shift = (0..32).find(|&shift| events >> shift < Self::MOST).unwrap_or(31);
        Self { shift, histograms: (0..=events >> shift).map(|_| nanoseconds()).collect() }
    }

    /// Events after the main load belong to its last slice.
    fn record(&mut self, number: u32, nanos: u64) {
        let last = self.histograms.len() - 1;
        self.histograms[((number >> self.shift) as usize).min(last)].saturating_record(nanos);
    }
}

/// What happened to the connects of one round.
#[derive(Debug, Clone)]
pub(super) struct Connects {
    pub(super) began: Time,
    pub(super) attempted: u64,
    pub(super) last: Time,
    /// From the call of connect to the packet `40`, in nanoseconds.
    pub(super) durations: Histogram<u64>,
    pub(super) over_a_second: u64,
    pub(super) failures: BTreeMap<String, u64>,
}

impl Connects {
    pub(super) fn beginning(now: Time) -> Self {
        Self {
            began: now,
            attempted: 0,
            last: now,
            durations: nanoseconds(),
            over_a_second: 0,
            failures: BTreeMap::new(),
        }
    }

    pub(super) fn connected(&mut self, since: Time, now: Time) {
        let duration = now.since(since);
        self.durations.saturating_record(now.nanos_since(since));
        self.over_a_second += u64::from(duration > PAGE_GIVES_UP);
        self.last = now;
    }

    pub(super) fn failed(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
    }
}

/// A histogram of durations in nanoseconds, 1 µs to 17 minutes, to one per cent; few enough bytes to stay in the cache.
pub(super) fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 1 << 40, 2).expect("the bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::super::template::Template;
    use super::super::traffic::Page;
    use super::*;

    fn packet(traffic: &Traffic, number: u32) -> Vec<u8> {
        let template: Template = r#"42["{event}",{payload}]"#.parse().unwrap();
        let mut out = Vec::new();
        traffic.write(number, &template, &mut Vec::new(), &mut out);
        out
    }

    fn watch(role: Role, audience: u32) -> Watch {
        Watch { role, audience, tracker: Tracker::expecting(0), counted: true }
    }

    #[test]
    fn receipts_are_told_apart() {
        let traffic = Traffic::new(Page::Job, 2, 200);
        let mut tally = Tally::new(traffic.clone(), 6, 6);
        for nanos in 0..6 {
            tally.publishing(Time::from_nanos(nanos));
        }
        let mut even = watch(Role::Steady, 0);
        let now = Time::from_nanos(5_000_000);
        for number in [0, 4, 2, 4, 1] {
            tally.received(&packet(&traffic, number), &mut even, now);
        }
        tally.received(b"42[\"/jobs\",{}]", &mut even, now);
        let mut slow = watch(Role::Slow, 1);
        tally.received(&packet(&traffic, 5), &mut slow, now);
        let Receipts { steady, slow: by_slow, churning, doubled, out_of_order, misrouted, foreign } = tally.receipts;
        assert_eq!((steady, by_slow, churning), (3, 1, 0));
        assert_eq!((doubled, out_of_order, misrouted, foreign), (1, 1, 1, 1));
        assert_eq!((even.tracker.missing(3), slow.tracker.skipped()), (0, 2));
        assert_eq!(tally.latency().len(), 3, "latencies are those of steady clients");
    }

    #[test]
    fn slices_are_few_and_cover_all_events() {
        for events in [0, 1, 63, 64, 1000, 100_000_000] {
            let slices = Slices::new(events);
            assert!(slices.histograms.len() <= Slices::MOST as usize);
            assert!((events >> slices.shift) as usize == slices.histograms.len() - 1);
        }
    }
}
