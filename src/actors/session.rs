//! One actor per client: performs what the plain [`Session`] decides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, ActorContext, Addr, Context, Handler};

use super::{
    Chat, RoomRegistry,
    messages::{
        Enter, Exit, Join, Leave, ListOutboxes, Receive, ReceiveBody, Say, SessionKey, TakeCensus, Tell,
        TransportClosed,
    },
};
use crate::{
    clock,
    disconnect::Disconnect,
    farm::Room,
    faults,
    frame::Frame,
    interest::{Interest, Stay},
    outbox::{self, Outbox, Push, Workers},
    protocol::SessionId,
    session::{Action, Rules, Session},
    stats::Stats,
};

/// How long a client waits for its acknowledgement while the source has yet to see to its room.
const SUPPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the registry may take to answer before the server calls itself unhealthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Steps in which all sessions are closed.
const CLOSING_STEPS: u32 = 40;

/// Its name in logs.
const ACTOR: &str = "session";

/// What all sessions of a server share.
pub struct Hub {
    pub registry: Addr<RoomRegistry>,
    pub chat: Addr<Chat>,
    pub workers: Arc<Workers>,
    pub rules: Rules,
    pub outbox_limits: outbox::Limits,
    /// What a source is told of the rooms that somebody is in; `None` when all sources tell everything anyway.
    pub interest: Option<Arc<Interest>>,
    pub stats: &'static Stats,
}

impl Hub {
    /// Sends a frame to one client, and has it flushed.
    pub fn send(&self, outbox: &Outbox, frame: &Arc<Frame>) {
        match outbox.push_direct(frame, &self.outbox_limits) {
            Push::QueuedUnseen(home) | Push::Evicted(Some(home)) => self.workers.mark(home),
            Push::Queued | Push::Coalesced | Push::Dropped | Push::Evicted(None) => {}
        }
    }

    /// Whether the registry answers, without which nobody is told anything.
    pub async fn is_well(&self) -> bool {
        let answer = self.registry.send(TakeCensus { rooms: false });
        matches!(actix_rt::time::timeout(HEALTH_TIMEOUT, answer).await, Ok(Ok(_)))
    }

    /// Ends a session politely once what waits for it is sent.
    pub fn close(&self, outbox: &Outbox, reason: Disconnect) {
        if let Some(home) = outbox.close(reason) {
            self.workers.mark(home);
        }
    }

    /// Closes every session that is there now, spread evenly over this time.
    pub async fn close_all(&self, reason: Disconnect, over: Duration) {
        // Without a registry the server is ending.
        let Ok(outboxes) = self.registry.send(ListOutboxes).await else { return };
        let step = outboxes.0.len().div_ceil(CLOSING_STEPS as usize).max(1);
        for outboxes in outboxes.0.chunks(step) {
            let homes = outboxes.iter().filter_map(|outbox| outbox.close(reason));
            homes.for_each(|home| self.workers.mark(home));
            actix_rt::time::sleep(over / CLOSING_STEPS).await;
        }
    }
}

/// One client's session. It never waits on anybody, so it can always be told that its connection is gone.
pub struct SessionActor {
    key: SessionKey,
    session: Session,
    outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    /// Where it is that a source has to know of.
    stays: Vec<Stay>,
    /// What is counted when this ends.
    ended: Disconnect,
}

impl SessionActor {
    /// Starts the session of a new client on this thread. When this returns, the client's first packets are in its outbox and
    /// its rooms are in the registry's mailbox.
    pub fn open(sid: SessionId, upgrades: &'static [&'static str], outbox: Arc<Outbox>, hub: Arc<Hub>) -> Addr<Self> {
        static LAST_KEY: AtomicU64 = AtomicU64::new(0);
        let key = SessionKey(LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1);
        let (session, actions) = Session::open(sid, upgrades, &hub.rules, clock::now());
        let mut actor = Self { key, session, outbox, hub, stays: Vec::new(), ended: Disconnect::SessionFailed };
        actor.perform(actions);
        actor.start()
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let session = self.key;
        for action in actions {
            match action {
                Action::Send(frame) => self.send(&frame),
                Action::Enter(rooms) => {
                    rooms.iter().for_each(|&room| self.stay(room));
                    self.hub.registry.tell(Enter { session, outbox: self.outbox.clone(), rooms });
                }
                Action::Exit => {
                    self.stays.clear();
                    self.hub.registry.tell(Exit { session });
                }
                // The reply follows once the registry has the command: what is published after the client saw the reply
                // reaches it.
                Action::Join { room, reply } => {
                    self.hub.registry.tell(Join { session, room });
                    self.stay(room);
                    reply.into_iter().for_each(|reply| self.send_once_supplied(room, reply));
                }
                Action::Leave { room, reply } => {
                    self.hub.registry.tell(Leave { session, room });
                    self.stays.retain(|stay| stay.room() != room);
                    reply.into_iter().for_each(|reply| self.send(&reply));
                }
                Action::Say(message) => self.hub.chat.tell(Say { message }),
                Action::Refused(reason) => self.hub.stats.refused(reason).add(1),
                Action::Close(reason) => self.hub.close(&self.outbox, reason),
            }
        }
    }

    fn send(&self, frame: &Arc<Frame>) {
        self.hub.send(&self.outbox, frame);
    }

    fn stay(&mut self, room: Room) {
        let stay = self.hub.interest.as_ref().and_then(|interest| interest.enter(room));
        self.stays.extend(stay);
    }

    /// Sends the acknowledgement of a room, at once or when its source has been told that somebody is there.
    fn send_once_supplied(&self, room: Room, reply: Arc<Frame>) {
        let Some(stay) = self.stays.iter().find(|stay| stay.room() == room) else { return self.send(&reply) };
        let supplied = stay.supplied(SUPPLY_TIMEOUT);
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        actix_rt::spawn(async move {
            supplied.await;
            hub.send(&outbox, &reply);
        });
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Handler<Receive> for SessionActor {
    type Result = ();

    fn handle(&mut self, received: Receive, _: &mut Self::Context) {
        faults::receiving(ACTOR);
        let actions = match received {
            Receive::Text(text) => self.session.receive_text(&text, &self.hub.rules, clock::now()),
            Receive::Binary(frame) => self.session.receive_binary(&frame, &self.hub.rules, clock::now()),
        };
        self.perform(actions);
    }
}

impl Handler<ReceiveBody> for SessionActor {
    type Result = Option<Disconnect>;

    fn handle(&mut self, ReceiveBody(body): ReceiveBody, _: &mut Self::Context) -> Option<Disconnect> {
        let actions = self.session.receive_body(&body, &self.hub.rules, clock::now());
        let end = if let Some(Action::Close(reason)) = actions.last() { Some(*reason) } else { None };
        self.perform(actions);
        end
    }
}

impl Handler<TransportClosed> for SessionActor {
    type Result = ();

    fn handle(&mut self, closed: TransportClosed, ctx: &mut Self::Context) {
        self.ended = closed.reason;
        ctx.stop();
    }
}

/// Also runs when a handler panicked and the actor's task was ended: that closes this client's connection and nobody else's.
impl Drop for SessionActor {
    fn drop(&mut self) {
        self.hub.stats.disconnect(self.ended).add(1);
        log::debug!("session {} ended: {}", self.key.0, self.ended);
        self.hub.registry.tell(Exit { session: self.key });
        if let Some(home) = self.outbox.drop_all(Disconnect::SessionFailed) {
            self.hub.workers.mark(home);
        }
    }
}
