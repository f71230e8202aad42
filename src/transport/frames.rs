//! Decodes bytes into WebSocket messages: parses frames and assembles fragments, both within
//! limits.
//!
//! The only file that uses `actix-web-actors`, which is deprecated upstream. Its frame types come
//! from `actix-http` and can be imported from there instead.

use actix_codec::Decoder;
use actix_http::ws::Codec;
use actix_web_actors::ws::ProtocolError;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::{
    client::{self, Assembly, AssemblyError},
    disconnect::Disconnect,
};

/// The length of the longest header of a masked frame (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;

/// A message or control frame from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientMessage {
    Text(ByteString),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// A fragment of an incomplete message.
    Part,
    Close,
}

/// Assembles a client's messages. Holds memory only while a message is incomplete.
#[derive(Debug)]
pub(super) struct Messages {
    codec: Codec,
    buffer: BytesMut,
    assembly: Assembly,
}

impl Messages {
    /// Creates a decoder. `max_message` limits a whole message, in bytes.
    pub(super) fn new(max_message: usize) -> Self {
        let codec = Codec::new().max_size(max_message);
        Self { codec, buffer: BytesMut::new(), assembly: Assembly::new(max_message) }
    }

    /// Adds bytes that were read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next message, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<ClientMessage>, Disconnect> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            return Ok(None);
        }
        let Some(frame) = self.codec.decode(&mut self.buffer).map_err(|error| disconnect(&error))? else {
            // The codec waits for a frame of any announced length.
            let max_message = self.assembly.max_bytes();
            if self.buffer.len() > max_message + MAX_HEADER || self.announced() > max_message as u64 {
                return Err(Disconnect::MessageTooBig);
            }
            return Ok(None);
        };
        let message = self.assembly.take(frame).map_err(|error| match error {
            AssemblyError::TooLong => Disconnect::MessageTooBig,
            AssemblyError::NotBegun | AssemblyError::LongControl => Disconnect::ParseError,
        })?;
        ClientMessage::read(message).map(Some)
    }

    /// Returns the payload length that an incomplete frame announces (RFC 6455 §5.2), once it is
    /// known.
    fn announced(&self) -> u64 {
        match *self.buffer {
            [_, length, a, b, ..] if length & 0x7f == 126 => u64::from(u16::from_be_bytes([a, b])),
            [_, length, a, b, c, d, e, f, g, h, ..] if length & 0x7f == 127 => {
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
            [_, length, ..] if length & 0x7f < 126 => u64::from(length & 0x7f),
            _ => 0,
        }
    }
}

impl ClientMessage {
    fn read(message: client::Message) -> Result<Self, Disconnect> {
        Ok(match message {
            client::Message::Text(data) => Self::Text(ByteString::try_from(data).map_err(|_| Disconnect::ParseError)?),
            client::Message::Binary(data) => Self::Binary(data),
            client::Message::Ping(data) => Self::Ping(data),
            client::Message::Pong => Self::Pong,
            client::Message::Part => Self::Part,
            client::Message::Close(_) => Self::Close,
        })
    }
}

fn disconnect(error: &ProtocolError) -> Disconnect {
    if matches!(error, ProtocolError::Overflow) { Disconnect::MessageTooBig } else { Disconnect::ParseError }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a masked frame, as clients send it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        bytes
    }

    fn all(messages: &mut Messages) -> Result<Vec<ClientMessage>, Disconnect> {
        std::iter::from_fn(|| messages.next().transpose()).collect()
    }

    fn read(bytes: &[u8]) -> Result<Vec<ClientMessage>, Disconnect> {
        let mut messages = Messages::new(100);
        messages.extend(bytes);
        all(&mut messages)
    }

    #[test]
    fn byte_by_byte_gives_the_same_as_at_once() {
        let bytes = [
            frame(0x81, b"one"),
            frame(0x01, b"t"),
            frame(0x89, b"ping"),
            frame(0x80, b"wo"),
            frame(0x82, b"\x04\xff"),
        ]
        .concat();
        let expected = vec![
            ClientMessage::Text("one".into()),
            ClientMessage::Part,
            ClientMessage::Ping(Bytes::from_static(b"ping")),
            ClientMessage::Text("two".into()),
            ClientMessage::Binary(Bytes::from_static(b"\x04\xff")),
        ];
        assert_eq!(read(&bytes).as_ref(), Ok(&expected));
        let mut messages = Messages::new(100);
        let mut one_by_one = Vec::new();
        for byte in bytes {
            messages.extend(&[byte]);
            one_by_one.extend(all(&mut messages).unwrap());
        }
        assert_eq!(one_by_one, expected);
        assert_eq!(messages.buffer.capacity(), 0, "no memory is held between messages");
    }

    #[test]
    fn an_oversized_message_is_refused_before_it_arrives() {
        let announced = [0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(read(&announced), Err(Disconnect::MessageTooBig));
        assert_eq!(read(&frame(0x81, &[b'x'; 101])), Err(Disconnect::MessageTooBig));
        assert_eq!(read(&frame(0x81, &[b'x'; 100])).map(|messages| messages.len()), Ok(1));
        let fragments = [frame(0x01, &[b'x'; 60]), frame(0x80, &[b'x'; 41])].concat();
        assert_eq!(read(&fragments), Err(Disconnect::MessageTooBig));
    }

    #[test]
    fn invalid_frames_are_refused() {
        for (what, bytes) in [
            ("unmasked", vec![0x81, 1, b'x']),
            ("not UTF-8", frame(0x81, b"\xff")),
            ("not UTF-8 in fragments", [frame(0x01, b"\xf0\x9f"), frame(0x80, b"x")].concat()),
            ("reserved bits", frame(0xc1, b"x")),
            ("unknown opcode", frame(0x83, b"x")),
            ("continuation of nothing", frame(0x80, b"x")),
            ("message within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
            ("fragmented ping", frame(0x09, b"x")),
        ] {
            assert_eq!(read(&bytes), Err(Disconnect::ParseError), "{what}");
        }
        for first in [0x89, 0x8a] {
            let mut messages = Messages::new(1000);
            messages.extend(&frame(first, &[b'x'; 126]));
            assert_eq!(all(&mut messages), Err(Disconnect::ParseError), "a long control frame");
        }
    }

    #[test]
    fn a_character_may_be_split_between_fragments() {
        let bytes = [frame(0x01, b"\xf0\x9f"), frame(0x80, b"\x8e\xac")].concat();
        assert_eq!(read(&bytes), Ok(vec![ClientMessage::Part, ClientMessage::Text("🎬".into())]));
    }
}
