//! Whole sessions and who is in which room, against a simple model of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use flamenco_webupdates::clock;
use flamenco_webupdates::farm::{Op, Room, SubscriptionRequest, chat};
use flamenco_webupdates::frame::Frame;
use flamenco_webupdates::membership::Membership;
use flamenco_webupdates::protocol::engine_payload::Payload;
use flamenco_webupdates::protocol::{
    AckId, EnginePacket, Event, Namespace, PayloadProblem, ProtocolError, SessionId, SocketPacket,
};
use flamenco_webupdates::session_state::{Action, Rules, SessionOptions, SessionState};

const CLIENTS: usize = 3;

/// What clients ask for: few, so that they meet, and no more than one may have.
const REQUESTS: [&str; 7] = [
    r#""type":"allJobs""#,
    r#""type":"allWorkers""#,
    r#""type":"allLastRendered""#,
    r#""type":"allWorkerTags""#,
    r#""type":"job","uuid":"4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21""#,
    r#""type":"job","uuid":"4B2C1F0E-7C3F-4F0F-9A53-2F6D1B7F6C22""#,
    r#""type":"tasklog","uuid":"4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21""#,
];

/// Names that no client may send.
const RESERVED: &str = "connect connect_error connect_timeout connecting disconnect disconnecting error newListener ping \
                        pong reconnect reconnect_attempt reconnect_error reconnect_failed reconnecting removeListener";

/// Drives sessions through any sequence of what clients may send, and compares every action and every room with the model.
pub fn session_model(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut world = World::new();
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        world.take(step);
    }
}

enum Step {
    /// A text frame.
    Text(usize, String),
    /// A binary frame.
    Binary(usize, Vec<u8>),
    /// The body of a polling request.
    Body(usize, Vec<u8>),
    /// The connection is gone.
    Gone(usize),
    Later(Duration),
}

impl Step {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        let client = input.choose_index(CLIENTS)?;
        Ok(match input.int_in_range(0..=9)? {
            0..=4 => Self::Text(client, text(input)?),
            5 => Self::Binary(client, [&[input.int_in_range(3..=4)?], input.bytes(1)?].concat()),
            6 => {
                let mut body = String::new();
                for _ in 0..input.int_in_range(0..=5)? {
                    let text = text(input)?;
                    let _ = write!(body, "{}:{text}", text.encode_utf16().count());
                }
                Self::Body(client, body.into_bytes())
            }
            7 => Self::Body(client, input.arbitrary::<&[u8]>()?.to_vec()),
            8 => Self::Later(Duration::from_millis(input.int_in_range(0..=1500)?)),
            _ => Self::Gone(client),
        })
    }
}

/// A text packet, mostly a sensible one.
fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let ack = if input.arbitrary()? { input.arbitrary::<u8>()?.to_string() } else { String::new() };
    Ok(match input.int_in_range(0..=11)? {
        0..=3 => {
            let op = input.choose(&["subscribe", "unsubscribe", "renounce"])?;
            format!(r#"42{ack}["/subscription",{{"op":"{op}",{}}}]"#, input.choose(&REQUESTS)?)
        }
        4 => format!(r#"42{ack}["/chat",{{"name":"n","text":"{}"}}]"#, "x".repeat(input.choose_index(80)?)),
        5 => "41".to_owned(),
        6 => "40".to_owned(),
        7 => {
            let name = input.choose(&["/chat", "error", "/subscription"])?;
            format!(r#"45{}-{ack}["{name}",{{"_placeholder":true,"num":0}}]"#, input.int_in_range(1..=3)?)
        }
        8 => "b4AQID".to_owned(),
        9 => (*input.choose(&["2", "2probe", "3", "5", "6", "40/admin,", "41/admin,", "430[]", "44\"x\"", "1"])?)
            .to_owned(),
        10 => format!("4{}", input.arbitrary::<&str>()?),
        _ => input.arbitrary::<&str>()?.to_owned(),
    })
}

struct World {
    rules: Rules,
    now: Instant,
    clients: Vec<(SessionState, Model)>,
    membership: Membership,
}

impl World {
    fn new() -> Self {
        let options = SessionOptions {
            default_rooms: vec![Room::Jobs, Room::Chat],
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(60),
            max_packets: 4,
            max_rooms: 5,
            max_messages_per_second: 20,
            max_chats_per_second: 2,
            max_chat: 80,
            max_chat_bytes_per_second: 0,
            max_subscriptions: 0,
        };
        let rules = Rules::new(options, None, clock::now());
        let mut world = Self { rules, now: clock::now(), clients: Vec::new(), membership: Membership::default() };
        for client in 0..CLIENTS {
            let opened = world.open(client);
            world.clients.push(opened);
        }
        world
    }

    fn open(&mut self, client: usize) -> (SessionState, Model) {
        let sid = SessionId::from_random([7; 16]);
        let (session, actions) =
            SessionState::open(sid, &[], IpAddr::V4(Ipv4Addr::LOCALHOST), false, &self.rules, self.now);
        let open = format!(r#"send 0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":60000}}"#);
        assert_eq!(shown(&actions), [&open, "send 40", "enter"]);
        self.perform(client, actions);
        (session, Model::new(&self.rules, self.now))
    }

    fn take(&mut self, step: Step) {
        let (rules, now) = (&self.rules, self.now);
        let (client, actions, expected) = match step {
            Step::Later(time) => {
                self.now += time;
                return;
            }
            Step::Gone(client) => return self.replace(client),
            Step::Text(client, text) => {
                let (session, model) = &mut self.clients[client];
                let actions = session.receive_text(&text, rules, now);
                (client, actions, model.receive(EnginePacket::decode_text(&text), rules, now))
            }
            Step::Binary(client, frame) => {
                let (session, model) = &mut self.clients[client];
                let actions = session.receive_binary(&frame, rules, now);
                (client, actions, model.receive(EnginePacket::decode_binary(&frame), rules, now))
            }
            Step::Body(client, body) => {
                let (session, model) = &mut self.clients[client];
                let actions = session.receive_body(&body, rules, now);
                (client, actions, model.receive_body(&body, rules, now))
            }
        };
        assert_eq!(shown(&actions), expected);
        self.perform(client, actions);
        if is_closed(&expected) {
            self.replace(client);
        }
        self.compare();
    }

    /// A client leaves and another takes its place.
    fn replace(&mut self, client: usize) {
        self.membership.leave_all(client as u32);
        self.clients[client] = self.open(client);
    }

    fn perform(&mut self, client: usize, actions: Vec<Action>) {
        let member = client as u32;
        for action in actions {
            match action {
                Action::Enter(rooms) => {
                    for room in rooms.joined() {
                        self.membership.join(member, room);
                    }
                }
                Action::Exit => self.membership.leave_all(member),
                Action::Join { room, .. } => {
                    self.membership.join(member, room);
                }
                Action::Leave { room, .. } => assert!(self.membership.leave(member, room), "only who is in it leaves"),
                // No client of the model can resume.
                Action::Resume { .. }
                | Action::Send(_)
                | Action::Confirm { .. }
                | Action::Say { .. }
                | Action::Refused(_)
                | Action::Close(_) => {}
            }
        }
    }

    fn compare(&self) {
        let mut expected: BTreeMap<Room, BTreeSet<u32>> = BTreeMap::new();
        for (member, (_, model)) in (0..).zip(&self.clients) {
            for &room in &model.rooms {
                expected.entry(room).or_default().insert(member);
            }
        }
        let sizes: BTreeMap<Room, usize> = self.membership.sizes().collect();
        assert_eq!(sizes, expected.iter().map(|(&room, members)| (room, members.len())).collect());
        for (room, members) in expected {
            assert_eq!(self.membership.members(room).iter().copied().collect::<BTreeSet<_>>(), members, "{room}");
        }
    }
}

/// What is known about a client, and what it should be told.
struct Model {
    in_namespace: bool,
    rooms: BTreeSet<Room>,
    /// Attachments that are still to come, and the answer to what they belong to.
    awaited: Option<(usize, Vec<String>)>,
    messages: Second,
    chats: Second,
}

impl Model {
    fn new(rules: &Rules, now: Instant) -> Self {
        let rooms = rules.options.default_rooms.iter().copied().collect();
        let second = Second { since: now, count: 0 };
        Self { in_namespace: true, rooms, awaited: None, messages: second, chats: second }
    }

    fn receive_body(&mut self, body: &[u8], rules: &Rules, now: Instant) -> Vec<String> {
        let body = match Payload::decode(body, rules.options.max_packets) {
            Ok(body) => body,
            Err(error) if matches!(error.problem, PayloadProblem::TooManyPackets { .. }) => {
                return vec!["close too-many-messages".to_owned()];
            }
            Err(_) => return parse_error(),
        };
        let mut told: Vec<String> = Vec::new();
        for packet in body.packets() {
            told.extend(self.receive(Ok(packet), rules, now));
            if is_closed(&told) {
                break;
            }
        }
        told
    }

    fn receive(
        &mut self,
        packet: std::result::Result<EnginePacket<'_>, ProtocolError>,
        rules: &Rules,
        now: Instant,
    ) -> Vec<String> {
        if self.messages.count(now) > rules.options.max_messages_per_second {
            return vec!["close too-many-messages".to_owned()];
        }
        match packet {
            Err(_) | Ok(EnginePacket::Open(_)) => parse_error(),
            Ok(EnginePacket::Close) => vec!["close transport-close".to_owned()],
            Ok(EnginePacket::Ping(data)) => vec![format!("send 3{data}")],
            Ok(EnginePacket::Pong(_) | EnginePacket::Upgrade | EnginePacket::Noop) => Vec::new(),
            Ok(EnginePacket::BinaryMessage(_)) => match self.awaited.take() {
                None => parse_error(),
                Some((1, answer)) => answer,
                Some((missing, answer)) => {
                    self.awaited = Some((missing - 1, answer));
                    Vec::new()
                }
            },
            Ok(EnginePacket::Message(_)) if self.awaited.is_some() => parse_error(),
            Ok(EnginePacket::Message(text)) => match SocketPacket::decode(text) {
                Ok(packet) => self.message(packet, rules, now),
                Err(_) => parse_error(),
            },
        }
    }

    fn message(&mut self, packet: SocketPacket<'_>, rules: &Rules, now: Instant) -> Vec<String> {
        match packet {
            SocketPacket::Connect { namespace } if namespace.path != "/" => {
                vec![format!(r#"send 44{},"Invalid namespace""#, namespace.path)]
            }
            SocketPacket::Connect { .. } if !self.in_namespace => {
                self.in_namespace = true;
                self.rooms = rules.options.default_rooms.iter().copied().collect();
                vec!["send 40".to_owned(), "enter".to_owned()]
            }
            SocketPacket::Disconnect { namespace } if namespace.path == "/" && self.in_namespace => {
                self.in_namespace = false;
                self.rooms.clear();
                vec!["exit".to_owned()]
            }
            SocketPacket::Event { namespace, ack, event } if self.hears(&namespace, &event) => {
                self.event(ack, &event, rules, now)
            }
            SocketPacket::BinaryEvent { attachments, namespace, ack, event } => {
                let heard = self.hears(&namespace, &event);
                let answer =
                    if heard { answer(ack, "binary data is not supported, ignoring request") } else { Vec::new() };
                self.awaited = Some((attachments, answer));
                Vec::new()
            }
            SocketPacket::BinaryAck { attachments, .. } => {
                self.awaited = Some((attachments, Vec::new()));
                Vec::new()
            }
            SocketPacket::Connect { .. }
            | SocketPacket::Disconnect { .. }
            | SocketPacket::Event { .. }
            | SocketPacket::Ack { .. }
            | SocketPacket::Error { .. } => Vec::new(),
        }
    }

    fn hears(&self, namespace: &Namespace<'_>, event: &Event<'_>) -> bool {
        self.in_namespace && namespace.path == "/" && !RESERVED.split(' ').any(|name| name == event.name)
    }

    fn event(&mut self, ack: Option<AckId>, event: &Event<'_>, rules: &Rules, now: Instant) -> Vec<String> {
        let argument = event.args.first().map_or("null", |argument| argument.get());
        match event.name.as_ref() {
            "/subscription" => match SubscriptionRequest::parse(argument) {
                Ok(request) => self.subscription(request, ack, rules),
                Err(refusal) => answer(ack, &refusal.to_string()),
            },
            "/chat" if argument.len() > rules.options.max_chat => {
                refuse("chat-too-long", ack, "chat message is too long, ignoring request")
            }
            "/chat" => match chat::parse(argument) {
                Err(refusal) => answer(ack, &refusal.to_string()),
                Ok(_) if self.chats.count(now) > rules.options.max_chats_per_second => {
                    refuse("too-many-chats", ack, "too many chat messages, ignoring request")
                }
                Ok(_) => vec![format!("say {argument}, {}", ack.map_or_else(|| "-".to_owned(), |ack| ack.to_string()))],
            },
            _ => Vec::new(),
        }
    }

    fn subscription(&mut self, request: SubscriptionRequest, ack: Option<AckId>, rules: &Rules) -> Vec<String> {
        let reply = answer(ack, "ok").pop().map_or("-".to_owned(), |send| send.replacen("send ", "", 1));
        let room = request.room;
        match request.op {
            Op::Subscribe if self.rooms.contains(&room) => {
                ack.map(|ack| format!("confirm {room}, {ack}")).into_iter().collect()
            }
            Op::Subscribe if self.rooms.len() >= rules.options.max_rooms => {
                refuse("too-many-rooms", ack, "too many subscriptions, ignoring request")
            }
            Op::Subscribe => {
                self.rooms.insert(room);
                vec![format!("join {room}, {reply}")]
            }
            Op::Unsubscribe if self.rooms.remove(&room) => vec![format!("leave {room}, {reply}")],
            Op::Unsubscribe => answer(ack, "ok"),
        }
    }
}

/// What came since a second began.
#[derive(Clone, Copy)]
struct Second {
    since: Instant,
    count: u32,
}

impl Second {
    fn count(&mut self, now: Instant) -> u32 {
        if now - self.since >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

fn is_closed(told: &[String]) -> bool {
    told.last().is_some_and(|last| last.starts_with("close"))
}

fn parse_error() -> Vec<String> {
    vec!["close parse-error".to_owned()]
}

fn refuse(reason: &str, ack: Option<AckId>, text: &str) -> Vec<String> {
    [vec![format!("refused {reason}")], answer(ack, text)].concat()
}

fn answer(ack: Option<AckId>, text: &str) -> Vec<String> {
    ack.map(|ack| format!("send 43{ack}[{}]", serde_json::Value::from(text))).into_iter().collect()
}

fn shown(actions: &[Action]) -> Vec<String> {
    let packet = |frame: &Arc<Frame>| frame.packet().expect("sessions send text").to_owned();
    let reply = |reply: &Option<Arc<Frame>>| reply.as_ref().map_or("-".to_owned(), packet);
    let show = |action: &Action| match action {
        Action::Send(frame) => format!("send {}", packet(frame)),
        // The rooms may have changed since, within one body; `compare` checks them.
        Action::Enter(_) => "enter".to_owned(),
        Action::Resume { request, .. } => format!("resume {request:?}"),
        Action::Exit => "exit".to_owned(),
        Action::Join { room, ack, .. } => {
            let reply = ack.map_or("-".to_owned(), |ack| format!("43{ack}[\"ok\"]"));
            format!("join {room}, {reply}")
        }
        Action::Confirm { room, ack } => format!("confirm {room}, {ack}"),
        Action::Leave { room, reply: frame } => format!("leave {room}, {}", reply(frame)),
        Action::Say { message, ack } => {
            format!("say {}, {}", message.json, ack.map_or_else(|| "-".to_owned(), |ack| ack.to_string()))
        }
        Action::Refused(reason) => format!("refused {}", reason.as_str()),
        Action::Close(reason) => format!("close {reason}"),
    };
    actions.iter().map(show).collect()
}
