//! Everything that actors say to each other. Commands are imperative, facts are past tense.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actix::{Actor, Addr, Handler, Message, dev::ToEnvelope};
use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;

use crate::{
    disconnect::Disconnect,
    farm::{Audience, ChatMessage, EventId, FarmEvent, Payload, Room},
    frame::Frame,
    outbox::Outbox,
};

/// A session's name among actors; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub(super) u64);

// To the room registry.

/// From now on this session is told what goes to everyone and to these rooms.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Enter {
    pub session: SessionKey,
    pub outbox: Arc<Outbox>,
    pub rooms: Vec<Room>,
}

/// This session is told nothing more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Exit {
    pub session: SessionKey,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    pub session: SessionKey,
    pub room: Room,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave {
    pub session: SessionKey,
    pub room: Room,
}

/// Hand this frame to every session of the audience, once each.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Publish {
    pub audience: Audience,
    /// Sessions that had it before are left out, and those that get it now are noted.
    pub seen: Option<Arc<Seen>>,
    pub frame: Arc<Frame>,
    /// What the log says of it, beside its kind.
    pub id: Option<EventId>,
    pub event: Arc<FarmEvent>,
    pub receipt: Option<Receipt>,
}

/// Sessions that have an event which is told in two parts: to one room now, to another one later.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<SessionKey>>);

impl Seen {
    pub fn contains(&self, session: SessionKey) -> bool {
        self.sessions().contains(&session)
    }

    pub fn insert(&self, session: SessionKey) {
        self.sessions().insert(session);
    }

    fn sessions(&self) -> MutexGuard<'_, HashSet<SessionKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Say who is there. The answer also proves that the registry lives, and comes after all that was told it before.
#[derive(Debug, Message)]
#[rtype(result = "Census")]
pub struct TakeCensus {
    /// Count the rooms too.
    pub rooms: bool,
}

/// Who is there.
#[derive(Debug, Default, actix::MessageResponse)]
pub struct Census {
    /// Rooms with at least one member.
    pub rooms: Vec<(Room, usize)>,
}

/// Say where everyone's frames are put.
#[derive(Debug, Message)]
#[rtype(result = "Outboxes")]
pub struct ListOutboxes;

/// Of every session that is told anything.
#[derive(Debug, actix::MessageResponse)]
pub struct Outboxes(pub Vec<Arc<Outbox>>);

// To the publishers.

/// An event that a source handed over.
#[derive(Debug)]
pub struct Accepted {
    pub id: Option<EventId>,
    pub event: Arc<FarmEvent>,
}

/// Tell these, in this order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PublishEvents {
    pub events: Vec<Accepted>,
    pub receipt: Receipt,
}

/// Tell at once what would be told a little later: the server stops.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseHeld;

/// Somebody chats.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Say {
    pub message: Payload<ChatMessage>,
}

// To a session.

/// A message of the client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Receive {
    Text(ByteString),
    Binary(Bytes),
}

/// The body of a polling client's request. The answer says why the session ends, if it does.
#[derive(Debug, Message)]
#[rtype(result = "Option<Disconnect>")]
pub struct ReceiveBody(pub Bytes);

/// The client's connection is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TransportClosed {
    pub reason: Disconnect,
}

/// Tells a source that its events were dealt with: when the last clone is gone, whatever became of it on the way.
#[derive(Debug, Clone)]
pub struct Receipt {
    _done: Arc<oneshot::Sender<()>>,
}

impl Receipt {
    /// A receipt, and what ends when it is given.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self { _done: Arc::new(sender) }, receiver)
    }
}

/// Sending without waiting.
///
/// The mailbox bound of actix would either make a session wait on the registry or lose its message. What reaches a mailbox is
/// bounded at the edge instead: events by the intake's permits, a session's messages by its rate limit and by its transport,
/// which hands over one at a time.
pub trait Tell<M> {
    fn tell(&self, message: M);
}

impl<A, M> Tell<M> for Addr<A>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place; what is told is bounded at the edge")]
    fn tell(&self, message: M) {
        self.do_send(message);
    }
}
