//! One packet of Engine.IO (protocol revision 3, "Packet"): a type digit, then data.

use super::{ProtocolError, base64};
use std::borrow::Cow;

/// A packet as either side may send it. Text and data are borrowed from their frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnginePacket<'a> {
    /// `0`: the server's first packet; [`ServerOpen::decode`](super::ServerOpen::decode) decodes
    /// its data.
    Open(&'a str),
    /// `1`
    Close,
    /// `2`: sent by the client; answered by a pong with the same data.
    Ping(&'a str),
    /// `3`
    Pong(&'a str),
    /// `4`: decoded by [`SocketPacket::decode`](super::SocketPacket::decode).
    Message(&'a str),
    /// `4` as the first byte of a binary frame, or `b4` and base64 on a text transport; only the
    /// latter owns its data.
    BinaryMessage(Cow<'a, [u8]>),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

impl<'a> EnginePacket<'a> {
    /// Decodes a WebSocket text frame, or one packet of a polling body.
    ///
    /// # Errors
    ///
    /// The text is empty, has an unknown type, or holds malformed base64.
    pub fn decode_text(text: &'a str) -> Result<Self, ProtocolError> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(ProtocolError::EmptyPacket)?;
        let data = rest.as_str();
        match kind {
            '0' => Ok(Self::Open(data)),
            '1' => bare(data, Self::Close),
            '2' => Ok(Self::Ping(data)),
            '3' => Ok(Self::Pong(data)),
            '4' => Ok(Self::Message(data)),
            '5' => bare(data, Self::Upgrade),
            '6' => bare(data, Self::Noop),
            'b' => {
                let data = data.strip_prefix('4').ok_or(ProtocolError::BinaryNotMessage)?;
                base64::decode(data).map(|data| Self::BinaryMessage(data.into())).ok_or(ProtocolError::MalformedBase64)
            }
            _ => Err(ProtocolError::UnknownEngineType),
        }
    }

    /// Decodes a WebSocket binary frame, or a binary packet of a polling body. Only messages can be
    /// binary.
    ///
    /// # Errors
    ///
    /// The frame is empty or not a message.
    pub fn decode_binary(frame: &'a [u8]) -> Result<Self, ProtocolError> {
        match frame.split_first() {
            Some((4, data)) => Ok(Self::BinaryMessage(data.into())),
            Some(_) => Err(ProtocolError::BinaryNotMessage),
            None => Err(ProtocolError::EmptyPacket),
        }
    }

    /// Appends the text form: a WebSocket text frame, or one packet of a polling body.
    pub fn encode_text(&self, out: &mut Vec<u8>) {
        let (kind, data): (&[u8], _) = match self {
            Self::Open(data) => (b"0", *data),
            Self::Close => (b"1", ""),
            Self::Ping(data) => (b"2", *data),
            Self::Pong(data) => (b"3", *data),
            Self::Message(data) => (b"4", *data),
            Self::BinaryMessage(data) => {
                out.extend_from_slice(b"b4");
                return base64::encode(data, out);
            }
            Self::Upgrade => (b"5", ""),
            Self::Noop => (b"6", ""),
        };
        out.extend_from_slice(kind);
        out.extend_from_slice(data.as_bytes());
    }
}

fn bare<'a>(data: &str, packet: EnginePacket<'a>) -> Result<EnginePacket<'a>, ProtocolError> {
    if data.is_empty() { Ok(packet) } else { Err(ProtocolError::UnexpectedData) }
}
