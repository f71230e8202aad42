//! Decides which of two updates of an entity is newer.

use std::cmp::Ordering;

use crate::farm::{JobUpdate, Status, TaskUpdate, Timestamp, WorkerUpdate};

/// The values that decide which of two updates is newer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Version {
    updated: Timestamp,
    status: Status,
    previous: Option<Status>,
}

/// An update that has a version.
pub(super) trait Versioned {
    fn version(&self) -> Version;
}

/// An update that may be a deletion.
pub(super) trait Deletable {
    fn is_deletion(&self) -> bool;
}

macro_rules! versioned {
    ($($update:ty)*) => {$(
        impl Versioned for $update {
            fn version(&self) -> Version {
                let (status, previous) = (self.status.clone(), self.previous_status.clone());
                Version { updated: self.updated, status, previous }
            }
        }
    )*};
}

versioned!(JobUpdate TaskUpdate WorkerUpdate);

impl Deletable for JobUpdate {
    fn is_deletion(&self) -> bool {
        self.was_deleted
    }
}

impl Deletable for WorkerUpdate {
    fn is_deletion(&self) -> bool {
        self.deleted_at.is_some()
    }
}

impl Version {
    /// Returns whether this happened before `published`. Two updates may have the same time,
    /// because the Manager sends a change with the time of the previous one; then the later update
    /// starts from the status in which the earlier one ended.
    pub(super) fn is_before(&self, published: &Self) -> bool {
        match self.updated.cmp(&published.updated) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let published_comes_from_here =
                    published.previous.as_ref() == Some(&self.status) && published.status != self.status;
                published_comes_from_here && self.previous.as_ref() != Some(&published.status)
            }
        }
    }
}
