//! Where the events go: to the intake, or through the relay of the same Manager.

use std::{cell::RefCell, future::poll_fn, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    farm::{FarmEvent, FarmStatusReport, IncomingEvent, Payload},
    ingest::Intake,
    stats::Source,
};

/// What the source has for the relay.
#[derive(Debug)]
pub enum Fed {
    /// Events in their order. The source waits until they are published.
    Events { events: Vec<FarmEvent>, published: oneshot::Sender<()> },
    /// The broker lost the session, so events may be missing.
    Gap,
}

/// The relay's end of the way from the source.
#[derive(Debug)]
pub struct Feed(RefCell<mpsc::Receiver<Fed>>);

/// Creates a way from the source to the relay.
pub fn feed() -> (mpsc::Sender<Fed>, Feed) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Feed(RefCell::new(receiver)))
}

impl Feed {
    /// Returns what comes next.
    pub async fn next(&self) -> Option<Fed> {
        poll_fn(|context| self.0.borrow_mut().poll_recv(context)).await
    }
}

#[derive(Clone)]
pub(super) enum Sink {
    Intake(Arc<Intake>),
    /// The relay records what was published, and compares it with the Manager's lists.
    Relay(mpsc::Sender<Fed>),
}

impl Sink {
    pub(super) fn new(intake: Arc<Intake>, relay: Option<mpsc::Sender<Fed>>) -> Self {
        relay.map_or_else(|| Self::Intake(intake), Self::Relay)
    }

    /// Publishes events. Returns once they are in the outbox of every recipient.
    pub(super) async fn publish(&self, events: Vec<FarmEvent>) {
        match self {
            _ if events.is_empty() => {}
            Self::Intake(intake) => {
                let incoming = |event| IncomingEvent { id: None, event, dropped_previous_status: false };
                intake.submit_patiently(Source::Mqtt, events.into_iter().map(incoming).collect()).await;
            }
            Self::Relay(relay) => {
                let (published, are_published) = oneshot::channel();
                if relay.send(Fed::Events { events, published }).await.is_ok() {
                    // A relay that failed compares the lists when it starts again.
                    let _ = are_published.await;
                }
            }
        }
    }

    /// Reports that there is no connection. Without a relay nobody knows the state of the farm.
    pub(super) async fn lose_touch(&self) {
        if let Self::Intake(_) = self {
            let unknown = FarmStatusReport { status: "unknown".into() };
            self.publish(vec![FarmEvent::FarmStatus(Payload::new(unknown))]).await;
        }
    }

    /// Reports that the session is a new one, so that messages may be missing.
    pub(super) async fn begin_session(&self) {
        if let Self::Relay(relay) = self {
            let _ = relay.send(Fed::Gap).await;
        }
    }
}
