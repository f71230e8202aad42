//! Engine.IO 3 and Socket.IO (packet protocol revision 4), both ways, without I/O.
//!
//! INVARIANT: nothing in here knows a socket, a clock, a runtime or a farm. Bytes and text go in, values come out, and
//! whatever a peer sends ends in a value or in a [`ProtocolError`], never in a panic; work and memory are linear in the
//! size of what it sent.
//!
//! ```text
//! frame or one packet of a body ──▶ EnginePacket ──▶ Connection ──▶ Received      what a client's packet means
//!                                                    └ SocketPacket
//! polling body ◀──▶ engine_payload      query, open packet, refusals ◀──▶ handshake
//! ```
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
pub use handshake::{HandshakeError, HandshakeQuery, OpenPacket, ServerOpen, SessionId, TransportName};
pub use json::{MAX_ARGUMENTS, MAX_DEPTH};
pub use socket_packet::{AckId, Event, MAX_ATTACHMENTS, Namespace, SocketPacket};
pub use write::{write_ack, write_event, write_invalid_namespace};
