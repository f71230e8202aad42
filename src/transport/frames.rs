//! WebSocket messages out of bytes: frames are taken apart, fragments put together, both bounded.
//!
//! The only file that knows `actix-web-actors`, which is published as deprecated: its frame types come from `actix-http`, and
//! this is where they would be taken from there.

use actix_codec::Decoder;
use actix_http::ws::{Codec, Item};
use actix_web_actors::ws::{Frame, ProtocolError};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::disconnect::Disconnect;

/// The longest header of a masked frame (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Text(ByteString),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// A piece of a message that is not complete yet.
    Part,
    Close,
}

/// Puts a client's messages together. Holds memory only while a message is incomplete.
#[derive(Debug)]
pub(super) struct Messages {
    codec: Codec,
    max_message: usize,
    buffer: BytesMut,
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    text: bool,
    data: BytesMut,
}

impl Messages {
    /// `max_message` bounds a whole message, in bytes.
    pub(super) fn new(max_message: usize) -> Self {
        Self { codec: Codec::new().max_size(max_message), max_message, buffer: BytesMut::new(), partial: None }
    }

    /// Adds what was read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Disconnect> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            return Ok(None);
        }
        let Some(frame) = self.codec.decode(&mut self.buffer).map_err(|error| disconnect(&error))? else {
            // The codec waits for a frame of any announced length.
            if self.buffer.len() > self.max_message + MAX_HEADER || self.announced() > self.max_message as u64 {
                return Err(Disconnect::MessageTooBig);
            }
            return Ok(None);
        };
        self.assemble(frame).map(Some)
    }

    fn assemble(&mut self, frame: Frame) -> Result<Message, Disconnect> {
        Ok(match frame {
            Frame::Text(data) => Message::Text(text(data)?),
            Frame::Binary(data) => Message::Binary(data),
            Frame::Ping(data) => Message::Ping(data),
            Frame::Pong(_) => Message::Pong,
            Frame::Close(_) => Message::Close,
            Frame::Continuation(Item::FirstText(data)) => return self.begin(true, data),
            Frame::Continuation(Item::FirstBinary(data)) => return self.begin(false, data),
            Frame::Continuation(Item::Continue(data)) => {
                self.append(&data)?;
                Message::Part
            }
            Frame::Continuation(Item::Last(data)) => {
                self.append(&data)?;
                let Partial { text: is_text, data } = *self.partial.take().ok_or(Disconnect::ParseError)?;
                if is_text { Message::Text(text(data.freeze())?) } else { Message::Binary(data.freeze()) }
            }
        })
    }

    fn begin(&mut self, text: bool, data: Bytes) -> Result<Message, Disconnect> {
        self.partial = Some(Box::new(Partial { text, data: BytesMut::new() }));
        self.append(&data)?;
        Ok(Message::Part)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Disconnect> {
        let partial = self.partial.as_mut().ok_or(Disconnect::ParseError)?;
        if partial.data.len() + data.len() > self.max_message {
            return Err(Disconnect::MessageTooBig);
        }
        partial.data.extend_from_slice(data);
        Ok(())
    }

    /// The payload length that an incomplete frame announces (RFC 6455 §5.2), as far as it is there.
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

fn text(data: Bytes) -> Result<ByteString, Disconnect> {
    ByteString::try_from(data).map_err(|_| Disconnect::ParseError)
}

fn disconnect(error: &ProtocolError) -> Disconnect {
    if matches!(error, ProtocolError::Overflow) { Disconnect::MessageTooBig } else { Disconnect::ParseError }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame, as a client sends it.
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

    fn all(messages: &mut Messages) -> Result<Vec<Message>, Disconnect> {
        std::iter::from_fn(|| messages.next().transpose()).collect()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Message>, Disconnect> {
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
            Message::Text("one".into()),
            Message::Part,
            Message::Ping(Bytes::from_static(b"ping")),
            Message::Text("two".into()),
            Message::Binary(Bytes::from_static(b"\x04\xff")),
        ];
        assert_eq!(read(&bytes).as_ref(), Ok(&expected));
        let mut messages = Messages::new(100);
        let mut one_by_one = Vec::new();
        for byte in bytes {
            messages.extend(&[byte]);
            one_by_one.extend(all(&mut messages).unwrap());
        }
        assert_eq!(one_by_one, expected);
        assert_eq!(messages.buffer.capacity(), 0, "nothing is held while nothing is incomplete");
    }

    #[test]
    fn what_is_too_big_is_refused_before_it_is_there() {
        let announced = [0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(read(&announced), Err(Disconnect::MessageTooBig));
        assert_eq!(read(&frame(0x81, &[b'x'; 101])), Err(Disconnect::MessageTooBig));
        assert_eq!(read(&frame(0x81, &[b'x'; 100])).map(|messages| messages.len()), Ok(1));
        let fragments = [frame(0x01, &[b'x'; 60]), frame(0x80, &[b'x'; 41])].concat();
        assert_eq!(read(&fragments), Err(Disconnect::MessageTooBig));
    }

    #[test]
    fn what_is_no_websocket_is_refused() {
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
    }

    #[test]
    fn a_character_may_be_split_between_fragments() {
        let bytes = [frame(0x01, b"\xf0\x9f"), frame(0x80, b"\x8e\xac")].concat();
        assert_eq!(read(&bytes), Ok(vec![Message::Part, Message::Text("🎬".into())]));
    }
}
