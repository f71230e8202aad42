//! The jobs and tasks that the Manager is known to have.

use crate::{
    farm::{JobId, Room, RoomEntity, TaskId},
    ingest::recent_map::RecentMap,
};

/// The maximum number of jobs, and of tasks, that are remembered. A forgotten one is looked up
/// again when it is needed.
const REMEMBERED: usize = 50_000;

/// What events, lists and look-ups have shown.
#[derive(Debug, Clone)]
pub(super) struct Known {
    jobs: RecentMap<JobId, ()>,
    tasks: RecentMap<TaskId, ()>,
}

impl Default for Known {
    fn default() -> Self {
        Self { jobs: RecentMap::new(REMEMBERED), tasks: RecentMap::new(REMEMBERED) }
    }
}

impl Known {
    /// Returns whether the room belongs to a known job or task, or exists on every farm.
    pub(super) fn has(&self, room: Room) -> bool {
        match room.entity() {
            Some(RoomEntity::Job(job)) => self.jobs.get(&job).is_some(),
            Some(RoomEntity::TaskLog(task)) => self.tasks.get(&task).is_some(),
            None => true,
        }
    }

    /// Records a room's job or task. Returns whether it is new.
    pub(super) fn add(&mut self, room: Room) -> bool {
        let is_new = !self.has(room);
        match room.entity() {
            Some(RoomEntity::Job(job)) if is_new => self.jobs.set(job, ()),
            Some(RoomEntity::TaskLog(task)) if is_new => self.tasks.set(task, ()),
            Some(RoomEntity::Job(_) | RoomEntity::TaskLog(_)) | None => {}
        }
        is_new
    }

    pub(super) fn remove(&mut self, room: Room) {
        match room.entity() {
            Some(RoomEntity::Job(job)) => self.jobs.remove(&job),
            Some(RoomEntity::TaskLog(task)) => self.tasks.remove(&task),
            None => {}
        }
    }
}
