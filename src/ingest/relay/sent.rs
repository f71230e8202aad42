//! What browsers were told last: the order of updates, and what they missed.
//!
//! The Manager's server may send two updates in the other order than they happened, and while the link is broken it sends
//! none. Both are found out by what was told last of each job, task and worker.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::Hash,
    time::{Duration, Instant},
};

use super::{
    recent::Recent,
    snapshot::{Listing, Snapshot},
};
use crate::farm::{
    FarmEvent, FarmStatusReport, JobId, JobUpdate, Payload, Status, TagId, TaskId, Timestamp, WorkerId, WorkerTag,
    WorkerTagUpdate, WorkerUpdate, supersede::Entity,
};

/// Tasks and deleted things that are remembered. Of one that is forgotten, the next update counts as the first.
const REMEMBERED: usize = 50_000;

/// The Manager sends an image to the rooms of all images and of the job, one right after the other.
const TWICE_WITHIN: Duration = Duration::from_secs(1);

/// In these, no task of a job changes by itself.
const SETTLED: [&str; 6] = ["canceled", "completed", "failed", "paused", "queued", "under-construction"];

/// What was told last.
#[derive(Debug)]
pub(super) struct Sent {
    jobs: HashMap<JobId, Told<JobUpdate>>,
    workers: HashMap<WorkerId, Told<WorkerUpdate>>,
    tags: HashMap<TagId, Told<WorkerTag>>,
    tasks: Recent<TaskId, Version>,
    deleted: Recent<Entity, ()>,
    farm: Option<Status>,
    /// Images of which the second copy is due, until then.
    images: Recent<JobId, Option<Instant>>,
    comparison: u32,
}

/// What was told, and since the beginning of which comparison.
#[derive(Debug)]
struct Told<T> {
    fields: T,
    comparison: u32,
}

/// What decides which of two updates is newer.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    updated: Timestamp,
    status: Status,
    previous: Option<Status>,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            jobs: HashMap::new(),
            workers: HashMap::new(),
            tags: HashMap::new(),
            tasks: Recent::new(REMEMBERED),
            deleted: Recent::new(REMEMBERED),
            farm: None,
            images: Recent::new(REMEMBERED),
            comparison: 0,
        }
    }
}

impl Sent {
    /// Takes note of an event, unless it is older than what was told already: then it must not be told. Deletions are never
    /// too old, and what was deleted does not come back.
    pub(super) fn admit(&mut self, event: &FarmEvent) -> bool {
        match event {
            FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job) => self.admit_job(&job.fields),
            FarmEvent::NewWorker(worker) | FarmEvent::WorkerUpdate(worker) => self.admit_worker(&worker.fields),
            FarmEvent::TaskUpdate(task) => {
                let task = &task.fields;
                let version = Version::new(task.updated, &task.status, &task.previous_status);
                let is_new = self.tasks.get(&task.id).is_none_or(|told| !version.is_before(told));
                if is_new {
                    self.tasks.set(task.id, version);
                }
                is_new
            }
            FarmEvent::WorkerTagUpdate(update) => {
                let WorkerTagUpdate { tag, was_deleted } = &update.fields;
                match tag.id {
                    Some(id) if *was_deleted => drop(self.tags.remove(&id)),
                    Some(id) => self.tell(|sent| &mut sent.tags, id, tag),
                    None => {}
                }
                true
            }
            FarmEvent::FarmStatus(report) => {
                self.farm = Some(report.fields.status.clone());
                true
            }
            FarmEvent::TaskLogUpdate(_)
            | FarmEvent::LastRendered(_)
            | FarmEvent::LifeCycle(_)
            | FarmEvent::ChatMessage(_)
            | FarmEvent::Unread(_) => true,
        }
    }

    /// Whether an image of the job is the first copy that comes of it. `comes_twice` says whether the Manager sends two.
    pub(super) fn admit_image(&mut self, job: JobId, comes_twice: bool, now: Instant) -> bool {
        let second_due = self.images.get(&job).copied().flatten();
        let is_second = comes_twice && second_due.is_some_and(|until| now <= until);
        self.images.set(job, (comes_twice && !is_second).then(|| now + TWICE_WITHIN));
        !is_second
    }

    /// The Manager is away: what it last said of itself holds no more. Tasks it will go on with as it likes.
    pub(super) fn lose_touch(&mut self) {
        self.tasks.clear();
        self.images.clear();
    }

    /// From now on, what is admitted counts as newer than the snapshot that is asked for now.
    pub(super) fn begin_comparison(&mut self) {
        self.comparison += 1;
    }

    /// What browsers have to be told so that they know what the snapshot says. `is_watched` says of which jobs somebody
    /// looks at the tasks; `now` is the time at which what has vanished counts as deleted.
    pub(super) fn compare(
        &mut self,
        snapshot: Snapshot,
        is_watched: impl Fn(JobId) -> bool,
        now: Timestamp,
    ) -> Vec<FarmEvent> {
        let mut events = Vec::new();
        self.compare_jobs(snapshot.jobs, is_watched, &mut events);
        self.compare_workers(snapshot.workers, now, &mut events);
        if let Some(tags) = snapshot.tags {
            self.compare_tags(tags, &mut events);
        }
        if let Some(status) = snapshot.farm.filter(|status| self.farm.as_ref() != Some(status)) {
            self.farm = Some(status.clone());
            events.push(FarmEvent::FarmStatus(Payload::new(FarmStatusReport { status })));
        }
        events
    }

    fn admit_job(&mut self, job: &JobUpdate) -> bool {
        let entity = Entity::Job(job.id);
        if job.was_deleted {
            self.jobs.remove(&job.id);
            self.deleted.set(entity, ());
            return true;
        }
        let version = |job: &JobUpdate| Version::new(job.updated, &job.status, &job.previous_status);
        let told = self.jobs.get(&job.id);
        let is_new = told.is_none_or(|told| !version(job).is_before(&version(&told.fields)));
        if !is_new || self.deleted.get(&entity).is_some() {
            return false;
        }
        self.tell(|sent| &mut sent.jobs, job.id, job);
        true
    }

    fn admit_worker(&mut self, worker: &WorkerUpdate) -> bool {
        let entity = Entity::Worker(worker.id);
        if worker.deleted_at.is_some() {
            self.workers.remove(&worker.id);
            self.deleted.set(entity, ());
            return true;
        }
        let version = |worker: &WorkerUpdate| Version::new(worker.updated, &worker.status, &worker.previous_status);
        let told = self.workers.get(&worker.id);
        let is_new = told.is_none_or(|told| !version(worker).is_before(&version(&told.fields)));
        if !is_new || self.deleted.get(&entity).is_some() {
            return false;
        }
        self.tell(|sent| &mut sent.workers, worker.id, worker);
        true
    }

    fn compare_jobs(
        &mut self,
        listing: Listing<JobUpdate>,
        is_watched: impl Fn(JobId) -> bool,
        events: &mut Vec<FarmEvent>,
    ) {
        let listed: HashSet<JobId> = listing.items.iter().map(|job| job.id).collect();
        for mut job in listing.items {
            match self.jobs.get(&job.id) {
                Some(told) if told.comparison == self.comparison => continue,
                None if self.deleted.get(&Entity::Job(job.id)).is_some() => continue,
                Some(Told { fields: told, .. }) => {
                    let tasks_went_on = is_watched(job.id) && !(is_settled(&job) && is_settled(told));
                    if is_same_job(told, &job) && !tasks_went_on {
                        continue;
                    }
                    job.previous_status = (told.status != job.status).then(|| told.status.clone());
                }
                None => {}
            }
            job.refresh_tasks = true;
            events.push(FarmEvent::JobUpdate(Payload::new(job.clone())));
            self.tell(|sent| &mut sent.jobs, job.id, &job);
        }
        for id in self.vanished(&self.jobs, &listed, listing.is_complete) {
            self.jobs.remove(&id);
            self.deleted.set(Entity::Job(id), ());
            events.push(FarmEvent::JobUpdate(Payload::new(deleted_job(id))));
        }
    }

    fn compare_workers(&mut self, listing: Listing<WorkerUpdate>, now: Timestamp, events: &mut Vec<FarmEvent>) {
        let listed: HashSet<WorkerId> = listing.items.iter().map(|worker| worker.id).collect();
        for mut worker in listing.items {
            match self.workers.get(&worker.id) {
                Some(told) if told.comparison == self.comparison => continue,
                None if self.deleted.get(&Entity::Worker(worker.id)).is_some() => continue,
                Some(Told { fields: told, .. }) => {
                    if is_same_worker(told, &worker) {
                        continue;
                    }
                    // The list does not say when a worker was updated.
                    worker.updated = told.updated;
                    worker.previous_status = (told.status != worker.status).then(|| told.status.clone());
                }
                None => {}
            }
            events.push(FarmEvent::WorkerUpdate(Payload::new(worker.clone())));
            self.tell(|sent| &mut sent.workers, worker.id, &worker);
        }
        for id in self.vanished(&self.workers, &listed, listing.is_complete) {
            let Some(told) = self.workers.remove(&id) else { continue };
            self.deleted.set(Entity::Worker(id), ());
            let worker = WorkerUpdate { deleted_at: Some(now), previous_status: None, ..told.fields };
            events.push(FarmEvent::WorkerUpdate(Payload::new(worker)));
        }
    }

    fn compare_tags(&mut self, listing: Listing<WorkerTag>, events: &mut Vec<FarmEvent>) {
        let listed: HashSet<TagId> = listing.items.iter().filter_map(|tag| tag.id).collect();
        for tag in listing.items {
            let Some(id) = tag.id else { continue };
            if self.tags.get(&id).is_some_and(|told| told.comparison == self.comparison || told.fields == tag) {
                continue;
            }
            self.tell(|sent| &mut sent.tags, id, &tag);
            events.push(FarmEvent::WorkerTagUpdate(Payload::new(WorkerTagUpdate { tag, was_deleted: false })));
        }
        for id in self.vanished(&self.tags, &listed, listing.is_complete) {
            self.tags.remove(&id);
            let tag = WorkerTag { description: None, id: Some(id), name: Some(String::new()) };
            events.push(FarmEvent::WorkerTagUpdate(Payload::new(WorkerTagUpdate { tag, was_deleted: true })));
        }
    }

    /// What was told before the comparison began, and is not there any more.
    fn vanished<K: Copy + Eq + Hash + Ord, T>(
        &self,
        told: &HashMap<K, Told<T>>,
        listed: &HashSet<K>,
        is_complete: bool,
    ) -> Vec<K> {
        let is_gone = |id: &&K, told: &Told<T>| told.comparison != self.comparison && !listed.contains(*id);
        let mut gone: Vec<K> =
            told.iter().filter(|(id, told)| is_complete && is_gone(id, told)).map(|(&id, _)| id).collect();
        gone.sort_unstable();
        gone
    }

    fn tell<K: Eq + Hash, T: Clone>(&mut self, map: fn(&mut Self) -> &mut HashMap<K, Told<T>>, id: K, fields: &T) {
        let told = Told { fields: fields.clone(), comparison: self.comparison };
        map(self).insert(id, told);
    }
}

impl Version {
    fn new(updated: Timestamp, status: &Status, previous: &Option<Status>) -> Self {
        Self { updated, status: status.clone(), previous: previous.clone() }
    }

    /// Whether this happened before `told`. Two updates may bear the same time, because the Manager tells of a change with
    /// the time of the one before it: then the later one comes from where the earlier one went.
    fn is_before(&self, told: &Self) -> bool {
        match self.updated.cmp(&told.updated) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let told_comes_from_here = told.previous.as_ref() == Some(&self.status) && told.status != self.status;
                told_comes_from_here && self.previous.as_ref() != Some(&told.status)
            }
        }
    }
}

fn is_settled(job: &JobUpdate) -> bool {
    SETTLED.contains(&job.status.as_str())
}

/// Whether a page shows the same for both. Their time does not count: what is told of a change bears an older one than the
/// list does afterwards.
fn is_same_job(told: &JobUpdate, listed: &JobUpdate) -> bool {
    // What a browser was told without steps, an older Manager's update, says nothing of them.
    let is_same_count = |told: Option<i64>, listed: Option<i64>| told.is_none() || listed.is_none() || told == listed;
    told.status == listed.status
        && told.name == listed.name
        && told.priority == listed.priority
        && told.kind == listed.kind
        && told.delete_requested_at == listed.delete_requested_at
        && is_same_count(told.steps_completed, listed.steps_completed)
        && is_same_count(told.steps_total, listed.steps_total)
}

fn is_same_worker(told: &WorkerUpdate, listed: &WorkerUpdate) -> bool {
    told.status == listed.status
        && told.name == listed.name
        && told.version == listed.version
        && told.status_change == listed.status_change
        && told.can_restart.unwrap_or(false) == listed.can_restart.unwrap_or(false)
}

/// As Go prints an update of which only the id means anything.
fn deleted_job(id: JobId) -> JobUpdate {
    JobUpdate {
        delete_requested_at: None,
        id,
        name: None,
        previous_status: None,
        priority: 0,
        refresh_tasks: false,
        status: "".into(),
        steps_completed: None,
        steps_total: None,
        kind: String::new(),
        updated: Timestamp::zero(),
        was_deleted: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, farm::EventKind};

    const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
    const OTHER: &str = "00000000-7c3f-4f0f-9a53-2f6d1b7f6c21";

    /// A time, by its second.
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
        FarmEvent::JobUpdate(Payload::new(deleted_job(JOB.parse().unwrap())))
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
            ..deleted_job(id.parse().unwrap())
        }
    }

    fn all<T>(items: Vec<T>) -> Listing<T> {
        Listing { items, is_complete: true }
    }

    fn snapshot(jobs: Vec<JobUpdate>) -> Snapshot {
        Snapshot { jobs: all(jobs), workers: all(Vec::new()), tags: None, farm: None }
    }

    /// What is told after a comparison, shortened: kind, status and what is said beside.
    fn compare(sent: &mut Sent, snapshot: Snapshot, watched: bool) -> Vec<String> {
        sent.begin_comparison();
        finish(sent, snapshot, watched)
    }

    fn finish(sent: &mut Sent, snapshot: Snapshot, watched: bool) -> Vec<String> {
        let events = sent.compare(snapshot, |_| watched, at(59).parse().unwrap());
        // What is told counts as told.
        events.iter().map(short).collect()
    }

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
                format!(
                    "worker {}{} {}",
                    from(&worker.fields.previous_status),
                    worker.fields.status,
                    worker.fields.updated
                )
            }
            FarmEvent::WorkerTagUpdate(tag) => format!("tag {:?} {}", tag.fields.tag.name, tag.fields.was_deleted),
            FarmEvent::FarmStatus(report) => format!("farm {}", report.fields.status),
            FarmEvent::NewJob(_)
            | FarmEvent::TaskUpdate(_)
            | FarmEvent::TaskLogUpdate(_)
            | FarmEvent::LastRendered(_)
            | FarmEvent::NewWorker(_)
            | FarmEvent::LifeCycle(_)
            | FarmEvent::ChatMessage(_)
            | FarmEvent::Unread(_) => panic!("nobody is told {event:?} after a comparison"),
        }
    }

    #[test]
    fn what_is_older_is_not_told() {
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
            // The Manager tells of a change with the time of the one before.
            (vec![job(1, "", "queued"), job(1, "queued", "active")], vec![true, true]),
            (vec![job(1, "queued", "active"), job(1, "", "queued")], vec![true, false]),
            (vec![worker("awake", "asleep"), worker("starting", "awake")], vec![true, false]),
            // Nothing says which came first.
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
    fn images_come_twice_to_who_is_in_both_rooms() {
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
    fn at_first_everything_is_told() {
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
        assert_eq!(compare(&mut sent, farm(), true), ["job active, refresh"], "its tasks went on");
        let gone = Snapshot { tags: Some(all(Vec::new())), farm: Some("idle".into()), ..snapshot(Vec::new()) };
        assert_eq!(
            compare(&mut sent, gone, true),
            ["job deleted", "worker deleted", "tag Some(\"\") true", "farm idle"]
        );
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut sent = Sent::default();
        sent.admit(&job(1, "", "queued"));
        sent.admit(&worker("", "awake"));
        let with_worker = |status: &str, jobs| {
            let FarmEvent::WorkerUpdate(worker) = worker("", status) else { panic!("no worker") };
            let worker = WorkerUpdate { updated: Timestamp::zero(), ..worker.fields };
            Snapshot { workers: all(vec![worker]), ..snapshot(jobs) }
        };
        // The list says more of the job's steps and another time, but nothing that is new.
        assert_eq!(compare(&mut sent, with_worker("awake", vec![listed(JOB, "queued", 0)]), true), [""; 0]);
        let told = compare(&mut sent, with_worker("asleep", vec![listed(JOB, "completed", 4)]), false);
        assert_eq!(told, ["job queued -> completed, refresh", &format!("worker awake -> asleep {}", at(1))]);
        assert!(!sent.admit(&job(29, "", "active")), "what comes late is older than the list");
        assert!(sent.admit(&job(30, "completed", "requeueing")));
        assert!(sent.admit(&worker("asleep", "awake")));
    }

    #[test]
    fn what_happens_while_the_manager_is_asked_is_newer_than_its_answer() {
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
}
