//! The simulated jobs and their tasks.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use super::random_uuid;
use super::worker::WorkerNo;

/// Number of a job, counted from 0 in the order of submission and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobNo(pub(super) u64);

/// After this many failures by different workers a task has failed for good.
const FAILURES_TO_FAIL: usize = 3;

/// The priority, frames, frames of a task and milliseconds of a frame of the first jobs: short ones, so that
/// there is something to see soon.
const OPENING: [(i64, u32, u32, u64); 4] = [(80, 18, 2, 700), (40, 0, 0, 0), (70, 24, 2, 900), (60, 30, 3, 1100)];

/// A job, as the Manager knows it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) kind: JobKind,
    pub(super) status: JobStatus,
    pub(super) priority: i64,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    /// The frame that was rendered last.
    pub(super) image: Option<u32>,
    pub(super) tasks: Vec<Task>,
    pub(super) fault: Fault,
    /// A job reports its number of steps only once the first of them is done.
    pub(super) counts_steps: bool,
    /// Simulated time at which it completed, failed or was cancelled last.
    pub(super) finished: Option<Duration>,
    pub(super) delete_requested: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobKind {
    Render,
    EchoSleep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobStatus {
    Queued,
    Active,
    PauseRequested,
    Paused,
    CancelRequested,
    Canceled,
    Requeueing,
    Completed,
    Failed,
}

/// What is wrong with a job's scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Sound,
    /// The first worker that tries the second task fails, the next one succeeds.
    Flaky,
    /// No worker can render it.
    Broken,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) status: TaskStatus,
    pub(super) activity: String,
    pub(super) steps_completed: u32,
    /// The worker that works or worked on it last.
    pub(super) worker: Option<WorkerNo>,
    pub(super) failed_by: Vec<WorkerNo>,
    pub(super) updated: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskStatus {
    Queued,
    Active,
    Paused,
    SoftFailed,
    Failed,
    Canceled,
    Completed,
}

/// What a task has a worker do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Echo,
    Sleep {
        seconds: u32,
    },
    /// Frames `first..=last`; `millis` is what one of them takes.
    Render {
        first: u32,
        last: u32,
        millis: u64,
    },
    /// A video of the frames `1..=last`, once all are rendered.
    Video {
        last: u32,
    },
}

impl Job {
    /// Returns the job submitted as number `no`: every fourth only prints a greeting and sleeps,
    /// some are faulty.
    pub(super) fn submitted(no: JobNo, at: Timestamp, rng: &mut Rng) -> Self {
        let kind = if no.0 % 4 == 1 { JobKind::EchoSleep } else { JobKind::Render };
        let fault = match no.0 % 7 {
            2 => Fault::Flaky,
            4 => Fault::Broken,
            _ => Fault::Sound,
        };
        let works = match kind {
            JobKind::Render => match OPENING.get(no.0 as usize) {
                Some(&(_, frames, chunk, millis)) => render_works(frames, chunk, millis),
                None => render_works(rng.u32(8..=48), rng.u32(1..=6), rng.u64(700..=3000)),
            },
            JobKind::EchoSleep => echo_sleep_works(rng),
        };
        Self {
            id: random_uuid(rng),
            name: name(no),
            kind,
            status: JobStatus::Queued,
            priority: OPENING.get(no.0 as usize).map_or_else(|| 10 * rng.i64(3..=7), |(priority, ..)| *priority),
            created: at,
            updated: at,
            image: None,
            tasks: works.into_iter().map(|work| Task::new(work, at, rng)).collect(),
            fault: if kind == JobKind::Render { fault } else { Fault::Sound },
            counts_steps: false,
            finished: None,
            delete_requested: None,
        }
    }

    /// Returns the completed steps and all steps, as job updates report them.
    pub(super) fn steps(&self) -> (u32, u32) {
        if !self.counts_steps {
            return (0, 0);
        }
        self.tasks.iter().fold((0, 0), |(done, all), task| (done + task.steps_completed, all + task.work.steps()))
    }

    /// The number of frames that the job renders.
    pub(super) fn frames(&self) -> u32 {
        let last = |task: &Task| match task.work {
            Work::Render { last, .. } => last,
            Work::Echo | Work::Sleep { .. } | Work::Video { .. } => 0,
        };
        self.tasks.iter().map(last).max().unwrap_or(0)
    }

    /// The first task that `worker` could be given now.
    pub(super) fn task_for(&self, worker: WorkerNo, workers: usize) -> Option<usize> {
        if !matches!(self.status, JobStatus::Queued | JobStatus::Active) {
            return None;
        }
        self.tasks
            .iter()
            .position(|task| self.is_ready(task) && (workers == 1 || task.failed_by.last() != Some(&worker)))
    }

    /// Whether a try of the task fails.
    pub(super) fn fails(&self, task: usize) -> bool {
        match self.fault {
            Fault::Sound => false,
            Fault::Flaky => task == 1 && self.tasks[task].failed_by.is_empty(),
            Fault::Broken => true,
        }
    }

    /// Whether the task's failures are enough for a farm with `awake` workers.
    pub(super) fn has_failed(&self, task: usize, awake: usize) -> bool {
        self.tasks[task].failed_by.len() >= awake.clamp(1, FAILURES_TO_FAIL)
    }

    pub(super) fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.status == TaskStatus::Completed)
    }

    pub(super) fn is_being_worked_on(&self) -> bool {
        self.tasks.iter().any(|task| task.status == TaskStatus::Active)
    }

    pub(super) fn has_waiting_tasks(&self) -> bool {
        self.tasks.iter().any(|task| task.status == TaskStatus::Queued)
    }

    /// Gives every task for which `which` holds a new status, silently: the job update that goes with it has
    /// `refresh_tasks` set.
    pub(super) fn change_tasks(&mut self, at: Timestamp, status: TaskStatus, which: impl Fn(TaskStatus) -> bool) {
        for task in self.tasks.iter_mut().filter(|task| which(task.status)) {
            task.status = status;
            task.updated = at;
        }
    }

    /// All tasks start anew, as after a repair.
    pub(super) fn start_over(&mut self, at: Timestamp) {
        self.fault = Fault::Sound;
        self.finished = None;
        for task in &mut self.tasks {
            task.status = TaskStatus::Queued;
            task.activity = "queued again together with its job".to_owned();
            task.steps_completed = 0;
            task.failed_by.clear();
            task.updated = at;
        }
    }

    fn is_ready(&self, task: &Task) -> bool {
        let needs_all_frames = matches!(task.work, Work::Video { .. });
        matches!(task.status, TaskStatus::Queued | TaskStatus::SoftFailed)
            && (!needs_all_frames
                || self.tasks.iter().all(|other| other.id == task.id || other.status == TaskStatus::Completed))
    }
}

impl Task {
    fn new(work: Work, at: Timestamp, rng: &mut Rng) -> Self {
        Self {
            id: random_uuid(rng),
            name: work.task_name(),
            work,
            status: TaskStatus::Queued,
            activity: String::new(),
            steps_completed: 0,
            worker: None,
            failed_by: Vec::new(),
            updated: at,
        }
    }
}

impl JobKind {
    /// The job type's name on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Render => "simple-blender-render",
            Self::EchoSleep => "echo-sleep-test",
        }
    }
}

impl JobStatus {
    /// The status word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Active => "active",
            Self::PauseRequested => "pause-requested",
            Self::Paused => "paused",
            Self::CancelRequested => "cancel-requested",
            Self::Canceled => "canceled",
            Self::Requeueing => "requeueing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more happens to the job by itself.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }
}

impl TaskStatus {
    /// The status word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::SoftFailed => "soft-failed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Completed => "completed",
        }
    }
}

impl Work {
    pub(super) fn steps(self) -> u32 {
        match self {
            Self::Echo | Self::Sleep { .. } | Self::Video { .. } => 1,
            Self::Render { first, last, .. } => last - first + 1,
        }
    }

    fn task_name(self) -> String {
        match self {
            Self::Echo => "echo".to_owned(),
            Self::Sleep { .. } => "sleep".to_owned(),
            Self::Render { first, last, .. } if first == last => format!("render-{first}"),
            Self::Render { first, last, .. } => format!("render-{first}-{last}"),
            Self::Video { .. } => "preview-video".to_owned(),
        }
    }
}

fn render_works(frames: u32, chunk: u32, millis: u64) -> Vec<Work> {
    let chunks = (1..=frames).step_by(chunk as usize);
    let renders = chunks.map(|first| Work::Render { first, last: frames.min(first + chunk - 1), millis });
    renders.chain([Work::Video { last: frames }]).collect()
}

fn echo_sleep_works(rng: &mut Rng) -> Vec<Work> {
    let naps = rng.usize(2..=8);
    let seconds = rng.u32(1..=4);
    [Work::Echo].into_iter().chain(vec![Work::Sleep { seconds }; naps]).collect()
}

/// A name such as people give, in many scripts, with what is hard to show on purpose.
fn name(no: JobNo) -> String {
    const SUBJECTS: [&str; 14] = [
        "anim 🎬",
        "“lighting”",
        "čekaj na zalazak",
        "Nebel über der Brücke",
        "пролёт камеры",
        "θάλασσα & ουρανός",
        "مشهد المطر",
        "टाइटल क्रम",
        "夜の街",
        "비 오는 골목",
        "fx <smoke> 'v2'",
        "ทะเลหมอก",
        "סצנת פתיחה",
        "final_FINAL_v3 👩🏽‍🚀",
    ];
    let shot = 10 * (no.0 + 1);
    let subject = SUBJECTS[no.0 as usize % SUBJECTS.len()];
    format!("shot_{shot:03} {subject}")
}
