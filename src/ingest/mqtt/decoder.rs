//! Decodes messages into events.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use super::super::recent_map::RecentMap;
use crate::{
    client::mqtt::{Message, RECEIVE_MAXIMUM},
    farm::{Entity, FarmEvent, mqtt::TopicKind},
    stats::{MqttStats, SourceStats},
};

/// The maximum number of jobs and workers that are remembered. The next update of a forgotten one
/// without a previous status counts as the first.
const REMEMBERED: usize = 50_000;

/// The number of messages, and of topics, whose repetition is recognised. A broker repeats messages
/// that were not acknowledged, at most `RECEIVE_MAXIMUM` of each topic.
const RECENT: usize = RECEIVE_MAXIMUM as usize;
const RECENT_TOPICS: usize = 1000;

/// Decodes messages, and remembers what is needed to recognise repetitions and new entities.
#[derive(Debug)]
pub(super) struct Decoder {
    prefix: String,
    seen: RecentMap<Entity, ()>,
    /// Hashes of the last messages, by topic.
    recent: RecentMap<u64, VecDeque<u64>>,
    hasher: RandomState,
    complained: [bool; TopicKind::ALL.len()],
}

impl Decoder {
    pub(super) fn new(prefix: String) -> Self {
        let (seen, recent) = (RecentMap::new(REMEMBERED), RecentMap::new(RECENT_TOPICS));
        Self { prefix, seen, recent, hasher: RandomState::new(), complained: Default::default() }
    }

    /// Returns the event of a message. `None` for a repetition, for the second copy of an image, for
    /// what this server published itself, and for what it does not know.
    pub(super) fn decode(&mut self, message: &Message, source: &SourceStats, stats: &MqttStats) -> Option<FarmEvent> {
        if message.is_own || self.is_repetition(message) {
            source.dropped.add(1);
            return None;
        }
        let topic = TopicKind::of(&self.prefix, &message.topic);
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

    /// Returns whether the broker sent this message before. Equal messages that it does not mark as
    /// repetitions are not: a farm may be idle twice.
    fn is_repetition(&mut self, message: &Message) -> bool {
        let topic = self.hasher.hash_one(&message.topic);
        let hash = self.hasher.hash_one(&message.payload);
        let mut recent = self.recent.get(&topic).cloned().unwrap_or_default();
        if message.is_repeated && recent.contains(&hash) {
            return true;
        }
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(hash);
        self.recent.set(topic, recent);
        false
    }

    /// New and updated entities share a topic: an entity is new if it has no previous status and was
    /// not seen before.
    fn told_apart(&mut self, event: FarmEvent) -> FarmEvent {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only jobs and workers can be new")]
        match event {
            FarmEvent::JobUpdate(job) => {
                let is_first = self.is_first(Entity::Job(job.fields.id));
                let is_new = is_first && job.fields.previous_status.is_none() && !job.fields.was_deleted;
                if is_new { FarmEvent::NewJob(job) } else { FarmEvent::JobUpdate(job) }
            }
            FarmEvent::WorkerUpdate(worker) => {
                let is_first = self.is_first(Entity::Worker(worker.fields.id));
                let is_new = is_first && worker.fields.previous_status.is_none() && worker.fields.deleted_at.is_none();
                if is_new { FarmEvent::NewWorker(worker) } else { FarmEvent::WorkerUpdate(worker) }
            }
            other => other,
        }
    }

    fn is_first(&mut self, entity: Entity) -> bool {
        let is_first = self.seen.get(&entity).is_none();
        self.seen.set(entity, ());
        is_first
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
        let mut decoder = Decoder::new("flamenco".to_owned());
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
    fn only_marked_repetitions_are_dropped() {
        let (idle, active) = (r#"{"status":"idle"}"#, r#"{"status":"active"}"#);
        let status = Some(EventKind::FarmStatus);
        let messages = [(idle, false), (idle, false), (active, true), (idle, true), (active, true), (idle, false)];
        let expected = [status, status, status, None, None, status];
        assert_eq!(decoded("flamenco/status", &messages), (expected.to_vec(), 2, 0));
        let many: Vec<String> = (0..RECENT).map(|number| format!(r#"{{"status":"s{number}"}}"#)).collect();
        let mut messages = vec![(idle, false)];
        messages.extend(many.iter().map(|json| (json.as_str(), false)));
        messages.push((idle, true));
        assert!(decoded("flamenco/status", &messages).0.iter().all(Option::is_some), "it is not one of the last 20");
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
