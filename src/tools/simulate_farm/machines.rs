//! The life of the simulated workers: they come, sleep, wake, leave and get lost.

use super::agenda::Happening;
use super::farm::Farm;
use super::job::TaskStatus;
use super::worker::{Ask, Wanted, Worker, WorkerNo, WorkerState};
use super::{random_uuid, report};

impl Farm {
    pub(super) fn expect_workers(&mut self) {
        for no in 0..self.settings.workers {
            let id = random_uuid(&mut self.rng);
            let name = format!("render-node-{:02}", no + 1);
            let state = WorkerState::Starting;
            self.workers.push(Worker { id, name, state, asked: None, run: 0, last_seen: None });
            self.after(450..=1800, Happening::WorkerRegisters(WorkerNo(no)));
        }
    }

    pub(super) fn worker_registers(&mut self, no: WorkerNo) {
        self.send(report::new_worker(&self.workers[no.0]));
        self.after(12..=40, Happening::WorkerSignsOn(no));
    }

    pub(super) fn worker_signs_on(&mut self, no: WorkerNo) {
        self.worker_becomes(no, WorkerState::Idle);
        self.after(300..=1200, Happening::WorkerAsksForWork(no));
    }

    /// What an idle worker does every few seconds; here it also learns what it is asked to do.
    pub(super) fn worker_asks_for_work(&mut self, no: WorkerNo) {
        if self.workers[no.0].state != WorkerState::Idle {
            return;
        }
        if self.workers[no.0].asked.is_some_and(|ask| ask.wanted == Wanted::Asleep) {
            self.worker_obeys(no);
        } else if !self.take_task(no) {
            self.after(1500..=3000, Happening::WorkerAsksForWork(no));
        }
    }

    pub(super) fn worker_obeys(&mut self, no: WorkerNo) {
        let Some(ask) = self.workers[no.0].asked else { return };
        match (ask.wanted, self.workers[no.0].state) {
            // It obeys when it has finished its task.
            (Wanted::Asleep, WorkerState::Working { .. }) if ask.lazy => {}
            (Wanted::Asleep, WorkerState::Idle | WorkerState::Working { .. }) => {
                self.give_task_back(no, "given back: its worker was asked to sleep");
                self.workers[no.0].asked = None;
                self.worker_becomes(no, WorkerState::Asleep);
                self.after(8000..=30_000, Happening::WorkerIsMissed(no));
            }
            (Wanted::Awake, WorkerState::Asleep) => {
                self.workers[no.0].asked = None;
                self.worker_becomes(no, WorkerState::Idle);
                self.after(200..=2500, Happening::WorkerAsksForWork(no));
            }
            // It has left, or is already there.
            (Wanted::Awake, WorkerState::Idle | WorkerState::Working { .. })
            | (_, WorkerState::Starting | WorkerState::Asleep | WorkerState::Offline | WorkerState::Error) => {
                self.workers[no.0].asked = None;
            }
        }
    }

    /// A worker leaves: it signs off, or is not heard of any more.
    pub(super) fn worker_leaves(&mut self, no: WorkerNo, state: WorkerState, why: &str) {
        self.give_task_back(no, why);
        self.worker_becomes(no, state);
        self.workers[no.0].asked = None;
        self.after(8000..=25_000, Happening::WorkerIsMissed(no));
    }

    /// A worker that sleeps is woken, one that has left comes back.
    pub(super) fn worker_returns(&mut self, no: WorkerNo) {
        match self.workers[no.0].state {
            WorkerState::Asleep if self.workers[no.0].asked.is_none() => self.wake(no),
            WorkerState::Offline | WorkerState::Error => {
                self.worker_becomes(no, WorkerState::Starting);
                self.after(12..=40, Happening::WorkerSignsOn(no));
            }
            WorkerState::Asleep | WorkerState::Starting | WorkerState::Idle | WorkerState::Working { .. } => {}
        }
    }

    pub(super) fn wake(&mut self, no: WorkerNo) {
        self.worker_is_asked(no, Ask { wanted: Wanted::Awake, lazy: false });
        self.after(500..=3000, Happening::WorkerObeys(no));
    }

    fn give_task_back(&mut self, no: WorkerNo, why: &str) {
        if let WorkerState::Working { job, task } = self.workers[no.0].state {
            self.stop_working(no);
            self.task_becomes(job, task, TaskStatus::Queued, why);
            self.pause_if_idle(job);
        }
    }
}
