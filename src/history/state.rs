//! The last known state of each job, task, worker and tag, and of the farm.

use std::{collections::HashMap, sync::Arc};

use super::Offset;
use crate::{
    farm::{FarmEvent, JobId, Room, Subject, TagId, TaskId, WorkerId},
    slots::Shrink,
};

/// The states in which a job changes no more by itself.
const FINISHED: [&str; 3] = ["completed", "canceled", "failed"];

/// An update that was published.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) offset: Offset,
    pub(super) event: Arc<FarmEvent>,
}

impl Known {
    pub(super) fn new(offset: Offset, event: &Arc<FarmEvent>) -> Self {
        Self { offset, event: event.clone() }
    }
}

/// The last update of each entity that is not deleted.
#[derive(Debug)]
pub(super) struct FarmState {
    max: usize,
    jobs: HashMap<JobId, JobState>,
    /// Tasks of all jobs.
    tasks: usize,
    workers: HashMap<WorkerId, Known>,
    tags: HashMap<TagId, Known>,
    farm: Option<Known>,
}

#[derive(Debug, Default)]
struct JobState {
    update: Option<Known>,
    image: Option<Known>,
    tasks: HashMap<TaskId, Known>,
    /// The offset of its last update, or of one of its tasks.
    newest: Offset,
}

impl JobState {
    fn is_finished(&self) -> bool {
        match self.update.as_ref().map(|known| &*known.event) {
            Some(FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job)) => FINISHED.contains(&job.fields.status.as_str()),
            Some(_) | None => false,
        }
    }
}

impl FarmState {
    /// `max` is the maximum number of entities.
    pub(super) fn new(max: usize) -> Self {
        Self { max, jobs: HashMap::new(), tasks: 0, workers: HashMap::new(), tags: HashMap::new(), farm: None }
    }

    pub(super) fn entities(&self) -> usize {
        self.jobs.len() + self.tasks + self.workers.len() + self.tags.len()
    }

    pub(super) fn learn(&mut self, offset: Offset, event: &Arc<FarmEvent>) {
        if self.max == 0 {
            return;
        }
        let known = Known::new(offset, event);
        match event.subject() {
            Some((Subject::Job(id), true)) => self.job(id, offset).update = Some(known),
            Some((Subject::Job(id), false)) => self.forget_job(id),
            Some((Subject::Task { id, job }, _)) => {
                let is_new = self.job(job, offset).tasks.insert(id, known).is_none();
                self.tasks += usize::from(is_new);
            }
            Some((Subject::Image(job), _)) => self.job(job, offset).image = Some(known),
            Some((Subject::Worker(id), true)) => drop(self.workers.insert(id, known)),
            Some((Subject::Worker(id), false)) => drop(self.workers.remove(&id)),
            Some((Subject::Tag(id), true)) => drop(self.tags.insert(id, known)),
            Some((Subject::Tag(id), false)) => drop(self.tags.remove(&id)),
            Some((Subject::Farm, _)) => self.farm = Some(known),
            None => return,
        }
        if self.entities() > self.max {
            self.shrink();
        }
    }

    /// Forgets the tasks of a job, whose updates no longer arrive.
    pub(super) fn forget_tasks(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            self.tasks -= std::mem::take(&mut job.tasks).len();
        }
    }

    fn job(&mut self, id: JobId, offset: Offset) -> &mut JobState {
        let job = self.jobs.entry(id).or_default();
        job.newest = offset;
        job
    }

    fn forget_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.tasks -= job.tasks.len();
            self.jobs.shrink_if_sparse();
        }
    }

    /// Forgets the oldest finished jobs, then the oldest of the others, then workers and tags; more than
    /// it must, so that it is not called for every event.
    fn shrink(&mut self) {
        let goal = self.max - self.max / 16;
        let mut jobs: Vec<_> = self.jobs.iter().map(|(&id, job)| (!job.is_finished(), job.newest, id)).collect();
        jobs.sort_unstable();
        for (_, _, id) in jobs {
            if self.entities() <= goal {
                return;
            }
            self.forget_job(id);
        }
        let excess = self.entities().saturating_sub(goal);
        let workers: Vec<_> = oldest(&self.workers, excess);
        workers.iter().for_each(|id| drop(self.workers.remove(id)));
        let tags: Vec<_> = oldest(&self.tags, excess - workers.len());
        tags.iter().for_each(|id| drop(self.tags.remove(id)));
    }

    /// Returns what is known of these rooms, in no particular order; with the farm's status if
    /// `with_farm` says so.
    pub(super) fn of_rooms(&self, rooms: &[Room], with_farm: bool) -> Vec<Known> {
        let mut known: Vec<Known> = self.farm.iter().filter(|_| with_farm).cloned().collect();
        let mut images: HashMap<JobId, &Known> = HashMap::new();
        for room in rooms {
            match room {
                Room::Jobs => known.extend(self.jobs.values().filter_map(|job| job.update.clone())),
                Room::Workers => known.extend(self.workers.values().cloned()),
                Room::WorkerTags => known.extend(self.tags.values().cloned()),
                Room::LastRendered => {
                    images.extend(self.jobs.iter().filter_map(|(&id, job)| Some((id, job.image.as_ref()?))));
                }
                Room::Job(id) => {
                    let Some(job) = self.jobs.get(id) else { continue };
                    known.extend(job.tasks.values().cloned());
                    images.extend(job.image.as_ref().map(|image| (*id, image)));
                }
                Room::TaskLog(_) | Room::Chat => {}
            }
        }
        known.extend(images.into_values().cloned());
        known
    }
}

fn oldest<K: Copy + Ord>(map: &HashMap<K, Known>, count: usize) -> Vec<K> {
    let mut all: Vec<_> = map.iter().map(|(&id, known)| (known.offset, id)).collect();
    all.sort_unstable();
    all.into_iter().take(count).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::EventKind;

    fn id(number: u32) -> String {
        format!("4b2c1f0e-7c3f-4f0f-9a53-{number:012x}")
    }

    fn job(number: u32, status: &str) -> Arc<FarmEvent> {
        let json = format!(
            r#"{{"id":"{}","priority":50,"refresh_tasks":false,"status":"{status}","type":"t","updated":"2026-01-01T00:00:00Z"}}"#,
            id(number)
        );
        Arc::new(FarmEvent::parse(EventKind::JobUpdate, &json).unwrap())
    }

    fn deleted(number: u32) -> Arc<FarmEvent> {
        let json = format!(
            r#"{{"id":"{}","priority":0,"refresh_tasks":false,"status":"","type":"","updated":"0001-01-01T00:00:00Z","was_deleted":true}}"#,
            id(number)
        );
        Arc::new(FarmEvent::parse(EventKind::JobUpdate, &json).unwrap())
    }

    fn task(number: u32, of_job: u32) -> Arc<FarmEvent> {
        let json = format!(
            r#"{{"activity":"","id":"{}","job_id":"{}","name":"","status":"active","updated":"2026-01-01T00:00:00Z"}}"#,
            id(number),
            id(of_job)
        );
        Arc::new(FarmEvent::parse(EventKind::TaskUpdate, &json).unwrap())
    }

    fn offsets(state: &FarmState, room: Room) -> Vec<Offset> {
        let mut offsets: Vec<_> = state.of_rooms(&[room], false).iter().map(|known| known.offset).collect();
        offsets.sort_unstable();
        offsets
    }

    #[test]
    fn only_the_last_state_of_what_exists_is_kept() {
        let mut state = FarmState::new(100);
        let events = [job(1, "active"), job(2, "queued"), job(1, "completed"), task(7, 1), task(8, 1), task(7, 1)];
        for (offset, event) in (1..).zip(&events) {
            state.learn(offset, event);
        }
        assert_eq!(offsets(&state, Room::Jobs), [2, 3]);
        let room = Room::Job(id(1).parse().unwrap());
        assert_eq!(offsets(&state, room), [5, 6]);
        assert_eq!(state.entities(), 4);
        state.learn(7, &deleted(1));
        assert_eq!((offsets(&state, Room::Jobs), offsets(&state, room)), (vec![2], vec![]));
        assert_eq!(state.entities(), 1);
    }

    #[test]
    fn the_oldest_finished_jobs_leave_first() {
        let mut state = FarmState::new(32);
        for number in 1..=40 {
            let status = if number % 2 == 0 { "completed" } else { "active" };
            state.learn(u64::from(number), &job(number, status));
            assert!(state.entities() <= 32);
        }
        let kept = offsets(&state, Room::Jobs);
        let active = kept.iter().filter(|offset| *offset % 2 == 1).count();
        assert_eq!(active, 20, "those that go on are kept: {kept:?}");
        assert!(!kept.contains(&2) && kept.contains(&40));
        state.learn(100, &task(1, 999));
        for number in 0..100 {
            state.learn(101 + u64::from(number), &task(number, 41));
        }
        assert!(state.entities() <= 32, "a single job may be too much");
    }
}
