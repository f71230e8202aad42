//! The contract of event sources.

use std::{future, io, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc;

use super::{Intake, Published};
use crate::{actors::Hub, stats::Source};

/// A source of events.
///
/// The server starts every source before it admits clients, and drains every source when it shuts
/// down. A source submits its events to the [`Intake`], counts and reports its state under its
/// [`name`](Self::name), and runs under the [`Hub`]'s supervisor.
pub trait EventSource {
    /// Returns the name of the source in logs, metrics and `/healthz`.
    fn name(&self) -> Source;

    /// Starts accepting events. Resolves once clients may connect without missing later events.
    ///
    /// # Errors
    ///
    /// Any error means that the server cannot start.
    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>>;

    /// Stops accepting events. Resolves once the accepted ones are published.
    fn drain(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }
}

/// The context in which a source runs.
pub struct SourceContext {
    pub hub: Arc<Hub>,
    pub intake: Arc<Intake>,
    /// `None` if every source runs on this server all the time.
    pub published: Option<Arc<Published>>,
    /// Reports that a source has ended, which shuts the server down.
    pub ended: mpsc::Sender<SourceEnded>,
}

/// A source has no more events.
#[derive(Debug)]
pub struct SourceEnded {
    pub source: Source,
    pub result: io::Result<()>,
}
