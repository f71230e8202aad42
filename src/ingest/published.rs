//! What the sources that exist once have published, on whichever server they ran.
//!
//! Every server that shares a stream notes it, so the one that runs such a source next publishes only
//! what has changed.

use std::sync::{Mutex, PoisonError};

use super::{mqtt, relay};
use crate::farm::FarmEvent;

/// What the sources that exist once have published.
#[derive(Debug)]
pub struct Published {
    relay: Mutex<relay::Published>,
    mqtt: Mutex<mqtt::Published>,
}

impl Published {
    /// Creates an empty record. `mqtt_prefix` is the beginning of the topics.
    pub fn new(mqtt_prefix: &str) -> Self {
        Self { relay: Mutex::default(), mqtt: Mutex::new(mqtt::Published::new(mqtt_prefix)) }
    }

    /// Records an event, after all events before it.
    pub fn note(&self, event: &FarmEvent) {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).note(event);
        self.mqtt.lock().unwrap_or_else(PoisonError::into_inner).note(event);
    }

    pub(super) fn of_relay(&self) -> relay::Published {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn of_mqtt(&self) -> mqtt::Published {
        self.mqtt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
