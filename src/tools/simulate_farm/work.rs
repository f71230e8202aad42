//! How the simulated jobs are worked on.

use super::agenda::{Beat, Happening};
use super::farm::Farm;
use super::job::{Job, JobNo, JobStatus, TaskStatus, Work};
use super::logs::{self, Process};
use super::report;
use super::worker::{WorkerNo, WorkerState};

/// Milliseconds from which on a frame's log comes in two chunks.
const LONG_FRAME: u64 = 1800;

impl Farm {
    /// Gives the most urgent task there is to a worker; `false` when there is none for it.
    pub(super) fn take_task(&mut self, no: WorkerNo) -> bool {
        let workers = self.workers.len();
        let ready =
            self.jobs.iter().filter_map(|(job_no, job)| Some((*job_no, job.task_for(no, workers)?, job.priority)));
        // The highest priority; among equals the job that was submitted first.
        let Some((job, task, _)) = ready.min_by_key(|(job, _, priority)| (-priority, *job)) else { return false };

        let stamp = self.stamp();
        let worker = &mut self.workers[no.0];
        worker.run = worker.run.wrapping_add(1);
        worker.state = WorkerState::Working { job, task };
        worker.last_seen = Some(stamp);
        let greeting = logs::assigned(&worker.name, worker.id);

        self.publish_log(job, task, logs::manager_line(stamp, &greeting));
        self.assign(job, task, no);
        if self.jobs.get(&job).is_some_and(|job| job.status == JobStatus::Queued) {
            self.job_becomes(job, JobStatus::Active, false);
        }
        self.publish_worker(no, None);
        self.proceed(no, job, task, Beat::Launched);
        true
    }

    pub(super) fn work_proceeds(&mut self, no: WorkerNo, run: u32, beat: Beat) {
        let WorkerState::Working { job, task } = self.workers[no.0].state else { return };
        if self.workers[no.0].run != run {
            return;
        }
        match beat {
            Beat::Launched => self.launched(no, job, task),
            Beat::Sampled => self.sampled(no, job, task),
            Beat::StepDone => self.step_done(no, job, task),
            Beat::Finished => self.finished(no, job, task),
            Beat::Broke => self.broke(no, job, task),
        }
    }

    pub(super) fn image_processed(&mut self, job: JobNo) {
        if let Some(job) = self.jobs.get(&job) {
            self.send(report::last_rendered(job));
        }
    }

    /// Takes the task from the worker, which looks for another one soon.
    pub(super) fn stop_working(&mut self, no: WorkerNo) {
        self.workers[no.0].state = WorkerState::Idle;
        self.after(200..=1500, Happening::WorkerAsksForWork(no));
    }

    /// Pauses a job that is to pause once no worker has a task of it.
    pub(super) fn pause_if_idle(&mut self, no: JobNo) {
        let Some(job) = self.jobs.get_mut(&no) else { return };
        if job.status == JobStatus::PauseRequested && !job.is_being_worked_on() {
            self.job_becomes(no, JobStatus::Paused, false);
        }
    }

    /// Stops all work on a job and takes the tasks that are left out of the queue.
    pub(super) fn drop_tasks(&mut self, no: JobNo) {
        let stamp = self.stamp();
        for worker in (0..self.workers.len()).map(WorkerNo) {
            if matches!(self.workers[worker.0].state, WorkerState::Working { job, .. } if job == no) {
                self.stop_working(worker);
            }
        }
        if let Some(job) = self.jobs.get_mut(&no) {
            let unfinished = |status| !matches!(status, TaskStatus::Completed | TaskStatus::Failed);
            job.change_tasks(stamp, TaskStatus::Canceled, unfinished);
        }
    }

    fn assign(&mut self, job_no: JobNo, task: usize, worker: WorkerNo) {
        let Some(job) = self.jobs.get_mut(&job_no) else { return };
        job.tasks[task].worker = Some(worker);
        // The activity is the reason why the task was queued until the worker has something to
        // report.
        let activity = job.tasks[task].activity.clone();
        self.task_becomes(job_no, task, TaskStatus::Active, &activity);
    }

    fn launched(&mut self, no: WorkerNo, job_no: JobNo, task: usize) {
        let Some((process, job)) = self.process(no, job_no, task) else { return };
        let mut text = process.launched();
        let next = if job.fails(task) {
            text.push_str(&process.broke());
            Beat::Broke
        } else if job.tasks[task].steps_completed == process.work.steps() {
            Beat::Finished
        } else if matches!(process.work, Work::Render { .. }) {
            Beat::Sampled
        } else {
            Beat::StepDone
        };
        self.publish_log(job_no, task, text);
        self.proceed(no, job_no, task, next);
    }

    fn sampled(&mut self, no: WorkerNo, job_no: JobNo, task: usize) {
        let Some((process, job)) = self.process(no, job_no, task) else { return };
        if let Work::Render { first, millis, .. } = process.work
            && millis >= LONG_FRAME
        {
            let frame = first + job.tasks[task].steps_completed;
            let text = process.sampling(frame, 0, 8);
            self.publish_log(job_no, task, text);
        }
        self.proceed(no, job_no, task, Beat::StepDone);
    }

    fn step_done(&mut self, no: WorkerNo, job_no: JobNo, task: usize) {
        let stamp = self.stamp();
        let Some((process, job)) = self.process(no, job_no, task) else { return };
        let done = job.tasks[task].steps_completed;
        let output = match process.work {
            Work::Render { first, millis, .. } => {
                let from = if millis >= LONG_FRAME { 8 } else { 0 };
                Some(process.sampling(first + done, from, 16) + &process.saved(first + done, millis))
            }
            Work::Echo | Work::Sleep { .. } | Work::Video { .. } => None,
        };
        let next = if done + 1 == process.work.steps() { Beat::Finished } else { Beat::Sampled };

        let Some(job) = self.jobs.get_mut(&job_no) else { return };
        job.counts_steps = true;
        if let Work::Render { first, .. } = job.tasks[task].work {
            job.image = Some(first + done);
        }
        job.updated = stamp;
        job.tasks[task].steps_completed = done + 1;
        job.tasks[task].updated = stamp;
        "Progress".clone_into(&mut job.tasks[task].activity);
        self.publish_job(job_no, None, false);
        self.publish_task(job_no, task, None);
        if let Some(text) = output {
            self.after(30..=90, Happening::ImageProcessed(job_no));
            self.publish_log(job_no, task, text);
        }
        self.proceed(no, job_no, task, next);
    }

    fn finished(&mut self, no: WorkerNo, job_no: JobNo, task: usize) {
        let Some((process, _)) = self.process(no, job_no, task) else { return };
        if matches!(process.work, Work::Render { .. }) {
            let text = process.quit();
            self.publish_log(job_no, task, text);
        }
        self.stop_working(no);
        self.task_becomes(job_no, task, TaskStatus::Completed, "Completed");
        if self.jobs.get(&job_no).is_some_and(Job::is_done) {
            self.job_becomes(job_no, JobStatus::Completed, false);
        } else {
            self.pause_if_idle(job_no);
        }
    }

    fn broke(&mut self, no: WorkerNo, job_no: JobNo, task: usize) {
        const WHY: &str = "Failed: the program ended with exit code 1";
        let awake = self.awake();
        let stamp = self.stamp();
        let Some(job) = self.jobs.get_mut(&job_no) else { return };
        job.tasks[task].failed_by.push(no);
        let hopeless = job.has_failed(task, awake);
        let verdict = if hopeless { "no worker is left to try it, its job fails" } else { "another worker may try it" };

        self.publish_log(job_no, task, WHY.to_owned());
        self.publish_log(job_no, task, logs::manager_line(stamp, &format!("task failed, {verdict}")));
        self.stop_working(no);
        if hopeless {
            self.task_becomes(job_no, task, TaskStatus::Failed, WHY);
            self.drop_tasks(job_no);
            self.job_becomes(job_no, JobStatus::Failed, true);
        } else {
            self.task_becomes(job_no, task, TaskStatus::SoftFailed, WHY);
            self.pause_if_idle(job_no);
        }
    }

    fn process(&self, no: WorkerNo, job_no: JobNo, task: usize) -> Option<(Process, &Job)> {
        let job = self.jobs.get(&job_no)?;
        let pid = 2000 + (u64::from(self.workers[no.0].run) * 37 + no.0 as u64 * 1009) % 60_000;
        Some((Process { pid, job: job_no, work: job.tasks[task].work }, job))
    }

    /// Notes the next beat of the task a worker has, after the time it takes to get there.
    fn proceed(&mut self, no: WorkerNo, job_no: JobNo, task: usize, beat: Beat) {
        let Some(job) = self.jobs.get(&job_no) else { return };
        let millis = match (beat, job.tasks[task].work) {
            (Beat::Launched, Work::Sleep { seconds }) => 1000 * u64::from(seconds),
            (Beat::Launched, Work::Video { .. }) => 600,
            (Beat::Launched, Work::Render { .. }) => 200,
            (Beat::Sampled | Beat::StepDone, Work::Render { millis, .. }) => millis / 2,
            (Beat::Launched | Beat::Sampled | Beat::StepDone, _) | (Beat::Finished | Beat::Broke, _) => 8,
        };
        let run = self.workers[no.0].run;
        self.after(millis * 4 / 5..=millis * 6 / 5, Happening::WorkProceeds { worker: no, run, beat });
    }
}
