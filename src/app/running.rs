//! The server's edges, from start to end.

use std::{sync::Arc, time::Duration};

use actix::Addr;
use actix_server::ServerHandle;

use super::ServeError;
use crate::{
    actors::{
        Hub, JobUpdates,
        messages::{ReleaseHeld, TakeCensus},
    },
    disconnect::Disconnect,
    ingest::{EventSource, Intake, SourceContext, mqtt::RunningMirror},
    system::Listener,
    transport,
};

/// How long an accepted browser may take to send its request when another server takes over.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(250);

/// The server's edges, from start to end.
pub(super) struct Running {
    pub(super) hub: Arc<Hub>,
    pub(super) jobs: Addr<JobUpdates>,
    pub(super) sources: Vec<Box<dyn EventSource>>,
    pub(super) intake: Option<Arc<Intake>>,
    pub(super) mirror: Option<RunningMirror>,
    pub(super) browsers: Option<ServerHandle>,
    /// Whether another process may accept browsers from the same socket.
    pub(super) shared: bool,
}

impl Running {
    /// Starts the sources, and then admits browsers.
    pub(super) async fn start(
        &mut self,
        context: SourceContext,
        settings: transport::Settings,
        browsers: Vec<Listener>,
    ) -> Result<(), ServeError> {
        self.intake = Some(context.intake.clone());
        for source in &mut self.sources {
            source.start(&context).await.map_err(|error| ServeError::Source { name: source.name(), error })?;
        }
        let browsers = transport::serve(self.hub.clone(), settings, browsers).map_err(ServeError::Serve)?;
        self.browsers = Some(browsers.handle());
        self.hub.supervisor.run_for_good("the browsers' listener", async move { drop(browsers.await) });
        Ok(())
    }

    /// Admits no more clients, delivers all accepted events, and closes every browser's connection
    /// so that it reconnects.
    pub(super) async fn drain(&mut self) {
        if let (true, Some(browsers)) = (self.shared, &self.browsers) {
            // Another server may take over: new connections are for that one. A connection that was
            // just accepted is still admitted, because every page can handle being closed and
            // reconnecting.
            browsers.pause().await;
            actix_rt::time::sleep(HAND_OVER_PAUSE).await;
        }
        for source in &mut self.sources {
            source.drain().await;
        }
        if let Some(mirror) = self.mirror.take() {
            mirror.drain().await;
        }
        if let Some(intake) = &self.intake {
            intake.resign().await;
        }
        // Each answer comes after everything before it. An actor that does not answer has failed
        // and has nothing to deliver.
        let _ = self.jobs.send(ReleaseHeld).await;
        let _ = self.hub.registry.send(TakeCensus { rooms: false }).await;
        // From here on no new session opens. A listener that is not shared stays open, because
        // long-polling clients fetch their remaining frames with new connections.
        self.hub.workers.close_all(Disconnect::ServerShutdown);
        while self.hub.stats.sessions.get() > 0 {
            actix_rt::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some(browsers) = &self.browsers {
            browsers.stop(false).await;
        }
    }
}
