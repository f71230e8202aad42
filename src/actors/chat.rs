//! Publishes chat messages of clients and of the Manager.

use actix::{Context, Handler};

use super::{
    messages::Say,
    publisher::{Kind, Publisher},
};
use crate::farm::FarmEvent;

/// Names the publisher of chat messages.
pub enum OfChat {}

/// Publishes chat messages of clients and of the Manager.
pub type Chat = Publisher<OfChat>;

impl Kind for OfChat {
    const NAME: &'static str = "chat";
}

impl Handler<Say> for Chat {
    type Result = ();

    fn handle(&mut self, say: Say, _: &mut Context<Self>) {
        self.add_one(FarmEvent::ChatMessage(say.message));
    }
}
