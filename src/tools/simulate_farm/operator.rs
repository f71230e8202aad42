//! The people of the simulated farm: they submit jobs, change their minds, tidy up and send workers to sleep.

use std::time::Duration;

use super::agenda::Happening;
use super::farm::{Farm, Tag};
use super::job::{Job, JobNo, JobStatus, TaskStatus};
use super::worker::{Ask, Wanted, WorkerNo, WorkerState};
use super::{random_uuid, report};

/// Something an operator does now and then. The cards are drawn from a shuffled deck, so that everything comes up as
/// often as everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Card {
    ChangePriority,
    Pause,
    Cancel,
    Requeue,
    Delete,
    SleepLazily,
    SleepAtOnce,
    SignOff,
    LoseWorker,
    DescribeTag,
    CreateTag,
    DeleteTag,
}

const DECK: [Card; 15] = [
    Card::ChangePriority,
    Card::ChangePriority,
    Card::Pause,
    Card::Pause,
    Card::Cancel,
    Card::Requeue,
    Card::Delete,
    Card::SleepLazily,
    Card::SleepLazily,
    Card::SleepAtOnce,
    Card::SignOff,
    Card::LoseWorker,
    Card::DescribeTag,
    Card::CreateTag,
    Card::DeleteTag,
];

/// Tags that come and go, beside the one that stays.
const TAG_NAMES: [&str; 4] = ["CPU", "GPU-Ciklusi", "夜間", "Ноћна смена"];

impl Farm {
    pub(super) fn tags_made(&mut self) {
        self.create_tag("GPU", "Nodes with a GPU — schnell & groß");
        self.create_tag(TAG_NAMES[0], "");
        if !self.workers.is_empty() {
            self.publish_worker(WorkerNo(0), None);
        }
    }

    /// Submits a job when there are fewer than wanted.
    pub(super) fn jobs_top_up(&mut self) {
        let unfinished = self.jobs.values().filter(|job| !job.status.is_final()).count();
        if unfinished < self.settings.jobs {
            let no = JobNo(self.submitted);
            self.submitted += 1;
            let stamp = self.stamp();
            let job = Job::submitted(no, stamp, &mut self.rng);
            self.send(report::new_job(&job));
            self.jobs.insert(no, job);
        }
        if self.submitted < self.settings.jobs.min(6) as u64 {
            self.after(200..=600, Happening::JobsTopUp);
            return;
        }
        // A big farm fills up as fast as a small one.
        let pace = 1.max(self.settings.jobs as u64 / 4);
        self.after(1000 / pace..=4000 / pace, Happening::JobsTopUp);
    }

    pub(super) fn job_resumed(&mut self, no: JobNo) {
        let stamp = self.stamp();
        let Some(job) = self.jobs.get_mut(&no) else { return };
        if job.status == JobStatus::Paused {
            job.change_tasks(stamp, TaskStatus::Queued, |status| status == TaskStatus::Paused);
            self.job_becomes(no, JobStatus::Queued, true);
        } else if job.status == JobStatus::PauseRequested {
            self.after(2000..=6000, Happening::JobResumed(no));
        }
    }

    pub(super) fn job_expires(&mut self, no: JobNo, finished: Duration) {
        if self.jobs.get(&no).is_some_and(|job| job.finished == Some(finished)) {
            self.delete(no);
        }
    }

    pub(super) fn job_deleted(&mut self, no: JobNo) {
        if let Some(job) = self.jobs.remove(&no) {
            self.send(report::deleted_job(&job));
        }
    }

    pub(super) fn operator_acts(&mut self) {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.rng.shuffle(&mut self.deck);
        }
        if let Some(card) = self.deck.pop() {
            self.play(card);
        }
        self.after(2000..=7000, Happening::OperatorActs);
    }

    /// Does what the card says, as far as there is a job or worker for it.
    fn play(&mut self, card: Card) {
        match card {
            Card::ChangePriority => self.on_some_job(|job| !job.status.is_final(), Self::change_priority),
            Card::Pause => self.on_some_job(can_pause, Self::pause),
            Card::Cancel => self.on_some_job(|job| job.status == JobStatus::Active, Self::cancel),
            Card::Requeue => {
                self.on_some_job(|job| job.status.is_final() && job.delete_requested.is_none(), Self::requeue)
            }
            Card::Delete => {
                self.on_some_job(|job| job.status.is_final() && job.delete_requested.is_none(), Self::delete)
            }
            Card::SleepLazily => self.on_some_worker(WorkerState::is_awake, |farm, no| farm.send_to_sleep(no, true)),
            Card::SleepAtOnce => self.on_some_worker(WorkerState::is_awake, |farm, no| farm.send_to_sleep(no, false)),
            Card::SignOff => self.on_some_worker(WorkerState::is_awake, |farm, no| {
                farm.worker_leaves(no, WorkerState::Offline, "given back: its worker signed off");
            }),
            Card::LoseWorker => self.on_some_worker(WorkerState::is_awake, |farm, no| {
                farm.worker_leaves(no, WorkerState::Error, "given back: its worker was not heard of any more");
            }),
            Card::DescribeTag => self.describe_tag(),
            Card::CreateTag => self.create_missing_tag(),
            Card::DeleteTag => self.delete_tag(),
        }
    }

    fn on_some_job(&mut self, fits: impl Fn(&Job) -> bool, act: impl FnOnce(&mut Self, JobNo)) {
        let fitting: Vec<JobNo> = self.jobs.iter().filter(|(_, job)| fits(job)).map(|(no, _)| *no).collect();
        if let Some(no) = self.rng.choice(fitting) {
            act(self, no);
        }
    }

    fn on_some_worker(&mut self, fits: impl Fn(WorkerState) -> bool, act: impl FnOnce(&mut Self, WorkerNo)) {
        let numbers = (0..self.workers.len()).map(WorkerNo);
        let fitting: Vec<WorkerNo> = numbers.filter(|no| fits(self.workers[no.0].state)).collect();
        if let Some(no) = self.rng.choice(fitting) {
            act(self, no);
        }
    }

    fn change_priority(&mut self, no: JobNo) {
        let priority = 10 * self.rng.i64(1..=9);
        let stamp = self.stamp();
        if let Some(job) = self.jobs.get_mut(&no) {
            job.priority = priority;
            job.updated = stamp;
        }
        self.publish_job(no, None, false);
    }

    fn pause(&mut self, no: JobNo) {
        let stamp = self.stamp();
        let Some(job) = self.jobs.get_mut(&no) else { return };
        job.change_tasks(stamp, TaskStatus::Paused, |status| status == TaskStatus::Queued);
        self.job_becomes(no, JobStatus::PauseRequested, true);
        self.pause_if_idle(no);
        self.after(4000..=15_000, Happening::JobResumed(no));
    }

    fn cancel(&mut self, no: JobNo) {
        self.drop_tasks(no);
        self.job_becomes(no, JobStatus::CancelRequested, true);
        self.job_becomes(no, JobStatus::Canceled, false);
    }

    fn requeue(&mut self, no: JobNo) {
        self.job_becomes(no, JobStatus::Requeueing, true);
        let stamp = self.stamp();
        if let Some(job) = self.jobs.get_mut(&no) {
            job.start_over(stamp);
        }
        self.job_becomes(no, JobStatus::Queued, true);
    }

    fn delete(&mut self, no: JobNo) {
        let stamp = self.stamp();
        let Some(job) = self.jobs.get_mut(&no) else { return };
        if job.delete_requested.is_some() {
            return;
        }
        job.delete_requested = Some(stamp);
        self.publish_job(no, None, false);
        self.after(2..=300, Happening::JobDeleted(no));
    }

    fn send_to_sleep(&mut self, no: WorkerNo, lazy: bool) {
        self.worker_is_asked(no, Ask { wanted: Wanted::Asleep, lazy });
        self.after(400..=2500, Happening::WorkerObeys(no));
    }

    fn create_tag(&mut self, name: &'static str, description: &str) {
        let tag = Tag { id: random_uuid(&mut self.rng), name, description: description.to_owned() };
        self.send(report::tag(&tag));
        self.tags.push(tag);
    }

    fn create_missing_tag(&mut self) {
        if let Some(name) = TAG_NAMES.into_iter().find(|name| self.tags.iter().all(|tag| tag.name != *name)) {
            self.create_tag(name, "");
        }
    }

    fn describe_tag(&mut self) {
        let revision = self.rng.u8(2..=99);
        if let Some(tag) = self.tags.first_mut() {
            tag.description = format!("Workers with a GPU, list no. {revision}");
            let event = report::tag(tag);
            self.send(event);
        }
    }

    /// Deletes a tag, but never the first.
    fn delete_tag(&mut self) {
        if self.tags.len() > 1 {
            let tag = self.tags.remove(1);
            self.send(report::deleted_tag(&tag));
        }
    }
}

fn can_pause(job: &Job) -> bool {
    matches!(job.status, JobStatus::Queued | JobStatus::Active) && job.has_waiting_tasks()
}
