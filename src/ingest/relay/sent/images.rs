//! Recognises the second copy of a rendered image.

use std::time::{Duration, Instant};

use super::REMEMBERED;
use crate::{farm::JobId, ingest::recent_map::RecentMap};

/// The Manager sends an image to the room of all images and to the job's room, immediately after
/// each other.
pub(super) const TWICE_WITHIN: Duration = Duration::from_secs(1);

/// The images whose second copy is expected.
#[derive(Debug, Clone)]
pub(super) struct ImageCopies {
    /// By job: until when the second copy may come, or `None` if it has come.
    second_due: RecentMap<JobId, Option<Instant>>,
}

impl Default for ImageCopies {
    fn default() -> Self {
        Self { second_due: RecentMap::new(REMEMBERED) }
    }
}

impl ImageCopies {
    /// Returns whether an image of the job is the first of its copies.
    pub(super) fn admit(&mut self, job: JobId, comes_twice: bool, now: Instant) -> bool {
        let second_due = self.second_due.get(&job).copied().flatten();
        let is_second = comes_twice && second_due.is_some_and(|until| now <= until);
        self.second_due.set(job, (comes_twice && !is_second).then(|| now + TWICE_WITHIN));
        !is_second
    }

    pub(super) fn clear(&mut self) {
        self.second_due.clear();
    }
}
