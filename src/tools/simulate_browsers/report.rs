//! The report: what `--json` prints is [`Report`] as it stands here, field by field; `table.rs` makes a table from it.
//!
//! Times are in the unit their name ends with, shares are of 1. A part that was not asked for is `null`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::tally::{Connects, Receipts};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) load: Load,
    pub(super) connect: ConnectReport,
    /// How many steady or churning clients the server closed, or stopped answering, after they were connected; by reason.
    pub(super) disconnects: BTreeMap<String, u64>,
    /// `null` without `--events`.
    pub(super) publish: Option<PublishReport>,
    /// `null` without `--events`.
    pub(super) delivery: Option<DeliveryReport>,
    /// From just before the POST is written to just after the event is read, of steady clients, without storms.
    pub(super) latency: Option<Quantiles>,
    /// `null` without `--slow`.
    pub(super) slow: Option<SlowReport>,
    /// `null` without `--churn`: the reconnects.
    pub(super) churn: Option<ConnectReport>,
    /// One for each of `--storms`.
    pub(super) storms: Vec<StormReport>,
    /// `null` without `--server-pid`.
    pub(super) server: Option<ServerReport>,
    pub(super) generator: GeneratorReport,
    /// What was wrong, in words; exit code 1 when there is any.
    pub(super) problems: Vec<String>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) url: String,
    pub(super) publish_url: String,
    /// `websocket` or `polling`.
    pub(super) transport: &'static str,
    pub(super) clients: u32,
    /// `jobs`, `job` or `mix`.
    pub(super) page: &'static str,
    pub(super) jobs: u32,
    pub(super) events: u32,
    /// Events per second, 0 for as fast as answers come.
    pub(super) rate: f64,
    pub(super) batch: u32,
    pub(super) payload_bytes: u32,
    pub(super) hold_s: f64,
}

/// Connects of one round. The quantiles are of the time from connect to the packet `40`.
#[derive(Debug, Serialize)]
pub(super) struct ConnectReport {
    pub(super) attempted: u64,
    pub(super) connected: u64,
    pub(super) failed: u64,
    /// By reason.
    pub(super) failures: BTreeMap<String, u64>,
    /// From the first connect begun to the last one done.
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    /// Connects that took longer than 1 s, after which Flamenco's page gives up.
    pub(super) over_1s: u64,
    pub(super) time: Quantiles,
}

#[derive(Debug, Serialize)]
pub(super) struct PublishReport {
    /// Taken by the server.
    pub(super) events: u32,
    pub(super) posts: u64,
    /// POSTs answered 503, and sent again.
    pub(super) turned_away: u64,
    /// From the first POST to the answer to the last.
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    /// From POST to answer.
    pub(super) answer: Quantiles,
    /// Why publishing stopped early.
    pub(super) error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct DeliveryReport {
    /// How many deliveries there should be: each published event once to each steady client it is for.
    pub(super) expected: u64,
    /// How many there were by the end of the load, without slow and churning clients.
    pub(super) delivered: u64,
    /// The same with slow and churning clients.
    pub(super) delivered_to_all: u64,
    /// From the first POST to the last receipt.
    pub(super) seconds: f64,
    /// `delivered_to_all` in these seconds.
    pub(super) per_second: f64,
    /// The rest is of the whole run, storms included. Not got by a steady client; or by a churning one between two others.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Received after an event that was published later.
    pub(super) out_of_order: u64,
    /// Received by a client that had not subscribed to it.
    pub(super) misrouted: u64,
    /// Received, but published by another program.
    pub(super) foreign: u64,
}

/// Slow readers: a server may thin out their updates or close them, but neither double nor reorder.
#[derive(Debug, Serialize)]
pub(super) struct SlowReport {
    pub(super) clients: u32,
    pub(super) delivered: u64,
    /// Not got although a later event was.
    pub(super) skipped: u64,
    /// Closed by the server, by reason.
    pub(super) disconnects: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct StormReport {
    pub(super) connect: ConnectReport,
    /// How many clients were to get the one event after the storm, and how many did.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Of the server, `--hold` after the last connect.
    pub(super) rss_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ServerReport {
    pub(super) pids: Vec<u32>,
    /// User and system time of all threads, from the first POST to the end of the load.
    pub(super) cpu_seconds: f64,
    /// That, per delivery to any client; `null` when there was none.
    pub(super) cpu_us_per_delivery: Option<f64>,
    /// Resident memory before the first connect, after the last, after `--hold`, and `--hold-after` the load.
    pub(super) rss_bytes: Moments,
    /// What it is more than before, for each connected client.
    pub(super) rss_bytes_per_client: Moments,
}

#[derive(Debug, Serialize)]
pub(super) struct Moments {
    pub(super) before: i64,
    pub(super) connected: i64,
    pub(super) idle: i64,
    pub(super) after_load: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct GeneratorReport {
    /// Share of one core while connecting, and during the load.
    pub(super) cpu_share_connecting: f64,
    pub(super) cpu_share_load: f64,
    pub(super) cpu_us_per_delivery: Option<f64>,
    /// Over 90 % of a core in either: the figures may be the generator's, not the server's.
    pub(super) is_bottleneck: bool,
}

/// What some phase took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) seconds: f64,
    /// CPU time of the server and of this program, in seconds.
    pub(super) server_cpu: f64,
    pub(super) own_cpu: f64,
    pub(super) deliveries: u64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

impl Quantiles {
    /// Of nanoseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| rounded(histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e6);
        Self { p50_ms: ms(0.5), p90_ms: ms(0.9), p99_ms: ms(0.99), p999_ms: ms(0.999), max_ms: ms(1.0) }
    }
}

impl ConnectReport {
    pub(super) fn of(connects: &Connects) -> Self {
        let connected = connects.durations.len();
        let seconds = connects.last.since(connects.began).as_secs_f64();
        Self {
            attempted: connects.attempted,
            connected,
            failed: connects.failures.values().sum(),
            failures: connects.failures.clone(),
            seconds: rounded(seconds),
            per_second: rate(connected, seconds),
            over_1s: connects.over_a_second,
            time: Quantiles::of(&connects.durations),
        }
    }
}

impl DeliveryReport {
    /// Takes the counts of the whole run.
    pub(super) fn count(&mut self, receipts: &Receipts, lost: u64) {
        self.lost = lost;
        self.doubled = receipts.doubled;
        self.out_of_order = receipts.out_of_order;
        self.misrouted = receipts.misrouted;
        self.foreign = receipts.foreign;
    }
}

impl ServerReport {
    /// `resident`: bytes before the first connect, after the last, after the hold, and after the load.
    pub(super) fn of(pids: &[u32], resident: [u64; 4], clients: u64, load: Option<Spent>) -> Self {
        let moments = |[before, connected, idle, after_load]: [i64; 4]| Moments { before, connected, idle, after_load };
        let resident = resident.map(u64::cast_signed);
        let per_client = |bytes: i64| (bytes - resident[0]) / clients.max(1).cast_signed();
        Self {
            pids: pids.to_vec(),
            cpu_seconds: load.map_or(0.0, |load| load.server_cpu),
            cpu_us_per_delivery: load.and_then(|load| load.per_delivery(load.server_cpu)),
            rss_bytes: moments(resident),
            rss_bytes_per_client: moments(resident.map(per_client)),
        }
    }
}

impl GeneratorReport {
    /// `connecting`: share of a core.
    pub(super) fn of(connecting: f64, load: Option<Spent>) -> Self {
        let during_load = load.map_or(0.0, |load| load.own_share());
        Self {
            cpu_share_connecting: connecting,
            cpu_share_load: during_load,
            cpu_us_per_delivery: load.and_then(|load| load.per_delivery(load.own_cpu)),
            is_bottleneck: connecting.max(during_load) > 0.9,
        }
    }
}

impl Spent {
    /// Of one core.
    pub(super) fn own_share(&self) -> f64 {
        if self.seconds > 0.0 { rounded(self.own_cpu / self.seconds) } else { 0.0 }
    }

    /// Microseconds.
    fn per_delivery(&self, cpu: f64) -> Option<f64> {
        (self.deliveries > 0).then(|| rounded(cpu * 1e6 / self.deliveries as f64))
    }
}

impl Report {
    /// What was measured, in a line.
    pub(super) fn title(&self) -> String {
        let Load { url, transport, clients, events, rate, payload_bytes, .. } = &self.load;
        let pace = if *rate > 0.0 { format!("{rate}/s") } else { "flat out".to_owned() };
        format!("{url}: {clients} {transport} clients, {events} events of {payload_bytes} bytes, {pace}")
    }

    /// Adds what the load came to.
    pub(super) fn with_load(mut self, load: Option<(PublishReport, DeliveryReport, Quantiles)>) -> Self {
        if let Some((publish, delivery, latency)) = load {
            (self.publish, self.delivery, self.latency) = (Some(publish), Some(delivery), Some(latency));
        }
        self
    }

    /// Fills `problems`.
    pub(super) fn judged(mut self) -> Self {
        let mut problems = Vec::new();
        let mut blame = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        blame(
            u64::from(self.load.clients) - self.connect.connected.min(self.load.clients.into()),
            "clients did not connect",
        );
        blame(self.disconnects.values().sum(), "clients were disconnected");
        if let Some(delivery) = &self.delivery {
            blame(delivery.lost, "deliveries lost");
            blame(delivery.doubled, "deliveries doubled");
            blame(delivery.out_of_order, "deliveries out of order");
            blame(delivery.misrouted, "deliveries to clients that had not subscribed");
        }
        if let Some(churn) = &self.churn {
            blame(churn.failed, "reconnects of churning clients failed");
        }
        for storm in &self.storms {
            blame(
                u64::from(self.load.clients) - storm.connect.connected.min(self.load.clients.into()),
                "clients did not come back after a storm",
            );
        }
        if let Some(error) = self.publish.as_ref().and_then(|publish| publish.error.as_ref()) {
            problems.push(format!("publishing stopped: {error}"));
        }
        self.problems = problems;
        self
    }
}

/// Per second, rounded; 0 of no time at all.
pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 }
}

/// To three digits after the point, so that reports read well.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
