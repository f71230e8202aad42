//! The simulated farm, seen from outside: a subscriber can follow its events, and they look like those of a real Manager.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flamenco_webupdates::farm::{EventKind, FarmEvent, JobUpdate, TaskUpdate, Timestamp, WorkerUpdate};
use proptest::prelude::*;
use serde_json::Value;
use simulate_farm::{Farm, Settings};

/// Every event a real Manager put on its event bus in four minutes.
const RECORDING: &str = include_str!("data/farm-3.9.ndjson");

fn farm(workers: usize, jobs: usize, seed: u64) -> Farm {
    Farm::new(Settings { workers, jobs, seed, start: "2026-01-01T08:00:00Z".parse().unwrap() })
}

/// A subscriber to every event that knows how a farm works.
#[derive(Default)]
struct Listener {
    jobs: HashMap<String, Job>,
    workers: HashMap<String, Worker>,
    tags: BTreeSet<String>,
    farm_status: Option<String>,
}

struct Job {
    status: String,
    steps: (i64, i64),
    updated: Timestamp,
    delete_requested: bool,
    tasks: HashMap<String, Task>,
}

struct Task {
    status: String,
    steps: i64,
    worker: String,
    updated: Timestamp,
}

struct Worker {
    status: String,
    updated: Timestamp,
}

impl Listener {
    fn hear(&mut self, event: &FarmEvent) {
        match event {
            FarmEvent::NewJob(job) => self.new_job(&job.fields),
            FarmEvent::JobUpdate(job) if job.fields.was_deleted => self.deleted_job(&job.fields),
            FarmEvent::JobUpdate(job) => self.job(&job.fields),
            FarmEvent::TaskUpdate(task) => self.task(&task.fields),
            FarmEvent::LastRendered(image) => assert!(self.jobs.contains_key(&image.fields.job_id.to_string())),
            FarmEvent::NewWorker(worker) => self.new_worker(&worker.fields),
            FarmEvent::WorkerUpdate(worker) => self.worker(&worker.fields),
            FarmEvent::WorkerTagUpdate(tag) => {
                let id = tag.fields.tag.id.unwrap().to_string();
                let known = self.tags.contains(&id);
                if tag.fields.was_deleted {
                    assert!(self.tags.remove(&id))
                } else {
                    assert!(self.tags.insert(id) || known)
                }
            }
            FarmEvent::FarmStatus(report) => {
                let status = Some(report.fields.status.to_string());
                assert_ne!(self.farm_status, status, "published twice");
                self.farm_status = status;
            }
            FarmEvent::Unread(_) => panic!("the simulated farm says nothing that cannot be read"),
            FarmEvent::TaskLogUpdate(_) | FarmEvent::LifeCycle(_) | FarmEvent::ChatMessage(_) => {}
        }
    }

    fn new_job(&mut self, job: &JobUpdate) {
        assert_eq!((job.status.as_str(), &job.previous_status), ("queued", &None));
        let known = Job {
            status: "queued".to_owned(),
            steps: (0, 0),
            updated: job.updated,
            delete_requested: false,
            tasks: HashMap::new(),
        };
        assert!(self.jobs.insert(job.id.to_string(), known).is_none(), "a new job is not new");
    }

    fn deleted_job(&mut self, job: &JobUpdate) {
        let known = self.jobs.remove(&job.id.to_string()).expect("a job is deleted that nobody knows");
        assert!(known.delete_requested);
        assert_eq!(job.updated, Timestamp::zero());
    }

    fn job(&mut self, job: &JobUpdate) {
        let known = self.jobs.get_mut(&job.id.to_string()).expect("an update of a job that nobody knows");
        let status = job.status.to_string();
        let previous = job.previous_status.as_ref().map(ToString::to_string);
        assert_eq!(previous.as_ref().unwrap_or(&status), &known.status, "what it was before");
        assert_eq!(previous.is_none(), known.status == status, "a change names the previous status");
        assert!(known.updated <= job.updated);
        assert!(!known.delete_requested, "nothing happens to a job that is being deleted");

        let steps = (job.steps_completed.unwrap(), job.steps_total.unwrap());
        assert!(0 <= steps.0 && steps.0 <= steps.1, "{steps:?}");
        let starts_over = known.status == "requeueing" && status == "queued";
        assert!(known.steps.0 <= steps.0 || starts_over, "steps go back: {:?} {steps:?}", known.steps);
        assert!(known.steps.1 == steps.1 || known.steps.1 == 0);

        match (known.status.as_str(), status.as_str()) {
            ("requeueing", "queued") => known.change_tasks("queued", |_| true),
            (_, "pause-requested") => known.change_tasks("paused", |status| status == "queued"),
            ("paused", "queued") => known.change_tasks("queued", |status| status == "paused"),
            (_, "cancel-requested" | "failed") => {
                known.change_tasks("canceled", |status| !matches!(status, "completed" | "failed"));
            }
            ("pause-requested", "paused") => {
                assert!(known.tasks.values().all(|task| task.status != "active"));
            }
            ("active", "completed") => {
                assert!(known.tasks.values().all(|task| task.status == "completed"));
                assert_eq!(steps.0, steps.1);
            }
            ("active", "active") | ("queued", "queued" | "active") | ("cancel-requested", "canceled") => {}
            ("completed" | "failed" | "canceled", "requeueing") => {}
            (before, after) if before == after => {}
            (before, after) => panic!("a job went from {before} to {after}"),
        }
        assert_eq!(job.refresh_tasks, refreshes(&known.status, &status));
        known.status = status;
        known.steps = steps;
        known.updated = job.updated;
        known.delete_requested = job.delete_requested_at.is_some();
    }

    fn task(&mut self, task: &TaskUpdate) {
        let worker = task.worker.as_ref().unwrap().uuid.unwrap().to_string();
        let job = self.jobs.get_mut(&task.job_id.to_string()).expect("a task of a job that nobody knows");
        let known = job.tasks.entry(task.id.to_string()).or_insert_with(|| Task {
            status: "queued".to_owned(),
            steps: 0,
            worker: worker.clone(),
            updated: task.updated,
        });
        let status = task.status.to_string();
        let steps = task.steps_completed.unwrap();
        assert!(known.updated <= task.updated);
        match &task.previous_status {
            Some(previous) => {
                assert_eq!(previous.as_str(), known.status);
                assert_eq!(steps, known.steps, "a change of status is no step");
                assert!(matches!(
                    (previous.as_str(), status.as_str()),
                    ("queued" | "soft-failed", "active")
                        | ("active", "completed" | "soft-failed" | "failed" | "queued")
                ));
            }
            None => {
                assert_eq!((status.as_str(), steps), (known.status.as_str(), known.steps + 1));
                assert_eq!(worker, known.worker);
            }
        }
        assert!(steps <= task.steps_total.unwrap());
        if status == "completed" {
            assert_eq!(Some(steps), task.steps_total);
        }
        *known = Task { status, steps, worker: worker.clone(), updated: task.updated };
        if task.status.as_str() == "active" {
            assert_eq!(self.workers[&worker].status, "awake", "only an awake worker works");
            assert!(matches!(job.status.as_str(), "queued" | "active" | "pause-requested"), "{}", job.status);
            let all_tasks = self.jobs.values().flat_map(|job| job.tasks.values());
            let at_work = all_tasks.filter(|task| task.status == "active" && task.worker == worker);
            assert_eq!(at_work.count(), 1, "a worker does one task at a time");
        }
    }

    fn new_worker(&mut self, worker: &WorkerUpdate) {
        assert_eq!((worker.status.as_str(), &worker.previous_status, worker.last_seen), ("starting", &None, None));
        let known = Worker { status: "starting".to_owned(), updated: Timestamp::zero() };
        assert!(self.workers.insert(worker.id.to_string(), known).is_none(), "a new worker is not new");
    }

    fn worker(&mut self, worker: &WorkerUpdate) {
        let id = worker.id.to_string();
        let known = self.workers.get_mut(&id).expect("an update of a worker that nobody knows");
        let status = worker.status.to_string();
        let previous = worker.previous_status.as_ref().unwrap_or(&worker.status);
        assert_eq!(previous.as_str(), known.status, "what it was before");
        assert!(known.updated <= worker.updated);
        if status != "awake" {
            let mut tasks = self.jobs.values().flat_map(|job| job.tasks.values());
            assert!(tasks.all(|task| task.status != "active" || task.worker != id), "it left with its task");
        }
        *known = Worker { status, updated: worker.updated };
    }
}

impl Job {
    fn change_tasks(&mut self, status: &str, which: impl Fn(&str) -> bool) {
        for task in self.tasks.values_mut().filter(|task| which(&task.status)) {
            status.clone_into(&mut task.status);
            if self.status == "requeueing" {
                task.steps = 0;
            }
        }
    }
}

/// Returns which changes of a job change tasks without an event for each.
fn refreshes(before: &str, after: &str) -> bool {
    before != after
        && (matches!(after, "requeueing" | "pause-requested" | "cancel-requested" | "failed")
            || matches!((before, after), ("requeueing" | "paused", "queued")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_a_farm_says_makes_sense(seed: u64, workers in 1_usize..12, jobs in 0_usize..10) {
        let mut listener = Listener::default();
        let mut last = std::time::Duration::ZERO;
        for (due, event) in farm(workers, jobs, seed).take(2500) {
            prop_assert!(last <= due, "time goes back");
            last = due;
            listener.hear(&event);
        }
        prop_assert_eq!(listener.workers.len(), workers);
    }
}

/// The sets of fields that a payload of each kind comes with; a new job or worker counts as an update, as it does on a
/// Manager's event bus.
fn shapes(events: impl Iterator<Item = (String, Value)>) -> BTreeMap<String, BTreeSet<Vec<String>>> {
    let mut shapes: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (kind, payload) in events {
        let mut fields = Vec::new();
        collect_fields("", &payload, &mut fields);
        shapes
            .entry(kind.replace("new-job", "job-update").replace("new-worker", "worker-update"))
            .or_default()
            .insert(fields);
    }
    shapes
}

fn collect_fields(path: &str, value: &Value, fields: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                collect_fields(&format!("{path}.{name}"), value, fields);
            }
        }
        Value::Array(_) | Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {
            let kind = match value {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "boolean",
                Value::Array(_) => "array",
                Value::Null | Value::Object(_) => "other",
            };
            fields.push(format!("{path}: {kind}"));
        }
    }
}

#[test]
fn events_have_the_shapes_of_the_recording() {
    let recorded = RECORDING.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["type"].as_str().unwrap().to_owned(), line["payload"].clone())
    });
    let farms = (0..4).flat_map(|seed| farm(6, 4, seed).take(30_000));
    let simulated = farms.chain([(std::time::Duration::MAX, Farm::shutdown())]);
    let simulated = simulated.map(|(_, event)| (event.kind().to_string(), serde_json::from_str(event.json()).unwrap()));
    assert_eq!(shapes(simulated), shapes(recorded));
}

#[test]
fn within_minutes_everything_that_can_happen_has_happened() {
    const HAPPENINGS: &[&[&str]] = &[
        &[r#""status":"requeueing""#, r#""refresh_tasks":true"#],
        &[r#""status":"pause-requested""#],
        &[r#""previous_status":"paused""#, r#""status":"queued""#, r#""refresh_tasks":true"#],
        &[r#""status":"canceled""#, r#""previous_status":"cancel-requested""#],
        &[r#""status":"soft-failed""#],
        &[r#""status":"failed""#, r#""refresh_tasks":true"#],
        &[r#""delete_requested_at":"#],
        &[r#""was_deleted":true"#, r#""updated":"0001-01-01T00:00:00Z""#],
        &[r#""was_deleted":true"#, r#""tag":"#],
        &[r#""status_change":{"is_lazy":true,"status":"asleep"}"#],
        &[r#""status_change":{"is_lazy":false,"status":"asleep"}"#],
        &[r#""status_change":{"is_lazy":false,"status":"awake"}"#],
        &[r#""previous_status":"asleep","status":"awake""#],
        &[r#""previous_status":"awake","status":"offline""#],
        &[r#""previous_status":"awake","status":"error""#],
        &["🎬"],
        &["пролёт"],
        &["مشهد"],
        &[r#""last-rendered.jpg""#, r#""last-rendered-tiny.jpg""#],
        &["Fra:", "Sample 256/256", "Saved: "],
    ];
    for seed in 0..4 {
        let minutes = std::time::Duration::from_secs(15 * 60);
        let events: Vec<FarmEvent> =
            farm(6, 4, seed).take_while(|(due, _)| *due < minutes).map(|(_, event)| event).collect();
        // Chat comes from browsers, and what cannot be read from a Manager.
        let of_a_farm = |kind: &EventKind| !matches!(kind, EventKind::ChatMessage | EventKind::Unread);
        for kind in EventKind::ALL.into_iter().filter(of_a_farm) {
            assert!(events.iter().any(|event| event.kind() == kind), "seed {seed}: no {kind}");
        }
        for texts in HAPPENINGS {
            let found = events.iter().any(|event| texts.iter().all(|text| event.json().contains(text)));
            assert!(found, "seed {seed}: nothing with {texts:?}");
        }
    }
}
