//! The simulated farm itself: a discrete-event model without a clock and without end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use super::agenda::{Agenda, Happening};
use super::job::{Job, JobNo, JobStatus, TaskStatus};
use super::operator::Card;
use super::worker::{Ask, Worker, WorkerNo, WorkerState};
use super::{logs, report};
use farm::FarmEvent;

/// What a simulated farm is like. The same settings give the same events, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Workers that sign on in the first seconds.
    pub workers: usize,
    /// Unfinished jobs that there are at a time: when one ends the next is submitted.
    pub jobs: usize,
    /// What chance starts from.
    pub seed: u64,
    /// When the simulated Manager starts, not before 1970; every time stamp counts from here.
    pub start: Timestamp,
}

/// A farm that lives by itself: an endless iterator over its events, each with the simulated time since the Manager's
/// start at which it happens. Times never go back.
///
/// It stays bounded however long it runs: finished jobs are deleted after a while.
#[derive(Debug)]
pub struct Farm {
    pub(super) settings: Settings,
    pub(super) rng: Rng,
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    pub(super) jobs: BTreeMap<JobNo, Job>,
    pub(super) submitted: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) tags: Vec<Tag>,
    pub(super) deck: Vec<Card>,
    /// The last published status; `None` while the Manager is starting.
    status: Option<FarmState>,
    outgoing: VecDeque<(Duration, FarmEvent)>,
}

/// A worker tag.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) id: Uuid,
    pub(super) name: &'static str,
    pub(super) description: String,
}

/// What the farm as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FarmState {
    Active,
    Idle,
    Waiting,
    Asleep,
    Inoperative,
}

impl Farm {
    /// A farm whose Manager is just starting.
    pub fn new(settings: Settings) -> Self {
        let mut farm = Self {
            settings,
            rng: Rng::with_seed(settings.seed),
            now: Duration::from_millis(28),
            agenda: Agenda::default(),
            jobs: BTreeMap::new(),
            submitted: 0,
            workers: Vec::new(),
            tags: Vec::new(),
            deck: Vec::new(),
            status: None,
            outgoing: VecDeque::new(),
        };
        farm.send(report::life_cycle("manager-startup"));
        farm.after(300..=400, Happening::ManagerReady);
        farm.expect_workers();
        farm.after(2000..=2300, Happening::TagsMade);
        farm.after(700..=900, Happening::JobsTopUp);
        farm.after(6000..=8000, Happening::OperatorActs);
        farm
    }

    /// The last event of a farm whose Manager is stopped.
    pub fn shutdown() -> FarmEvent {
        report::life_cycle("manager-shutdown")
    }

    /// Returns the simulated time at which the next event happens, or at which something happens without
    /// one. Until then the farm stays as it is.
    pub(super) fn due(&self) -> Option<Duration> {
        self.outgoing.front().map(|(at, _)| *at).or_else(|| self.agenda.due())
    }

    /// Goes on to what is due next, and returns its event if it has one. `None` is the end.
    pub(super) fn step(&mut self) -> Option<Option<(Duration, FarmEvent)>> {
        if self.outgoing.is_empty() {
            let (due, happening) = self.agenda.next()?;
            // What happens takes a moment: something that was due meanwhile happens right after it.
            self.now = self.now.max(due);
            self.perform(happening);
            if self.status.is_some_and(|published| published != self.overall()) {
                self.publish_status();
            }
        }
        Some(self.outgoing.pop_front())
    }

    fn perform(&mut self, happening: Happening) {
        match happening {
            Happening::ManagerReady => self.publish_status(),
            Happening::WorkerRegisters(worker) => self.worker_registers(worker),
            Happening::WorkerSignsOn(worker) => self.worker_signs_on(worker),
            Happening::WorkerAsksForWork(worker) => self.worker_asks_for_work(worker),
            Happening::WorkerObeys(worker) => self.worker_obeys(worker),
            Happening::WorkerIsMissed(worker) => self.worker_returns(worker),
            Happening::WorkProceeds { worker, run, beat } => self.work_proceeds(worker, run, beat),
            Happening::ImageProcessed(job) => self.image_processed(job),
            Happening::TagsMade => self.tags_made(),
            Happening::JobsTopUp => self.jobs_top_up(),
            Happening::JobResumed(job) => self.job_resumed(job),
            Happening::JobExpires { job, finished } => self.job_expires(job, finished),
            Happening::JobDeleted(job) => self.job_deleted(job),
            Happening::OperatorActs => self.operator_acts(),
        }
    }

    /// Notes something for `millis` from now, drawn by chance from that range.
    pub(super) fn after(&mut self, millis: std::ops::RangeInclusive<u64>, happening: Happening) {
        let due = self.now + Duration::from_micros(self.rng.u64(millis.start() * 1000..=millis.end() * 1000));
        self.agenda.note(due, happening);
    }

    /// The simulated time as a time stamp.
    pub(super) fn stamp(&self) -> Timestamp {
        // A farm that runs until the year 9999 keeps its last time stamp.
        self.settings.start.saturating_add(self.now).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn send(&mut self, event: FarmEvent) {
        self.outgoing.push_back((self.now, event));
        self.now += Duration::from_nanos(self.rng.u64(60_000..=700_000));
    }

    /// Changes a job's status and publishes it.
    pub(super) fn job_becomes(&mut self, no: JobNo, status: JobStatus, refresh_tasks: bool) {
        let stamp = self.stamp();
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&no) else { return };
        let previous = job.status;
        job.status = status;
        job.updated = stamp;
        if status.is_final() {
            job.finished = Some(now);
            self.after(20_000..=60_000, Happening::JobExpires { job: no, finished: now });
        }
        self.publish_job(no, Some(previous), refresh_tasks);
    }

    pub(super) fn publish_job(&mut self, no: JobNo, previous: Option<JobStatus>, refresh_tasks: bool) {
        if let Some(job) = self.jobs.get(&no) {
            self.send(report::job(job, previous, refresh_tasks));
        }
    }

    /// Changes a task's status and publishes it, also in its log.
    pub(super) fn task_becomes(&mut self, no: JobNo, task: usize, status: TaskStatus, activity: &str) {
        let stamp = self.stamp();
        let Some(job) = self.jobs.get_mut(&no) else { return };
        let changed = &mut job.tasks[task];
        let previous = changed.status;
        changed.status = status;
        changed.updated = stamp;
        activity.clone_into(&mut changed.activity);
        self.publish_log(no, task, logs::manager_line(stamp, &logs::status_changed(previous, status)));
        self.publish_task(no, task, Some(previous));
    }

    pub(super) fn publish_task(&mut self, no: JobNo, task: usize, previous: Option<TaskStatus>) {
        if let Some(job) = self.jobs.get(&no) {
            let task = &job.tasks[task];
            let worker = task.worker.map(|worker| &self.workers[worker.0]);
            self.send(report::task(job, task, worker, previous));
        }
    }

    pub(super) fn publish_log(&mut self, no: JobNo, task: usize, text: String) {
        if let Some(job) = self.jobs.get(&no) {
            self.send(report::task_log(&job.tasks[task], text));
        }
    }

    /// Changes a worker's state and publishes it.
    pub(super) fn worker_becomes(&mut self, no: WorkerNo, state: WorkerState) {
        let stamp = self.stamp();
        let worker = &mut self.workers[no.0];
        let previous = worker.state;
        worker.state = state;
        worker.last_seen = Some(stamp);
        self.publish_worker(no, Some(previous));
    }

    pub(super) fn worker_is_asked(&mut self, no: WorkerNo, ask: Ask) {
        self.workers[no.0].asked = Some(ask);
        self.publish_worker(no, None);
    }

    pub(super) fn publish_worker(&mut self, no: WorkerNo, previous: Option<WorkerState>) {
        self.send(report::worker(&self.workers[no.0], previous));
    }

    pub(super) fn awake(&self) -> usize {
        self.workers.iter().filter(|worker| worker.state.is_awake()).count()
    }

    fn publish_status(&mut self) {
        let status = self.overall();
        self.status = Some(status);
        self.send(report::farm_status(status.word()));
    }

    /// The status as the API reports it.
    pub(super) fn status_word(&self) -> &'static str {
        self.status.map_or("starting", FarmState::word)
    }

    fn overall(&self) -> FarmState {
        let some_job = |status| self.jobs.values().any(|job| job.status == status);
        let some_worker = |state| self.workers.iter().any(|worker| worker.state == state);
        if self.awake() == 0 && !some_worker(WorkerState::Asleep) {
            FarmState::Inoperative
        } else if self.awake() > 0 && some_job(JobStatus::Active) {
            FarmState::Active
        } else if some_job(JobStatus::Queued) || some_job(JobStatus::Active) || some_job(JobStatus::Paused) {
            FarmState::Waiting
        } else if self.awake() > 0 {
            FarmState::Idle
        } else {
            FarmState::Asleep
        }
    }
}

impl Iterator for Farm {
    type Item = (Duration, FarmEvent);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.step()? {
                return Some(event);
            }
        }
    }
}

impl FarmState {
    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Asleep => "asleep",
            Self::Inoperative => "inoperative",
        }
    }
}
