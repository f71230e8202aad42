//! `GET /metrics`: the values of [`Stats`] in Prometheus format.
//!
//! Nothing is counted here. Every label has a fixed set of values, so a scrape stays small however
//! big the farm is.

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

use super::console;
use crate::{
    actors::{
        Hub,
        messages::{Census, TakeCensus},
    },
    clock,
    disconnect::Disconnect,
    farm::{EventKind, Room, mqtt::TopicKind},
    ingest::Intake,
    stats::{Refused, RelayedRooms, Resumed, Source, SourceState, Stats, Waited},
};

/// The timeout of each query to the registry. Metrics matter most when it does not answer.
const TIMEOUT: Duration = Duration::from_secs(1);

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    let outbox_bytes = console::waiting_bytes(hub).await?;
    Some(RegistryFigures { census, answer, outbox_bytes })
}

/// The values that only the registry knows.
#[derive(Debug)]
struct RegistryFigures {
    census: Census,
    /// How long a query waited in the registry's mailbox.
    answer: Duration,
    outbox_bytes: usize,
}

/// The values of one scrape.
#[derive(Debug)]
struct Scrape {
    stats: &'static Stats,
    backlog: usize,
    /// `None` if the registry does not answer.
    registry: Option<RegistryFigures>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.server(&mut page)?;
        self.sessions(&mut page)?;
        self.events(&mut page)?;
        self.deliveries(&mut page)?;
        self.sources(&mut page)?;
        self.relay(&mut page)?;
        self.mqtt(&mut page)?;
        self.backplane(&mut page)?;
        self.mirror(&mut page)
    }
}

impl Scrape {
    fn server(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        let uptime = clock::now().saturating_duration_since(stats.started);
        page.gauges("build_info", "What runs", ["version"], [([env!("CARGO_PKG_VERSION")], 1)])?;
        page.gauge("uptime_seconds", "Time since the start", uptime.as_secs_f64())?;
        page.gauge("registry_up", "Whether the room registry answers", i64::from(self.registry.is_some()))?;
        if let Some(registry) = &self.registry {
            let help = "How long a query waited in the room registry's mailbox";
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
        page.gauges("sessions", "Connected browsers", ["transport"], counts(sessions))?;
        let help = "Connections of browsers that are not WebSockets, or not yet";
        page.gauge("http_connections", help, count(stats.http_connections.get()))?;
        let ended = Disconnect::ALL.map(|reason| ([reason.as_str()], stats.disconnect(reason).get()));
        page.counters("disconnects", "Sessions that ended", "reason", ended)?;
        let Some(RegistryFigures { census, .. }) = &self.registry else { return Ok(()) };
        page.gauge("rooms", "Rooms with members", count(census.rooms.len()))?;
        let names = Room::FIXED.map(|room| room.to_string());
        let size = |room| census.rooms.iter().find(|(other, _)| *other == room).map_or(0, |(_, members)| *members);
        let members =
            std::array::from_fn::<_, { Room::FIXED.len() }, _>(|at| ([names[at].as_str()], size(Room::FIXED[at])));
        page.gauges("room_members", "Members of the rooms that every farm has", ["room"], counts(members))
    }

    fn events(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        let events = EventKind::ALL.map(|kind| ([kind.as_str()], stats.event(kind).get()));
        page.counters("events", "Accepted events", "type", events)?;
        let refused = Refused::ALL.map(|reason| ([reason.as_str()], stats.refused(reason).get()));
        page.counters("refused", "Refused events, requests and browsers", "reason", refused)?;
        let help = "Unknown status words, which were forwarded";
        page.counter("unknown_status", help, stats.unknown_statuses.get())?;
        page.gauge(
            "backlog_events",
            "Accepted events that are not yet in the outbox of every recipient",
            count(self.backlog),
        )
    }

    fn deliveries(&self, page: &mut Page) -> fmt::Result {
        let stats = self.stats;
        page.counter("deliveries", "Broadcasts pushed into a browser's outbox", stats.deliveries.get())?;
        let help = "Updates that replaced an older one, for a browser that lags";
        page.counter("coalesced", help, stats.coalesced.get())?;
        let help = "Chat messages that were left out for a browser that does not read";
        page.counter("chat_left_out", help, stats.chat_left_out.get())?;
        let resumes = Resumed::ALL.map(|outcome| ([outcome.as_str()], stats.resumed(outcome).get()));
        page.counters("resumes", "Requests of browsers to go on where they ended", "result", resumes)?;
        let help = "Events that were sent again to browsers that resumed";
        page.counter("replayed_events", help, stats.replayed_events.get())?;
        page.gauge("history_bytes", "Memory of recent events", count(stats.history_bytes.get()))?;
        let help = "Jobs, tasks, workers and tags whose last state is known";
        page.gauge("state_entities", help, count(stats.state_entities.get()))?;
        page.counter("sent_bytes", "Bytes sent to browsers", stats.bytes_out.get())?;
        if let Some(RegistryFigures { outbox_bytes, .. }) = &self.registry {
            page.gauge("outbox_bytes", "Bytes that wait in all outboxes", count(*outbox_bytes))?;
        }
        let help = "Time from the oldest broadcast that started a worker's flush until the last browser that accepts bytes has them";
        stats.publish_to_write.histogram.encode(page.begin("publish_to_write_seconds", help, MetricType::Histogram)?)
    }

    fn sources(&self, page: &mut Page) -> fmt::Result {
        let all = Source::ALL.map(|source| (source.as_str(), self.stats.source(source)));
        let events = all.map(|(name, source)| ([name], source.events.get()));
        page.counters("source_events", "Received events", "source", events)?;
        let dropped = all.map(|(name, source)| ([name], source.dropped.get()));
        page.counters(
            "source_dropped",
            "Events that were dropped because a newer state was already published",
            "source",
            dropped,
        )?;
        let now = clock::now();
        let ages = all.into_iter().filter_map(|(name, source)| {
            Some(([name], now.saturating_duration_since(source.last_event()?).as_secs_f64()))
        });
        page.gauges("source_last_event_age_seconds", "Time since the last event", ["source"], ages)?;
        let states = all.into_iter().filter_map(|(name, source)| Some((name, source.state()?)));
        let states = states.flat_map(|(name, state)| {
            SourceState::ALL.map(|other| ([name, other.as_str()], i64::from(other == state)))
        });
        page.gauges("source_state", "State of a source that connects to its Manager", ["source", "state"], states)
    }

    fn mirror(&self, page: &mut Page) -> fmt::Result {
        let mirror = &self.stats.mirror;
        let Some(state) = mirror.state() else { return Ok(()) };
        let is_connected = i64::from(state == SourceState::Connected);
        page.gauge("mqtt_publish_connected", "Whether events can be published to the MQTT broker", is_connected)?;
        page.counter("mqtt_publish_events", "Events published to the MQTT broker", mirror.events.get())?;
        let help = "Events that were not published to the MQTT broker";
        page.counter("mqtt_publish_dropped", help, mirror.dropped.get())
    }

    fn mqtt(&self, page: &mut Page) -> fmt::Result {
        if self.stats.source(Source::Mqtt).state().is_none() {
            return Ok(());
        }
        let mqtt = &self.stats.mqtt;
        page.counter("mqtt_connections", "Connections that the MQTT broker accepted", mqtt.connections.get())?;
        let help = "Comparisons with the Manager's lists because events did not arrive over MQTT";
        page.counter("mqtt_comparisons", help, mqtt.comparisons.get())?;
        let unread = TopicKind::ALL.map(|topic| ([topic.as_str()], mqtt.unread[topic.index()].get()));
        page.counters("mqtt_unread", "Messages from the MQTT broker that could not be decoded", "topic", unread)
    }

    fn backplane(&self, page: &mut Page) -> fmt::Result {
        let backplane = &self.stats.backplane;
        let Some(state) = backplane.state() else { return Ok(()) };
        let is_connected = i64::from(state == SourceState::Connected);
        page.gauge("backplane_connected", "Whether this server has all events of the stream", is_connected)?;
        let help = "Offset of the newest event of the stream that this server has published";
        page.gauge("backplane_offset", help, count(backplane.offset.get()))?;
        page.counter("backplane_connections", "How often reading the stream began", backplane.connections.get())?;
        let help = "How often events of the stream were lost before this server had read them";
        page.counter("backplane_lost", help, backplane.lost.get())?;
        let help = "Requests whose events could not be stored in the stream";
        page.counter("backplane_unavailable", help, backplane.unavailable.get())?;
        let help = "Messages of the stream that could not be decoded";
        page.counter("backplane_unread", help, backplane.unread.get())?;
        let once = [Source::Relay, Source::Mqtt].into_iter();
        let once = once.filter(|source| self.stats.source(*source).state().is_some());
        let leads = once.map(|source| ([source.as_str()], count(backplane.leads[source as usize].get())));
        let help = "Whether this server runs the source, which runs on one server at a time";
        page.gauges("backplane_leader", help, ["source"], leads)?;
        let help = "Publications of such a source that were refused because another server may run it";
        page.counter("backplane_fenced", help, backplane.fenced.get())
    }

    fn relay(&self, page: &mut Page) -> fmt::Result {
        if self.stats.source(Source::Relay).state().is_none() {
            return Ok(());
        }
        let relay = &self.stats.relay;
        page.counter("relay_connections", "Connections made to the Manager", relay.connections.get())?;
        let help = "Connections to the Manager that ended early";
        page.counter("relay_short_connections", help, relay.short_connections.get())?;
        let rooms = RelayedRooms::ALL.map(|state| ([state.as_str()], relay.rooms[state as usize].get()));
        page.gauges("relay_rooms", "Rooms of jobs and task logs that browsers are in", ["state"], counts(rooms))?;
        let wait = relay.next_attempt().map_or(0.0, |at| at.saturating_duration_since(clock::now()).as_secs_f64());
        page.gauge("relay_next_attempt_seconds", "Time until the relay reconnects to the Manager", wait)?;
        let proxy = &self.stats.proxy;
        let help = "Proxied requests that wait for the Manager";
        page.gauge("proxy_waiting", help, count(proxy.waiting.get()))?;
        let waits = Waited::ALL.map(|outcome| ([outcome.as_str()], proxy.waited(outcome).get()));
        page.counters("proxy_waits", "Waits of proxied requests that ended", "result", waits)
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counts<L, const N: usize>(numbers: [(L, usize); N]) -> [(L, i64); N] {
    numbers.map(|(labels, number)| (labels, count(number)))
}

/// Writes one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// The encoder adds `_total` to the name.
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
