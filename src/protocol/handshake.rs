//! The start of a session: the query of a request, the open packet that answers it, and the
//! refusals.

use super::ProtocolError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;
use uuid::Uuid;

/// The longest interval an open packet may announce: what a timer of a JavaScript peer can hold (2^31 - 1 ms).
const MAX_INTERVAL_MS: u64 = i32::MAX as u64;

/// The id of a session: 122 random bits, written as 32 hexadecimal digits. It authorises polling
/// requests, so it is a secret between server and client, and its debug form shows only the first
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(Uuid);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportName {
    Polling,
    WebSocket,
}

impl TransportName {
    /// Returns the name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// The query of a request to the engine's path. Unknown keys (`t` among them) are ignored; the
/// first value of a repeated key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeQuery {
    pub transport: TransportName,
    /// Absent in the request that starts a session.
    pub sid: Option<SessionId>,
    /// `b64`: the client cannot take binary bodies.
    pub base64: bool,
    /// `j`: the client wants scripts; the value is the index of its callback.
    pub jsonp: Option<u64>,
}

/// Why a request to the engine's path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.message())]
pub enum HandshakeError {
    TransportUnknown,
    SessionUnknown,
    BadMethod,
    BadRequest,
    Forbidden,
    UnsupportedVersion,
    /// A client of revision 4 wants to start a session over this transport. It shows its user a reason only if that comes in its
    /// own protocol: see [`write_refusal_of_newer`].
    NewerRevision(TransportName),
}

/// The server's first packet (engine.io-protocol revision 3, "open").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPacket {
    pub sid: SessionId,
    /// The name of the server among others, without a dot. The client gets `<node>.<sid>` as its session
    /// id, by which a proxy can route its requests.
    pub node: Option<String>,
    /// Transports that the client may upgrade to: `["websocket"]` on polling, `[]` on a WebSocket.
    pub upgrades: &'static [&'static str],
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

/// The open packet of any server, as decoded by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOpen {
    pub sid: String,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

impl SessionId {
    /// Returns the id that these 16 bytes make: 6 bits are fixed, 122 are kept.
    ///
    /// The bytes must come from a cryptographically secure generator, such as the operating system's: a session whose id can
    /// be guessed can be taken over.
    ///
    /// ```
    /// use socketio2_protocol::SessionId;
    ///
    /// let random = [0x5a; 16]; // Placeholder: fill these bytes from the operating system's generator.
    /// assert_eq!(SessionId::from_random(random).to_string(), "5a5a5a5a5a5a4a5a9a5a5a5a5a5a5a5a");
    /// ```
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, ..) = self.0.as_fields();
        write!(f, "SessionId({start:08x}…)")
    }
}

impl FromStr for SessionId {
    type Err = HandshakeError;

    /// Decodes an id, also one that begins with the name of a server and a dot.
    fn from_str(text: &str) -> Result<Self, HandshakeError> {
        let text = text.rsplit_once('.').map_or(text, |(_, id)| id);
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 32 => Ok(Self(id)),
            Ok(_) | Err(_) => Err(HandshakeError::SessionUnknown),
        }
    }
}

impl HandshakeQuery {
    /// Decodes the text after the `?` of the request, percent-encoded as it arrived. Transport,
    /// version and session are checked in the order of the reference server.
    ///
    /// # Errors
    ///
    /// The transport or revision is unknown or not supported, or the session id is malformed.
    pub fn parse(query: &str) -> Result<Self, HandshakeError> {
        let (mut transport, mut version, mut sid, mut base64, mut jsonp) = (None, None, None, None, None);
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let slot = match key.as_ref() {
                "transport" => &mut transport,
                "EIO" => &mut version,
                "sid" => &mut sid,
                "b64" => &mut base64,
                "j" => &mut jsonp,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let transport = match transport.as_deref() {
            Some("polling") => TransportName::Polling,
            Some("websocket") => TransportName::WebSocket,
            Some(_) | None => return Err(HandshakeError::TransportUnknown),
        };
        match version.as_deref() {
            // Clients that send no revision are older than the parameter.
            Some("3") | None => {}
            Some("4") if sid.is_none() && jsonp.is_none() => {
                return Err(HandshakeError::NewerRevision(transport));
            }
            Some(_) => return Err(HandshakeError::UnsupportedVersion),
        }
        Ok(Self {
            transport,
            sid: sid.map(|sid| sid.parse()).transpose()?,
            base64: base64.is_some_and(|value| !value.is_empty()),
            jsonp: jsonp.map(|index| index.parse().map_err(|_| HandshakeError::BadRequest)).transpose()?,
        })
    }
}

impl HandshakeError {
    pub fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedVersion | Self::NewerRevision(_) => 5,
        }
    }

    /// Returns the error text, which for a client of another line includes the clients that work.
    pub fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedVersion | Self::NewerRevision(_) => {
                "Unsupported protocol version: this server works with socket.io-client 1.x and 2.x (EIO=3)"
            }
        }
    }

    pub fn http_status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::TransportUnknown
            | Self::SessionUnknown
            | Self::BadMethod
            | Self::BadRequest
            | Self::UnsupportedVersion
            | Self::NewerRevision(_) => 400,
        }
    }

    /// Returns the body of the refusal, `{"code":…,"message":…}`.
    pub fn to_json(self) -> String {
        let (code, message) = (self.code(), self.message());
        format!(r#"{{"code":{code},"message":"{message}"}}"#)
    }
}

/// Encodes the two packets from which a client of Engine.IO revision 4 and Socket.IO revision 5
/// learns why it cannot connect: an open packet, and the refusal of its namespace. The client then
/// stops retrying.
///
/// Calls `write_packet` with each of them: on a WebSocket they are two messages, in a polling body
/// `\x1e` separates them.
pub fn write_refusal_of_newer(sid: SessionId, mut write_packet: impl FnMut(&str)) {
    write_packet(&format!(
        r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    ));
    write_packet(&format!(r#"44{{"message":"{}"}}"#, HandshakeError::UnsupportedVersion.message()));
}

impl OpenPacket {
    /// Appends the packet, its engine digit `0` included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            sid: String,
            upgrades: &'static [&'static str],
            ping_interval: u64,
            ping_timeout: u64,
        }
        let wire = Wire {
            sid: match &self.node {
                Some(node) => format!("{node}.{}", self.sid),
                None => self.sid.to_string(),
            },
            upgrades: self.upgrades,
            ping_interval: milliseconds(self.ping_interval),
            ping_timeout: milliseconds(self.ping_timeout),
        };
        out.push(b'0');
        serde_json::to_writer(out, &wire).expect("plain fields serialize, and a Vec takes them");
    }
}

impl ServerOpen {
    /// Decodes the data of an [`EnginePacket::Open`](super::EnginePacket::Open). Unknown fields are
    /// ignored.
    ///
    /// # Errors
    ///
    /// The data is not the JSON of an open packet.
    pub fn decode(data: &str) -> Result<Self, ProtocolError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            sid: String,
            ping_interval: u64,
            ping_timeout: u64,
        }
        let wire: Wire = serde_json::from_str(data).map_err(|_| ProtocolError::MalformedOpen)?;
        if wire.ping_interval.max(wire.ping_timeout) > MAX_INTERVAL_MS {
            return Err(ProtocolError::MalformedOpen);
        }
        Ok(Self {
            sid: wire.sid,
            ping_interval: Duration::from_millis(wire.ping_interval),
            ping_timeout: Duration::from_millis(wire.ping_timeout),
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "0123456789abcdef0123456789ABCDEF";

    #[test]
    fn queries() {
        let polling = HandshakeQuery { transport: TransportName::Polling, sid: None, base64: false, jsonp: None };
        let websocket = HandshakeQuery { transport: TransportName::WebSocket, ..polling };
        let sid = Some(SID.parse().unwrap());
        for (query, expected) in [
            ("EIO=3&transport=polling&t=NxYz", polling),
            ("EIO=3&transport=websocket", websocket),
            ("transport=websocket", websocket),
            ("transport=polling&b64=1", HandshakeQuery { base64: true, ..polling }),
            ("transport=websocket&EIO=3&&x&=y", websocket),
            ("EIO=3&transport=polling&b64=1", HandshakeQuery { base64: true, ..polling }),
            ("EIO=3&transport=polling&j=12", HandshakeQuery { jsonp: Some(12), ..polling }),
            ("EIO=3&transport=websocket&sid=0123456789abcdef0123456789ABCDEF", HandshakeQuery { sid, ..websocket }),
            ("%45IO=%33&transport=polli%6Eg", polling),
            ("EIO=3&transport=polling&EIO=4&transport=x&j=1&j=x", HandshakeQuery { jsonp: Some(1), ..polling }),
        ] {
            assert_eq!(HandshakeQuery::parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn refused_queries() {
        use HandshakeError::*;
        for (query, error) in [
            ("", TransportUnknown),
            ("EIO=3", TransportUnknown),
            ("EIO=3&transport=", TransportUnknown),
            ("EIO=3&transport=tobi", TransportUnknown),
            ("EIO=3&transport=constructor", TransportUnknown),
            ("EIO=3&transport=Polling", TransportUnknown),
            ("EIO=3&transport=%ff%zz%", TransportUnknown),
            ("EIO=&transport=polling", UnsupportedVersion),
            ("EIO=2&transport=polling", UnsupportedVersion),
            ("EIO=4&transport=polling", NewerRevision(TransportName::Polling)),
            ("EIO=4&transport=polling&j=0", UnsupportedVersion),
            ("EIO=4&transport=polling&sid=0123456789abcdef0123456789abcdef", UnsupportedVersion),
            ("EIO=03&transport=polling", UnsupportedVersion),
            ("EIO=4&EIO=3&transport=websocket", NewerRevision(TransportName::WebSocket)),
            ("EIO=3&transport=polling&sid=", SessionUnknown),
            ("EIO=3&transport=polling&sid=__proto__", SessionUnknown),
            ("EIO=3&transport=polling&sid=01234567-89ab-cdef-0123-456789abcdef", SessionUnknown),
            ("EIO=3&transport=polling&sid=0123456789abcdef0123456789abcde", SessionUnknown),
            ("EIO=3&transport=polling&sid=0123456789abcdef0123456789abcdeg", SessionUnknown),
            ("EIO=3&transport=polling&j=", BadRequest),
            ("EIO=3&transport=polling&j=-1", BadRequest),
            ("EIO=3&transport=polling&j=1)%3Balert(1", BadRequest),
            ("EIO=3&transport=polling&j=99999999999999999999", BadRequest),
        ] {
            assert_eq!(HandshakeQuery::parse(query), Err(error), "{query}");
        }
    }

    #[test]
    fn refusals() {
        use HandshakeError::*;
        for (error, status, body) in [
            (TransportUnknown, 400, r#"{"code":0,"message":"Transport unknown"}"#),
            (SessionUnknown, 400, r#"{"code":1,"message":"Session ID unknown"}"#),
            (BadMethod, 400, r#"{"code":2,"message":"Bad handshake method"}"#),
            (BadRequest, 400, r#"{"code":3,"message":"Bad request"}"#),
            (Forbidden, 403, r#"{"code":4,"message":"Forbidden"}"#),
            (
                UnsupportedVersion,
                400,
                r#"{"code":5,"message":"Unsupported protocol version: this server works with socket.io-client 1.x and 2.x (EIO=3)"}"#,
            ),
        ] {
            assert_eq!((error.http_status(), error.to_json().as_str()), (status, body));
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
            assert!(body.contains(&error.to_string()));
        }
    }

    #[test]
    fn newer_clients_are_refused_in_their_own_way() {
        let mut packets = Vec::new();
        write_refusal_of_newer(SID.parse().unwrap(), |packet| packets.push(packet.to_owned()));
        let [open, refusal] = packets.as_slice() else { panic!("two packets: {packets:?}") };
        assert!(ServerOpen::decode(open.strip_prefix('0').unwrap()).is_ok());
        let refusal: serde_json::Value = serde_json::from_str(refusal.strip_prefix("44").unwrap()).unwrap();
        assert_eq!(refusal["message"], HandshakeError::UnsupportedVersion.message());
    }

    #[test]
    fn session_ids() {
        let id: SessionId = SID.parse().unwrap();
        assert_eq!(id.to_string(), SID.to_lowercase());
        assert_eq!(format!("{id:?}"), "SessionId(01234567…)", "logs do not get the secret");
    }

    #[test]
    fn session_ids_keep_122_random_bits() {
        let zero = SessionId::from_random([0; 16]);
        assert_eq!(zero.to_string().parse(), Ok(zero));
        let bits = (0..128).map(|bit| 1_u128 << bit);
        let lost = bits.filter(|bit| SessionId::from_random(bit.to_be_bytes()) == zero).fold(0, |lost, bit| lost | bit);
        assert_eq!(lost, 0xf << 76 | 0x3 << 62, "only UUID version and variant are fixed");
    }

    #[test]
    fn open_packets() {
        let open = OpenPacket {
            sid: SID.parse().unwrap(),
            node: None,
            upgrades: &["websocket"],
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_millis(60_000),
        };
        let mut text = Vec::new();
        open.encode(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            r#"0{"sid":"0123456789abcdef0123456789abcdef","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":60000}"#
        );
        let read = ServerOpen::decode(text.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(read.sid, open.sid.to_string());
        assert_eq!((read.ping_interval, read.ping_timeout), (open.ping_interval, open.ping_timeout));

        let mut text = Vec::new();
        assert_eq!(format!("farm-1.{SID}").parse::<SessionId>(), SID.parse());
        let mut named = Vec::new();
        OpenPacket { node: Some("farm-1".to_owned()), ..open.clone() }.encode(&mut named);
        let sid = ServerOpen::decode(std::str::from_utf8(&named[1..]).unwrap()).unwrap().sid;
        assert_eq!(sid, format!("farm-1.{}", open.sid));
        OpenPacket { upgrades: &[], ..open }.encode(&mut text);
        assert!(String::from_utf8(text).unwrap().contains(r#""upgrades":[]"#));
    }

    #[test]
    fn open_packets_of_other_servers() {
        let newer = r#"{"maxPayload":1,"pingTimeout":2,"pingInterval":1,"sid":"é"}"#;
        assert_eq!(ServerOpen::decode(newer).unwrap().sid, "é");
        for data in [
            "",
            "{}",
            "[]",
            r#"{"sid":"x","pingInterval":-1,"pingTimeout":1}"#,
            r#"{"sid":"x","pingInterval":1,"pingTimeout":2147483648}"#,
            r#"{"sid":"x","pingInterval":1,"pingTimeout":1}}"#,
        ] {
            assert_eq!(ServerOpen::decode(data), Err(ProtocolError::MalformedOpen), "{data}");
        }
    }
}
