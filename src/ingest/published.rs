//! What the sources that exist once have published, on whichever server they ran.
//!
//! Every server that shares a stream notes it, so the one that runs such a source next publishes only
//! what has changed.

use std::sync::{Arc, Mutex, PoisonError};

use super::{mqtt, relay};
use crate::{actors::Hub, backplane::Outside};

/// What the sources that exist once have published.
#[derive(Debug)]
pub struct Published {
    relay: Mutex<relay::Published>,
    mqtt: Mutex<mqtt::Published>,
}

/// Takes what a source that exists once published, on whichever server, after all that came before it.
/// `published` is there if several servers share a stream.
pub fn note(outside: Outside<'_>, published: Option<&Published>, hub: &Arc<Hub>) {
    match outside {
        Outside::Event(event) => {
            if let Some(Published { relay, mqtt }) = published {
                relay.lock().unwrap_or_else(PoisonError::into_inner).note(event);
                mqtt.lock().unwrap_or_else(PoisonError::into_inner).note(event);
            }
        }
        Outside::Note(note) => relay::take_note(note, published.map(|published| &published.relay), hub),
    }
}

impl Published {
    /// Creates an empty record. `mqtt_prefix` is the beginning of the topics.
    pub fn new(mqtt_prefix: &str) -> Self {
        Self { relay: Mutex::default(), mqtt: Mutex::new(mqtt::Published::new(mqtt_prefix)) }
    }

    pub(super) fn of_relay(&self) -> relay::Published {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn of_mqtt(&self) -> mqtt::Published {
        self.mqtt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
