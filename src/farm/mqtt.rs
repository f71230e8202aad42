//! The topics under which Flamenco 3.5 and later publish events to an MQTT broker.

use crate::{EventKind, EventPayload, FarmEvent, Subject};

crate::labels! {
    /// The kinds of topics. A topic is a prefix, usually `flamenco`, and one of these below it.
    pub enum TopicKind {
        /// `jobs`: new and updated jobs.
        Jobs = "jobs",
        /// `jobs/<job>`: updates of the job's tasks.
        Tasks = "tasks",
        /// `last-rendered`.
        LastRendered = "last-rendered",
        /// `jobs/<job>/last-rendered`: the same again, for the job's page.
        LastRenderedOfJob = "last-rendered-of-job",
        Workers = "workers",
        WorkerTags = "workertags",
        Status = "status",
        LifeCycle = "lifecycle",
        /// `state/…`: retained states, see [`state_topic`].
        State = "state",
        /// A topic that this program does not know.
        Other = "other",
    }
}

impl TopicKind {
    /// Returns the kind of the topic `topic` below `prefix`.
    pub fn of(prefix: &str, topic: &str) -> Self {
        let Some(below) = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) else {
            return Self::Other;
        };
        match below {
            "jobs" => Self::Jobs,
            "last-rendered" => Self::LastRendered,
            "workers" => Self::Workers,
            "workertags" => Self::WorkerTags,
            "status" => Self::Status,
            "lifecycle" => Self::LifeCycle,
            _ if below.starts_with("state/") => Self::State,
            _ => match below.strip_prefix("jobs/").map(|rest| rest.split_once('/')) {
                Some(None) => Self::Tasks,
                Some(Some((_, "last-rendered"))) => Self::LastRenderedOfJob,
                Some(Some(_)) | None => Self::Other,
            },
        }
    }

    /// Returns the kind of event of the topic. New jobs and workers share the topic of updates. `None`
    /// for topics without events of their own.
    pub fn event(self) -> Option<EventKind> {
        match self {
            Self::Jobs => Some(EventKind::JobUpdate),
            Self::Tasks => Some(EventKind::TaskUpdate),
            Self::LastRendered => Some(EventKind::LastRendered),
            Self::Workers => Some(EventKind::WorkerUpdate),
            Self::WorkerTags => Some(EventKind::WorkerTagUpdate),
            Self::Status => Some(EventKind::FarmStatus),
            Self::LifeCycle => Some(EventKind::LifeCycle),
            Self::LastRenderedOfJob | Self::State | Self::Other => None,
        }
    }

    /// Returns the kind of topic that events of this kind have, if they have one.
    fn of_event(kind: EventKind) -> Option<Self> {
        let is_its_own = |event: EventKind| event.wire_name() == kind.wire_name();
        Self::ALL.into_iter().find(|topic| topic.event().is_some_and(is_its_own))
    }
}

/// Returns the topics of an event below `prefix`. Task logs and chat have none.
pub fn topics(prefix: &str, event: &FarmEvent) -> Vec<String> {
    let Some(kind) = TopicKind::of_event(event.kind()) else { return Vec::new() };
    let job = event.payload().and_then(EventPayload::routing_id);
    match (kind, job) {
        (TopicKind::Tasks, Some(job)) => vec![format!("{prefix}/jobs/{job}")],
        (TopicKind::LastRendered, Some(job)) => {
            vec![format!("{prefix}/last-rendered"), format!("{prefix}/jobs/{job}/last-rendered")]
        }
        (kind, _) => vec![format!("{prefix}/{kind}")],
    }
}

/// Returns whether events of this kind have topics.
pub fn carries(kind: EventKind) -> bool {
    TopicKind::of_event(kind).is_some()
}

/// Returns the topic below `prefix` that holds the last state of an event's subject, and whether the
/// subject still exists. No Manager publishes there.
pub fn state_topic(prefix: &str, event: &FarmEvent) -> Option<(String, bool)> {
    let (subject, exists) = event.subject()?;
    let below = match subject {
        Subject::Job(id) => format!("jobs/{id}"),
        Subject::Worker(id) => format!("workers/{id}"),
        Subject::Tag(id) => format!("workertags/{id}"),
        Subject::Farm => "status".to_owned(),
        Subject::Task { .. } | Subject::Image(_) => return None,
    };
    Some((format!("{prefix}/state/{below}"), exists))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_apart() {
        for (topic, kind) in [
            ("farm/a/jobs", TopicKind::Jobs),
            ("farm/a/jobs/4b2c1f0e", TopicKind::Tasks),
            ("farm/a/jobs/4b2c1f0e/last-rendered", TopicKind::LastRenderedOfJob),
            ("farm/a/jobs/4b2c1f0e/weather", TopicKind::Other),
            ("farm/a/last-rendered", TopicKind::LastRendered),
            ("farm/a/lifecycle", TopicKind::LifeCycle),
            ("farm/a/state/status", TopicKind::State),
            ("farm/a", TopicKind::Other),
            ("farm/ajobs", TopicKind::Other),
            ("jobs", TopicKind::Other),
        ] {
            assert_eq!(TopicKind::of("farm/a", topic), kind, "{topic}");
        }
    }

    #[test]
    fn every_event_goes_to_the_topic_that_it_comes_from() {
        const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
        let image = format!(r#"{{"job_id":"{ID}","thumbnail":{{"base":"/x","suffixes":["y"]}}}}"#);
        let task = format!(
            r#"{{"id":"{ID}","job_id":"{ID}","name":"","activity":"","status":"active","updated":"0001-01-01T00:00:00Z"}}"#
        );
        for (kind, json) in [
            (EventKind::FarmStatus, r#"{"status":"idle"}"#),
            (EventKind::LifeCycle, r#"{"type":"manager-startup"}"#),
            (EventKind::LastRendered, &image),
            (EventKind::TaskUpdate, &task),
        ] {
            let event = FarmEvent::parse(kind, json).unwrap();
            let kinds: Vec<_> =
                topics("f", &event).iter().filter_map(|topic| TopicKind::of("f", topic).event()).collect();
            assert_eq!(kinds, [kind]);
        }
    }
}
