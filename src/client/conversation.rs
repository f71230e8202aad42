//! The client's side of one connection, without I/O: takes packets, returns their meaning.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{ConnectionEnd, Incoming};
use protocol::{EnginePacket, ProtocolError, ServerOpen, SocketPacket};

/// The minimum interval or timeout of a heartbeat that is accepted from a server: a shorter one
/// would keep the client busy with pings.
const MIN_BEAT: Duration = Duration::from_millis(20);

/// The state of a connection over a transport that is already open.
#[derive(Debug)]
pub(super) struct Conversation {
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The server's open packet has not arrived.
    Opening,
    /// The open packet has arrived; the server has not admitted the client to the namespace `/`
    /// yet.
    Entering(Heartbeat),
    Inside(Heartbeat),
}

/// The meaning of a packet for the caller.
#[derive(Debug)]
pub(super) enum Received {
    Nothing,
    /// The client is connected and may send events.
    Entered,
    Answer(String),
    Incoming(Incoming),
}

/// What the time requires.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
}

/// The client pings, and any packet shows that the server is alive (engine.io-protocol revision 3,
/// "Timeouts").
#[derive(Debug)]
struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    next_ping: Instant,
    /// The deadline for a sign of life, while a ping is unanswered.
    dead_at: Option<Instant>,
}

impl Conversation {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Opening }
    }

    /// Handles a text frame that arrived at `now`. After an error the connection is over.
    pub(super) fn receive(&mut self, text: &str, now: Instant) -> Result<Received, ConnectionEnd> {
        if let Stage::Entering(heartbeat) | Stage::Inside(heartbeat) = &mut self.stage {
            heartbeat.dead_at = None;
        }
        match EnginePacket::decode_text(text)? {
            EnginePacket::Open(data) => {
                let open = ServerOpen::decode(data)?;
                if let Stage::Opening = self.stage {
                    self.stage = Stage::Entering(Heartbeat::new(&open, now));
                }
                Ok(Received::Nothing)
            }
            EnginePacket::Close => Err(ConnectionEnd::Closed(String::new())),
            EnginePacket::Ping(data) => Ok(Received::Answer(format!("3{data}"))),
            EnginePacket::Message(text) => self.receive_packet(SocketPacket::decode(text)?),
            EnginePacket::Pong(_) | EnginePacket::BinaryMessage(_) | EnginePacket::Upgrade | EnginePacket::Noop => {
                Ok(Received::Nothing)
            }
        }
    }

    /// Returns when [`tick`](Self::tick) must be called at the latest, or `None` before the open
    /// packet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening => None,
            Stage::Entering(beat) | Stage::Inside(beat) => {
                Some(beat.dead_at.map_or(beat.next_ping, |at| at.min(beat.next_ping)))
            }
        }
    }

    pub(super) fn tick(&mut self, now: Instant) -> Result<Due, ConnectionEnd> {
        match &mut self.stage {
            Stage::Opening => Ok(Due::Nothing),
            Stage::Entering(beat) | Stage::Inside(beat) => beat.tick(now),
        }
    }

    fn receive_packet(&mut self, packet: SocketPacket<'_>) -> Result<Received, ConnectionEnd> {
        match packet {
            SocketPacket::Connect { namespace } if namespace.is_root() => self.enter(),
            SocketPacket::Disconnect { namespace } if namespace.is_root() => Err(ConnectionEnd::Dismissed),
            SocketPacket::Error { namespace, message } if namespace.is_root() => {
                Err(ConnectionEnd::Refused(message.to_owned()))
            }
            SocketPacket::Event { namespace, event, .. } if namespace.is_root() => {
                Ok(Received::Incoming(Incoming::Event { name: event.name.into_owned(), args: owned(&event.args) }))
            }
            SocketPacket::Ack { namespace, ack, args } if namespace.is_root() => {
                Ok(Received::Incoming(Incoming::Ack { id: ack.value(), args: owned(&args) }))
            }
            // The client takes no binary data, and asked for no other namespace.
            SocketPacket::Connect { .. }
            | SocketPacket::Disconnect { .. }
            | SocketPacket::Error { .. }
            | SocketPacket::Event { .. }
            | SocketPacket::Ack { .. }
            | SocketPacket::BinaryEvent { .. }
            | SocketPacket::BinaryAck { .. } => Ok(Received::Nothing),
        }
    }

    fn enter(&mut self) -> Result<Received, ConnectionEnd> {
        match std::mem::replace(&mut self.stage, Stage::Opening) {
            // The server admitted the client without an open packet.
            Stage::Opening => Err(ProtocolError::MalformedOpen.into()),
            Stage::Entering(heartbeat) => {
                self.stage = Stage::Inside(heartbeat);
                Ok(Received::Entered)
            }
            stage @ Stage::Inside(_) => {
                self.stage = stage;
                Ok(Received::Nothing)
            }
        }
    }
}

impl Heartbeat {
    fn new(open: &ServerOpen, now: Instant) -> Self {
        let interval = open.ping_interval.max(MIN_BEAT);
        Self { interval, timeout: open.ping_timeout.max(MIN_BEAT), next_ping: now + interval, dead_at: None }
    }

    fn tick(&mut self, now: Instant) -> Result<Due, ConnectionEnd> {
        if self.dead_at.is_some_and(|at| at <= now) {
            return Err(ConnectionEnd::PingTimeout);
        }
        if now < self.next_ping {
            return Ok(Due::Nothing);
        }
        self.next_ping = now + self.interval;
        self.dead_at.get_or_insert(now + self.timeout);
        Ok(Due::Ping)
    }
}

fn owned(args: &[&RawValue]) -> Vec<Box<RawValue>> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":60000}"#;

    fn inside(now: Instant) -> Conversation {
        let mut conversation = Conversation::new();
        assert!(matches!(conversation.receive(OPEN, now), Ok(Received::Nothing)));
        assert!(matches!(conversation.receive("40", now), Ok(Received::Entered)));
        conversation
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn pings_on_time_and_lives_as_long_as_anything_comes() {
        let start = crate::clock::now();
        let mut conversation = inside(start);
        assert_eq!(conversation.deadline(), Some(after(start, 25)));
        assert_eq!(conversation.tick(after(start, 24)), Ok(Due::Nothing));
        assert_eq!(conversation.tick(after(start, 25)), Ok(Due::Ping));
        assert_eq!(conversation.tick(after(start, 50)), Ok(Due::Ping), "though the first is not answered yet");
        assert_eq!(conversation.deadline(), Some(after(start, 75)));
        assert!(conversation.receive("3", after(start, 60)).is_ok());
        assert_eq!(conversation.tick(after(start, 75)), Ok(Due::Ping));
        assert!(conversation.receive(r#"42["/jobs",{}]"#, after(start, 99)).is_ok());
        assert_eq!(conversation.tick(after(start, 100)), Ok(Due::Ping));
        assert_eq!(conversation.tick(after(start, 125)), Ok(Due::Ping));
        assert_eq!(conversation.tick(after(start, 150)), Ok(Due::Ping));
        assert_eq!(conversation.deadline(), Some(after(start, 160)));
        assert_eq!(conversation.tick(after(start, 160)), Err(ConnectionEnd::PingTimeout));
    }

    #[test]
    fn a_server_cannot_order_pings_without_pause() {
        let start = crate::clock::now();
        let mut conversation = Conversation::new();
        let open = r#"0{"sid":"x","upgrades":[],"pingInterval":0,"pingTimeout":0}"#;
        assert!(conversation.receive(open, start).is_ok());
        assert_eq!(conversation.deadline(), Some(start + MIN_BEAT));
    }

    #[test]
    fn packets_mean_what_the_protocol_says() {
        let now = crate::clock::now();
        let meaning = |text: &str| match inside(now).receive(text, now) {
            Ok(Received::Incoming(Incoming::Event { name, args })) => {
                format!("{name} {}", args.iter().map(|arg| arg.get()).collect::<Vec<_>>().join(" "))
            }
            Ok(Received::Incoming(Incoming::Ack { id, args })) => format!("ack {id} {}", args.len()),
            Ok(Received::Answer(answer)) => format!("answer {answer}"),
            Ok(Received::Entered) => "entered".to_owned(),
            Ok(Received::Nothing) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        for (text, expected) in [
            (r#"42["/jobs",{"a": 1},2]"#, r#"/jobs {"a": 1} 2"#),
            (r#"4217["/jobs"]"#, "/jobs "),
            (r#"43012["ok"]"#, "ack 12 1"),
            ("40", "nothing"),
            (OPEN, "nothing"),
            ("2probe", "answer 3probe"),
            ("3", "nothing"),
            ("6", "nothing"),
            (r#"42/admin,["/jobs"]"#, "nothing"),
            (r#"451-["/jobs",{"_placeholder":true,"num":0}]"#, "nothing"),
            ("1", "the server closed the connection"),
            ("41", "the server disconnected the client"),
            (r#"44"too many""#, "the server refuses: \"too many\""),
            ("42[{}]", "the server violates the protocol: event name is not a string"),
            ("x", "the server violates the protocol: unknown engine.io packet type"),
            ("", "the server violates the protocol: packet is empty"),
        ] {
            assert_eq!(meaning(text), expected, "{text}");
        }
        assert!(matches!(Conversation::new().receive("40", now), Err(ConnectionEnd::Protocol(_))));
    }
}
