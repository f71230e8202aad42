//! What one client is told and may do: plain rules, input in, actions out.

use std::{sync::Arc, time::Duration, time::Instant};

use crate::{
    disconnect::Disconnect,
    farm::{ChatMessage, Op, Payload, Room, SubscriptionRequest, chat},
    frame::Frame,
    protocol::{
        AckId, Connection, EnginePacket, Event, OpenPacket, PayloadProblem, ProtocolError, Received, SessionId,
        engine_payload::Payload as PollingBody, write_ack, write_invalid_namespace,
    },
    stats::Refused,
};

const SUBSCRIPTION: &str = "/subscription";
const CHAT: &str = "/chat";
/// Engine.IO message that holds Socket.IO's connect packet of the default namespace.
const CONNECTED: &[u8] = b"40";

/// What holds for every session of a server.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Rooms that every client is in from the beginning.
    pub default_rooms: Vec<Room>,
    /// How often the client shall ping.
    pub ping_interval: Duration,
    /// How much longer than that nothing may come before the session ends.
    pub ping_timeout: Duration,
    /// Rooms one session may be in.
    pub max_rooms: usize,
    /// Packets in one body of a polling session; more ends it.
    pub max_packets: usize,
    /// Packets one session may send a second; more ends it.
    pub max_messages_per_second: u32,
    /// Chat messages one session may send a second; more are refused.
    pub max_chats_per_second: u32,
    /// Bytes of a chat message's JSON.
    pub max_chat: usize,
}

impl Rules {
    /// How long nothing may come from a client before it counts as gone.
    pub fn silence(&self) -> Duration {
        self.ping_interval + self.ping_timeout
    }
}

/// One client's protocol state, rooms and allowances.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    rooms: Vec<Room>,
    messages: Rate,
    chats: Rate,
}

/// What the owner of a session has to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Send this to the client.
    Send(Arc<Frame>),
    /// The client is in the default namespace now, and in these rooms.
    Enter(Vec<Room>),
    /// The client left the default namespace: it gets no more events.
    Exit,
    /// Join, then send the reply.
    Join { room: Room, reply: Option<Arc<Frame>> },
    /// Leave, then send the reply.
    Leave { room: Room, reply: Option<Arc<Frame>> },
    /// Tell the chat room.
    Say(Payload<ChatMessage>),
    /// Count that the client was refused something.
    Refused(Refused),
    /// End the session.
    Close(Disconnect),
}

impl Session {
    /// A new client: it is told its session id and that it is connected, and it is in the default rooms.
    pub fn open(sid: SessionId, upgrades: &'static [&'static str], rules: &Rules, now: Instant) -> (Self, Vec<Action>) {
        let open = OpenPacket { sid, upgrades, ping_interval: rules.ping_interval, ping_timeout: rules.ping_timeout };
        let mut session =
            Self { connection: Connection::new(), rooms: Vec::new(), messages: Rate::new(now), chats: Rate::new(now) };
        let mut actions = vec![Action::Send(Frame::text(now, |out| open.encode(out)))];
        session.enter(rules, now, &mut actions);
        (session, actions)
    }

    /// The body of a polling request, in either framing. One that is not sound as a whole has no effect but to end the session.
    pub fn receive_body(&mut self, body: &[u8], rules: &Rules, now: Instant) -> Vec<Action> {
        let body = match PollingBody::decode(body, rules.max_packets) {
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

    /// A text frame of the client.
    pub fn receive_text(&mut self, text: &str, rules: &Rules, now: Instant) -> Vec<Action> {
        self.receive(EnginePacket::decode_text(text), rules, now)
    }

    /// A binary frame of the client.
    pub fn receive_binary(&mut self, frame: &[u8], rules: &Rules, now: Instant) -> Vec<Action> {
        self.receive(EnginePacket::decode_binary(frame), rules, now)
    }

    fn receive(&mut self, packet: Result<EnginePacket<'_>, ProtocolError>, rules: &Rules, now: Instant) -> Vec<Action> {
        if !self.messages.allows(rules.max_messages_per_second, now) {
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
                self.rooms.clear();
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
        self.rooms = rules.default_rooms.clone();
        // No event may overtake this. It is flushed by the thread that performs these actions, so not before the rooms are
        // entered: what is published after the client saw that it is connected reaches it.
        actions.push(Action::Send(Frame::text(now, |out| out.extend_from_slice(CONNECTED))));
        actions.push(Action::Enter(self.rooms.clone()));
    }

    fn event(&mut self, ack: Option<AckId>, event: &Event<'_>, rules: &Rules, now: Instant) -> Vec<Action> {
        let argument = event.args.first().map_or("null", |argument| argument.get());
        match event.name.as_ref() {
            SUBSCRIPTION => match SubscriptionRequest::parse(argument) {
                Ok(request) => self.subscription(request, ack, rules, now),
                Err(refusal) => answer(ack, &refusal.to_string(), now),
            },
            CHAT => self.chat(argument, ack, rules, now),
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
        let room = request.room;
        let joined = self.rooms.iter().position(|&joined| joined == room);
        match (request.op, joined) {
            (Op::Subscribe, None) if self.rooms.len() >= rules.max_rooms => {
                refuse(Refused::TooManyRooms, ack, "too many subscriptions, ignoring request", now)
            }
            (Op::Subscribe, None) => {
                self.rooms.push(room);
                vec![Action::Join { room, reply: acknowledgement(ack, "ok", now) }]
            }
            (Op::Unsubscribe, Some(index)) => {
                self.rooms.swap_remove(index);
                vec![Action::Leave { room, reply: acknowledgement(ack, "ok", now) }]
            }
            (Op::Subscribe, Some(_)) | (Op::Unsubscribe, None) => answer(ack, "ok", now),
        }
    }

    fn chat(&mut self, argument: &str, ack: Option<AckId>, rules: &Rules, now: Instant) -> Vec<Action> {
        if argument.len() > rules.max_chat {
            return refuse(Refused::ChatTooLong, ack, "chat message is too long, ignoring request", now);
        }
        match chat::parse(argument) {
            Err(refusal) => answer(ack, &refusal.to_string(), now),
            Ok(_) if !self.chats.allows(rules.max_chats_per_second, now) => {
                refuse(Refused::TooManyChats, ack, "too many chat messages, ignoring request", now)
            }
            Ok(message) => {
                let mut actions = vec![Action::Say(message)];
                actions.extend(answer(ack, chat::CHAT_SENT, now));
                actions
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

/// Nothing is sent to a client that did not ask for an acknowledgement.
fn acknowledgement(ack: Option<AckId>, text: &str, now: Instant) -> Option<Arc<Frame>> {
    ack.map(|ack| Frame::text(now, |out| write_ack(out, ack, text)))
}

/// Counts what comes within a second.
#[derive(Debug)]
pub struct Rate {
    since: Instant,
    count: u32,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Counts one more; returns whether that is not too many.
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
    use super::*;
    use crate::clock;

    const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn rules() -> Rules {
        Rules {
            default_rooms: vec![Room::Jobs, Room::Chat],
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(60),
            max_packets: 10,
            max_rooms: 4,
            max_messages_per_second: 50,
            max_chats_per_second: 2,
            max_chat: 100,
        }
    }

    /// Actions as a reader sees them.
    fn shown(actions: Vec<Action>) -> Vec<String> {
        let text = |frame: &Frame| frame.packet().unwrap().to_owned();
        let reply = |reply: Option<Arc<Frame>>| reply.map_or("-".to_owned(), |frame| text(&frame));
        let show = |action| match action {
            Action::Send(frame) => format!("send {}", text(&frame)),
            Action::Enter(rooms) => {
                format!("enter {}", rooms.iter().map(Room::to_string).collect::<Vec<_>>().join(" "))
            }
            Action::Exit => "exit".to_owned(),
            Action::Join { room, reply: frame } => format!("join {room}, {}", reply(frame)),
            Action::Leave { room, reply: frame } => format!("leave {room}, {}", reply(frame)),
            Action::Say(message) => format!("say {}", message.json),
            Action::Refused(reason) => format!("refused {}", reason.as_str()),
            Action::Close(reason) => format!("close {reason}"),
        };
        actions.into_iter().map(show).collect()
    }

    fn session() -> Session {
        Session::open(SessionId::random(), &[], &rules(), clock::now()).0
    }

    /// What a new session does with each of these, one after the other.
    fn conversation(lines: &[&str]) -> Vec<Vec<String>> {
        let mut session = session();
        lines.iter().map(|line| shown(session.receive_text(line, &rules(), clock::now()))).collect()
    }

    #[test]
    fn a_new_client_is_connected_before_any_event_comes() {
        let sid = SessionId::random();
        let (_, actions) = Session::open(sid, &["websocket"], &rules(), clock::now());
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
            r#"send 432["ok"]"#.to_owned(),
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
            vec![r#"say {"name":"a", "text":"b","more":1.50}"#, r#"send 437["message sent successfully."]"#],
            vec![r#"say {"name":"a","text":"b"}"#],
            vec!["refused too-many-chats", r#"send 437["too many chat messages, ignoring request"]"#],
            vec!["refused chat-too-long", r#"send 437["chat message is too long, ignoring request"]"#],
        ];
        assert_eq!(conversation(&lines), expected);
    }

    #[test]
    fn what_is_no_packet_closes_and_what_is_useless_is_ignored() {
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
    fn who_left_the_namespace_begins_anew_when_it_enters_again() {
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
    fn a_body_is_taken_as_a_whole_or_not_at_all() {
        let body = |body: &str| shown(session().receive_body(body.as_bytes(), &rules(), clock::now()));
        assert_eq!(body("2:2a2:2b"), ["send 3a", "send 3b"]);
        assert_eq!(
            body("2:2a1:16:42[{}]"),
            ["send 3a", "close transport-close"],
            "what follows a close is not looked at"
        );
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
