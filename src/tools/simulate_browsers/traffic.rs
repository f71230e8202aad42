//! Which events are published, what they look like, and which client is to get which.

use std::io::Write;

use uuid::Uuid;

use super::template::{Template, Values};

/// What the simulated browsers look at, and with it which events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Page {
    /// The list of jobs: nothing is subscribed to, since every client joins the jobs' room on connection. Every event is
    /// a job update and goes to every client.
    Jobs,
    /// One of --jobs jobs each: every event is a task update of one of them, in turn, and goes to its watchers.
    Job,
    /// What Flamenco's job page has open: all jobs, all workers, all last-rendered images, one of --jobs jobs and the log
    /// of one of its tasks. Events are job, task, log and worker updates in the proportions of a real farm.
    Mix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    JobUpdate,
    TaskUpdate,
    TaskLog,
    WorkerUpdate,
}

use Kind::{JobUpdate, TaskLog, TaskUpdate, WorkerUpdate};

/// One cycle of the events of `Page::Mix`: 4 job, 6 task, 6 log and 2 worker updates, as in the recording of a farm.
/// Last-rendered updates are left out: a server may thin them, so a missing one would say nothing.
const MIX: [Kind; 18] = [
    JobUpdate,
    TaskUpdate,
    TaskLog,
    TaskUpdate,
    TaskLog,
    WorkerUpdate,
    TaskUpdate,
    TaskLog,
    JobUpdate,
    JobUpdate,
    TaskUpdate,
    TaskLog,
    TaskUpdate,
    TaskLog,
    WorkerUpdate,
    TaskUpdate,
    TaskLog,
    JobUpdate,
];

impl Kind {
    fn is_for_all(self) -> bool {
        match self {
            JobUpdate | WorkerUpdate => true,
            TaskUpdate | TaskLog => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            JobUpdate => "job-update",
            TaskUpdate => "task-update",
            TaskLog => "task-log-update",
            WorkerUpdate => "worker-update",
        }
    }

    fn event(self) -> &'static str {
        match self {
            JobUpdate => "/jobs",
            TaskUpdate => "/task",
            TaskLog => "/tasklog",
            WorkerUpdate => "/workers",
        }
    }
}

/// The events of a run, each known by its number, counted from 0.
///
/// Clients that look at the same job get the same events and form an *audience*, numbered as the jobs are. Events come in
/// cycles, each about the next of the jobs; so which of a client's events a number is can be computed.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    page: Page,
    cycle: &'static [Kind],
    jobs: u32,
    payload_bytes: usize,
    marker: Marker,
}

impl Traffic {
    /// `jobs` must not be 0. `payload_bytes`: each payload is filled up to this length.
    pub(super) fn new(page: Page, jobs: u32, payload_bytes: usize) -> Self {
        let (cycle, jobs): (&[Kind], u32) = match page {
            Page::Jobs => (&[JobUpdate], 1),
            Page::Job => (&[TaskUpdate], jobs),
            Page::Mix => (&MIX, jobs),
        };
        Self { page, cycle, jobs, payload_bytes, marker: Marker::unique() }
    }

    pub(super) fn marker(&self) -> Marker {
        self.marker.clone()
    }

    pub(super) fn audience_of(&self, client: u32) -> u32 {
        client % self.jobs
    }

    /// How many audiences there are.
    pub(super) fn audiences(&self) -> u32 {
        self.jobs
    }

    /// What a client of an audience subscribes to: the arguments of its `/subscription` events.
    pub(super) fn subscriptions(&self, audience: u32) -> Vec<String> {
        let subscribe = |kind: &str| format!(r#"{{"op":"subscribe","type":"{kind}"}}"#);
        let subscribe_to = |kind: &str, uuid: Uuid| format!(r#"{{"op":"subscribe","type":"{kind}","uuid":"{uuid}"}}"#);
        match self.page {
            Page::Jobs => Vec::new(),
            Page::Job => vec![subscribe_to("job", job_id(audience))],
            Page::Mix => vec![
                subscribe("allJobs"),
                subscribe("allLastRendered"),
                subscribe("allWorkers"),
                subscribe_to("job", job_id(audience)),
                subscribe_to("tasklog", task_id(audience)),
            ],
        }
    }

    /// How many events before number `end` an audience is to get.
    pub(super) fn count(&self, end: u32, audience: u32) -> u32 {
        if self.goes_to_all() {
            return end;
        }
        let length = self.cycle.len() as u32;
        let for_all = |kinds: &[Kind]| kinds.iter().filter(|kind| kind.is_for_all()).count() as u32;
        let cycles = end / length;
        let begun = &self.cycle[..(end % length) as usize];
        let own_cycles = cycles / self.jobs + u32::from(cycles % self.jobs > audience);
        let in_begun = if cycles % self.jobs == audience { begun.len() as u32 } else { for_all(begun) };
        own_cycles * length + (cycles - own_cycles) * for_all(self.cycle) + in_begun
    }

    /// Which of the events of an audience event `number` is, counted from 0; `None` when it is not for them.
    pub(super) fn position(&self, number: u32, audience: u32) -> Option<u32> {
        if self.goes_to_all() {
            return Some(number);
        }
        let (kind, job) = self.subject(number);
        (kind.is_for_all() || job == audience).then(|| self.count(number, audience))
    }

    /// Appends what is published for event `number`. `payload` is scratch space.
    pub(super) fn write(&self, number: u32, template: &Template, payload: &mut Vec<u8>, out: &mut Vec<u8>) {
        let (kind, job) = self.subject(number);
        payload.clear();
        self.write_payload(kind, job, number, payload);
        let room = match kind {
            JobUpdate => "Jobs".to_owned(),
            WorkerUpdate => "Workers".to_owned(),
            TaskUpdate => format!("job-{}", job_id(job)),
            TaskLog => format!("tasklog-{}", task_id(job)),
        };
        let payload = std::str::from_utf8(payload).expect("a payload is made of text");
        template.write(Values { number, kind: kind.name(), event: kind.event(), room: &room, payload }, out);
    }

    fn goes_to_all(&self) -> bool {
        self.jobs == 1
    }

    fn subject(&self, number: u32) -> (Kind, u32) {
        let length = self.cycle.len() as u32;
        (self.cycle[(number % length) as usize], number / length % self.jobs)
    }

    fn write_payload(&self, kind: Kind, job: u32, number: u32, out: &mut Vec<u8>) {
        const TIME: &str = "2026-11-23T17:20:19.052746448Z";
        let mark = self.marker.text(number);
        let (before, after) = match kind {
            JobUpdate => (
                format!(r#"{{"id":"{}","name":"{mark}"#, job_id(job)),
                format!(
                    r#"","previous_status":"queued","priority":50,"refresh_tasks":false,"status":"active","steps_completed":12,"steps_total":250,"type":"simple-blender-render","updated":"{TIME}"}}"#
                ),
            ),
            TaskUpdate => (
                format!(r#"{{"activity":"{mark}"#),
                format!(
                    r#"","id":"{}","job_id":"{}","name":"render-1-3","status":"active","updated":"{TIME}"}}"#,
                    task_id(job),
                    job_id(job)
                ),
            ),
            TaskLog => (format!(r#"{{"log":"{mark}"#), format!(r#"","task_id":"{}"}}"#, task_id(job))),
            WorkerUpdate => (
                format!(r#"{{"can_restart":false,"id":"{WORKER_ID}","name":"{mark}"#),
                format!(r#"","status":"awake","updated":"{TIME}","version":"3.9"}}"#),
            ),
        };
        let filling = self.payload_bytes.saturating_sub(before.len() + after.len());
        out.extend_from_slice(before.as_bytes());
        out.extend((0..filling).map(|index| if index % 10 == 0 { b' ' } else { b'x' }));
        out.write_all(after.as_bytes()).expect("writing to memory does not fail");
    }
}

const WORKER_ID: Uuid = Uuid::from_u128(0x2efb_28b1_4341_49f2_965c_8289_164a_48d1);

fn job_id(job: u32) -> Uuid {
    Uuid::from_u128(0xffb0_9c1f_cd6b_4672_a000_0000_0000_0000 | u128::from(job))
}

fn task_id(job: u32) -> Uuid {
    Uuid::from_u128(0xabb5_f5a7_ceab_47c8_8000_0000_0000_0000 | u128::from(job))
}

/// How an event is recognised when it comes back: a text that is this run's own, followed by the event's number.
///
/// It survives whatever a server does to the JSON around it. Where it was found last is where it is looked for first.
#[derive(Debug, Clone)]
pub(super) struct Marker {
    text: [u8; MARKER_BYTES],
    guess: usize,
}

const MARKER_BYTES: usize = 16;
const DIGITS: usize = 8;

/// Event numbers have eight digits.
pub(super) const MAX_EVENTS: u32 = 10_u32.pow(DIGITS as u32);

impl Marker {
    fn unique() -> Self {
        let mut text = *b"simulate-000000-";
        let run = format!("{:06x}", Uuid::new_v4().as_u128() & 0xff_ffff);
        text[9..15].copy_from_slice(run.as_bytes());
        Self { text, guess: 0 }
    }

    fn text(&self, number: u32) -> String {
        format!("{}{number:0DIGITS$}", String::from_utf8_lossy(&self.text))
    }

    /// The number of the event that is inside `packet`, `None` when it is not one of this run.
    pub(super) fn number(&mut self, packet: &[u8]) -> Option<u32> {
        match packet.get(self.guess..self.guess + MARKER_BYTES) {
            Some(found) if *found == self.text => {}
            Some(_) | None => self.guess = memchr::memmem::find(packet, &self.text)?,
        }
        let digits = packet.get(self.guess + MARKER_BYTES..)?.first_chunk::<DIGITS>()?;
        digits.iter().try_fold(0, |number, digit| {
            let value = digit.wrapping_sub(b'0');
            (value < 10).then(|| number * 10 + u32::from(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [Page; 3] = [Page::Jobs, Page::Job, Page::Mix];

    fn published(traffic: &Traffic, number: u32) -> serde_json::Value {
        let template = r#"{"kind":"{kind}","event":"{event}","room":"{room}","payload":{payload}}"#.parse().unwrap();
        let mut out = Vec::new();
        traffic.write(number, &template, &mut Vec::new(), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn positions_count_the_events_of_an_audience() {
        for page in PAGES {
            for jobs in [1, 2, 7] {
                let traffic = Traffic::new(page, jobs, 0);
                for audience in 0..traffic.audiences() {
                    let mut count = 0;
                    for number in 0..300 {
                        assert_eq!(traffic.count(number, audience), count);
                        if let Some(position) = traffic.position(number, audience) {
                            assert_eq!(position, count);
                            count += 1;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_event_is_for_those_who_subscribed_to_its_room() {
        for page in PAGES {
            let traffic = Traffic::new(page, 3, 0);
            for number in 0..100 {
                let room = published(&traffic, number)["room"].as_str().unwrap().to_owned();
                for audience in 0..traffic.audiences() {
                    let subscribed = traffic.subscriptions(audience).iter().any(|argument| {
                        let argument: serde_json::Value = serde_json::from_str(argument).unwrap();
                        match (argument["type"].as_str().unwrap(), argument["uuid"].as_str()) {
                            ("allWorkers", None) => room == "Workers",
                            (kind, Some(uuid)) => room == format!("{kind}-{uuid}"),
                            _ => false,
                        }
                    });
                    assert_eq!(traffic.position(number, audience).is_some(), subscribed || room == "Jobs");
                }
            }
        }
    }

    #[test]
    fn a_payload_has_the_length_asked_for_and_the_number_inside() {
        let traffic = Traffic::new(Page::Mix, 2, 330);
        let mut marker = traffic.marker();
        for number in [0, 1, 2, 5, 4711] {
            let payload = published(&traffic, number)["payload"].to_string();
            assert_eq!(payload.len(), 330);
            assert_eq!(marker.number(payload.as_bytes()), Some(number));
        }
    }

    #[test]
    fn what_is_not_of_this_run_has_no_number() {
        let traffic = Traffic::new(Page::Jobs, 1, 0);
        let mut marker = traffic.marker();
        let text = marker.text(12);
        assert_eq!(marker.number(format!("42[\"/jobs\",\"{text}\"]").as_bytes()), Some(12));
        for other in ["", "42[\"/jobs\",{}]", &text[..20], "simulate-zzzzzz-00000001", &text.replace("12", "1x")] {
            assert_eq!(marker.number(other.as_bytes()), None, "{other}");
        }
    }
}
