//! Tells of workers and their tags.

use actix::{Actor, Addr, Context, Handler, Supervised};

use super::{
    RoomRegistry,
    messages::{PublishEvents, Tell},
    publisher::{Lane, publication},
};
use crate::stats::Stats;

/// Tells of workers and their tags.
pub struct WorkerUpdates {
    registry: Addr<RoomRegistry>,
    lane: Lane,
}

impl WorkerUpdates {
    pub fn new(registry: Addr<RoomRegistry>, stats: &'static Stats) -> Self {
        Self { registry, lane: Lane::new("worker-updates", stats) }
    }

    fn work(&mut self) {
        self.lane.work(|event, receipt| self.registry.tell(publication(event, receipt)));
    }
}

impl Actor for WorkerUpdates {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.work();
    }
}

impl Supervised for WorkerUpdates {}

impl Handler<PublishEvents> for WorkerUpdates {
    type Result = ();

    fn handle(&mut self, publish: PublishEvents, _: &mut Self::Context) {
        self.lane.add(publish);
        self.work();
    }
}
