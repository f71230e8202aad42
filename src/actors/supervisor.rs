//! Keeps an actor alive across panics, with its address and its mailbox.
//!
//! `actix::Supervisor` restarts an actor whose context was stopped; a panic in a handler ends its task and loses the mailbox.
//! Here the actor's own future is polled inside `catch_unwind`. After a panic the actor is told to restart, and its `started`
//! runs again before the next message: that is where it repairs its state and goes on with what it had in hand.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context, Supervised};
use tokio::sync::mpsc;

use crate::{clock, stats::Stats};

/// How often actors may be restarted before the whole process gives up: somebody else must look, or start it anew.
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

/// An actor that cannot be kept alive.
#[derive(Debug, thiserror::Error)]
#[error("{actor} failed more than {} times within {} s and is given up: see the log for its panics", budget.restarts, budget.within.as_secs())]
pub struct GivenUp {
    actor: &'static str,
    budget: RestartBudget,
}

/// Starts actors and watches over them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub budget: RestartBudget,
    pub stats: &'static Stats,
    /// Where the owner of the process learns that it must end.
    pub given_up: mpsc::Sender<GivenUp>,
}

impl Supervisor {
    /// Starts `actor` on the current thread. `name` is for the log.
    pub fn start<A>(&self, name: &'static str, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let supervisor = self.clone();
        let mut running = Context::new().into_future(actor);
        let address = running.address();
        actix_rt::spawn(async move {
            let mut panics = Panics::default();
            poll_fn(|task| {
                loop {
                    if let Ok(poll) = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut running).poll(task))) {
                        return poll;
                    }
                    supervisor.stats.restarts.add(1);
                    if panics.exceed(supervisor.budget, clock::now()) || !running.restart() {
                        // The channel holds one: whoever comes second finds the process ending already.
                        let _ = supervisor.given_up.try_send(GivenUp { actor: name, budget: supervisor.budget });
                        return Poll::Ready(());
                    }
                    log::error!("{name} failed and is restarted");
                }
            })
            .await;
        });
        address
    }
}

#[derive(Debug, Default)]
struct Panics(VecDeque<Instant>);

impl Panics {
    /// Counts one more; returns whether these are more than the budget allows.
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
