//! The simulated Manager as a web server: the lists of its API, and the images that its events announce.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::farm::{Farm, Settings, Tag};
use super::job::{Job, JobNo, Task};
use super::picture::Picture;
use super::report;
use super::worker::{Worker, WorkerState};
use farm::FarmEvent;

/// A farm that others may look at while it runs. There is none until it is started.
#[derive(Debug, Default)]
pub struct Site(Mutex<Option<Farm>>);

/// The response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Json(String),
    Svg(String),
    /// There is nothing yet (204).
    Nothing,
}

impl Site {
    /// Starts a farm in place of the one before.
    pub fn start(&self, settings: Settings) {
        *self.farm() = Some(Farm::new(settings));
    }

    /// Returns when something happens next. Until then, what the farm shows is what its events said.
    pub fn due(&self) -> Option<Duration> {
        self.farm().as_ref()?.due()
    }

    /// Lets that happen, and returns its event if it has one.
    pub fn step(&self) -> Option<FarmEvent> {
        self.farm().as_mut()?.step()?.map(|(_, event)| event)
    }

    /// Answers `GET` for a path as a Manager does. Returns `None` for what does not exist.
    pub fn answer(&self, path: &str) -> Option<Answer> {
        if let Some(api) = path.strip_prefix("/api/v3/") {
            let farm = self.farm();
            return answer(farm.as_ref()?, api);
        }
        let image = path.strip_prefix("/job-files/")?;
        let (folder, name) = image.rsplit_once('/')?;
        let (_, id) = folder.rsplit_once('/')?;
        let farm = self.farm();
        let (no, job) = find(farm.as_ref()?, id)?;
        if format!("/job-files/{folder}") != report::image_folder(job) {
            return None;
        }
        let picture = Picture { job: no.0, frame: job.image?, frames: job.frames() };
        drop(farm);
        Some(Answer::Svg(picture.draw(report::IMAGES.iter().find(|(known, _)| *known == name)?.1)))
    }

    fn farm(&self) -> MutexGuard<'_, Option<Farm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(farm: &'a Farm, id: &str) -> Option<(JobNo, &'a Job)> {
    let id: Uuid = id.parse().ok()?;
    farm.jobs.iter().find(|(_, job)| job.id == id).map(|(no, job)| (*no, job))
}

fn answer(farm: &Farm, path: &str) -> Option<Answer> {
    let segments: Vec<&str> = path.split('/').collect();
    let all = |name: &str, values: Vec<Value>| json!({ name: values });
    let body = match segments[..] {
        ["version"] => {
            let version = report::VERSION;
            json!({ "name": "Flamenco (simulated)", "version": version, "shortversion": version, "git": "-" })
        }
        ["status"] => json!({ "status": farm.status_word() }),
        ["jobs"] => all("jobs", farm.jobs.values().rev().map(job).collect()),
        ["jobs", "last-rendered"] => {
            let latest = farm.jobs.values().filter(|job| job.image.is_some()).max_by_key(|job| job.updated);
            return Some(latest.map_or(Answer::Nothing, last_rendered));
        }
        ["jobs", id] => job(find(farm, id)?.1),
        ["jobs", id, "tasks"] => {
            let tasks = &find(farm, id)?.1.tasks;
            all("tasks", tasks.iter().enumerate().map(|(index, one)| task(farm, index, one)).collect())
        }
        ["jobs", id, "last-rendered"] => {
            let job = find(farm, id)?.1;
            return Some(if job.image.is_some() { last_rendered(job) } else { Answer::Nothing });
        }
        // Logs are in the events only.
        ["tasks", _, "log"] => return Some(Answer::Nothing),
        ["worker-mgt", "workers", id] => {
            let id: Uuid = id.parse().ok()?;
            let (no, one) = farm.workers.iter().enumerate().find(|(_, worker)| worker.id == id)?;
            worker_with_details(farm, no, one)?
        }
        ["worker-mgt", "workers"] => all("workers", farm.workers.iter().filter_map(worker).collect()),
        ["worker-mgt", "tags"] => all("tags", farm.tags.iter().map(tag).collect()),
        _ => return None,
    };
    Some(Answer::Json(body.to_string()))
}

fn job(job: &Job) -> Value {
    let (completed, total) = job.steps();
    let mut body = json!({
        "id": job.id, "name": job.name, "type": job.kind.word(), "status": job.status.word(), "priority": job.priority,
        "created": job.created.to_string(), "updated": job.updated.to_string(), "activity": "", "settings": {}, "metadata": {},
        "steps_completed": completed, "steps_total": total,
    });
    if let Some(at) = job.delete_requested {
        body["delete_requested_at"] = at.to_string().into();
    }
    body
}

fn task(farm: &Farm, index: usize, task: &Task) -> Value {
    let mut body = json!({
        "id": task.id, "name": task.name, "status": task.status.word(), "priority": 50, "index_in_job": index,
        "updated": task.updated.to_string(), "activity": task.activity,
        "steps_completed": task.steps_completed, "steps_total": task.work.steps(),
    });
    if let Some(worker) = task.worker.and_then(|no| farm.workers.get(no.0)) {
        body["worker"] = json!({ "id": worker.id, "name": worker.name });
    }
    body
}

/// A worker that has not registered is unknown.
fn worker(worker: &Worker) -> Option<Value> {
    if worker.state == WorkerState::Starting && worker.last_seen.is_none() {
        return None;
    }
    let mut body = json!({
        "id": worker.id, "name": worker.name, "status": worker.state.word(), "version": report::VERSION, "can_restart": false,
    });
    if let Some(at) = worker.last_seen {
        body["last_seen"] = at.to_string().into();
    }
    if let Some(asked) = worker.asked {
        body["status_change"] = json!({ "status": asked.wanted.word(), "is_lazy": asked.lazy });
    }
    Some(body)
}

/// A worker with its tags, of which every other worker has each, and the task that it was last given.
fn worker_with_details(farm: &Farm, no: usize, one: &Worker) -> Option<Value> {
    let mut body = worker(one)?;
    let tags = farm.tags.iter().enumerate().filter(|(index, _)| (no + index).is_multiple_of(2));
    body["tags"] = tags.map(|(_, one)| tag(one)).collect();
    let given = farm.jobs.values().find_map(|job| {
        let tasks = job.tasks.iter().enumerate();
        let mut own = tasks.filter(|(_, task)| task.worker.is_some_and(|worker| worker.0 == no));
        own.find(|(_, task)| task.status.word() == "active").map(|(index, task)| (job.id, index, task))
    });
    if let Some((job, index, one)) = given {
        body["task"] = task(farm, index, one);
        body["task"]["job_id"] = job.to_string().into();
    }
    Some(body)
}

fn tag(tag: &Tag) -> Value {
    json!({ "id": tag.id, "name": tag.name, "description": tag.description })
}

fn last_rendered(job: &Job) -> Answer {
    let suffixes = report::IMAGES.map(|(name, _)| name);
    Answer::Json(json!({ "base": report::image_folder(job), "suffixes": suffixes }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(site: &Site, path: &str) -> Value {
        match site.answer(path) {
            Some(Answer::Json(text)) => serde_json::from_str(&text).unwrap(),
            answer => panic!("{path}: {answer:?}"),
        }
    }

    fn site_after(seconds: u64) -> (Site, Vec<FarmEvent>) {
        let site = Site::default();
        assert_eq!((site.answer("/api/v3/jobs"), site.due()), (None, None));
        site.start(Settings { workers: 6, jobs: 4, seed: 7, start: "2026-01-01T08:00:00Z".parse().unwrap() });
        let mut events = Vec::new();
        while site.due().unwrap() < Duration::from_secs(seconds) {
            events.extend(site.step());
        }
        (site, events)
    }

    #[test]
    fn what_events_announce_is_there() {
        let (site, events) = site_after(60);
        let mut images = 0;
        for event in events {
            let FarmEvent::LastRendered(image) = event else { continue };
            let Some(id) = json_of(&site, "/api/v3/jobs")["jobs"].as_array().unwrap().iter().find_map(|job| {
                job["id"].as_str().filter(|id| *id == image.fields.job_id.to_string()).map(str::to_owned)
            }) else {
                continue;
            };
            let at = json_of(&site, &format!("/api/v3/jobs/{id}/last-rendered"));
            assert_eq!(at["base"], image.fields.thumbnail.base.as_str());
            for suffix in image.fields.thumbnail.suffixes.iter() {
                let path = format!("{}/{suffix}", image.fields.thumbnail.base);
                assert!(matches!(site.answer(&path), Some(Answer::Svg(_))), "{path}");
                images += 1;
            }
        }
        assert!(images > 30, "{images} images");
        for path in [
            "/job-files/x",
            "/job-files/job-0000/4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21/last-rendered.jpg",
            "/api/v3/",
            "/api/v4/jobs",
            "/",
        ] {
            assert_eq!(site.answer(path), None, "{path}");
        }
    }

    #[test]
    fn lists_agree_with_events() {
        let (site, events) = site_after(45);
        let mut jobs = std::collections::BTreeMap::new();
        for event in &events {
            if let FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job) = event {
                let fields = &job.fields;
                jobs.insert(
                    fields.id.to_string(),
                    (fields.status.to_string(), fields.steps_completed, fields.was_deleted),
                );
            }
        }
        jobs.retain(|_, (.., was_deleted)| !*was_deleted);
        let listed = json_of(&site, "/api/v3/jobs");
        let listed = listed["jobs"].as_array().unwrap();
        assert_eq!(listed.len(), jobs.len());
        for job in listed {
            let id = job["id"].as_str().unwrap();
            assert_eq!(
                (job["status"].as_str(), job["steps_completed"].as_i64()),
                (Some(jobs[id].0.as_str()), jobs[id].1)
            );
            assert_eq!(json_of(&site, &format!("/api/v3/jobs/{id}")), *job);
            assert!(!json_of(&site, &format!("/api/v3/jobs/{id}/tasks"))["tasks"].as_array().unwrap().is_empty());
        }
        let workers = json_of(&site, "/api/v3/worker-mgt/workers");
        let workers = workers["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 6);
        let details: Vec<Value> = workers
            .iter()
            .map(|worker| json_of(&site, &format!("/api/v3/worker-mgt/workers/{}", worker["id"].as_str().unwrap())))
            .collect();
        assert!(details.iter().zip(workers).all(|(one, worker)| one["name"] == worker["name"]));
        assert!(details.iter().any(|one| one["tags"][0]["name"].is_string()));
        assert!(details.iter().any(|one| one["task"]["status"] == "active"));
        assert!(!json_of(&site, "/api/v3/worker-mgt/tags")["tags"].as_array().unwrap().is_empty());
        assert_eq!(json_of(&site, "/api/v3/version")["version"], "3.9-simulated");
        assert_eq!(json_of(&site, "/api/v3/status")["status"], "active");
    }

    #[test]
    fn the_first_ten_seconds_tell_a_story() {
        for seed in 0..20 {
            let site = Site::default();
            site.start(Settings { workers: 6, jobs: 4, seed, start: "2026-01-01T08:00:00Z".parse().unwrap() });
            let mut events = Vec::new();
            while let Some(due) = site.due().filter(|due| *due < Duration::from_secs(10)) {
                events.extend(site.step().map(|event| (due, event)));
            }
            let count = |is: fn(&FarmEvent) -> bool| events.iter().filter(|(_, event)| is(event)).count();
            let images = count(|event| matches!(event, FarmEvent::LastRendered(_)));
            let jobs = count(|event| matches!(event, FarmEvent::NewJob(_)));
            let completed =
                count(|event| matches!(event, FarmEvent::JobUpdate(job) if job.fields.status.as_str() == "completed"));
            let awake = count(
                |event| matches!(event, FarmEvent::WorkerUpdate(worker) if worker.fields.status.as_str() == "awake"),
            );
            assert!(
                images >= 12 && completed >= 1 && awake >= 6 && jobs >= 3,
                "seed {seed}: {images} {completed} {awake} {jobs}"
            );
            let first = events.iter().find(|(_, event)| matches!(event, FarmEvent::LastRendered(_))).unwrap().0;
            assert!(first < Duration::from_secs(4), "seed {seed}: {first:?}");
        }
    }
}
