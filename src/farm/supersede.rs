//! Updates that supersede an older, undelivered update of the same entity.

use super::event::FarmEvent;
use super::json::with_member;
use super::payload::{JobUpdate, Payload, Status};

/// Returns the update to send instead of `older`, which has not been delivered, and `newer`, both
/// of the same [entity](FarmEvent::entity). Returns `None` if that is `newer` unchanged.
///
/// For its receiver, the status changed from the one before `older` to the one after `newer`. An
/// update without a status change has no `previous_status`; then the first status change is that of
/// `newer`.
pub fn merge(older: &FarmEvent, newer: &FarmEvent) -> Option<FarmEvent> {
    if older.entity().is_none() || older.entity() != newer.entity() {
        return None;
    }
    match (older, newer) {
        (FarmEvent::NewJob(older), FarmEvent::NewJob(newer) | FarmEvent::JobUpdate(newer)) => {
            Some(FarmEvent::NewJob(merge_jobs(older, newer, None)))
        }
        (FarmEvent::JobUpdate(older), FarmEvent::NewJob(newer) | FarmEvent::JobUpdate(newer)) => {
            let previous = first(&older.fields.previous_status, &newer.fields.previous_status);
            changed(newer, merge_jobs(older, newer, previous)).map(FarmEvent::JobUpdate)
        }
        (FarmEvent::TaskUpdate(older), FarmEvent::TaskUpdate(newer)) => {
            let previous = first(&older.fields.previous_status, &newer.fields.previous_status);
            changed(newer, with_previous(newer, previous, |task| &mut task.previous_status)).map(FarmEvent::TaskUpdate)
        }
        (FarmEvent::NewWorker(_), FarmEvent::NewWorker(newer) | FarmEvent::WorkerUpdate(newer)) => {
            Some(FarmEvent::NewWorker(with_previous(newer, None, |worker| &mut worker.previous_status)))
        }
        (FarmEvent::WorkerUpdate(older), FarmEvent::NewWorker(newer) | FarmEvent::WorkerUpdate(newer)) => {
            let previous = first(&older.fields.previous_status, &newer.fields.previous_status);
            changed(newer, with_previous(newer, previous, |worker| &mut worker.previous_status))
                .map(FarmEvent::WorkerUpdate)
        }
        // No two other events are of the same entity.
        _ => None,
    }
}

fn merge_jobs(older: &Payload<JobUpdate>, newer: &Payload<JobUpdate>, previous: Option<Status>) -> Payload<JobUpdate> {
    let mut merged = with_previous(newer, previous, |job| &mut job.previous_status);
    if older.fields.refresh_tasks && !newer.fields.refresh_tasks {
        merged.fields.refresh_tasks = true;
        merged.json = with_member(&merged.json, "refresh_tasks", Some("true")).into();
    }
    merged
}

fn with_previous<T: Clone>(
    newer: &Payload<T>,
    previous: Option<Status>,
    member: fn(&mut T) -> &mut Option<Status>,
) -> Payload<T> {
    let mut merged = newer.clone();
    let current = member(&mut merged.fields);
    if *current != previous {
        let word = previous.as_ref().map(|status| serde_json::Value::from(status.as_str()).to_string());
        merged.json = with_member(&merged.json, "previous_status", word.as_deref()).into();
        *current = previous;
    }
    merged
}

fn first(older: &Option<Status>, newer: &Option<Status>) -> Option<Status> {
    older.as_ref().or(newer.as_ref()).cloned()
}

fn changed<T: PartialEq>(newer: &Payload<T>, merged: Payload<T>) -> Option<Payload<T>> {
    (merged != *newer).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
    const OTHER: &str = "0d503122-33c2-4266-a27c-2f0b0c46d1b5";

    fn event(kind: EventKind, json: &str) -> FarmEvent {
        FarmEvent::parse(kind, json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    /// A job update as Go would print it, `previous` being for example
    /// `"previous_status":"queued",`.
    fn job(kind: EventKind, previous: &str, refresh_tasks: bool, status: &str) -> FarmEvent {
        let json = format!(
            r#"{{"id":"{ID}",{previous}"priority":50,"refresh_tasks":{refresh_tasks},"status":"{status}","type":"t","updated":"2026-11-23T17:19:32Z","new":1.0}}"#
        );
        event(kind, &json)
    }

    fn job_update(previous: &str, refresh_tasks: bool, status: &str) -> FarmEvent {
        job(EventKind::JobUpdate, previous, refresh_tasks, status)
    }

    fn task(id: &str, previous: &str, status: &str) -> FarmEvent {
        let json = format!(
            r#"{{"activity":"","id":"{id}","job_id":"{ID}","name":"",{previous}"status":"{status}","updated":"2026-11-23T17:19:32Z"}}"#
        );
        event(EventKind::TaskUpdate, &json)
    }

    fn worker(kind: EventKind, more: &str, status: &str) -> FarmEvent {
        let json = format!(
            r#"{{{more}"id":"{ID}","name":"","status":"{status}","updated":"0001-01-01T00:00:00Z","version":""}}"#
        );
        event(kind, &json)
    }

    #[test]
    fn a_newer_update_that_says_all_is_used_as_it_is() {
        let queued = r#""previous_status":"queued","#;
        for (older, newer) in [
            (job_update("", false, "active"), job_update("", false, "active")),
            (job_update("", false, "active"), job_update("", true, "active")),
            (job_update(queued, true, "active"), job_update(queued, true, "active")),
            (task(ID, "", "active"), task(ID, "", "active")),
            (worker(EventKind::WorkerUpdate, "", "awake"), worker(EventKind::WorkerUpdate, "", "asleep")),
        ] {
            assert_eq!(merge(&older, &newer), None);
        }
    }

    #[test]
    fn the_previous_status_is_the_oldest_one() {
        let (queued, active) = (r#""previous_status":"queued","#, r#""previous_status":"active","#);
        for (older, newer, merged) in [
            (
                job_update(queued, false, "active"),
                job_update(active, false, "completed"),
                job_update(queued, false, "completed"),
            ),
            (task(ID, queued, "active"), task(ID, active, "completed"), task(ID, queued, "completed")),
            (
                worker(EventKind::WorkerUpdate, r#""previous_status":"starting","#, "awake"),
                worker(EventKind::WorkerUpdate, r#""previous_status":"awake","#, "asleep"),
                worker(EventKind::WorkerUpdate, r#""previous_status":"starting","#, "asleep"),
            ),
        ] {
            assert_eq!(merge(&older, &newer), Some(merged));
        }
        // The step that follows a change of status does not hide the change.
        let merged = merge(&job_update(queued, false, "active"), &job_update("", false, "active")).unwrap();
        assert!(merged.json().starts_with(r#"{"previous_status":"queued","id":"#), "{}", merged.json());
        // The step before it was not a change.
        assert_eq!(merge(&job_update("", false, "active"), &job_update(active, false, "completed")), None);
    }

    #[test]
    fn tasks_to_fetch_again_stay_so() {
        let merged = merge(&job_update("", true, "active"), &job_update("", false, "completed"));
        assert_eq!(merged, Some(job_update("", true, "completed")));
    }

    #[test]
    fn a_chain_of_three_is_merged_pair_by_pair() {
        let first = job_update(r#""previous_status":"queued","#, true, "active");
        let second = job_update(r#""previous_status":"active","#, false, "pause-requested");
        let third = job_update(r#""previous_status":"pause-requested","#, false, "paused");
        let merged = merge(&merge(&first, &second).unwrap(), &third);
        assert_eq!(merged, Some(job_update(r#""previous_status":"queued","#, true, "paused")));
    }

    #[test]
    fn an_undelivered_new_entity_stays_new() {
        let active = job_update(r#""previous_status":"queued","#, false, "active");
        let merged = merge(&job(EventKind::NewJob, "", false, "queued"), &active).unwrap();
        assert_eq!(merged, job(EventKind::NewJob, "", false, "active"));
        let done = job_update(r#""previous_status":"active","#, false, "completed");
        assert_eq!(merge(&merged, &done), Some(job(EventKind::NewJob, "", false, "completed")));

        let awake = worker(EventKind::WorkerUpdate, r#""previous_status":"starting","#, "awake");
        let merged = merge(&worker(EventKind::NewWorker, "", "starting"), &awake);
        assert_eq!(merged, Some(worker(EventKind::NewWorker, "", "awake")));
    }

    #[test]
    fn only_the_same_thing_is_merged() {
        assert_eq!(merge(&task(ID, r#""previous_status":"queued","#, "active"), &task(OTHER, "", "active")), None);
        // A job, a task and a worker with the same id are three entities.
        let things =
            [job_update("", false, "active"), task(ID, "", "active"), worker(EventKind::WorkerUpdate, "", "awake")];
        let entities: std::collections::HashSet<_> = things.iter().map(FarmEvent::entity).collect();
        assert_eq!(entities.len(), 3);
        assert!(!entities.contains(&None));
    }

    #[test]
    fn events_that_must_each_be_delivered_have_no_entity() {
        let deleted = format!(
            r#"{{"id":"{ID}","priority":0,"refresh_tasks":true,"status":"","type":"","updated":"0001-01-01T00:00:00Z","was_deleted":true}}"#
        );
        for seen in [
            event(EventKind::JobUpdate, &deleted),
            event(EventKind::NewJob, &deleted),
            worker(EventKind::WorkerUpdate, r#""deleted_at":"2026-11-23T17:19:32Z","#, "offline"),
            event(EventKind::TaskLogUpdate, &format!(r#"{{"log":"","task_id":"{ID}"}}"#)),
            event(EventKind::LastRendered, &format!(r#"{{"job_id":"{ID}","thumbnail":{{"base":"","suffixes":[]}}}}"#)),
            event(EventKind::WorkerTagUpdate, r#"{"tag":{}}"#),
            event(EventKind::LifeCycle, r#"{"type":"manager-startup"}"#),
            event(EventKind::FarmStatus, r#"{"status":"idle"}"#),
            event(EventKind::ChatMessage, r#"{"name":"","text":""}"#),
        ] {
            assert_eq!(seen.entity(), None, "{seen:?}");
            assert_eq!(merge(&seen, &seen), None);
            assert_eq!(merge(&seen, &job_update("", false, "active")), None);
            assert_eq!(merge(&job_update("", true, "active"), &seen), None);
        }
    }
}
