//! Records the last published update of each job, task, worker and tag.
//!
//! The Manager may send two updates in the wrong order, and sends none while the link is down. This
//! record detects both: an update that is older than the published one, and, by comparison with the
//! Manager's lists, what was missed.
//!
//! ```text
//!                  update, or only the list has it          deletion, or a complete list lacks it
//!    not published ──────────────────────────────▶ published ───────────────────────────────────▶ deleted
//!          │                                        │  ▲  │                                       ▲   │
//!          │                                        └──┘  └▶ dropped: an older update             │   └▶ dropped:
//!          │                                  newer update                                        │      any update
//!          └───────────────────────────────── deletion ───────────────────────────────────────────┘
//! ```
//!
//! `record` holds the entities of one kind, `version` decides which of two updates is newer,
//! `missed` finds what a snapshot has and the record lacks, `images` drops second copies.

mod images;
mod missed;
mod record;
#[cfg(test)]
mod tests;
mod version;

use std::time::Instant;

use self::{
    images::ImageCopies,
    record::Record,
    version::{Version, Versioned},
};
use super::snapshot::Snapshot;
use crate::{
    farm::{
        FarmEvent, FarmStatusReport, JobId, JobUpdate, Payload, Status, TagId, TaskId, Timestamp, WorkerId, WorkerTag,
        WorkerTagUpdate, WorkerUpdate,
    },
    ingest::recent_map::RecentMap,
};

/// The maximum number of entities of one kind that are remembered beyond those that the Manager
/// lists: tasks, deleted entities, images. The next update of a forgotten one counts as the first.
const REMEMBERED: usize = 50_000;

/// The last published state.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    jobs: Record<JobId, JobUpdate>,
    workers: Record<WorkerId, WorkerUpdate>,
    tags: Record<TagId, WorkerTag>,
    tasks: RecentMap<TaskId, Version>,
    farm: Option<Status>,
    images: ImageCopies,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            jobs: Record::default(),
            workers: Record::default(),
            tags: Record::default(),
            tasks: RecentMap::new(REMEMBERED),
            farm: None,
            images: ImageCopies::default(),
        }
    }
}

impl Sent {
    /// Records an event. Returns false if it is older than the published state and must not be
    /// published. Deletions are never too old, and a deleted entity does not return.
    pub(super) fn admit(&mut self, event: &FarmEvent) -> bool {
        match event {
            FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job) => self.jobs.admit(job.fields.id, &job.fields),
            FarmEvent::NewWorker(worker) | FarmEvent::WorkerUpdate(worker) => {
                self.workers.admit(worker.fields.id, &worker.fields)
            }
            FarmEvent::TaskUpdate(task) => self.admit_task(task.fields.id, task.fields.version()),
            FarmEvent::WorkerTagUpdate(update) => {
                self.record_tag(&update.fields);
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

    fn admit_task(&mut self, task: TaskId, version: Version) -> bool {
        let is_new = self.tasks.get(&task).is_none_or(|published| !version.is_before(published));
        if is_new {
            self.tasks.set(task, version);
        }
        is_new
    }

    fn record_tag(&mut self, WorkerTagUpdate { tag, was_deleted }: &WorkerTagUpdate) {
        match tag.id {
            Some(id) if *was_deleted => self.tags.remove(id),
            Some(id) => self.tags.set(id, tag.clone()),
            None => {}
        }
    }

    /// Returns whether an image of the job is the first of its copies. `comes_twice` says whether
    /// the Manager sends two.
    pub(super) fn admit_image(&mut self, job: JobId, comes_twice: bool, now: Instant) -> bool {
        self.images.admit(job, comes_twice, now)
    }

    /// Returns an update of the job that makes its page reload the tasks, or `None` for a job that
    /// was not published yet.
    pub(super) fn refresh(&self, job: JobId) -> Option<JobUpdate> {
        let published = self.jobs.get(job)?;
        Some(JobUpdate { refresh_tasks: true, previous_status: None, ..published.clone() })
    }

    /// Records that the Manager is away. Workers' tasks continue without it, so what was published
    /// of tasks and images is void.
    pub(super) fn lose_touch(&mut self) {
        self.tasks.clear();
        self.images.clear();
    }

    /// Starts a comparison: events admitted from now on count as newer than the snapshot that is
    /// being requested.
    pub(super) fn begin_comparison(&mut self) {
        self.jobs.begin_comparison();
        self.workers.begin_comparison();
        self.tags.begin_comparison();
    }

    /// Returns the events that bring browsers to the state of the snapshot. `is_watched` returns
    /// whether a browser looks at a job's tasks; `now` is the time at which vanished entities count
    /// as deleted.
    pub(super) fn compare(
        &mut self,
        snapshot: Snapshot,
        is_watched: impl Fn(JobId) -> bool,
        now: Timestamp,
    ) -> Vec<FarmEvent> {
        let mut events = missed::jobs(&mut self.jobs, snapshot.jobs, is_watched);
        events.extend(missed::workers(&mut self.workers, snapshot.workers, now));
        if let Some(tags) = snapshot.tags {
            events.extend(missed::tags(&mut self.tags, tags));
        }
        if let Some(status) = snapshot.farm.filter(|status| self.farm.as_ref() != Some(status)) {
            self.farm = Some(status.clone());
            events.push(FarmEvent::FarmStatus(Payload::new(FarmStatusReport { status })));
        }
        events
    }
}
