//! Which node runs the sources that exist once.
//!
//! ```text
//!               the lock is held, the fence is in the stream, and everything before it is applied
//!  Undecided ──▶ Following ─────────────────────────────────────────────────────────▶ Leading
//!                    ▲   the lock expired, another fence was raised, or the server stops  │
//!                    └────────────────────────────────────────────────────────────────────┘
//! ```

use std::future::pending;

use tokio::sync::{mpsc, watch};

/// What this node is for the sources that exist once.
#[derive(Debug, Clone)]
pub(super) enum Office {
    Undecided,
    Following,
    Leading(Term),
}

/// A time in which this node leads.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// The offset of the message in the stream with which the term begins.
    pub(super) fence: u64,
    /// Closes when no source runs in this term any more.
    pub(super) kept: mpsc::Sender<()>,
}

impl Office {
    pub(super) fn term(&self) -> Option<&Term> {
        match self {
            Self::Leading(term) => Some(term),
            Self::Undecided | Self::Following => None,
        }
    }
}

/// Tells a source that exists once when it runs on this node.
#[derive(Debug, Clone)]
pub struct Leadership(Option<watch::Receiver<Office>>);

/// The right to run the source, for as long as it is held and has not ended.
#[derive(Debug)]
pub struct Turn {
    office: Option<watch::Receiver<Office>>,
    _kept: Option<mpsc::Sender<()>>,
}

impl Leadership {
    /// Returns that of a server without other nodes.
    pub(super) fn alone() -> Self {
        Self(None)
    }

    pub(super) fn of(office: watch::Receiver<Office>) -> Self {
        Self(Some(office))
    }

    /// Waits until the source is to run here. Calls `on_standby` if it runs elsewhere meanwhile. May be
    /// cancelled.
    pub async fn begin(&mut self, on_standby: impl FnOnce()) -> Turn {
        let Some(office) = &mut self.0 else { return Turn { office: None, _kept: None } };
        let mut on_standby = Some(on_standby);
        loop {
            let now = office.borrow_and_update().clone();
            match now {
                Office::Leading(term) => return Turn { office: Some(office.clone()), _kept: Some(term.kept) },
                Office::Following => on_standby.take().into_iter().for_each(|on_standby| on_standby()),
                Office::Undecided => {}
            }
            if office.changed().await.is_err() {
                pending().await
            }
        }
    }
}

impl Turn {
    /// Waits until the source must no longer run here, which never happens without other nodes.
    pub async fn ended(&mut self) {
        match &mut self.office {
            Some(office) => drop(office.wait_for(|office| office.term().is_none()).await),
            None => pending().await,
        }
    }
}
