//! The messages between actors. Commands are imperative, facts are past tense.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use actix::{Actor, Addr, Handler, Message, dev::ToEnvelope};
use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;

use crate::{
    disconnect::Disconnect,
    farm::{Audience, ChatMessage, EventId, FarmEvent, Payload, ResumeRequest, Room},
    frame::Frame,
    history::{Lost, Offset, Place, Recorded, Token},
    membership::SessionRooms,
    outbox::Outbox,
    protocol::{AckId, TransportName},
};

/// Identifies a session among actors; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub u64);

// To the room registry.

/// Seats a session: its client is in the default namespace, and in these rooms.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Enter(pub SeatedSession);

/// A session that gets broadcasts.
#[derive(Debug, Clone)]
pub struct SeatedSession {
    pub session: SessionKey,
    pub outbox: Arc<Outbox>,
    pub rooms: Arc<SessionRooms>,
    /// The address that its client counts for.
    pub client: IpAddr,
    /// Seconds from the start of the server to the start of the session.
    pub opened: u32,
    /// Whether its events carry tokens, and are neither throttled nor replaced by newer ones.
    pub can_resume: bool,
}

/// Seats a session that goes on where an earlier connection ended, sends what that missed, and
/// acknowledges.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Resume {
    pub enter: Enter,
    pub request: ResumeRequest,
    pub ack: Option<AckId>,
}

/// Reports that updates of a room no longer arrive from their source.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Lapse {
    /// `None` for all rooms of jobs and logs.
    pub room: Option<Room>,
}

/// Removes a session: it receives nothing more.
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
    /// Asks for the last known state of the room, and reports that it has been sent.
    pub state: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave {
    pub session: SessionKey,
    pub room: Room,
}

/// Delivers this frame to every session of the audience, once each.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Publish {
    pub audience: Audience,
    /// Sessions that already have the event. They are left out, and the sessions that get it now
    /// are added.
    pub seen: Option<Arc<Seen>>,
    pub frame: Arc<Frame>,
    /// Whether the event was published before, to the sessions that could get it at once.
    pub is_rest: bool,
    /// The event's id, for log lines.
    pub id: Option<EventId>,
    pub event: Arc<FarmEvent>,
    /// Its place in a history that several servers share.
    pub place: Option<Place>,
    pub receipt: Option<Receipt>,
}

/// The sessions that have an event which is published in two parts: to one room now, to another one
/// later.
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

/// Reads what was published, in all rooms.
#[derive(Debug, Message)]
#[rtype(result = "Result<Read, Lost>")]
pub struct ReadHistory {
    pub since: Since,
    /// Roughly the maximum size of the events, in bytes.
    pub max_bytes: usize,
}

/// Where to begin in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Oldest,
    Now,
    Token(Token),
}

/// Events of the history.
#[derive(Debug)]
pub struct Read {
    pub events: Vec<Recorded>,
    /// Where to go on.
    pub next: Token,
    /// Fires with the next event, if there are none now.
    pub more: Option<oneshot::Receiver<()>>,
}

/// Begins the history anew, and closes every session if it may have missed events.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BeginHistory {
    pub epoch: u64,
    /// The event before the first one of the history.
    pub offset: Offset,
    pub began: Instant,
    pub close: Option<Disconnect>,
}

/// Closes every session and each new one, until it is sent without a reason.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Refuse(pub Option<Disconnect>);

/// Counts the registry's rooms. The answer also proves that the registry works, and comes after
/// every earlier message.
#[derive(Debug, Message)]
#[rtype(result = "Census")]
pub struct TakeCensus {
    /// Whether to count the rooms too.
    pub rooms: bool,
}

/// The registry's answer to [`TakeCensus`].
#[derive(Debug, Default, actix::MessageResponse)]
pub struct Census {
    /// The rooms with at least one member.
    pub rooms: Vec<(Room, usize)>,
}

/// Lists all seated sessions.
#[derive(Debug, Message)]
#[rtype(result = "Sessions")]
pub struct ListSessions;

/// Every seated session, in no particular order.
#[derive(Debug, actix::MessageResponse)]
pub struct Sessions(pub Vec<SeatedSession>);

// To the publishers.

/// An event that a source has submitted.
#[derive(Debug)]
pub struct Accepted {
    pub id: Option<EventId>,
    pub event: Arc<FarmEvent>,
    pub place: Option<Place>,
}

/// Publishes these events, in this order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PublishEvents {
    pub events: Vec<Accepted>,
    pub receipt: Receipt,
}

/// Publishes the events that the throttle holds, because the server is shutting down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseHeld;

/// A client's chat message on its way to all servers of the farm.
#[derive(Debug)]
pub struct Said {
    pub message: Payload<ChatMessage>,
    /// Reports that it is stored.
    pub stored: oneshot::Sender<()>,
}

/// Publishes a client's chat message.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Say {
    pub message: Payload<ChatMessage>,
}

// To a session.

/// A message from the client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Receive {
    Text(ByteString),
    Binary(Bytes),
}

/// The body of a polling client's request. The answer is the reason for the end of the session, if
/// it ends.
#[derive(Debug, Message)]
#[rtype(result = "Option<Disconnect>")]
pub struct ReceiveBody(pub Bytes);

/// The client's connection has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TransportClosed {
    /// The transport that the session had last.
    pub transport: TransportName,
    pub reason: Disconnect,
}

/// Signals to a source that its events are published, when the last clone is dropped, whatever
/// happened to it on the way.
#[derive(Debug, Clone)]
pub struct Receipt {
    _done: Arc<oneshot::Sender<()>>,
}

impl Receipt {
    /// Returns a receipt, and a channel that closes when the last clone is dropped.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self { _done: Arc::new(sender) }, receiver)
    }
}

/// Puts a message into an actor's mailbox without waiting.
///
/// The mailbox bound of actix would either make a session wait for the registry or lose its
/// message. Mailboxes are bounded at the edge instead: events by the intake's permits, a session's
/// messages by its rate limit and by its transport, which delivers one at a time.
pub trait Enqueue<M> {
    fn enqueue(&self, message: M);
}

impl<A, M> Enqueue<M> for Addr<A>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the only place; messages are bounded at the edge")]
    fn enqueue(&self, message: M) {
        self.do_send(message);
    }
}
