//! A simulated farm inside the server, for a demonstration with one command.

use std::{future::ready, io, sync::Arc};

use futures_util::future::LocalBoxFuture;
use simulate_farm::{Settings, Site};

use super::{EventSource, Intake, SourceContext};
use crate::{clock, farm::IncomingEvent, faults, stats::Source};

const WORKERS: usize = 8;
const JOBS: usize = 6;

/// The simulated farm as a source.
#[derive(Debug)]
pub struct Demo {
    /// Where browsers find its API and images.
    pub site: Arc<Site>,
}

impl EventSource for Demo {
    fn name(&self) -> Source {
        Source::Demo
    }

    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>> {
        let (intake, site) = (context.intake.clone(), self.site.clone());
        context.hub.supervisor.keep("demo", move |_| run(intake.clone(), site.clone()));
        Box::pin(ready(Ok(())))
    }
}

/// Publishes the events of a farm that starts now, in real time, without end.
async fn run(intake: Arc<Intake>, site: Arc<Site>) {
    let start = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let begin = clock::now();
    site.start(Settings { workers: WORKERS, jobs: JOBS, seed: fastrand::u64(..), start });
    while let Some(due) = site.due() {
        actix_rt::time::sleep_until((begin + due).into()).await;
        faults::running("demo");
        if let Some(event) = site.step() {
            let event = IncomingEvent { id: None, event, dropped_previous_status: false };
            intake.submit_patiently(Source::Demo, vec![event]).await;
        }
    }
}
