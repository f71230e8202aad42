//! What will happen on the simulated farm, and when.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use super::job::JobNo;
use super::worker::WorkerNo;

/// A future step at a known moment of simulated time.
///
/// A step that has become obsolete (for example of a task that was reassigned) is detected when it is performed, and
/// dropped; the agenda is never searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    ManagerReady,
    WorkerRegisters(WorkerNo),
    WorkerSignsOn(WorkerNo),
    WorkerAsksForWork(WorkerNo),
    WorkerObeys(WorkerNo),
    WorkerIsMissed(WorkerNo),
    WorkProceeds {
        worker: WorkerNo,
        run: u32,
        beat: Beat,
    },
    ImageProcessed(JobNo),
    TagsMade,
    JobsTopUp,
    JobResumed(JobNo),
    /// The job is deleted unless it was put to work again after `finished`.
    JobExpires {
        job: JobNo,
        finished: Duration,
    },
    JobDeleted(JobNo),
    OperatorActs,
}

/// How far a worker is with the task it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// The program the task runs has started and printed its first lines.
    Launched,
    /// A frame is half rendered.
    Sampled,
    /// A step is done: a frame saved, a nap over, a video written.
    StepDone,
    /// The program has ended as it should.
    Finished,
    /// The program has ended with an error.
    Broke,
}

/// A queue ordered by time; steps of the same moment keep the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BinaryHeap<Reverse<Entry>>,
    noted: u64,
}

impl Agenda {
    pub(super) fn note(&mut self, due: Duration, happening: Happening) {
        self.entries.push(Reverse(Entry { due, no: self.noted, happening }));
        self.noted += 1;
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Happening)> {
        self.entries.pop().map(|Reverse(entry)| (entry.due, entry.happening))
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.entries.peek().map(|Reverse(entry)| entry.due)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[derive(Debug)]
struct Entry {
    due: Duration,
    no: u64,
    happening: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.no).cmp(&(other.due, other.no))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
