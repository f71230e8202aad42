//! Tells the chat room what browsers and the Manager say.

use actix::{Actor, Addr, Context, Handler, Supervised};

use super::{
    RoomRegistry,
    messages::{PublishEvents, Say, Tell},
    publisher::{Lane, publication},
};
use crate::{farm::FarmEvent, stats::Stats};

/// Tells the chat room what browsers and the Manager say.
pub struct Chat {
    registry: Addr<RoomRegistry>,
    lane: Lane,
}

impl Chat {
    pub fn new(registry: Addr<RoomRegistry>, stats: &'static Stats) -> Self {
        Self { registry, lane: Lane::new("chat", stats) }
    }

    fn work(&mut self) {
        self.lane.work(|event, receipt| self.registry.tell(publication(event, receipt)));
    }
}

impl Actor for Chat {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.work();
    }
}

impl Supervised for Chat {}

impl Handler<PublishEvents> for Chat {
    type Result = ();

    fn handle(&mut self, publish: PublishEvents, _: &mut Self::Context) {
        self.lane.add(publish);
        self.work();
    }
}

impl Handler<Say> for Chat {
    type Result = ();

    fn handle(&mut self, say: Say, _: &mut Self::Context) {
        self.lane.add_one(FarmEvent::ChatMessage(say.message));
        self.work();
    }
}
