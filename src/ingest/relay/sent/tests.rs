//! Events and lists of a Manager, and what is published of them.

use super::{images::TWICE_WITHIN, *};
use crate::{
    clock,
    farm::{EventKind, JobUpdate, Status, WorkerUpdate},
    ingest::relay::snapshot::Listing,
};

const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
const OTHER: &str = "00000000-7c3f-4f0f-9a53-2f6d1b7f6c21";

/// Returns a time, by its second.
fn at(second: u32) -> String {
    format!("2026-11-23T21:40:{second:02}.054Z")
}

fn previous(status: &str) -> String {
    if status.is_empty() { String::new() } else { format!(r#""previous_status":"{status}","#) }
}

fn job(second: u32, from: &str, to: &str) -> FarmEvent {
    let json = format!(
        r#"{{"id":"{JOB}","name":"one","priority":50,{}"refresh_tasks":false,"status":"{to}","type":"t","updated":"{}"}}"#,
        previous(from),
        at(second)
    );
    FarmEvent::parse(EventKind::JobUpdate, &json).unwrap()
}

fn task(second: u32, from: &str, to: &str) -> FarmEvent {
    let json = format!(
        r#"{{"activity":"","id":"{JOB}","job_id":"{JOB}","name":"one",{}"status":"{to}","updated":"{}"}}"#,
        previous(from),
        at(second)
    );
    FarmEvent::parse(EventKind::TaskUpdate, &json).unwrap()
}

fn worker(from: &str, to: &str) -> FarmEvent {
    let json = format!(
        r#"{{"id":"{JOB}","name":"w",{}"status":"{to}","updated":"{}","version":"3.9"}}"#,
        previous(from),
        at(1)
    );
    FarmEvent::parse(EventKind::WorkerUpdate, &json).unwrap()
}

fn deletion() -> FarmEvent {
    FarmEvent::JobUpdate(Payload::new(missed::deleted_job(JOB.parse().unwrap())))
}

fn admitted(events: &[FarmEvent]) -> Vec<bool> {
    let mut sent = Sent::default();
    events.iter().map(|event| sent.admit(event)).collect()
}

fn listed(id: &str, status: &str, steps: i64) -> JobUpdate {
    JobUpdate {
        id: id.parse().unwrap(),
        name: Some("one".to_owned()),
        status: status.into(),
        steps_completed: Some(steps),
        steps_total: Some(4),
        priority: 50,
        kind: "t".to_owned(),
        updated: at(30).parse().unwrap(),
        was_deleted: false,
        ..missed::deleted_job(id.parse().unwrap())
    }
}

fn all<T>(items: Vec<T>) -> Listing<T> {
    Listing { items, is_complete: true }
}

fn snapshot(jobs: Vec<JobUpdate>) -> Snapshot {
    Snapshot { jobs: all(jobs), workers: all(Vec::new()), tags: None, farm: None }
}

/// Returns the events of a comparison in short form: kind, status and other fields.
fn compare(sent: &mut Sent, snapshot: Snapshot, watched: bool) -> Vec<String> {
    sent.begin_comparison();
    finish(sent, snapshot, watched)
}

fn finish(sent: &mut Sent, snapshot: Snapshot, watched: bool) -> Vec<String> {
    let events = sent.compare(snapshot, |_| watched, at(59).parse().unwrap());
    // Published events are recorded as such.
    events.iter().map(short).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a comparison publishes none of the others")]
fn short(event: &FarmEvent) -> String {
    let from = |previous: &Option<Status>| previous.as_ref().map_or(String::new(), |from| format!("{from} -> "));
    match event {
        FarmEvent::JobUpdate(job) if job.fields.was_deleted => "job deleted".to_owned(),
        FarmEvent::JobUpdate(job) => {
            let refresh = if job.fields.refresh_tasks { ", refresh" } else { "" };
            format!("job {}{}{refresh}", from(&job.fields.previous_status), job.fields.status)
        }
        FarmEvent::WorkerUpdate(worker) if worker.fields.deleted_at.is_some() => "worker deleted".to_owned(),
        FarmEvent::WorkerUpdate(worker) => {
            format!("worker {}{} {}", from(&worker.fields.previous_status), worker.fields.status, worker.fields.updated)
        }
        FarmEvent::WorkerTagUpdate(tag) => format!("tag {:?} {}", tag.fields.tag.name, tag.fields.was_deleted),
        FarmEvent::FarmStatus(report) => format!("farm {}", report.fields.status),
        _ => panic!("a comparison does not publish {event:?}"),
    }
}

#[test]
fn older_updates_are_not_published() {
    for (events, expected) in [
        (vec![job(1, "", "queued"), job(2, "queued", "active"), job(3, "", "active")], vec![true, true, true]),
        (vec![job(3, "active", "failed"), job(2, "queued", "active")], vec![true, false]),
        (
            vec![task(3, "active", "failed"), task(2, "queued", "active"), task(4, "", "queued")],
            vec![true, false, true],
        ),
    ] {
        assert_eq!(admitted(&events), expected, "{events:?}");
    }
}

#[test]
fn of_two_with_the_same_time_the_later_comes_from_where_the_earlier_went() {
    for (events, expected) in [
        // The Manager sends a change with the time of the previous one.
        (vec![job(1, "", "queued"), job(1, "queued", "active")], vec![true, true]),
        (vec![job(1, "queued", "active"), job(1, "", "queued")], vec![true, false]),
        (vec![worker("awake", "asleep"), worker("starting", "awake")], vec![true, false]),
        // Their order is unknown.
        (vec![task(1, "", "active"), task(1, "", "active")], vec![true, true]),
        (vec![task(1, "active", "active"), task(1, "", "active")], vec![true, true]),
        (vec![job(1, "active", "paused"), job(1, "paused", "active")], vec![true, true]),
    ] {
        assert_eq!(admitted(&events), expected, "{events:?}");
    }
}

#[test]
fn deletions_pass_and_are_final() {
    let events = [job(3, "", "active"), deletion(), job(4, "active", "completed"), deletion()];
    assert_eq!(admitted(&events), [true, true, false, true]);
    let mut sent = Sent::default();
    for event in &events {
        sent.admit(event);
    }
    assert_eq!(compare(&mut sent, snapshot(vec![listed(JOB, "active", 0)]), false), [""; 0]);
}

#[test]
fn an_image_that_arrives_twice_is_published_once() {
    let now = clock::now();
    let later = now + TWICE_WITHIN * 2;
    let mut sent = Sent::default();
    let id = |text: &str| text.parse().unwrap();
    let mut admit = |job, twice, now| sent.admit_image(id(job), twice, now);
    assert_eq!([admit(JOB, true, now), admit(JOB, true, now)], [true, false]);
    assert_eq!([admit(JOB, true, now), admit(OTHER, true, now), admit(JOB, true, now)], [true, true, false]);
    assert_eq!([admit(OTHER, true, later), admit(OTHER, true, later)], [true, false], "the second got lost");
    assert_eq!([admit(JOB, true, later), admit(JOB, false, later), admit(JOB, false, later)], [true, true, true]);
}

#[test]
fn the_first_comparison_publishes_everything() {
    let mut sent = Sent::default();
    let FarmEvent::WorkerUpdate(Payload { fields: worker, .. }) = worker("", "awake") else { panic!("no worker") };
    let tag = WorkerTag { description: None, id: Some(JOB.parse().unwrap()), name: Some("GPU".to_owned()) };
    let farm = || Snapshot {
        jobs: all(vec![listed(JOB, "active", 1)]),
        workers: all(vec![WorkerUpdate { updated: Timestamp::zero(), ..worker.clone() }]),
        tags: Some(all(vec![tag.clone()])),
        farm: Some("active".into()),
    };
    let expected =
        ["job active, refresh", "worker awake 0001-01-01T00:00:00Z", "tag Some(\"GPU\") false", "farm active"];
    assert_eq!(compare(&mut sent, farm(), false), expected);
    assert_eq!(compare(&mut sent, farm(), false), [""; 0]);
    assert_eq!(compare(&mut sent, farm(), true), ["job active, refresh"], "its tasks have changed");
    let gone = Snapshot { tags: Some(all(Vec::new())), farm: Some("idle".into()), ..snapshot(Vec::new()) };
    assert_eq!(compare(&mut sent, gone, true), ["job deleted", "worker deleted", "tag Some(\"\") true", "farm idle"]);
}

#[test]
fn only_changes_are_published() {
    let mut sent = Sent::default();
    sent.admit(&job(1, "", "queued"));
    sent.admit(&worker("", "awake"));
    let with_worker = |status: &str, jobs| {
        let FarmEvent::WorkerUpdate(worker) = worker("", status) else { panic!("no worker") };
        let worker = WorkerUpdate { updated: Timestamp::zero(), ..worker.fields };
        Snapshot { workers: all(vec![worker]), ..snapshot(jobs) }
    };
    // The list has more of the job's steps and another time, but nothing new.
    assert_eq!(compare(&mut sent, with_worker("awake", vec![listed(JOB, "queued", 0)]), true), [""; 0]);
    let published = compare(&mut sent, with_worker("asleep", vec![listed(JOB, "completed", 4)]), false);
    assert_eq!(published, ["job queued -> completed, refresh", &format!("worker awake -> asleep {}", at(1))]);
    assert!(!sent.admit(&job(29, "", "active")), "a late event is older than the list");
    assert!(sent.admit(&job(30, "completed", "requeueing")));
    assert!(sent.admit(&worker("asleep", "awake")));
}

#[test]
fn events_during_a_request_are_newer_than_its_response() {
    let mut sent = Sent::default();
    sent.admit(&job(1, "", "queued"));
    sent.begin_comparison();
    sent.admit(&job(30, "queued", "active"));
    assert_eq!(finish(&mut sent, snapshot(vec![listed(JOB, "queued", 0)]), true), [""; 0]);
    sent.begin_comparison();
    sent.admit(&job(31, "", "active"));
    assert_eq!(finish(&mut sent, snapshot(Vec::new()), true), [""; 0], "a job may be newer than the list");
    sent.begin_comparison();
    sent.admit(&deletion());
    assert_eq!(finish(&mut sent, snapshot(vec![listed(JOB, "active", 0)]), true), [""; 0]);
}

#[test]
fn nothing_is_deleted_that_may_only_not_have_been_read() {
    let mut sent = Sent::default();
    sent.admit(&job(1, "", "queued"));
    let mut unread = snapshot(vec![listed(OTHER, "queued", 0)]);
    unread.jobs.is_complete = false;
    assert_eq!(compare(&mut sent, unread, false), ["job queued, refresh"]);
}
