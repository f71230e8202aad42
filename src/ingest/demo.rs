//! A simulated farm inside the server: something to look at with one command.

use std::sync::Arc;

use super::{Intake, decode::IncomingEvent};
use crate::{
    clock,
    stats::Source,
    tools::simulate_farm::{Farm, Settings},
};

const WORKERS: usize = 6;
const JOBS: usize = 4;

/// Publishes the events of a farm that starts now, in its own time, for ever.
pub async fn run(intake: Arc<Intake>) {
    let start = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let begin = clock::now();
    for (due, event) in Farm::new(Settings { workers: WORKERS, jobs: JOBS, seed: fastrand::u64(..), start }) {
        actix_rt::time::sleep_until((begin + due).into()).await;
        let event = IncomingEvent { id: None, event, dropped_previous_status: false };
        intake.submit_patiently(Source::Demo, vec![event]).await;
    }
}
