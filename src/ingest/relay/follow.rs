//! Follows task logs over HTTP, for Managers that do not send them.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    future::pending,
    ops::RangeInclusive,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{
    RelayContext,
    api::{Api, ApiError, Part},
    note::Note,
    tail::{Position, Progress, Tail},
};
use crate::{
    clock,
    farm::{FarmEvent, Payload, TaskId, TaskLogUpdate},
    slots::Shrink,
};

/// The shortest pause between two reads of a log, for a task that is being updated.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A log is read again after a tenth of the time for which it has not grown, within these bounds.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
const PART_OF_SILENCE: u32 = 10;

/// The assumed quiet time of a log that is not among the first rooms of any session.
const ASSUMED_SILENCE: Duration = Duration::from_secs(300);

/// The pause between any two reads. If more logs are due, each is read late.
const SPACING: Duration = Duration::from_millis(5);

/// The maximum number of reads in flight.
const MAX_READS: usize = 4;

/// The maximum number of reports that the relay has not taken yet.
const MAX_REPORTS: usize = 64;

/// The followed logs, each with a task of its own.
pub(super) struct Followers {
    context: Rc<Context>,
    logs: HashMap<TaskId, Follower>,
    /// The logs that could not be read at the last attempt.
    failing: HashSet<TaskId>,
    reports: mpsc::Receiver<(TaskId, Report)>,
}

/// The state that all followers share.
struct Context {
    shared: Rc<RelayContext>,
    permits: Semaphore,
    /// When the next read may begin.
    next_read: Cell<Instant>,
    reports: mpsc::Sender<(TaskId, Report)>,
}

struct Follower {
    wake: Rc<Notify>,
    task: JoinHandle<()>,
}

/// From where a log is published.
#[derive(Debug)]
pub(super) enum Start {
    /// From its end.
    End,
    /// From its beginning: it did not exist before.
    Beginning,
    /// From where another server ended.
    After(Position),
}

/// The state of a log, reported when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Every line from now on is published.
    Reading,
    /// The log cannot be read. The read is retried.
    Failing,
    /// The Manager does not have the task. The read is not retried.
    Missing,
}

impl Followers {
    pub(super) fn new(shared: Rc<RelayContext>) -> Self {
        let (sender, reports) = mpsc::channel(MAX_REPORTS);
        let permits = Semaphore::new(MAX_READS);
        let context = Rc::new(Context { shared, permits, next_read: Cell::new(clock::now()), reports: sender });
        Self { context, logs: HashMap::new(), failing: HashSet::new(), reports }
    }

    /// Publishes each line that is added to a log after `start`. A log that is not `urgent` is read
    /// rarely until it grows.
    pub(super) fn follow(&mut self, task: TaskId, start: Start, is_urgent: bool) {
        let context = &self.context;
        self.logs.entry(task).or_insert_with(|| {
            let wake = Rc::new(Notify::new());
            let silence = if is_urgent { Duration::ZERO } else { ASSUMED_SILENCE };
            let tail = match start {
                Start::End => None,
                Start::Beginning => Some(Tail::at_end(0)),
                Start::After(position) => Some(Tail::after(position)),
            };
            let mut log = tail.map(|tail| Log { path: None, tail });
            let (follower, woken) = (context.clone(), wake.clone());
            let follow = move |_| follow(follower.clone(), task, woken.clone(), log.take(), silence);
            let task = actix_rt::spawn(context.shared.hub.supervisor.survive("follower of a log", follow));
            Follower { wake, task }
        });
    }

    pub(super) fn leave(&mut self, task: TaskId) {
        if self.logs.remove(&task).is_some() {
            self.abandon(vec![task]);
        }
        self.logs.shrink_if_sparse();
        self.failing.remove(&task);
    }

    /// Notes that these logs are not followed any more, so that no other server goes on with them.
    pub(super) fn abandon(&self, tasks: Vec<TaskId>) {
        let shared = self.context.shared.clone();
        actix_rt::spawn(async move {
            shared.publish_noted(Vec::new(), Some(&Note::Left(tasks.into_iter().map(Uuid::from).collect()))).await
        });
    }

    /// Makes a log due soon, because its task was updated.
    pub(super) fn wake(&self, task: TaskId) {
        if let Some(follower) = self.logs.get(&task) {
            follower.wake.notify_one();
        }
    }

    /// Makes the logs due soon that could not be read at the last attempt.
    pub(super) fn wake_failing(&self) {
        self.failing.iter().for_each(|&task| self.wake(task));
    }

    /// Returns how many logs could not be read at the last attempt.
    pub(super) fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Waits for the next report of a followed log.
    pub(super) async fn report(&mut self) -> (TaskId, Report) {
        loop {
            let Some((task, report)) = self.reports.recv().await else { pending().await };
            if !self.logs.contains_key(&task) {
                continue;
            }
            match report {
                Report::Failing => drop(self.failing.insert(task)),
                Report::Reading | Report::Missing => drop(self.failing.remove(&task)),
            }
            return (task, report);
        }
    }
}

impl Context {
    /// Waits for this read's turn.
    async fn pace(&self) {
        let at = self.next_read.get().max(clock::now());
        self.next_read.set(at + SPACING);
        actix_rt::time::sleep_until(at.into()).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(context: Rc<Context>, task: TaskId, wake: Rc<Notify>, mut log: Option<Log>, silence: Duration) {
    let now = clock::now();
    let mut grown_at = now.checked_sub(silence).unwrap_or(now);
    let mut reported = None;
    let mut noted = None;
    loop {
        context.pace().await;
        let progress = {
            let _permit = context.permits.acquire().await;
            read_on(&context.shared.api, task, &mut log).await
        };
        let (report, has_more) = match progress {
            Ok(Progress { chunks, has_more }) => {
                if !chunks.is_empty() {
                    grown_at = clock::now();
                }
                let event = |log| FarmEvent::TaskLogUpdate(Payload::new(TaskLogUpdate { log, task_id: task }));
                let position = log.as_ref().and_then(|log| log.tail.position());
                let note = position
                    .clone()
                    .filter(|_| position != noted)
                    .map(|position| Note::Log { task: task.into(), position });
                context.shared.publish_noted(chunks.into_iter().map(event).collect(), note.as_ref()).await;
                noted = position;
                (Report::Reading, has_more)
            }
            Err(error) if error.is_not_found() => (Report::Missing, false),
            Err(error) => {
                log::debug!("the log of task {task} cannot be read: {error}");
                (Report::Failing, false)
            }
        };
        if reported.replace(report) != Some(report) {
            // Without a receiver the relay is ending.
            let _ = context.reports.send((task, report)).await;
        }
        if report == Report::Missing {
            return;
        }
        if has_more {
            continue;
        }
        actix_rt::time::sleep(MIN_INTERVAL).await;
        let silence = clock::now().saturating_duration_since(grown_at);
        let rest = interval(silence) - MIN_INTERVAL;
        if actix_rt::time::timeout(rest, wake.notified()).await.is_ok() && report == Report::Reading {
            grown_at = clock::now();
        }
    }
}

/// Returns the pause before the next read of a log that has not grown for this long.
fn interval(silence: Duration) -> Duration {
    (silence / PART_OF_SILENCE).clamp(*INTERVAL.start(), *INTERVAL.end())
}

/// The location of a log, once known, and how far it was read.
struct Log {
    path: Option<String>,
    tail: Tail,
}

async fn read_on(api: &Api, task: TaskId, log: &mut Option<Log>) -> Result<Progress, ApiError> {
    let log = match log {
        Some(log) => log,
        None => {
            let found = api.task_log(task).await?;
            let tail = Tail::at_end(found.as_ref().map_or(0, |found| found.size));
            log.insert(Log { path: found.map(|found| found.path), tail })
        }
    };
    let Some(path) = &log.path else {
        log.path = api.task_log(task).await?.map(|found| found.path);
        return Ok(Progress { chunks: Vec::new(), has_more: log.path.is_some() });
    };
    let (from, length) = log.tail.next_read();
    Ok(match api.part(path, from, length).await? {
        Part::Bytes(bytes) => log.tail.take(&bytes),
        Part::PastEnd => log.tail.ended_before(),
        Part::Missing => {
            let progress = log.tail.ended_before();
            log.path = None;
            Progress { has_more: false, ..progress }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_grows_is_read_each_second_and_a_quiet_one_less_and_less_often() {
        let waits = [0, 5, 10, 20, 100, 299, 300, 100_000].map(|silence| interval(Duration::from_secs(silence)));
        assert_eq!(waits.map(|wait| wait.as_millis()), [1000, 1000, 1000, 2000, 10_000, 29_900, 30_000, 30_000]);
    }
}
