//! Follows task logs over HTTP, for Managers that do not send them.

use std::{collections::HashMap, rc::Rc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

use super::{
    Shared,
    api::{Api, ApiError, Part},
    tail::{Progress, Tail},
};
use crate::farm::{FarmEvent, Payload, Room, TaskId, TaskLogUpdate};

/// How often a log is looked at when nothing says that its task goes on.
const INTERVAL: Duration = Duration::from_secs(1);

/// A task that goes on all the time is looked at no more often than this.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Logs that are looked at at the same time.
const MAX_READS: usize = 4;

/// The logs that are followed, each by a task of its own.
pub(super) struct Followers {
    shared: Rc<Shared>,
    permits: Rc<Semaphore>,
    logs: HashMap<TaskId, Follower>,
}

struct Follower {
    wake: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Followers {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, permits: Rc::new(Semaphore::new(MAX_READS)), logs: HashMap::new() }
    }

    /// Tells the log's room of every line that comes from now on.
    pub(super) fn follow(&mut self, task: TaskId) {
        let (shared, permits) = (&self.shared, &self.permits);
        self.logs.entry(task).or_insert_with(|| {
            let wake = Rc::new(Notify::new());
            let follow = follow(shared.clone(), permits.clone(), task, wake.clone());
            Follower { wake, task: actix_rt::spawn(follow) }
        });
    }

    pub(super) fn leave(&mut self, task: TaskId) {
        self.logs.remove(&task);
    }

    /// The task has gone on: its log is worth a look.
    pub(super) fn wake(&self, task: TaskId) {
        if let Some(follower) = self.logs.get(&task) {
            follower.wake.notify_one();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(shared: Rc<Shared>, permits: Rc<Semaphore>, task: TaskId, wake: Rc<Notify>) {
    let mut log = None;
    loop {
        let progress = {
            let _permit = permits.acquire().await;
            read_on(&shared.api, task, &mut log).await
        };
        match progress {
            Ok(Progress { chunks, has_more }) => {
                let event = |log| FarmEvent::TaskLogUpdate(Payload::new(TaskLogUpdate { log, task_id: task }));
                shared.publish(chunks.into_iter().map(event).collect()).await;
                shared.interest.set_supplied(Room::TaskLog(task), true);
                if has_more {
                    continue;
                }
            }
            Err(error) => log::debug!("the log of task {task} cannot be read: {error}"),
        }
        actix_rt::time::sleep(MIN_INTERVAL).await;
        // Either way it is time to look.
        let _ = actix_rt::time::timeout(INTERVAL - MIN_INTERVAL, wake.notified()).await;
    }
}

/// Where a log is, once that is known, and how far it was read.
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
