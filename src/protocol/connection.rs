//! The server's side of one connection, independent of its transport: decides what each packet of a
//! client means.

use super::{AckId, EnginePacket, Event, ProtocolError, SocketPacket};

/// The state of one client's connection. It starts inside the namespace `/`, because the server
/// sends `40` unasked.
#[derive(Debug)]
pub struct Connection {
    in_root: bool,
    /// A binary packet whose attachments have not all arrived.
    incomplete: Option<Incomplete>,
}

/// What a packet asks of the server.
#[derive(Debug, PartialEq)]
pub enum Received<'a> {
    /// Nothing.
    Nothing,
    /// Answer with a pong that carries the same data.
    Ping(&'a str),
    /// Move the session to the transport of this packet: the client has finished probing.
    Upgrade,
    /// Answer with `40`: the client re-enters `/` after having left it.
    Entered,
    /// Send nothing more until the client re-enters: it left `/`. Its transport stays.
    Left,
    /// Refuse with [`write_invalid_namespace`](super::write_invalid_namespace): the client asks for
    /// a namespace that does not exist.
    InvalidNamespace(&'a str),
    Event {
        ack: Option<AckId>,
        event: Event<'a>,
    },
    /// A complete event with attachments, which were counted and dropped, because no event takes
    /// binary data.
    BinaryEvent {
        ack: Option<AckId>,
    },
    /// The client closes the connection.
    Closed,
}

#[derive(Debug)]
struct Incomplete {
    /// At least 1.
    missing: usize,
    then: Completion,
}

/// The meaning of a binary packet once it is complete.
#[derive(Debug, Clone, Copy)]
enum Completion {
    Event { ack: Option<AckId> },
    Ignored,
}

impl Connection {
    pub fn new() -> Self {
        Self { in_root: true, incomplete: None }
    }

    /// Returns whether the client is in the namespace `/`, which is where all events are.
    pub fn in_root(&self) -> bool {
        self.in_root
    }

    /// Handles the client's next packet. After an error the connection must be closed.
    ///
    /// # Errors
    ///
    /// The packet is malformed, exceeds a limit, or is not allowed in this state.
    pub fn receive<'a>(&mut self, packet: EnginePacket<'a>) -> Result<Received<'a>, ProtocolError> {
        match packet {
            EnginePacket::Open(_) => Err(ProtocolError::ServerOnlyPacket),
            EnginePacket::Close => Ok(Received::Closed),
            EnginePacket::Ping(data) => Ok(Received::Ping(data)),
            EnginePacket::Pong(_) | EnginePacket::Noop => Ok(Received::Nothing),
            EnginePacket::Upgrade => Ok(Received::Upgrade),
            EnginePacket::Message(_) if self.incomplete.is_some() => Err(ProtocolError::AttachmentExpected),
            EnginePacket::Message(text) => self.receive_packet(SocketPacket::decode(text)?),
            EnginePacket::BinaryMessage(_) => self.receive_attachment(),
        }
    }

    fn receive_packet<'a>(&mut self, packet: SocketPacket<'a>) -> Result<Received<'a>, ProtocolError> {
        Ok(match packet {
            SocketPacket::Connect { namespace } if !namespace.is_root() => Received::InvalidNamespace(namespace.path),
            SocketPacket::Connect { .. } if self.in_root => Received::Nothing,
            SocketPacket::Connect { .. } => {
                self.in_root = true;
                Received::Entered
            }
            SocketPacket::Disconnect { namespace } if self.in_root && namespace.is_root() => {
                self.in_root = false;
                Received::Left
            }
            SocketPacket::Event { namespace, ack, event }
                if self.in_root && namespace.is_root() && !is_reserved(&event.name) =>
            {
                Received::Event { ack, event }
            }
            SocketPacket::BinaryEvent { attachments, namespace, ack, event } => {
                let heard = self.in_root && namespace.is_root() && !is_reserved(&event.name);
                self.expect_attachments(
                    attachments,
                    if heard { Completion::Event { ack } } else { Completion::Ignored },
                )
            }
            SocketPacket::BinaryAck { attachments, .. } => self.expect_attachments(attachments, Completion::Ignored),
            // Packets that change nothing: leaving an unentered namespace, events for another
            // namespace, unrequested acknowledgements, and errors, which only servers report.
            SocketPacket::Disconnect { .. }
            | SocketPacket::Event { .. }
            | SocketPacket::Ack { .. }
            | SocketPacket::Error { .. } => Received::Nothing,
        })
    }

    fn expect_attachments<'a>(&mut self, missing: usize, then: Completion) -> Received<'a> {
        if missing == 0 {
            return then.received();
        }
        self.incomplete = Some(Incomplete { missing, then });
        Received::Nothing
    }

    fn receive_attachment<'a>(&mut self) -> Result<Received<'a>, ProtocolError> {
        let Incomplete { missing, then } = self.incomplete.take().ok_or(ProtocolError::UnexpectedAttachment)?;
        Ok(self.expect_attachments(missing - 1, then))
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Completion {
    fn received<'a>(self) -> Received<'a> {
        match self {
            Self::Event { ack } => Received::BinaryEvent { ack },
            Self::Ignored => Received::Nothing,
        }
    }
}

/// Names that libraries of the 2.x line emit themselves and do not let an application send. A
/// client that sends one anyway must not be able to trigger them.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect"
            | "connect_error"
            | "connect_timeout"
            | "connecting"
            | "disconnect"
            | "disconnecting"
            | "error"
            | "newListener"
            | "ping"
            | "pong"
            | "reconnect"
            | "reconnect_attempt"
            | "reconnect_error"
            | "reconnect_failed"
            | "reconnecting"
            | "removeListener"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the meaning of these frames on a new connection.
    fn receive<'a>(frames: &[&'a str]) -> Vec<Result<Received<'a>, ProtocolError>> {
        let mut connection = Connection::new();
        frames
            .iter()
            .map(|frame| EnginePacket::decode_text(frame).and_then(|packet| connection.receive(packet)))
            .collect()
    }

    fn event(ack: Option<u32>, name: &str) -> Result<Received<'_>, ProtocolError> {
        Ok(Received::Event { ack: ack.map(AckId::from), event: Event { name: name.into(), args: vec![] } })
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Connection>() <= 64);
    }

    #[test]
    fn engine_packets() {
        use Received::*;
        assert_eq!(
            receive(&["2", "2probe", "3", "6", "5", "1"]),
            [Ok(Ping("")), Ok(Ping("probe")), Ok(Nothing), Ok(Nothing), Ok(Upgrade), Ok(Closed)]
        );
        assert_eq!(receive(&["0{}"]), [Err(ProtocolError::ServerOnlyPacket)]);
    }

    #[test]
    fn events() {
        assert_eq!(
            receive(&[r#"42["a"]"#, r#"427["b"]"#, r#"42/,["c"]"#]),
            [event(None, "a"), event(Some(7), "b"), event(None, "c")]
        );
    }

    #[test]
    fn unrequested_packets_change_nothing() {
        let frames = ["40", "430[]", r#"44"oops""#, r#"42/admin,["x"]"#, "41/admin,", "40/"];
        assert!(receive(&frames).into_iter().all(|received| received == Ok(Received::Nothing)));
    }

    #[test]
    fn other_namespaces_are_refused() {
        assert_eq!(
            receive(&["40/admin,", "40/b?token=1,", r#"42/admin,1["x"]"#]),
            [Ok(Received::InvalidNamespace("/admin")), Ok(Received::InvalidNamespace("/b")), Ok(Received::Nothing)]
        );
    }

    #[test]
    fn leaving_and_entering() {
        let mut connection = Connection::new();
        let mut receive = |text| {
            let received = connection.receive(EnginePacket::Message(text)).unwrap();
            (received, connection.in_root())
        };
        assert_eq!(receive("1"), (Received::Left, false));
        assert_eq!(receive("1"), (Received::Nothing, false));
        assert_eq!(receive(r#"21["a"]"#), (Received::Nothing, false));
        assert_eq!(receive("0"), (Received::Entered, true));
        assert_eq!(receive("0"), (Received::Nothing, true));
    }

    #[test]
    fn attachments_are_counted_wherever_the_event_was_for() {
        for (announced, complete) in [
            (r#"452-9["a",{"_placeholder":true,"num":1}]"#, Received::BinaryEvent { ack: Some(AckId::from(9)) }),
            (r#"452-["a"]"#, Received::BinaryEvent { ack: None }),
            (r#"452-/admin,9["a"]"#, Received::Nothing),
            (r#"452-9["error"]"#, Received::Nothing),
            (r#"462-9[]"#, Received::Nothing),
        ] {
            assert_eq!(
                receive(&[announced, "b4", "2", "b4AQID", r#"42["next"]"#]),
                [
                    Ok(Received::Nothing),
                    Ok(Received::Nothing),
                    Ok(Received::Ping("")),
                    Ok(complete),
                    event(None, "next")
                ]
            );
        }
    }

    #[test]
    fn an_event_announced_before_leaving_is_still_consumed() {
        let received = receive(&["41", r#"451-9["a"]"#, "b4", "40"]);
        assert_eq!(received, [Received::Left, Received::Nothing, Received::Nothing, Received::Entered].map(Ok));
    }
}
