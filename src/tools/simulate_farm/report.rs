//! What the simulated Manager says: events from the state of jobs, tasks and workers.

use jiff::Timestamp as Moment;

use super::farm::Tag;
use super::job::{Job, JobStatus, Task, TaskStatus};
use super::worker::{Ask, Worker, WorkerState};
use farm::{
    FarmEvent, FarmStatusReport, JobUpdate, LastRenderedUpdate, LifeCycle, Payload, StatusChange, TaskLogUpdate,
    TaskUpdate, TaskWorker, Thumbnail, Timestamp, WorkerTag, WorkerTagUpdate, WorkerUpdate,
};

/// Version of the software that the simulated workers run.
pub(super) const VERSION: &str = "3.9-simulated";

pub(super) fn life_cycle(kind: &str) -> FarmEvent {
    FarmEvent::LifeCycle(Payload::new(LifeCycle { kind: kind.to_owned() }))
}

pub(super) fn farm_status(word: &str) -> FarmEvent {
    FarmEvent::FarmStatus(Payload::new(FarmStatusReport { status: word.into() }))
}

pub(super) fn new_job(job: &Job) -> FarmEvent {
    FarmEvent::NewJob(Payload::new(job_update(job)))
}

pub(super) fn job(job: &Job, previous: Option<JobStatus>, refresh_tasks: bool) -> FarmEvent {
    let previous_status = previous.map(|status| status.word().into());
    FarmEvent::JobUpdate(Payload::new(JobUpdate { previous_status, refresh_tasks, ..job_update(job) }))
}

/// For a deleted job a Manager sends the id and, for all other fields, Go's zero values.
pub(super) fn deleted_job(job: &Job) -> FarmEvent {
    FarmEvent::JobUpdate(Payload::new(JobUpdate {
        delete_requested_at: None,
        id: job.id.into(),
        name: None,
        previous_status: None,
        priority: 0,
        refresh_tasks: false,
        status: "".into(),
        steps_completed: Some(0),
        steps_total: Some(0),
        kind: String::new(),
        updated: Timestamp::zero(),
        was_deleted: true,
    }))
}

pub(super) fn task(job: &Job, task: &Task, worker: Option<&Worker>, previous: Option<TaskStatus>) -> FarmEvent {
    FarmEvent::TaskUpdate(Payload::new(TaskUpdate {
        activity: task.activity.clone(),
        id: task.id.into(),
        job_id: job.id.into(),
        name: task.name.clone(),
        previous_status: previous.map(|status| status.word().into()),
        status: task.status.word().into(),
        steps_completed: Some(task.steps_completed.into()),
        steps_total: Some(task.work.steps().into()),
        updated: timestamp(task.updated),
        worker: worker.map(|worker| TaskWorker { name: Some(worker.name.clone()), uuid: Some(worker.id.into()) }),
    }))
}

pub(super) fn task_log(task: &Task, log: String) -> FarmEvent {
    FarmEvent::TaskLogUpdate(Payload::new(TaskLogUpdate { log, task_id: task.id.into() }))
}

/// The images of a job and their widths.
pub(super) const IMAGES: [(&str, u32); 3] =
    [("last-rendered.jpg", 1920), ("last-rendered-small.jpg", 600), ("last-rendered-tiny.jpg", 200)];

/// Where a job's images are.
pub(super) fn image_folder(job: &Job) -> String {
    let id = job.id.to_string();
    format!("/job-files/job-{id:.4}/{id}")
}

/// It says where the image is, not what it is: all of a job's are the same text.
pub(super) fn last_rendered(job: &Job) -> FarmEvent {
    let suffixes = IMAGES.map(|(name, _)| name.to_owned()).into();
    let thumbnail = Thumbnail { base: image_folder(job), suffixes };
    FarmEvent::LastRendered(Payload::new(LastRenderedUpdate { job_id: job.id.into(), thumbnail }))
}

pub(super) fn new_worker(worker: &Worker) -> FarmEvent {
    FarmEvent::NewWorker(Payload::new(worker_update(worker)))
}

pub(super) fn worker(worker: &Worker, previous: Option<WorkerState>) -> FarmEvent {
    let previous_status = previous.map(|state| state.word().into());
    FarmEvent::WorkerUpdate(Payload::new(WorkerUpdate { previous_status, ..worker_update(worker) }))
}

pub(super) fn tag(tag: &Tag) -> FarmEvent {
    let description = Some(tag.description.clone());
    tag_update(WorkerTag { description, id: Some(tag.id.into()), name: Some(tag.name.to_owned()) }, false)
}

pub(super) fn deleted_tag(tag: &Tag) -> FarmEvent {
    tag_update(WorkerTag { description: None, id: Some(tag.id.into()), name: Some(String::new()) }, true)
}

fn tag_update(tag: WorkerTag, was_deleted: bool) -> FarmEvent {
    FarmEvent::WorkerTagUpdate(Payload::new(WorkerTagUpdate { tag, was_deleted }))
}

fn job_update(job: &Job) -> JobUpdate {
    let (completed, total) = job.steps();
    JobUpdate {
        delete_requested_at: job.delete_requested.map(timestamp),
        id: job.id.into(),
        name: Some(job.name.clone()),
        previous_status: None,
        priority: job.priority,
        refresh_tasks: false,
        status: job.status.word().into(),
        steps_completed: Some(completed.into()),
        steps_total: Some(total.into()),
        kind: job.kind.word().to_owned(),
        updated: timestamp(job.updated),
        was_deleted: false,
    }
}

fn worker_update(worker: &Worker) -> WorkerUpdate {
    let last_seen = worker.last_seen.map(timestamp);
    WorkerUpdate {
        can_restart: Some(false),
        deleted_at: None,
        id: worker.id.into(),
        last_seen,
        name: worker.name.clone(),
        previous_status: None,
        status: worker.state.word().into(),
        status_change: worker.asked.map(status_change),
        updated: last_seen.unwrap_or_else(Timestamp::zero),
        version: VERSION.to_owned(),
    }
}

fn status_change(ask: Ask) -> StatusChange {
    StatusChange { is_lazy: ask.lazy, status: ask.wanted.word().into() }
}

fn timestamp(moment: Moment) -> Timestamp {
    moment.to_string().parse().expect("jiff prints RFC 3339")
}
