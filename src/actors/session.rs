//! The session actor: one per client, performs what the plain [`SessionState`] decides.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, ActorContext, Addr, Context, Handler};
use actix_rt::time::timeout;
use tokio::sync::oneshot;

use super::{
    Hub,
    messages::{
        Enqueue, Enter, Exit, Join, Leave, Receive, ReceiveBody, Resume, Said, Say, SeatedSession, SessionKey,
        TransportClosed,
    },
};
use crate::{
    clock,
    disconnect::Disconnect,
    farm::{ChatMessage, Payload, Room, chat},
    faults,
    frame::Frame,
    history::{Reached, Token},
    interest::{Shortage, Stays, Supply},
    membership::SessionRooms,
    outbox::{Outbox, Phase},
    protocol::{AckId, SessionId, TransportName},
    session_state::{Action, SessionState, acknowledgement},
};

/// The maximum time for which an acknowledgement waits for the relay to confirm the room.
const SUPPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The acknowledgement after that time.
const UNCONFIRMED: &str = "the Manager has not confirmed the subscription yet; updates begin once it does";

/// The maximum time for which an acknowledgement waits until a chat message is stored.
const CHAT_TIMEOUT: Duration = Duration::from_secs(1);

/// The acknowledgement after that time.
const NO_CHAT: &str = "chat is not available";

/// The maximum time for which a client that resumes waits until this server has the event of its token.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(15);

/// The actor's name in logs.
const ACTOR: &str = "session";

/// One client's session. It never waits for another actor, so it always notices the end of its
/// connection.
pub struct Session {
    key: SessionKey,
    session: SessionState,
    outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    /// The rooms for which a source supplies updates, once the session is in one.
    stays: Option<Box<Stays>>,
    /// The reason that is counted when the session ends.
    ended: Disconnect,
    /// The transport of the session, as far as its actor knows.
    transport: TransportName,
}

/// A client that was admitted.
#[derive(Debug, Clone, Copy)]
pub struct NewClient {
    pub sid: SessionId,
    pub transport: TransportName,
    pub address: IpAddr,
    /// The address that limits count.
    pub counted: IpAddr,
    pub can_resume: bool,
}

impl Session {
    /// Starts the session of a new client on this thread. On return, the client's first packets are
    /// in its outbox and its rooms are in the registry's mailbox.
    pub fn open(client: NewClient, outbox: Arc<Outbox>, hub: Arc<Hub>) -> Addr<Self> {
        static LAST_KEY: AtomicU64 = AtomicU64::new(0);
        let key = SessionKey(LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1);
        let NewClient { sid, transport, address, counted, can_resume } = client;
        let upgrades: &[&str] = match transport {
            TransportName::Polling => &["websocket"],
            TransportName::WebSocket => &[],
        };
        let (session, actions) = SessionState::open(sid, upgrades, counted, can_resume, &hub.rules, clock::now());
        let mut actor = Self { key, session, outbox, hub, stays: None, ended: Disconnect::SessionFailed, transport };
        if actor.may_log() {
            log::info!(session = key.0, address:%, transport = transport.as_str(); "a session has begun");
        }
        actor.perform(actions);
        actor.start()
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let session = self.key;
        for action in actions {
            match action {
                Action::Send(frame) => self.send(&frame),
                Action::Enter(rooms) => {
                    // None of the few default rooms can be refused.
                    let hub = self.hub.clone();
                    for &room in &hub.rules.options.default_rooms {
                        let _ = self.stay(room);
                    }
                    self.hub.registry.enqueue(self.seat(rooms));
                }
                Action::Resume { request, rooms, ack } => {
                    for &room in &request.rooms {
                        if let Err(shortage) = self.stay(room) {
                            self.hub.stats.refused(shortage.refused()).add(1);
                            self.session.forget(room);
                        }
                    }
                    self.resume(Resume { enter: self.seat(rooms), request, ack });
                }
                Action::Exit => {
                    self.stays = None;
                    self.hub.registry.enqueue(Exit { session });
                }
                Action::Join { room, state, ack } => match self.stay(room) {
                    // The acknowledgement follows once the registry has the command, so everything
                    // published after the client saw it reaches the client; and after the state.
                    Ok(()) => {
                        let (sent, is_sent) = state.then(oneshot::channel).unzip();
                        self.hub.registry.enqueue(Join { session, room, state: sent });
                        if let Some(ack) = ack {
                            self.acknowledge(room, is_sent, ack);
                        }
                    }
                    Err(shortage) => {
                        self.session.forget(room);
                        self.hub.stats.refused(shortage.refused()).add(1);
                        let reply = acknowledgement(ack, &shortage.to_string(), clock::now());
                        reply.into_iter().for_each(|reply| self.send(&reply));
                    }
                },
                Action::Confirm { room, ack } => self.acknowledge(room, None, ack),
                Action::Leave { room, reply } => {
                    self.hub.registry.enqueue(Leave { session, room });
                    self.stays.iter_mut().for_each(|stays| stays.leave(room));
                    reply.into_iter().for_each(|reply| self.send(&reply));
                }
                Action::Say { message, ack } => self.say(message, ack),
                Action::Refused(reason) => self.hub.stats.refused(reason).add(1),
                Action::Close(reason) => self.hub.close(&self.outbox, reason),
            }
        }
    }

    /// Returns whether the log has room for a line about this session.
    fn may_log(&self) -> bool {
        if !log::log_enabled!(log::Level::Info) {
            return false;
        }
        let left_out = self.hub.log_budget.spend(clock::now());
        if let Some(lines @ 1..) = left_out {
            log::info!(lines; "some sessions began or ended without a line, because there were too many at once");
        }
        left_out.is_some()
    }

    fn send(&self, frame: &Arc<Frame>) {
        self.hub.send(&self.outbox, frame);
    }

    /// Reports to the source that the client is in the room.
    fn stay(&mut self, room: Room) -> Result<(), Shortage> {
        match &self.hub.interest {
            Some(interest) if room.is_of_entity() => {
                let new = || Box::new(Stays::new(interest.clone(), self.session.client()));
                self.stays.get_or_insert_with(new).enter(room)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Seats a client that resumes, once this server has the event of its token: the server that the client
    /// comes from may have been ahead.
    fn resume(&self, resume: Resume) {
        let token: Option<Token> = resume.request.token.as_deref().and_then(|token| token.parse().ok());
        let is_behind = move |reached: &Reached| token.is_some_and(|token| reached.is_before(&token));
        if !is_behind(&self.hub.reached.borrow()) {
            return self.hub.registry.enqueue(resume);
        }
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        actix_rt::spawn(async move {
            let mut reached = hub.reached.subscribe();
            let _ = timeout(BEHIND_TIMEOUT, reached.wait_for(|reached| !is_behind(reached))).await;
            // Otherwise the session has ended, and the registry knows.
            if outbox.phase() == Phase::Open {
                hub.registry.enqueue(resume);
            }
        });
    }

    /// Publishes a chat message. One that goes to all servers is acknowledged once it is stored.
    fn say(&self, message: Payload<ChatMessage>, ack: Option<AckId>) {
        let Some(chats) = &self.hub.chats else {
            self.hub.chat.enqueue(Say { message });
            let reply = acknowledgement(ack, chat::CHAT_SENT, clock::now());
            return reply.into_iter().for_each(|reply| self.send(&reply));
        };
        let (stored, is_stored) = oneshot::channel();
        let is_queued = chats.try_send(Said { message, stored }).is_ok();
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        actix_rt::spawn(async move {
            let is_stored = is_queued && matches!(timeout(CHAT_TIMEOUT, is_stored).await, Ok(Ok(())));
            let text = if is_stored { chat::CHAT_SENT } else { NO_CHAT };
            let reply = acknowledgement(ack, text, clock::now());
            reply.into_iter().for_each(|reply| hub.send(&outbox, &reply));
        });
    }

    /// Acknowledges that the client is in a room, once its state has been sent, if `state` reports that,
    /// and the source has reported whether the room's updates arrive.
    fn acknowledge(&self, room: Room, state: Option<oneshot::Receiver<()>>, ack: AckId) {
        let stays = self.stays.as_ref().filter(|_| room.is_of_entity());
        let supply = stays.map(|stays| stays.supply(room, SUPPLY_TIMEOUT));
        if supply.is_none() && state.is_none() {
            return acknowledgement(Some(ack), "ok", clock::now()).into_iter().for_each(|reply| self.send(&reply));
        }
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        actix_rt::spawn(async move {
            if let Some(state) = state {
                // If the registry dropped the request, there is no state to wait for.
                let _ = state.await;
            }
            let supply = match supply {
                Some(supply) => supply.await,
                None => Supply::Supplied,
            };
            let text = match supply {
                Supply::Supplied => "ok".to_owned(),
                Supply::Pending => UNCONFIRMED.to_owned(),
                Supply::Missing(shortage) => shortage.to_string(),
            };
            let reply = acknowledgement(Some(ack), &text, clock::now());
            reply.into_iter().for_each(|reply| hub.send(&outbox, &reply));
        });
    }

    fn seat(&self, rooms: Arc<SessionRooms>) -> Enter {
        Enter(SeatedSession {
            session: self.key,
            outbox: self.outbox.clone(),
            rooms,
            client: self.session.client(),
            opened: clock::now().saturating_duration_since(self.hub.stats.started).as_secs() as u32,
            can_resume: self.session.can_resume(),
        })
    }
}

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<Receive> for Session {
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

impl Handler<ReceiveBody> for Session {
    type Result = Option<Disconnect>;

    fn handle(&mut self, ReceiveBody(body): ReceiveBody, _: &mut Self::Context) -> Option<Disconnect> {
        let actions = self.session.receive_body(&body, &self.hub.rules, clock::now());
        let end = if let Some(Action::Close(reason)) = actions.last() { Some(*reason) } else { None };
        self.perform(actions);
        end
    }
}

impl Handler<TransportClosed> for Session {
    type Result = ();

    fn handle(&mut self, closed: TransportClosed, ctx: &mut Self::Context) {
        (self.ended, self.transport) = (closed.reason, closed.transport);
        ctx.stop();
    }
}

/// Also runs when a handler panicked and the actor's task was ended. That closes only this client's
/// connection.
impl Drop for Session {
    fn drop(&mut self) {
        self.hub.stats.disconnect(self.ended).add(1);
        if self.may_log() {
            let (session, address) = (self.key.0, self.session.client());
            let (transport, reason) = (self.transport.as_str(), self.ended.as_str());
            log::info!(session, address:%, transport, reason; "a session has ended");
        }
        self.hub.registry.enqueue(Exit { session: self.key });
        if let Some(home) = self.outbox.drop_all(Disconnect::SessionFailed) {
            self.hub.workers.mark(home);
        }
    }
}
