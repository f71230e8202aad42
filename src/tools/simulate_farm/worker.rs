//! The simulated workers.

use jiff::Timestamp;
use uuid::Uuid;

use super::job::JobNo;

/// Index of a worker; workers are never forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerNo(pub(super) usize);

/// A worker, as the Manager knows it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) state: WorkerState,
    pub(super) asked: Option<Ask>,
    /// Counts what the worker was given to do: a beat of another run is out of date.
    pub(super) run: u32,
    /// When the Manager last heard of it; `None` until it has signed on for the first time.
    pub(super) last_seen: Option<Timestamp>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerState {
    Starting,
    Idle,
    Working { job: JobNo, task: usize },
    Asleep,
    Offline,
    Error,
}

/// A requested state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) wanted: Wanted,
    /// A lazy request waits until the worker has finished its task.
    pub(super) lazy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Asleep,
    Awake,
}

impl WorkerState {
    /// The state's word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle | Self::Working { .. } => "awake",
            Self::Asleep => "asleep",
            Self::Offline => "offline",
            Self::Error => "error",
        }
    }

    pub(super) fn is_awake(self) -> bool {
        matches!(self, Self::Idle | Self::Working { .. })
    }
}

impl Wanted {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Awake => "awake",
        }
    }
}
