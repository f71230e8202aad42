//! `GET /metrics`: what [`Stats`] counts, as Prometheus reads it.
//!
//! Nothing is counted here. No label has more values than this program has names for, so a scrape stays small however big the
//! farm is.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, http::header, web};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet, text,
    },
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    actors::{
        Hub,
        messages::{Census, ListOutboxes, TakeCensus},
    },
    clock,
    disconnect::Disconnect,
    farm::{EventKind, Room},
    ingest::Intake,
    stats::{Refused, Source, SourceState, Stats},
};

/// How long the registry may take to answer each question. The figures matter most when it does not.
const TIMEOUT: Duration = Duration::from_secs(1);

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Rooms that every farm has; those of jobs and tasks are only counted.
const FIXED_ROOMS: [(Room, &str); 5] = [
    (Room::Jobs, "Jobs"),
    (Room::Workers, "Workers"),
    (Room::LastRendered, "Last-Rendered"),
    (Room::WorkerTags, "Worker-Tags"),
    (Room::Chat, "Chat"),
];

pub(super) async fn metrics(hub: web::Data<Hub>, intake: web::Data<Intake>) -> HttpResponse {
    let scrape = Scrape { stats: hub.stats, backlog: intake.backlog(), registry: ask_registry(&hub).await };
    let mut registry = Registry::with_prefix("webupdates");
    registry.register_collector(Box::new(scrape));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => HttpResponse::Ok().insert_header((header::CONTENT_TYPE, CONTENT_TYPE)).body(body),
        Err(fmt::Error) => HttpResponse::InternalServerError().body("the metrics cannot be written\n"),
    }
}

async fn ask_registry(hub: &Hub) -> Option<RegistryFigures> {
    let asked = clock::now();
    let Ok(Ok(census)) = actix_rt::time::timeout(TIMEOUT, hub.registry.send(TakeCensus { rooms: true })).await else {
        return None;
    };
    let answer = clock::now().saturating_duration_since(asked);
    let Ok(Ok(outboxes)) = actix_rt::time::timeout(TIMEOUT, hub.registry.send(ListOutboxes)).await else {
        return None;
    };
    let outbox_bytes = outboxes.0.iter().map(|outbox| outbox.backlog()).sum();
    Some(RegistryFigures { census, answer, outbox_bytes })
}

/// What only the registry knows.
#[derive(Debug)]
struct RegistryFigures {
    census: Census,
    /// How long a question waited behind what was in its mailbox.
    answer: Duration,
    outbox_bytes: usize,
}

/// Everything that is told in one answer.
#[derive(Debug)]
struct Scrape {
    stats: &'static Stats,
    backlog: usize,
    /// `None` when the registry does not answer.
    registry: Option<RegistryFigures>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.server(&mut page)?;
        self.sessions(&mut page)?;
        self.events(&mut page)?;
        self.deliveries(&mut page)?;
        self.sources(&mut page)
    }
}

impl Scrape {
    fn server(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        let uptime = clock::now().saturating_duration_since(stats.started);
        page.gauges("build_info", "What runs", ["version"], [([env!("CARGO_PKG_VERSION")], 1)])?;
        page.gauge("uptime_seconds", "Since the start", uptime.as_secs_f64())?;
        page.gauge("registry_up", "Whether the room registry answers", i64::from(self.registry.is_some()))?;
        if let Some(registry) = &self.registry {
            let help = "How long a question waited behind what was in the room registry's mailbox";
            page.gauge("registry_answer_seconds", help, registry.answer.as_secs_f64())?;
        }
        page.counter("restarts", "Restarts of actors after a panic", stats.restarts.get())?;
        page.counter(
            "poisoned",
            "Messages that were dropped because they made an actor panic twice",
            stats.poisoned.get(),
        )
    }

    fn sessions(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        let sessions = [(["websocket"], stats.websocket_sessions.get()), (["polling"], stats.polling_sessions())];
        page.gauges("sessions", "Browsers that are connected", ["transport"], counts(sessions))?;
        let help = "Connections of browsers that are no WebSockets, or not yet";
        page.gauge("http_connections", help, count(stats.http_connections.get()))?;
        let ended = Disconnect::ALL.map(|reason| ([reason.as_str()], stats.disconnect(reason).get()));
        page.counters("disconnects", "Sessions that ended", "reason", ended)?;
        let Some(RegistryFigures { census, .. }) = &self.registry else { return Ok(()) };
        page.gauge("rooms", "Rooms that somebody is in", count(census.rooms.len()))?;
        let members = FIXED_ROOMS.map(|(room, name)| {
            ([name], census.rooms.iter().find(|(other, _)| *other == room).map_or(0, |(_, members)| *members))
        });
        page.gauges("room_members", "Browsers in the rooms that every farm has", ["room"], counts(members))
    }

    fn events(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        let events = EventKind::ALL.map(|kind| ([kind.as_str()], stats.event(kind).get()));
        page.counters("events", "Events that were accepted", "type", events)?;
        let refused = Refused::ALL.map(|reason| ([reason.as_str()], stats.refused(reason).get()));
        page.counters("refused", "Events, requests and browsers that were not taken", "reason", refused)?;
        let help = "Status words that this server does not know, and forwarded";
        page.counter("unknown_status", help, stats.unknown_statuses.get())?;
        page.gauge(
            "backlog_events",
            "Events that are not yet in the outbox of everyone who gets them",
            count(self.backlog),
        )
    }

    fn deliveries(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        page.counter("deliveries", "Broadcasts that were put into a browser's outbox", stats.deliveries.get())?;
        let help = "Updates that took the place of an older one, for a browser that lags";
        page.counter("coalesced", help, stats.coalesced.get())?;
        page.counter("sent_bytes", "Bytes that were sent to browsers", stats.bytes_out.get())?;
        if let Some(RegistryFigures { outbox_bytes, .. }) = &self.registry {
            page.gauge("outbox_bytes", "Bytes that wait for all browsers together", count(*outbox_bytes))?;
        }
        let help =
            "From the oldest broadcast that began a worker's flush until the last browser that takes bytes has it";
        stats.publish_to_write.encode(page.begin("publish_to_write_seconds", help, MetricType::Histogram)?)
    }

    fn sources(&self, page: &mut Page) -> fmt::Result {
        let all = Source::ALL.map(|source| (source.as_str(), self.stats.source(source)));
        let events = all.map(|(name, source)| ([name], source.events.get()));
        page.counters("source_events", "Events that came", "source", events)?;
        let dropped = all.map(|(name, source)| ([name], source.dropped.get()));
        page.counters("source_dropped", "Events that were known already", "source", dropped)?;
        let now = clock::now();
        let ages = all.into_iter().filter_map(|(name, source)| {
            Some(([name], now.saturating_duration_since(source.last_event()?).as_secs_f64()))
        });
        page.gauges("source_last_event_age_seconds", "Since the last event", ["source"], ages)?;
        let states = all.into_iter().filter_map(|(name, source)| Some((name, source.state()?)));
        let states = states.flat_map(|(name, state)| {
            SourceState::ALL.map(|other| ([name, other.as_str()], i64::from(other == state)))
        });
        page.gauges(
            "source_state",
            "Which state a source is in that has to find its Manager",
            ["source", "state"],
            states,
        )
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counts<L, const N: usize>(numbers: [(L, usize); N]) -> [(L, i64); N] {
    numbers.map(|(labels, number)| (labels, count(number)))
}

/// What is written, one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// `_total` is added to its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'v, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = ([&'v str; 1], V)>,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        for ([label_value], value) in values {
            let labels = [(label, label_value)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<'v, V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'v str; N], V)>,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Gauge)?;
        for (label_values, value) in values {
            let labels: Vec<_> = labels.into_iter().zip(label_values).collect();
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}
