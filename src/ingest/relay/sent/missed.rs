//! Finds what the Manager's lists have and browsers lack.

use super::record::Record;
use crate::{
    farm::{
        FarmEvent, JobId, JobUpdate, Payload, TagId, Timestamp, WorkerId, WorkerTag, WorkerTagUpdate, WorkerUpdate,
    },
    ingest::relay::snapshot::Listing,
};

/// In these states no task of a job changes by itself.
const SETTLED: [&str; 6] = ["canceled", "completed", "failed", "paused", "queued", "under-construction"];

/// Returns the updates of jobs that browsers lack. `is_watched` returns whether a browser looks at
/// a job's tasks, which the list does not contain.
pub(super) fn jobs(
    record: &mut Record<JobId, JobUpdate>,
    listing: Listing<JobUpdate>,
    is_watched: impl Fn(JobId) -> bool,
) -> Vec<FarmEvent> {
    let difference = record.compare(
        listing,
        |job| Some(job.id),
        |mut job, published| {
            if let Some(published) = published {
                let tasks_went_on = is_watched(job.id) && !(is_settled(&job) && is_settled(published));
                if is_same_job(published, &job) && !tasks_went_on {
                    return None;
                }
                job.previous_status = (published.status != job.status).then(|| published.status.clone());
            }
            job.refresh_tasks = true;
            Some(job)
        },
    );
    let vanished = difference.vanished.into_iter().map(|id| {
        record.delete(id);
        deleted_job(id)
    });
    let updates = difference.changed.into_iter().chain(vanished);
    updates.map(|job| FarmEvent::JobUpdate(Payload::new(job))).collect()
}

/// Returns the updates of workers that browsers lack.
pub(super) fn workers(
    record: &mut Record<WorkerId, WorkerUpdate>,
    listing: Listing<WorkerUpdate>,
    now: Timestamp,
) -> Vec<FarmEvent> {
    let difference = record.compare(
        listing,
        |worker| Some(worker.id),
        |mut worker, published| {
            if let Some(published) = published {
                if is_same_worker(published, &worker) {
                    return None;
                }
                // The list does not contain the time of a worker's update.
                worker.updated = published.updated;
                worker.previous_status = (published.status != worker.status).then(|| published.status.clone());
            }
            Some(worker)
        },
    );
    let vanished = difference.vanished.into_iter().filter_map(|id| {
        let last = record.delete(id)?;
        Some(WorkerUpdate { deleted_at: Some(now), previous_status: None, ..last })
    });
    let updates = difference.changed.into_iter().chain(vanished);
    updates.map(|worker| FarmEvent::WorkerUpdate(Payload::new(worker))).collect()
}

/// Returns the updates of tags that browsers lack.
pub(super) fn tags(record: &mut Record<TagId, WorkerTag>, listing: Listing<WorkerTag>) -> Vec<FarmEvent> {
    let difference = record.compare(listing, |tag| tag.id, |tag, published| (published != Some(&tag)).then_some(tag));
    let changed = difference.changed.into_iter().map(|tag| WorkerTagUpdate { tag, was_deleted: false });
    let vanished = difference.vanished.into_iter().map(|id| {
        record.remove(id);
        let tag = WorkerTag { description: None, id: Some(id), name: Some(String::new()) };
        WorkerTagUpdate { tag, was_deleted: true }
    });
    changed.chain(vanished).map(|update| FarmEvent::WorkerTagUpdate(Payload::new(update))).collect()
}

fn is_settled(job: &JobUpdate) -> bool {
    SETTLED.contains(&job.status.as_str())
}

/// Returns whether a page shows both in the same way. Their times are ignored: an update carries an
/// older time than the list does afterwards.
fn is_same_job(published: &JobUpdate, listed: &JobUpdate) -> bool {
    // An update of an older Manager has no steps, so a browser knows nothing of them.
    let is_same_count =
        |published: Option<i64>, listed: Option<i64>| published.is_none() || listed.is_none() || published == listed;
    published.status == listed.status
        && published.name == listed.name
        && published.priority == listed.priority
        && published.kind == listed.kind
        && published.delete_requested_at == listed.delete_requested_at
        && is_same_count(published.steps_completed, listed.steps_completed)
        && is_same_count(published.steps_total, listed.steps_total)
}

fn is_same_worker(published: &WorkerUpdate, listed: &WorkerUpdate) -> bool {
    published.status == listed.status
        && published.name == listed.name
        && published.version == listed.version
        && published.status_change == listed.status_change
        && published.can_restart.unwrap_or(false) == listed.can_restart.unwrap_or(false)
}

/// Formats a deletion as Go prints an update in which only the id has a meaning.
pub(super) fn deleted_job(id: JobId) -> JobUpdate {
    JobUpdate {
        delete_requested_at: None,
        id,
        name: None,
        previous_status: None,
        priority: 0,
        refresh_tasks: false,
        status: "".into(),
        steps_completed: None,
        steps_total: None,
        kind: String::new(),
        updated: Timestamp::zero(),
        was_deleted: true,
    }
}
