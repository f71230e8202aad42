//! Keeps actors and tasks alive across panics, actors with their address and their mailbox.
//!
//! `actix::Supervisor` restarts an actor whose context was stopped; a panic in a handler ends its
//! task and loses the mailbox. Here the actor's own future is polled inside `catch_unwind`. After a
//! panic the actor gets `restarting`, and its `started` runs again before the next message. There
//! it repairs its state and continues with the command in hand.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context, Supervised};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use tokio::sync::mpsc;

use crate::{clock, stats::Stats};

/// The number of restarts within a time after which the whole process gives up and exits.
#[derive(Debug, Clone, Copy)]
pub struct RestartBudget {
    pub restarts: usize,
    pub within: Duration,
}

impl Default for RestartBudget {
    fn default() -> Self {
        Self { restarts: 10, within: Duration::from_secs(10) }
    }
}

/// A part of the server that cannot be kept alive.
#[derive(Debug, thiserror::Error)]
pub enum GivenUp {
    #[error("{name} failed more than {} times within {} s and is not restarted again: see the log for its panics", budget.restarts, budget.within.as_secs())]
    KeepsFailing { name: &'static str, budget: RestartBudget },
    #[error("{0} has ended and cannot be restarted: see the log for the reason")]
    Ended(&'static str),
}

/// Starts actors and tasks, and supervises them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub budget: RestartBudget,
    pub stats: &'static Stats,
    /// Notifies the owner of the process that it must exit.
    pub given_up: mpsc::Sender<GivenUp>,
    /// Set once the server shuts down: a task that ends after that is not a failure.
    pub stopping: Arc<AtomicBool>,
}

impl Supervisor {
    /// Starts `actor` on the current thread. `name` appears in the log.
    pub fn start<A>(&self, name: &'static str, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let supervisor = self.clone();
        let mut running = Context::new().into_future(actor);
        let address = running.address();
        let mut panics = Panics::default();
        self.run_for_good(
            name,
            poll_fn(move |task| {
                loop {
                    if let Ok(poll) = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut running).poll(task))) {
                        return poll;
                    }
                    if !supervisor.may_restart(name, &mut panics) || !running.restart() {
                        return Poll::Ready(());
                    }
                }
            }),
        );
        address
    }

    /// Runs a task on the current thread and restarts it after a panic, as [`survive`](Self::survive)
    /// does. If the task ends with its thread while the server runs, the process exits.
    pub fn keep<F>(&self, name: &'static str, start: impl FnMut(bool) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.run(name, self.survive(name, start));
    }

    /// Restarts a task after each panic, with `true` as argument, until it ends by itself.
    pub fn survive<F>(
        &self,
        name: &'static str,
        mut start: impl FnMut(bool) -> F + 'static,
    ) -> LocalBoxFuture<'static, ()>
    where
        F: Future<Output = ()> + 'static,
    {
        self.clone().survive_boxed(name, Box::new(move |is_restart| start(is_restart).boxed_local())).boxed_local()
    }

    // Boxed, because few tasks are kept, and each would be compiled with all that spawns and restarts it.
    async fn survive_boxed(self, name: &'static str, mut start: Box<dyn FnMut(bool) -> LocalBoxFuture<'static, ()>>) {
        let mut panics = Panics::default();
        let mut is_restart = false;
        while AssertUnwindSafe(async { start(is_restart).await }).catch_unwind().await.is_err()
            && self.may_restart(name, &mut panics)
        {
            is_restart = true;
        }
    }

    /// Runs a task that cannot be restarted. If it panics or ends with its thread, the process
    /// exits.
    pub fn run(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.run_boxed(name, task.boxed_local(), true);
    }

    /// Runs a task that never ends while the server runs. If it does, the process exits.
    pub fn run_for_good(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.run_boxed(name, task.boxed_local(), false);
    }

    fn run_boxed(&self, name: &'static str, task: LocalBoxFuture<'static, ()>, may_end: bool) {
        let alive = Alive { name, supervisor: self.clone(), is_done: false };
        actix_rt::spawn(async move {
            // Captures the whole guard, not only the field.
            let mut alive = alive;
            task.await;
            alive.is_done = may_end;
        });
    }

    fn may_restart(&self, name: &'static str, panics: &mut Panics) -> bool {
        self.stats.restarts.add(1);
        if panics.exceed(self.budget, clock::now()) {
            self.give_up(GivenUp::KeepsFailing { name, budget: self.budget });
            return false;
        }
        log::error!("{name} failed and is restarted");
        true
    }

    /// The channel holds one message: for any later failure the process is already exiting.
    fn give_up(&self, given_up: GivenUp) {
        if !self.stopping.load(Ordering::Relaxed) {
            let _ = self.given_up.try_send(given_up);
        }
    }
}

/// A running task. If it is dropped before it is done, it panicked, or its thread ended.
struct Alive {
    name: &'static str,
    supervisor: Supervisor,
    is_done: bool,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if !self.is_done {
            self.supervisor.give_up(GivenUp::Ended(self.name));
        }
    }
}

#[derive(Debug, Default)]
struct Panics(VecDeque<Instant>);

impl Panics {
    /// Counts one restart. Returns whether that exceeds the budget.
    fn exceed(&mut self, budget: RestartBudget, now: Instant) -> bool {
        self.0.push_back(now);
        while self.0.front().is_some_and(|&at| now.saturating_duration_since(at) > budget.within) {
            self.0.pop_front();
        }
        self.0.len() > budget.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(restarts: usize) -> (Supervisor, mpsc::Receiver<GivenUp>) {
        let (given_up, failure) = mpsc::channel(1);
        let budget = RestartBudget { restarts, within: Duration::from_secs(60) };
        let stopping = Arc::default();
        (Supervisor { budget, stats: Stats::leak(clock::now()), given_up, stopping }, failure)
    }

    #[actix_rt::test]
    async fn a_task_is_started_again_until_it_fails_too_often() {
        let (supervisor, mut failure) = supervisor(2);
        let (starts, mut started) = mpsc::channel(10);
        supervisor.keep("a task", move |is_restart| {
            let starts = starts.clone();
            async move {
                starts.try_send(is_restart).unwrap();
                panic!("it fails each time");
            }
        });
        let given_up = failure.recv().await.unwrap();
        assert_eq!(
            given_up.to_string(),
            "a task failed more than 2 times within 60 s and is not restarted again: see the log for its panics"
        );
        let mut all = Vec::new();
        while let Ok(is_restart) = started.try_recv() {
            all.push(is_restart);
        }
        assert_eq!(all, [false, true, true]);
        assert_eq!(supervisor.stats.restarts.get(), 3);
    }

    #[actix_rt::test]
    async fn a_task_that_ends_with_its_thread_ends_the_process() {
        let (supervisor, mut failure) = supervisor(2);
        let other = supervisor.clone();
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move { other.keep("a task", |_| std::future::pending()) });
        });
        assert_eq!(
            failure.recv().await.unwrap().to_string(),
            "a task has ended and cannot be restarted: see the log for the reason"
        );
    }

    #[actix_rt::test]
    async fn a_task_that_cannot_be_restarted_ends_the_process_unless_it_is_shutting_down() {
        let (supervisor, mut failure) = supervisor(2);
        supervisor.run("a task", async { panic!("it fails") });
        assert!(matches!(failure.recv().await, Some(GivenUp::Ended("a task"))));
        supervisor.run_for_good("a listener", async {});
        assert!(matches!(failure.recv().await, Some(GivenUp::Ended("a listener"))));
        supervisor.run("a task", async {});
        supervisor.stopping.store(true, Ordering::Relaxed);
        supervisor.run("a task", async { panic!("it fails") });
        supervisor.run_for_good("a listener", async {});
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(failure.try_recv().is_err());
    }

    #[test]
    fn budget_counts_only_recent_panics() {
        let budget = RestartBudget { restarts: 2, within: Duration::from_secs(10) };
        let start = clock::now();
        let mut panics = Panics::default();
        let exceeded: Vec<_> =
            [0, 9, 11, 12, 13].map(|second| panics.exceed(budget, start + Duration::from_secs(second))).into();
        assert_eq!(exceeded, [false, false, false, true, true]);
    }
}
