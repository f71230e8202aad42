//! One simulated browser's side of Engine.IO 3 and Socket.IO v2: which packets it understands, whatever carried them.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::frame::FrameError;
use super::http::AnswerError;

/// What every connection of a run has in common.
#[derive(Debug)]
pub(super) struct Manners {
    pub(super) transport: Transport,
    pub(super) host: String,
    pub(super) path: String,
    /// Packets sent once connected, for each audience.
    pub(super) subscriptions: Vec<Vec<String>>,
    /// Whether each subscription asks for an acknowledgement and is waited for.
    pub(super) acknowledged: bool,
}

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Transport {
    /// As Flamenco's page does
    Websocket,
    /// Long-polling, as browsers do behind a proxy that knows no WebSocket
    Polling,
}

impl Manners {
    /// `arguments`: for each audience, what it subscribes to.
    pub(super) fn new(
        transport: Transport,
        host: &str,
        path: &str,
        arguments: &[Vec<String>],
        acknowledged: bool,
    ) -> Self {
        let packet = |(id, argument): (usize, &String)| {
            let id = if acknowledged { id.to_string() } else { String::new() };
            format!(r#"42{id}["/subscription",{argument}]"#)
        };
        let packets = |arguments: &Vec<String>| arguments.iter().enumerate().map(packet).collect();
        let subscriptions = arguments.iter().map(packets).collect();
        Self { transport, host: host.to_owned(), path: path.to_owned(), subscriptions, acknowledged }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Protocol {
    pub(super) phase: Phase,
    pub(super) audience: u32,
    /// How often the client pings, as the server asked for.
    pub(super) ping_interval: Duration,
    /// After how long without a sign of life a real client takes the server for dead.
    pub(super) silence_allowed: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the open packet and `40`.
    Opening,
    /// Is connected; waits for the answers to its subscriptions.
    Subscribing { unanswered: usize },
    /// Has everything it asked for.
    Ready,
}

/// What a packet asks of whatever carried it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    /// Go on under this session id.
    Opened(String),
    /// Send the subscriptions.
    Subscribe,
}

/// Why a connection ended that was not ended by us. The text is a key of the report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Broken {
    #[error("answered with status {0}")]
    Refused(u16),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("bad payload")]
    BadPayload,
    #[error("bad open packet")]
    BadOpen,
    #[error("subscription refused: {0}")]
    SubscriptionRefused(String),
    #[error("closed by a WebSocket close frame")]
    CloseFrame,
    #[error("closed by an engine close packet")]
    ClosePacket,
    #[error("closed by a disconnect packet")]
    DisconnectPacket,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenPacket {
    sid: String,
    ping_interval: u64,
    ping_timeout: u64,
}

impl Protocol {
    pub(super) fn new(audience: u32) -> Self {
        Self {
            phase: Phase::Opening,
            audience,
            ping_interval: Duration::from_secs(25),
            silence_allowed: Duration::from_secs(85),
        }
    }

    /// Takes one packet; `on_event` gets it when it is an event.
    pub(super) fn packet(
        &mut self,
        packet: &[u8],
        manners: &Manners,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<Reply, Broken> {
        match packet {
            [b'4', b'2', ..] => on_event(packet),
            [b'4', b'3', answer @ ..] => self.answered(answer)?,
            [b'4', b'0'] | [b'4', b'0', b'{', ..] if self.phase == Phase::Opening => {
                return Ok(self.connected(manners));
            }
            [b'0', open @ ..] => {
                let open: OpenPacket = serde_json::from_slice(open).map_err(|_| Broken::BadOpen)?;
                self.ping_interval = Duration::from_millis(open.ping_interval.max(1));
                self.silence_allowed = self.ping_interval.saturating_add(Duration::from_millis(open.ping_timeout));
                return Ok(Reply::Opened(open.sid));
            }
            [b'4', b'1', ..] => return Err(Broken::DisconnectPacket),
            [b'1', ..] => return Err(Broken::ClosePacket),
            // Pongs, no-ops, and what this client never asked for.
            _ => {}
        }
        Ok(Reply::Nothing)
    }

    fn connected(&mut self, manners: &Manners) -> Reply {
        match manners.subscriptions[self.audience as usize].len() {
            0 => {
                self.phase = Phase::Ready;
                return Reply::Nothing;
            }
            unanswered if manners.acknowledged => self.phase = Phase::Subscribing { unanswered },
            _ => self.phase = Phase::Ready,
        }
        Reply::Subscribe
    }

    /// An acknowledgement, `<id>["ok"]` when all is well.
    fn answered(&mut self, answer: &[u8]) -> Result<(), Broken> {
        let Phase::Subscribing { unanswered } = self.phase else { return Ok(()) };
        let arguments = answer.iter().position(|byte| !byte.is_ascii_digit()).map_or(&[][..], |start| &answer[start..]);
        if arguments.trim_ascii_end() != br#"["ok"]"# {
            let text = String::from_utf8_lossy(&arguments[..arguments.len().min(80)]).into_owned();
            return Err(Broken::SubscriptionRefused(text));
        }
        self.phase = match unanswered {
            0 | 1 => Phase::Ready,
            more => Phase::Subscribing { unanswered: more - 1 },
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manners(acknowledged: bool) -> Manners {
        let subscriptions = [r#"{"type":"allJobs"}"#, r#"{"type":"allWorkers"}"#].map(str::to_owned).to_vec();
        Manners::new(Transport::Websocket, "h:1", "/socket.io/", &[Vec::new(), subscriptions], acknowledged)
    }

    fn take(protocol: &mut Protocol, packet: &str) -> Result<Reply, Broken> {
        protocol.packet(packet.as_bytes(), &manners(true), &mut |_| {})
    }

    #[test]
    fn the_open_packet_says_how_the_heartbeat_goes() {
        let mut protocol = Protocol::new(0);
        let open = r#"0{"sid":"x","upgrades":[],"pingInterval":3000,"pingTimeout":4000}"#;
        assert_eq!(take(&mut protocol, open), Ok(Reply::Opened("x".to_owned())));
        assert_eq!(protocol.ping_interval, Duration::from_secs(3));
        assert_eq!(protocol.silence_allowed, Duration::from_secs(7));
    }

    #[test]
    fn a_client_of_the_default_room_is_ready_when_connected() {
        let mut protocol = Protocol::new(0);
        assert_eq!((take(&mut protocol, "40"), protocol.phase), (Ok(Reply::Nothing), Phase::Ready));
    }

    #[test]
    fn a_subscriber_is_ready_when_every_subscription_is_answered() {
        assert_eq!(manners(true).subscriptions[1][1], r#"421["/subscription",{"type":"allWorkers"}]"#);
        let mut protocol = Protocol::new(1);
        assert_eq!(take(&mut protocol, "40"), Ok(Reply::Subscribe));
        assert_eq!(protocol.phase, Phase::Subscribing { unanswered: 2 });
        take(&mut protocol, r#"430["ok"]"#).unwrap();
        assert_eq!(protocol.phase, Phase::Subscribing { unanswered: 1 });
        take(&mut protocol, r#"431["ok"]"#).unwrap();
        assert_eq!(protocol.phase, Phase::Ready);
    }

    #[test]
    fn one_that_asks_for_no_answers_is_ready_at_once() {
        let manners = manners(false);
        assert_eq!(manners.subscriptions[1][1], r#"42["/subscription",{"type":"allWorkers"}]"#);
        let mut protocol = Protocol::new(1);
        assert_eq!(protocol.packet(b"40", &manners, &mut |_| {}), Ok(Reply::Subscribe));
        assert_eq!(protocol.phase, Phase::Ready);
    }

    #[test]
    fn every_way_to_end_has_its_name() {
        let mut subscribing = Protocol::new(1);
        take(&mut subscribing, "40").unwrap();
        let refused = Broken::SubscriptionRefused(r#"["no"]"#.to_owned());
        assert_eq!(take(&mut subscribing, r#"430["no"]"#), Err(refused));
        for (packet, broken) in [("0{}", Broken::BadOpen), ("41", Broken::DisconnectPacket), ("1", Broken::ClosePacket)]
        {
            assert_eq!(take(&mut Protocol::new(0), packet), Err(broken));
        }
    }
}
