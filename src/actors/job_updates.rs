//! Publishes updates of jobs, tasks, task logs and last rendered images.

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle, Supervised};

use super::{
    RoomRegistry,
    messages::{Enqueue, Publish, PublishEvents, ReleaseHeld, Seen},
    publisher::{Lane, publication},
};
use crate::{
    clock,
    farm::{Audience, FarmEvent, JobId, Room},
    last_rendered::{LastRendered, ThrottleOptions},
    stats::Stats,
};

/// Publishes updates of jobs, tasks, task logs and last rendered images.
pub struct JobUpdates {
    registry: Addr<RoomRegistry>,
    lane: Lane,
    last_rendered: LastRendered<Publish>,
    timer: Option<SpawnHandle>,
}

impl JobUpdates {
    pub fn new(registry: Addr<RoomRegistry>, throttle: ThrottleOptions, stats: &'static Stats) -> Self {
        Self {
            registry,
            lane: Lane::new("job-updates", stats),
            last_rendered: LastRendered::new(throttle.last_rendered_interval),
            timer: None,
        }
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        let Self { registry, lane, last_rendered, .. } = self;
        lane.work(|accepted, receipt| {
            let publish = publication(accepted, receipt);
            let publish = match rendered_job(&accepted.event) {
                Some(job) => throttle(last_rendered, job, publish),
                None => publish,
            };
            registry.enqueue(publish);
        });
        self.set_timer(ctx);
    }

    /// Starts one timer at a time. A job that is due earlier than the timer waits for it, less than
    /// a second.
    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        if self.timer.is_none() {
            self.timer = self.last_rendered.next_due(clock::now()).map(|delay| ctx.run_later(delay, Self::release));
        }
    }

    fn release(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        for publish in self.last_rendered.due(clock::now()) {
            self.registry.enqueue(publish);
        }
        self.set_timer(ctx);
    }
}

/// Publishes an image to the job's own room at once. The global room may have to wait for the
/// throttle; it then gets the image later, without the sessions that already got it through the
/// job's room.
fn throttle(last_rendered: &mut LastRendered<Publish>, job: JobId, publish: Publish) -> Publish {
    let seen = Arc::new(Seen::default());
    let later = Publish {
        audience: Audience::Room(Room::LastRendered),
        seen: Some(seen.clone()),
        is_rest: true,
        frame: publish.frame.clone(),
        id: publish.id.clone(),
        event: publish.event.clone(),
        place: None,
        receipt: None,
    };
    match last_rendered.offer(job, later, clock::now()) {
        Some(_) => publish,
        None => Publish { audience: Audience::Room(Room::Job(job)), seen: Some(seen), ..publish },
    }
}

fn rendered_job(event: &FarmEvent) -> Option<JobId> {
    if let FarmEvent::LastRendered(update) = event { Some(update.fields.job_id) } else { None }
}

impl Actor for JobUpdates {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A restart cancels timers.
        self.timer = None;
        self.work(ctx);
    }
}

impl Supervised for JobUpdates {}

impl Handler<PublishEvents> for JobUpdates {
    type Result = ();

    fn handle(&mut self, publish: PublishEvents, ctx: &mut Self::Context) {
        self.lane.add(publish);
        self.work(ctx);
    }
}

impl Handler<ReleaseHeld> for JobUpdates {
    type Result = ();

    fn handle(&mut self, _: ReleaseHeld, _: &mut Self::Context) {
        for publish in self.last_rendered.release_all() {
            self.registry.enqueue(publish);
        }
    }
}
