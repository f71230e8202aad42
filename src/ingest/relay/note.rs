//! What the node that runs the relay notes in the stream for the others.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tail::Position;

/// A note of the relay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Note {
    /// Every line of the log up to this position was published, and the ones after it will be.
    Log { task: Uuid, position: Position },
    /// These logs are not followed any more.
    Left(Vec<Uuid>),
    /// The Manager has this version. `has_changed` says that it had another one before.
    Manager { version: String, has_changed: bool },
}

impl Note {
    /// Returns whether only a server that runs the relay next has use for it.
    pub(super) fn is_for_another_server(&self) -> bool {
        match self {
            Self::Log { .. } | Self::Left(_) => true,
            Self::Manager { .. } => false,
        }
    }
}
