//! Decodes messages into events.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use super::super::recent_map::RecentMap;
use crate::{
    client::mqtt::{Message, RECEIVE_MAXIMUM},
    farm::{
        Entity, FarmEvent,
        mqtt::{self, TopicKind},
    },
    stats::{MqttStats, SourceStats},
};

/// The maximum number of jobs and workers that are remembered. The next update of a forgotten one
/// without a previous status counts as the first.
const REMEMBERED: usize = 50_000;

/// The number of messages whose repetition is recognised: Mosquitto repeated up to twice as many as it
/// may send unacknowledged.
const RECENT: usize = 2 * RECEIVE_MAXIMUM as usize;

/// Decodes messages.
#[derive(Debug)]
pub(super) struct Decoder {
    published: Published,
    /// What the broker may repeat on this connection: the end of what was published before it.
    repeatable: VecDeque<u64>,
    complained: [bool; TopicKind::ALL.len()],
}

/// What is needed to recognise repetitions and new entities.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Published {
    prefix: String,
    seen: RecentMap<Entity, ()>,
    /// Hashes of the last messages, in order.
    recent: VecDeque<u64>,
    hasher: RandomState,
}

impl Published {
    pub(in crate::ingest) fn new(prefix: &str) -> Self {
        let (seen, recent) = (RecentMap::new(REMEMBERED), VecDeque::new());
        Self { prefix: prefix.to_owned(), seen, recent, hasher: RandomState::new() }
    }

    /// Records an event that was published, as if its message had been decoded here.
    pub(in crate::ingest) fn note(&mut self, event: &FarmEvent) {
        // An image has a second topic, which is not read.
        if let Some(topic) = mqtt::topics(&self.prefix, event).first() {
            self.remember(self.hash(topic, event.json().as_bytes()));
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "only jobs and workers can be new")]
        match event {
            FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job) => drop(self.is_first(Entity::Job(job.fields.id))),
            FarmEvent::NewWorker(worker) | FarmEvent::WorkerUpdate(worker) => {
                self.is_first(Entity::Worker(worker.fields.id));
            }
            _ => {}
        }
    }

    fn hash(&self, topic: &str, payload: &[u8]) -> u64 {
        self.hasher.hash_one((topic, payload))
    }

    fn remember(&mut self, hash: u64) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
    }

    fn is_first(&mut self, entity: Entity) -> bool {
        let is_first = self.seen.get(&entity).is_none();
        self.seen.set(entity, ());
        is_first
    }
}

impl Decoder {
    pub(super) fn new(published: Published) -> Self {
        Self { published, repeatable: VecDeque::new(), complained: Default::default() }
    }

    /// Begins a connection, on which the broker repeats what was not acknowledged.
    pub(super) fn begin(&mut self) {
        self.repeatable.clone_from(&self.published.recent);
    }

    /// Returns the event of a message. `None` for a repetition, for the second copy of an image, for
    /// what this server published itself, and for what it does not know.
    pub(super) fn decode(&mut self, message: &Message, source: &SourceStats, stats: &MqttStats) -> Option<FarmEvent> {
        if message.is_own || self.is_repetition(message) {
            source.dropped.add(1);
            return None;
        }
        let topic = TopicKind::of(&self.published.prefix, &message.topic);
        if matches!(topic, TopicKind::LastRenderedOfJob | TopicKind::State) {
            return None;
        }
        let problem = match (topic.event(), std::str::from_utf8(&message.payload)) {
            (Some(kind), Ok(json)) => match FarmEvent::parse(kind, json) {
                Ok(event) => return Some(self.told_apart(event)),
                Err(error) => error.to_string(),
            },
            (Some(_), Err(_)) => "it is not UTF-8".to_owned(),
            (None, _) => "its topic is not known".to_owned(),
        };
        stats.unread[topic.index()].add(1);
        if !std::mem::replace(&mut self.complained[topic.index()], true) {
            log::warn!(
                "a message from the MQTT broker cannot be decoded: {problem} (topic kind {topic}); such messages are dropped and counted"
            );
        }
        None
    }

    /// Returns whether the broker sent this message before. It repeats the last messages, in their order,
    /// before it sends new ones, and Mosquitto marks those that waited for the connection too. So a message
    /// is a repetition only if it is marked, and follows the previous repetition in what was published. Of
    /// equal ones it is the last: a farm may be idle twice, and must not stay so.
    fn is_repetition(&mut self, message: &Message) -> bool {
        let hash = self.published.hash(&message.topic, &message.payload);
        let at = self.repeatable.iter().rposition(|repeatable| *repeatable == hash).filter(|_| message.is_repeated);
        match at {
            Some(at) => drop(self.repeatable.drain(..=at)),
            None => {
                self.repeatable.clear();
                self.published.remember(hash);
            }
        }
        at.is_some()
    }

    /// New and updated entities share a topic: an entity is new if it has no previous status and was
    /// not seen before.
    fn told_apart(&mut self, event: FarmEvent) -> FarmEvent {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only jobs and workers can be new")]
        match event {
            FarmEvent::JobUpdate(job) => {
                let is_first = self.published.is_first(Entity::Job(job.fields.id));
                let is_new = is_first && job.fields.previous_status.is_none() && !job.fields.was_deleted;
                if is_new { FarmEvent::NewJob(job) } else { FarmEvent::JobUpdate(job) }
            }
            FarmEvent::WorkerUpdate(worker) => {
                let is_first = self.published.is_first(Entity::Worker(worker.fields.id));
                let is_new = is_first && worker.fields.previous_status.is_none() && worker.fields.deleted_at.is_none();
                if is_new { FarmEvent::NewWorker(worker) } else { FarmEvent::WorkerUpdate(worker) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::EventKind;

    const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn job(rest: &str) -> String {
        format!(
            r#"{{"id":"{JOB}","name":"one","priority":50,{rest}"refresh_tasks":false,"status":"active","type":"t","updated":"2026-11-23T21:40:01Z"}}"#
        )
    }

    /// Decodes messages of a topic, each with whether it is repeated. Returns the kinds of their events.
    fn decoded(topic: &str, messages: &[(&str, bool)]) -> (Vec<Option<EventKind>>, u64, u64) {
        let mut decoder = Decoder::new(Published::new("flamenco"));
        let (source, stats) = (SourceStats::default(), MqttStats::default());
        let kinds = messages.iter().map(|(payload, is_repeated)| {
            let message = Message::new(topic, payload.as_bytes(), *is_repeated);
            decoder.decode(&message, &source, &stats).map(|event| event.kind())
        });
        let kinds = kinds.collect();
        let unread = stats.unread.iter().map(crate::stats::Counter::get).sum();
        (kinds, source.dropped.get(), unread)
    }

    #[test]
    fn new_jobs_and_updates_are_told_apart() {
        let (first, changed) = (job(""), job(r#""previous_status":"queued","#));
        let (new, update) = (Some(EventKind::NewJob), Some(EventKind::JobUpdate));
        assert_eq!(decoded("flamenco/jobs", &[(&first, false), (&first, false)]).0, [new, update]);
        assert_eq!(decoded("flamenco/jobs", &[(&changed, false), (&first, false)]).0, [update, update]);
        let deleted = job(r#""was_deleted":true,"#);
        assert_eq!(decoded("flamenco/jobs", &[(&deleted, false)]).0, [update]);
    }

    #[test]
    fn only_the_marked_end_of_what_was_published_is_a_repetition() {
        let (source, stats) = (SourceStats::default(), MqttStats::default());
        let mut decoder = Decoder::new(Published::new("flamenco"));
        let is_decoded = |decoder: &mut Decoder, status: &str, is_repeated| {
            let payload = format!(r#"{{"status":"{status}"}}"#);
            let message = Message::new("flamenco/status", payload.as_bytes(), is_repeated);
            decoder.decode(&message, &source, &stats).is_some()
        };
        for status in ["idle", "active", "idle", "asleep", "idle"] {
            assert!(is_decoded(&mut decoder, status, false), "equal states in a row are new");
        }
        // The last two come again, and then new ones that Mosquitto marks too.
        decoder.begin();
        let messages = [("asleep", false), ("idle", false), ("active", true), ("idle", true), ("asleep", true)];
        for (status, is_new) in messages {
            assert_eq!(is_decoded(&mut decoder, status, true), is_new, "{status}");
        }
        // Another server knows the same from the stream.
        let mut published = Published::new("flamenco");
        for status in ["idle", "active"] {
            published.note(&FarmEvent::parse(EventKind::FarmStatus, &format!(r#"{{"status":"{status}"}}"#)).unwrap());
        }
        let mut other = Decoder::new(published);
        other.begin();
        for (status, is_repeated, is_new) in [("active", true, false), ("idle", true, true), ("active", false, true)] {
            assert_eq!(is_decoded(&mut other, status, is_repeated), is_new, "{status}");
        }
        assert_eq!(source.dropped.get(), 3);
        // No more is remembered than a broker repeats.
        decoder.begin();
        for number in 0..=RECENT {
            assert!(is_decoded(&mut decoder, &number.to_string(), false));
        }
        assert_eq!(decoder.published.recent.len(), RECENT);
        decoder.begin();
        for number in 1..=RECENT {
            assert!(!is_decoded(&mut decoder, &number.to_string(), true), "{number}");
        }
    }

    #[test]
    fn what_is_unknown_is_counted() {
        for (topic, payload, unread) in [
            ("flamenco/weather", "{}", 1),
            ("flamenco/jobs", "{}", 1),
            ("flamenco/jobs", "\u{0}", 1),
            ("flamenco/jobs/x/last-rendered", "anything", 0),
        ] {
            assert_eq!(decoded(topic, &[(payload, false)]), (vec![None], 0, unread), "{topic}");
        }
    }
}
