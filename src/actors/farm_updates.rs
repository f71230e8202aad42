//! Tells every client how the Manager and the farm as a whole are.

use actix::{Actor, Addr, Context, Handler, Supervised};

use super::{
    RoomRegistry,
    messages::{PublishEvents, Tell},
    publisher::{Lane, publication},
};
use crate::stats::Stats;

/// Tells every client how the Manager and the farm as a whole are.
pub struct FarmUpdates {
    registry: Addr<RoomRegistry>,
    lane: Lane,
}

impl FarmUpdates {
    pub fn new(registry: Addr<RoomRegistry>, stats: &'static Stats) -> Self {
        Self { registry, lane: Lane::new("farm-updates", stats) }
    }

    fn work(&mut self) {
        self.lane.work(|event, receipt| self.registry.tell(publication(event, receipt)));
    }
}

impl Actor for FarmUpdates {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.work();
    }
}

impl Supervised for FarmUpdates {}

impl Handler<PublishEvents> for FarmUpdates {
    type Result = ();

    fn handle(&mut self, publish: PublishEvents, _: &mut Self::Context) {
        self.lane.add(publish);
        self.work();
    }
}
