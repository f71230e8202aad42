//! Encodes and decodes Socket.IO v2: Engine.IO 3 and packet protocol revision 4, for clients and servers, without I/O.
//!
//! The crate performs no I/O, reads no clock and draws no random numbers: bytes and text go in, values come out. It works with
//! any runtime and any WebSocket or HTTP library, and its callers decide about sockets, timers and session ids.
//!
//! ```text
//! frame or one packet of a body ──▶ EnginePacket ──▶ Connection ──▶ Received      the meaning of a client's packet
//!                                                    └ SocketPacket
//! polling body ◀──▶ engine_payload      query, open packet, refusals ◀──▶ handshake
//! ```
//!
//! **Peers are not trusted.** Whatever a peer sends ends in a value or in an error, never in a panic. Work and memory are linear
//! in the size of the input, and [`MAX_DEPTH`], [`MAX_ARGUMENTS`] and [`MAX_ATTACHMENTS`] bound what the size does not.
//!
//! # A server
//!
//! A handshake has a query and an open packet. After that each text frame of a WebSocket, or each packet of a polling body, is
//! an [`EnginePacket`], and the client's [`Connection`] says what it means:
//!
//! ```
//! use std::time::Duration;
//! use socketio2_protocol::{
//!     Connection, EnginePacket, HandshakeQuery, OpenPacket, Received, SessionId, TransportName, write_ack, write_event,
//! };
//!
//! let query = HandshakeQuery::parse("EIO=3&transport=websocket")?;
//! assert_eq!(query.transport, TransportName::WebSocket);
//!
//! let random = [7; 16]; // Placeholder: fill these bytes from the operating system's generator.
//! let open = OpenPacket {
//!     sid: SessionId::from_random(random),
//!     node: None,
//!     upgrades: &[],
//!     ping_interval: Duration::from_secs(25),
//!     ping_timeout: Duration::from_secs(60),
//! };
//! let mut first = Vec::new();
//! open.encode(&mut first); // The first message to the client. The second is `40`: it is in the namespace `/`.
//!
//! let mut client = Connection::new();
//! let mut replies = Vec::new();
//! for frame in ["2", r#"421["hello","world"]"#] {
//!     let mut reply = Vec::new();
//!     match client.receive(EnginePacket::decode_text(frame)?)? {
//!         Received::Ping(data) => EnginePacket::Pong(data).encode_text(&mut reply),
//!         Received::Event { ack: Some(ack), event } if event.name == "hello" => write_ack(&mut reply, ack, "ok"),
//!         _ => {}
//!     }
//!     replies.push(String::from_utf8(reply)?);
//! }
//! assert_eq!(replies, ["3", r#"431["ok"]"#]);
//!
//! let mut news = Vec::new();
//! write_event(&mut news, "/jobs", r#"{"status":"active"}"#);
//! assert_eq!(news, br#"42["/jobs",{"status":"active"}]"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A client
//!
//! ```
//! use socketio2_protocol::{EnginePacket, ServerOpen, SocketPacket, engine_payload::Payload};
//!
//! let body = r#"81:0{"sid":"5a5a","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":60000}2:4019:42["/jobs",{"a":1}]"#;
//! let body = Payload::decode(body.as_bytes(), 100)?;
//! let packets: Vec<_> = body.packets().collect();
//! let [EnginePacket::Open(open), EnginePacket::Message("0"), EnginePacket::Message(event)] = packets.as_slice() else {
//!     panic!("an open packet, the connect packet of `/`, an event: {packets:?}");
//! };
//! assert_eq!(ServerOpen::decode(open)?.sid, "5a5a"); // Ping at least every 25 s from here on.
//! let SocketPacket::Event { event, .. } = SocketPacket::decode(event)? else { panic!("an event") };
//! assert_eq!((event.name.as_ref(), event.args[0].get()), ("/jobs", r#"{"a":1}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/server.rs` and `examples/client.rs` are a server and a client of long-polling that need nothing but the standard
//! library besides.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

mod base64;
mod connection;
mod engine_packet;
pub mod engine_payload;
mod error;
mod handshake;
mod json;
mod socket_packet;
mod write;

pub use connection::{Connection, Received};
pub use engine_packet::EnginePacket;
pub use error::{PayloadError, PayloadProblem, ProtocolError};
pub use handshake::{
    HandshakeError, HandshakeQuery, OpenPacket, ServerOpen, SessionId, TransportName, write_refusal_of_newer,
};
pub use json::{MAX_ARGUMENTS, MAX_DEPTH};
pub use socket_packet::{AckId, Event, MAX_ATTACHMENTS, Namespace, SocketPacket};
pub use write::{write_ack, write_ack_value, write_event, write_event_with, write_invalid_namespace};

#[cfg(doctest)]
#[doc = include_str!("README.md")]
struct Readme;
