//! The rules of one client's session, as a plain struct: input in, actions out.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    chat_budget::ChatBudget,
    disconnect::Disconnect,
    farm::{ChatMessage, Op, Payload, ResumeRequest, Room, SubscriptionRequest, UnknownRoom, chat},
    frame::Frame,
    membership::SessionRooms,
    options::{at_least_one, heading, positive_duration},
    protocol::{
        AckId, Connection, EnginePacket, Event, OpenPacket, PayloadProblem, ProtocolError, Received, SessionId,
        engine_payload::{DEFAULT_MAX_PACKETS, Payload as PollingBody},
        write_ack, write_invalid_namespace,
    },
    room_budget::{RoomBudget, RoomShare},
    stats::Refused,
};

const SUBSCRIPTION: &str = "/subscription";
const CHAT: &str = "/chat";
const RESUME: &str = "/resume";
/// The Engine.IO message that holds Socket.IO's connect packet of the default namespace.
const CONNECTED: &[u8] = b"40";

/// The options of sessions.
#[derive(Debug, Clone, Args)]
pub struct SessionOptions {
    /// Rooms that every browser starts in; the default is that of Flamenco's Manager
    #[arg(long, value_name = "ROOMS", env = "WEBUPDATES_DEFAULT_ROOMS", value_delimiter = ',', default_value = "Jobs,Chat", value_parser = room, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub default_rooms: Vec<Room>,

    /// Interval at which browsers ping; some clients, Go's among them, always ping every 30 s
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_PING_INTERVAL", default_value = "30s", value_parser = positive_duration, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub ping_interval: Duration,

    /// Time beyond the ping interval for which a browser may be silent before its session ends
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_PING_TIMEOUT", default_value = "60s", value_parser = positive_duration, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub ping_timeout: Duration,

    /// Maximum number of rooms per browser; more are refused in the acknowledgement
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_ROOMS", default_value_t = 1000, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_rooms: usize,

    /// Maximum number of rooms of all browsers together, beyond the first 20 of each; a fifth of it
    /// per address. More are refused in the acknowledgement
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_SUBSCRIPTIONS", default_value_t = 500_000, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_subscriptions: usize,

    /// Maximum number of packets in one long-polling request; more close the session
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_PACKETS", default_value_t = DEFAULT_MAX_PACKETS, value_parser = at_least_one(), help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_packets: usize,

    /// Maximum number of messages per second and browser; more close its connection
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_MESSAGES_PER_SECOND", default_value_t = 2000, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_messages_per_second: u32,

    /// Maximum number of chat messages per second and browser; more are refused in the
    /// acknowledgement
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_CHATS_PER_SECOND", default_value_t = 10, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_chats_per_second: u32,

    /// Maximum chat volume per second of all browsers together; half of it per address. More is
    /// refused in the acknowledgement; 0 means no limit
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_CHAT_BYTES_PER_SECOND", default_value_t = 32_768, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_chat_bytes_per_second: usize,

    /// Maximum size of a chat message as sent, JSON escapes included; a longer one is refused in the acknowledgement
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_CHAT", default_value_t = 8192, help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_chat: usize,
}

/// The rules that apply to every session of a server.
#[derive(Debug, Clone)]
pub struct Rules {
    pub options: SessionOptions,
    /// The chat budget of all sessions together.
    pub chat: Arc<ChatBudget>,
    /// The room budget of all sessions together.
    pub room_budget: Arc<RoomBudget>,
    /// The name of this server among others.
    node: Option<String>,
}

fn room(text: &str) -> Result<Room, String> {
    text.trim().parse().map_err(|error: UnknownRoom| error.to_string())
}

impl Rules {
    pub fn new(options: SessionOptions, node: Option<String>, now: Instant) -> Self {
        let chat = Arc::new(ChatBudget::new(options.max_chat_bytes_per_second, now));
        let room_budget = Arc::new(RoomBudget::new(options.max_subscriptions));
        Self { options, chat, room_budget, node }
    }

    /// Returns the name of this server among others, with which session ids begin.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Returns how long a client may be silent before it counts as gone.
    pub fn silence(&self) -> Duration {
        self.options.ping_interval + self.options.ping_timeout
    }
}

/// One client's protocol state, rooms and rate limits.
#[derive(Debug)]
pub struct SessionState {
    connection: Connection,
    rooms: Arc<SessionRooms>,
    resume: Resume,
    room_share: RoomShare,
    messages: Rate,
    chats: Rate,
}

/// Whether a client goes on where an earlier connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resume {
    /// It did not ask for that.
    No,
    /// It is in no room until it says where it wants to go on, or asks for a room.
    Awaited,
    Done,
}

/// What the owner of a session has to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Send this frame to the client.
    Send(Arc<Frame>),
    /// Seat the session: the client is in the default namespace, and in these rooms.
    Enter(Arc<SessionRooms>),
    /// Unseat the session: the client left the default namespace.
    Exit,
    /// Seat the session in these rooms, and send what it missed since its token, and the acknowledgement.
    Resume { request: ResumeRequest, rooms: Arc<SessionRooms>, ack: Option<AckId> },
    /// Join the room; with `state`, also send its last known state. If requested, acknowledge once it is
    /// known whether the room's updates arrive.
    Join { room: Room, state: bool, ack: Option<AckId> },
    /// Acknowledge in the same way that the client is in the room.
    Confirm { room: Room, ack: AckId },
    /// Leave the room, then send the reply.
    Leave { room: Room, reply: Option<Arc<Frame>> },
    /// Publish a chat message.
    Say { message: Payload<ChatMessage>, ack: Option<AckId> },
    /// Count a refusal.
    Refused(Refused),
    /// End the session.
    Close(Disconnect),
}

impl SessionState {
    /// Opens the session of a new client: sends its session id and the connect packet, and enters
    /// the default rooms, or with `can_resume` none until the client asks.
    pub fn open(
        sid: SessionId,
        upgrades: &'static [&'static str],
        client: IpAddr,
        can_resume: bool,
        rules: &Rules,
        now: Instant,
    ) -> (Self, Vec<Action>) {
        let open = OpenPacket {
            sid,
            node: rules.node.clone(),
            upgrades,
            ping_interval: rules.options.ping_interval,
            ping_timeout: rules.options.ping_timeout,
        };
        let mut session = Self {
            connection: Connection::new(),
            rooms: Arc::default(),
            resume: if can_resume { Resume::Awaited } else { Resume::No },
            room_share: RoomShare::new(rules.room_budget.clone(), client),
            messages: Rate::new(now),
            chats: Rate::new(now),
        };
        let mut actions = vec![Action::Send(Frame::text(now, |out| open.encode(out)))];
        session.enter(rules, now, &mut actions);
        (session, actions)
    }

    /// Handles the body of a polling request, in either framing. A body with an invalid packet has
    /// no effect except ending the session.
    pub fn receive_body(&mut self, body: &[u8], rules: &Rules, now: Instant) -> Vec<Action> {
        let body = match PollingBody::decode(body, rules.options.max_packets) {
            Ok(body) => body,
            Err(error) => {
                log::debug!("a client is closed: {error}");
                let too_many = matches!(error.problem, PayloadProblem::TooManyPackets { .. });
                let reason = if too_many { Disconnect::TooManyMessages } else { Disconnect::ParseError };
                return vec![Action::Close(reason)];
            }
        };
        let mut actions = Vec::new();
        for packet in body.packets() {
            actions.extend(self.receive(Ok(packet), rules, now));
            if let Some(Action::Close(_)) = actions.last() {
                break;
            }
        }
        actions
    }

    /// Handles a text frame.
    pub fn receive_text(&mut self, text: &str, rules: &Rules, now: Instant) -> Vec<Action> {
        self.receive(EnginePacket::decode_text(text), rules, now)
    }

    /// Handles a binary frame.
    pub fn receive_binary(&mut self, frame: &[u8], rules: &Rules, now: Instant) -> Vec<Action> {
        self.receive(EnginePacket::decode_binary(frame), rules, now)
    }

    fn receive(&mut self, packet: Result<EnginePacket<'_>, ProtocolError>, rules: &Rules, now: Instant) -> Vec<Action> {
        if !self.messages.allows(rules.options.max_messages_per_second, now) {
            return vec![Action::Close(Disconnect::TooManyMessages)];
        }
        let received = match packet.and_then(|packet| self.connection.receive(packet)) {
            Ok(received) => received,
            Err(error) => {
                log::debug!("a client is closed: {error}");
                return vec![Action::Close(Disconnect::ParseError)];
            }
        };
        match received {
            Received::Nothing | Received::Upgrade => Vec::new(),
            Received::Ping(data) => {
                vec![Action::Send(Frame::text(now, |out| EnginePacket::Pong(data).encode_text(out)))]
            }
            Received::Closed => vec![Action::Close(Disconnect::TransportClose)],
            Received::Left => {
                self.rooms.set(&[]);
                self.room_share.resize(0);
                vec![Action::Exit]
            }
            Received::Entered => {
                let mut actions = Vec::new();
                self.enter(rules, now, &mut actions);
                actions
            }
            Received::InvalidNamespace(namespace) => {
                vec![Action::Send(Frame::text(now, |out| write_invalid_namespace(out, namespace)))]
            }
            Received::Event { ack, event } => self.event(ack, &event, rules, now),
            Received::BinaryEvent { ack } => answer(ack, "binary data is not supported, ignoring request", now),
        }
    }

    fn enter(&mut self, rules: &Rules, now: Instant, actions: &mut Vec<Action>) {
        let can_resume = self.resume != Resume::No;
        self.rooms.set(if can_resume { &[] } else { &rules.options.default_rooms });
        // The connect packet precedes every event. The thread that performs these actions flushes
        // it, so not before the rooms are entered: everything published after the client saw it
        // reaches the client.
        actions.push(Action::Send(Frame::text(now, |out| out.extend_from_slice(CONNECTED))));
        if can_resume {
            self.resume = Resume::Awaited;
        } else {
            actions.push(Action::Enter(self.rooms.clone()));
        }
    }

    fn event(&mut self, ack: Option<AckId>, event: &Event<'_>, rules: &Rules, now: Instant) -> Vec<Action> {
        let argument = event.args.first().map_or("null", |argument| argument.get());
        match event.name.as_ref() {
            SUBSCRIPTION => match SubscriptionRequest::parse(argument) {
                Ok(request) => self.subscription(request, ack, rules, now),
                Err(refusal) => answer(ack, &refusal.to_string(), now),
            },
            CHAT => self.chat(argument, ack, rules, now),
            RESUME => match ResumeRequest::parse(argument) {
                Ok(request) => self.resume(request, ack, rules, now),
                Err(error) => answer(ack, &format!("invalid request: {error}"), now),
            },
            _ => Vec::new(),
        }
    }

    fn subscription(
        &mut self,
        request: SubscriptionRequest,
        ack: Option<AckId>,
        rules: &Rules,
        now: Instant,
    ) -> Vec<Action> {
        let SubscriptionRequest { op, room, state } = request;
        match (op, self.rooms.contains(room)) {
            (Op::Subscribe, false) if self.rooms.len() >= rules.options.max_rooms => {
                refuse(Refused::TooManyRooms, ack, "too many subscriptions, ignoring request", now)
            }
            (Op::Subscribe, false) if !self.room_share.resize(self.rooms.len() + 1) => {
                let text = "too many subscriptions from your address or in all, ignoring request";
                refuse(Refused::TooManySubscriptions, ack, text, now)
            }
            (Op::Subscribe, false) => {
                let mut actions = self.enter_unresumed();
                self.rooms.add(room);
                actions.push(Action::Join { room, state, ack });
                actions
            }
            (Op::Unsubscribe, true) => {
                self.rooms.remove(room);
                self.room_share.resize(self.rooms.len());
                vec![Action::Leave { room, reply: acknowledgement(ack, "ok", now) }]
            }
            (Op::Subscribe, true) if state => vec![Action::Join { room, state, ack }],
            (Op::Subscribe, true) => ack.map(|ack| Action::Confirm { room, ack }).into_iter().collect(),
            (Op::Unsubscribe, false) => answer(ack, "ok", now),
        }
    }

    /// Seats a client that asks for a room before it resumes: it then gets only what comes.
    fn enter_unresumed(&mut self) -> Vec<Action> {
        if self.resume != Resume::Awaited {
            return Vec::new();
        }
        self.resume = Resume::Done;
        vec![Action::Enter(self.rooms.clone())]
    }

    fn resume(&mut self, request: ResumeRequest, ack: Option<AckId>, rules: &Rules, now: Instant) -> Vec<Action> {
        match self.resume {
            Resume::No => answer(ack, "the connection was not opened with resume=1, ignoring request", now),
            Resume::Done => answer(ack, "the session has resumed or is in a room already, ignoring request", now),
            Resume::Awaited if request.rooms.len() > rules.options.max_rooms => {
                refuse(Refused::TooManyRooms, ack, "too many rooms, ignoring request", now)
            }
            Resume::Awaited if !self.room_share.resize(request.rooms.len()) => {
                let text = "too many subscriptions from your address or in all, ignoring request";
                refuse(Refused::TooManySubscriptions, ack, text, now)
            }
            Resume::Awaited => {
                self.resume = Resume::Done;
                self.rooms.set(&request.rooms);
                vec![Action::Resume { request, rooms: self.rooms.clone(), ack }]
            }
        }
    }

    /// Returns whether the client may resume, so that its events carry tokens.
    pub fn can_resume(&self) -> bool {
        self.resume != Resume::No
    }

    /// Removes a room that the client could not join.
    pub fn forget(&mut self, room: Room) {
        self.rooms.remove(room);
    }

    /// Returns the client's address.
    pub fn client(&self) -> IpAddr {
        self.room_share.client()
    }

    fn chat(&mut self, argument: &str, ack: Option<AckId>, rules: &Rules, now: Instant) -> Vec<Action> {
        if argument.len() > rules.options.max_chat {
            return refuse(Refused::ChatTooLong, ack, "chat message is too long, ignoring request", now);
        }
        match chat::parse(argument) {
            Err(refusal) => answer(ack, &refusal.to_string(), now),
            Ok(_) if !self.chats.allows(rules.options.max_chats_per_second, now) => {
                refuse(Refused::TooManyChats, ack, "too many chat messages, ignoring request", now)
            }
            Ok(_) if !rules.chat.take(self.room_share.client(), argument.len(), now) => {
                refuse(Refused::TooMuchChat, ack, "too much chat at the moment, ignoring request", now)
            }
            Ok(message) => {
                vec![Action::Say { message, ack }]
            }
        }
    }
}

fn answer(ack: Option<AckId>, text: &str, now: Instant) -> Vec<Action> {
    acknowledgement(ack, text, now).map(Action::Send).into_iter().collect()
}

fn refuse(reason: Refused, ack: Option<AckId>, text: &str, now: Instant) -> Vec<Action> {
    let mut actions = vec![Action::Refused(reason)];
    actions.extend(answer(ack, text, now));
    actions
}

/// Encodes an acknowledgement, if the client requested one.
pub fn acknowledgement(ack: Option<AckId>, text: &str, now: Instant) -> Option<Arc<Frame>> {
    ack.map(|ack| Frame::text(now, |out| write_ack(out, ack, text)))
}

/// Counts events within one second.
#[derive(Debug)]
pub struct Rate {
    since: Instant,
    count: u32,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Counts one event. Returns whether the rate is within the limit.
    pub fn allows(&mut self, per_second: u32, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count <= per_second
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{clock, options::defaults};

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn rules() -> Rules {
        let options = SessionOptions {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(60),
            max_packets: 10,
            max_rooms: 4,
            max_messages_per_second: 50,
            max_chats_per_second: 2,
            max_chat: 100,
            max_chat_bytes_per_second: 75,
            max_subscriptions: 100,
            ..defaults()
        };
        Rules::new(options, None, clock::now())
    }

    /// Formats actions for the assertions below.
    fn shown(actions: Vec<Action>) -> Vec<String> {
        let text = |frame: &Frame| frame.packet().unwrap().to_owned();
        let reply = |reply: Option<Arc<Frame>>| reply.map_or("-".to_owned(), |frame| text(&frame));
        let show = |action| match action {
            Action::Send(frame) => format!("send {}", text(&frame)),
            Action::Enter(rooms) => {
                format!("enter {}", rooms.joined().iter().map(Room::to_string).collect::<Vec<_>>().join(" "))
            }
            Action::Exit => "exit".to_owned(),
            Action::Join { room, state, ack } => {
                let state = if state { " with its state" } else { "" };
                format!("join {room}{state}, {}", reply(acknowledgement(ack, "ok", clock::now())))
            }
            Action::Resume { request, ack, .. } => format!("resume {request:?} {ack:?}"),
            Action::Confirm { room, ack } => format!("confirm {room}, {ack}"),
            Action::Leave { room, reply: frame } => format!("leave {room}, {}", reply(frame)),
            Action::Say { message, ack } => {
                format!("say {}, {}", message.json, ack.map_or("-".to_owned(), |ack| ack.to_string()))
            }
            Action::Refused(reason) => format!("refused {}", reason.as_str()),
            Action::Close(reason) => format!("close {reason}"),
        };
        actions.into_iter().map(show).collect()
    }

    fn session() -> SessionState {
        SessionState::open(SessionId::from_random([7; 16]), &[], CLIENT, false, &rules(), clock::now()).0
    }

    /// Returns what a new session does with these packets, one after the other.
    fn conversation(lines: &[&str]) -> Vec<Vec<String>> {
        let (mut session, rules) = (session(), rules());
        lines.iter().map(|line| shown(session.receive_text(line, &rules, clock::now()))).collect()
    }

    #[test]
    fn a_new_client_is_connected_before_any_event_comes() {
        let sid = SessionId::from_random([7; 16]);
        let (_, actions) = SessionState::open(sid, &["websocket"], CLIENT, false, &rules(), clock::now());
        let open =
            format!(r#"send 0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":60000}}"#);
        assert_eq!(shown(actions), [&open, "send 40", "enter Jobs Chat"]);
    }

    #[test]
    fn subscriptions_join_and_leave_once() {
        let subscribe =
            |op: &str, ack: &str| format!(r#"42{ack}["/subscription",{{"op":"{op}","type":"job","uuid":"{JOB}"}}]"#);
        let lines = [
            subscribe("subscribe", "1"),
            subscribe("subscribe", "2"),
            subscribe("unsubscribe", ""),
            subscribe("unsubscribe", "3"),
        ];
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let expected = [
            format!(r#"join job-{JOB}, 431["ok"]"#),
            format!("confirm job-{JOB}, 2"),
            format!("leave job-{JOB}, -"),
            r#"send 433["ok"]"#.to_owned(),
        ];
        assert_eq!(conversation(&lines), expected.map(|action| vec![action]));
    }

    #[test]
    fn rooms_are_bounded() {
        let expected = [
            vec![r#"join Workers, 431["ok"]"#],
            vec![r#"join Last-Rendered, 432["ok"]"#],
            vec!["refused too-many-rooms", r#"send 433["too many subscriptions, ignoring request"]"#],
        ];
        let lines = [
            r#"421["/subscription",{"op":"subscribe","type":"allWorkers"}]"#,
            r#"422["/subscription",{"op":"subscribe","type":"allLastRendered"}]"#,
            r#"423["/subscription",{"op":"subscribe","type":"allWorkerTags"}]"#,
        ];
        assert_eq!(conversation(&lines), expected);
    }

    #[test]
    fn chat_goes_out_untouched_and_is_bounded() {
        let long = format!(r#"427["/chat",{{"name":"a","text":"{}"}}]"#, "x".repeat(100));
        let lines = [
            r#"427["/chat",{"name":"a", "text":"b","more":1.50}]"#,
            r#"42["/chat",{"name":"a","text":"b"}]"#,
            r#"427["/chat",{"name":"a","text":"c"}]"#,
            &long,
        ];
        let expected = [
            vec![r#"say {"name":"a", "text":"b","more":1.50}, 7"#],
            vec![r#"say {"name":"a","text":"b"}, -"#],
            vec!["refused too-many-chats", r#"send 437["too many chat messages, ignoring request"]"#],
            vec!["refused chat-too-long", r#"send 437["chat message is too long, ignoring request"]"#],
        ];
        assert_eq!(conversation(&lines), expected);
    }

    #[test]
    fn the_chat_of_an_address_is_bounded() {
        let long = format!(r#"427["/chat",{{"name":"a","text":"{}"}}]"#, "x".repeat(30));
        let expected = [
            vec![format!(r#"say {{"name":"a","text":"{}"}}, 7"#, "x".repeat(30))],
            vec![
                "refused too-much-chat".to_owned(),
                r#"send 437["too much chat at the moment, ignoring request"]"#.to_owned(),
            ],
        ];
        assert_eq!(conversation(&[&long, &long]), expected);
    }

    #[test]
    fn invalid_packets_close_and_useless_ones_are_ignored() {
        let lines = ["2probe", r#"425["/nothing-of-ours",1]"#, r#"42["error"]"#, "40/admin,", "3", "42[{}]"];
        let none: Vec<&str> = Vec::new();
        let expected = [
            vec!["send 3probe"],
            none.clone(),
            none.clone(),
            vec![r#"send 44/admin,"Invalid namespace""#],
            none,
            vec!["close parse-error"],
        ];
        assert_eq!(conversation(&lines), expected);
    }

    #[test]
    fn a_client_that_reenters_the_namespace_starts_anew() {
        let subscribe = r#"42["/subscription",{"op":"subscribe","type":"allWorkers"}]"#;
        let expected = [
            vec!["join Workers, -"],
            vec!["exit"],
            vec![],
            vec!["send 40", "enter Jobs Chat"],
            vec!["join Workers, -"],
        ];
        assert_eq!(conversation(&[subscribe, "41", subscribe, "40", subscribe]), expected);
    }

    #[test]
    fn a_body_is_accepted_as_a_whole_or_not_at_all() {
        let body = |body: &str| shown(session().receive_body(body.as_bytes(), &rules(), clock::now()));
        assert_eq!(body("2:2a2:2b"), ["send 3a", "send 3b"]);
        assert_eq!(body("2:2a1:16:42[{}]"), ["send 3a", "close transport-close"], "packets after a close are ignored");
        assert_eq!(body("2:2a2:7b"), ["close parse-error"]);
        assert_eq!(body(&"1:3".repeat(10)), [""; 0]);
        assert_eq!(body(&"1:3".repeat(11)), ["close too-many-messages"]);
    }

    #[test]
    fn a_flood_ends_the_session_and_a_second_later_it_would_be_none() {
        let mut session = session();
        let start = clock::now();
        let mut at = |milliseconds| session.receive_text("2", &rules(), start + Duration::from_millis(milliseconds));
        let answers: Vec<_> = (0..50).map(|_| shown(at(500))).collect();
        assert_eq!(answers, vec![vec!["send 3".to_owned()]; 50]);
        assert_eq!(shown(at(999)), ["close too-many-messages"]);
        assert_eq!(shown(at(1600)), ["send 3"]);
    }
}
