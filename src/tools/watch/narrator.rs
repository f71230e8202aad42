//! Formats events of the farm as lines.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use serde_json::value::RawValue;

use super::paint::{ALARM, BOLD, DIM, NEWS, bar, paint, state};
use super::text::plain;
use client::Address;
use farm::json::FromJson;
use farm::{
    ChatMessage, EventKind, FarmStatusReport, FieldError, JobId, JobUpdate, LastRenderedUpdate, LifeCycle, Problem,
    Status, TagId, TaskId, TaskLogUpdate, TaskUpdate, WorkerTagUpdate, WorkerUpdate,
};

/// Longest name, activity or description that is shown, in characters.
const MAX_NAME: usize = 80;
/// Longest line of a log or of the chat that is shown.
const MAX_LINE: usize = 1000;
/// How much is shown of an event of which nothing is known.
const MAX_RAW: usize = 200;
/// So many names of each kind are remembered.
const MAX_NAMES: usize = 10_000;

/// Formats events one by one, and remembers the names of jobs, tasks and workers.
pub(super) struct Narrator {
    /// `None` for events that come from an MQTT broker.
    address: Option<Address>,
    jobs: Names<JobId>,
    tasks: Names<TaskId>,
    tags: Names<TagId>,
}

struct Names<Id>(HashMap<Id, String>);

impl Narrator {
    /// One that knows nothing yet; images are shown as links to `address`.
    pub(super) fn new(address: Option<Address>) -> Self {
        Self { address, jobs: Names::default(), tasks: Names::default(), tags: Names::default() }
    }

    /// Returns the lines for an event, with colours. Text from the network passes through [`plain`]
    /// first.
    pub(super) fn describe(&mut self, name: &str, args: &[Box<RawValue>]) -> Vec<String> {
        let lines = match (EventKind::from_wire_name(name), args) {
            (Some(kind), [payload]) => self.describe_kind(kind, payload.get()).ok(),
            (Some(_) | None, _) => None,
        };
        lines.unwrap_or_else(|| vec![unknown(name, args)])
    }

    fn describe_kind(&mut self, kind: EventKind, json: &str) -> Result<Vec<String>, FieldError> {
        Ok(match kind {
            EventKind::NewJob | EventKind::JobUpdate => vec![self.job(JobUpdate::from_json(json)?)],
            EventKind::TaskUpdate => vec![self.task(TaskUpdate::from_json(json)?)],
            EventKind::TaskLogUpdate => self.log(&TaskLogUpdate::from_json(json)?),
            EventKind::LastRendered => vec![self.image(&LastRenderedUpdate::from_json(json)?)],
            EventKind::NewWorker | EventKind::WorkerUpdate => vec![worker(&WorkerUpdate::from_json(json)?)],
            EventKind::WorkerTagUpdate => vec![self.tag(WorkerTagUpdate::from_json(json)?)],
            EventKind::LifeCycle => vec![life_cycle(&LifeCycle::from_json(json)?)],
            EventKind::FarmStatus => vec![line("farm", &[&state(FarmStatusReport::from_json(json)?.status.as_str())])],
            EventKind::ChatMessage => chat(&ChatMessage::from_json(json)?),
            EventKind::Unread => return Err(Problem::UnknownKind.into()),
        })
    }

    fn job(&mut self, job: JobUpdate) -> String {
        if job.was_deleted {
            let name = self.jobs.name(&job.id);
            self.jobs.0.remove(&job.id);
            return line("job", &[&state("deleted"), &bar(None, None), &name]);
        }
        if let Some(name) = job.name {
            self.jobs.learn(job.id, &name);
        }
        let mut remarks = vec![before(job.previous_status.as_ref(), &job.status)];
        if job.delete_requested_at.is_some() {
            remarks.push(paint(ALARM, "is to be deleted"));
        }
        if job.refresh_tasks {
            remarks.push(paint(NEWS, "tasks changed"));
        }
        remarks.push(paint(DIM, &format!("priority {}", job.priority)));
        line(
            "job",
            &[
                &state(job.status.as_str()),
                &bar(job.steps_completed, job.steps_total),
                &paint(BOLD, &self.jobs.name(&job.id)),
                &joined(remarks),
            ],
        )
    }

    fn task(&mut self, task: TaskUpdate) -> String {
        let name = plain(&task.name, MAX_NAME);
        self.tasks.learn(task.id, &name);
        let on = task.worker.and_then(|worker| worker.name).map(|name| format!("on {}", plain(&name, MAX_NAME)));
        let activity = paint(DIM, &plain(&task.activity, MAX_NAME));
        let remarks = vec![before(task.previous_status.as_ref(), &task.status), on.unwrap_or_default(), activity];
        line(
            "task",
            &[
                &state(task.status.as_str()),
                &bar(task.steps_completed, task.steps_total),
                &format!("{} › {}", self.jobs.name(&task.job_id), paint(BOLD, &name)),
                &joined(remarks),
            ],
        )
    }

    fn log(&self, update: &TaskLogUpdate) -> Vec<String> {
        let name = paint(DIM, &format!("{} │", self.tasks.name(&update.task_id)));
        // A carriage return is how programs draw a progress bar: each state of it is a line here.
        let log = update.log.trim_end().replace("\r\n", "\n");
        let lines = log.split(['\n', '\r']);
        lines.map(|text| line("log", &[&name, plain(text.trim_end(), MAX_LINE).as_str()])).collect()
    }

    fn image(&self, image: &LastRenderedUpdate) -> String {
        let thumbnail = &image.thumbnail;
        let suffix = thumbnail.suffixes.first().map_or("", String::as_str);
        let path = format!("{}/{suffix}", thumbnail.base);
        let url = self.address.as_ref().map_or_else(|| path.clone(), |address| address.join(&path));
        line("image", &[&self.jobs.name(&image.job_id), &paint(NEWS, &plain(&url, MAX_RAW))])
    }

    fn tag(&mut self, update: WorkerTagUpdate) -> String {
        let tag = update.tag;
        if let (Some(id), Some(name)) = (tag.id, tag.name.filter(|name| !name.is_empty())) {
            self.tags.learn(id, &name);
        }
        let name = tag.id.map_or_else(String::new, |id| self.tags.name(&id));
        if update.was_deleted {
            if let Some(id) = tag.id {
                self.tags.0.remove(&id);
            }
            return line("tag", &[&state("deleted"), &name]);
        }
        line("tag", &[&paint(BOLD, &name), &paint(DIM, &plain(&tag.description.unwrap_or_default(), MAX_NAME))])
    }
}

impl<Id: Eq + Hash + Copy + Display> Names<Id> {
    fn learn(&mut self, id: Id, name: &str) {
        // Forgetting everything now and then is simple, and what is still going on is soon learned again.
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(&id) {
            self.0.clear();
        }
        self.0.insert(id, plain(name, MAX_NAME));
    }

    /// The name, or the first digits of the id of something that was not heard of yet.
    fn name(&self, id: &Id) -> String {
        self.0.get(id).cloned().unwrap_or_else(|| format!("{:.8}…", id.to_string()))
    }
}

impl<Id> Default for Names<Id> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

fn worker(worker: &WorkerUpdate) -> String {
    let asked = worker.status_change.as_ref().map(|change| {
        let when = if change.is_lazy { "after its task" } else { "at once" };
        format!("asked to be {} {when}", plain(change.status.as_str(), MAX_NAME))
    });
    let deleted = if worker.deleted_at.is_some() { "was deleted" } else { "" };
    let remarks = vec![
        before(worker.previous_status.as_ref(), &worker.status),
        paint(NEWS, &asked.unwrap_or_default()),
        paint(ALARM, deleted),
    ];
    line("worker", &[&state(worker.status.as_str()), &paint(BOLD, &plain(&worker.name, MAX_NAME)), &joined(remarks)])
}

fn life_cycle(life_cycle: &LifeCycle) -> String {
    let what = match life_cycle.kind.as_str() {
        "manager-startup" => "the Manager has started",
        "manager-shutdown" => "the Manager is stopping",
        other => &plain(other, MAX_NAME),
    };
    line("farm", &[&paint(BOLD, what)])
}

fn chat(message: &ChatMessage) -> Vec<String> {
    let name = paint(BOLD, &format!("{}:", plain(&message.name, MAX_NAME)));
    message.text.lines().map(|text| line("chat", &[&name, plain(text, MAX_LINE).as_str()])).collect()
}

/// An event that is new, or not what it is said to be.
fn unknown(name: &str, args: &[Box<RawValue>]) -> String {
    let args: Vec<String> = args.iter().map(|arg| plain(arg.get(), MAX_RAW)).take(3).collect();
    line("?", &[&plain(name, MAX_NAME), &paint(DIM, &plain(&args.join(" "), MAX_RAW))])
}

/// Returns the previous status. A Manager of 3.0 also sends one that is equal to the current
/// status.
fn before(previous: Option<&Status>, status: &Status) -> String {
    let previous = previous.filter(|previous| *previous != status);
    previous.map_or_else(String::new, |status| paint(DIM, &format!("was {}", plain(status.as_str(), MAX_NAME))))
}

fn line(kind: &str, columns: &[&str]) -> String {
    let columns: Vec<&str> = columns.iter().copied().filter(|column| !column.is_empty()).collect();
    format!("{kind:<6} {}", columns.join("  ")).trim_end().to_owned()
}

fn joined(remarks: Vec<String>) -> String {
    let remarks: Vec<String> = remarks.into_iter().filter(|remark| !remark.is_empty()).collect();
    remarks.join(" · ")
}
