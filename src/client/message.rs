//! Assembles WebSocket messages from frames, for both sides of a connection.

use actix_http::ws::{CloseReason, Frame, Item};
use bytes::{Bytes, BytesMut};

/// The result of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole text message, not yet checked to be UTF-8.
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// Part of an incomplete message.
    Part,
    Close(Option<CloseReason>),
}

/// Why frames form no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    #[error("a message is longer than the limit")]
    TooLong,
    #[error("a continuation frame without a message")]
    NotBegun,
    #[error("a control frame is longer than {MAX_CONTROL} bytes")]
    LongControl,
}

/// The maximum payload of a control frame, in bytes (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

/// Assembles fragmented messages (RFC 6455 §5.4) up to a limit, because the codec limits only
/// single frames. Holds memory only while a message is incomplete.
#[derive(Debug)]
pub struct Assembly {
    max_bytes: usize,
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    data: BytesMut,
}

impl Assembly {
    /// Creates an assembler. `max_bytes` limits a whole message.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, partial: None }
    }

    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Handles the next frame.
    ///
    /// # Errors
    ///
    /// Returns [`AssemblyError`] if the message is over the limit, or if the frame continues no
    /// message.
    pub fn take(&mut self, frame: Frame) -> Result<Message, AssemblyError> {
        Ok(match frame {
            Frame::Text(data) => Message::Text(data),
            Frame::Binary(data) => Message::Binary(data),
            Frame::Ping(data) | Frame::Pong(data) if data.len() > MAX_CONTROL => {
                return Err(AssemblyError::LongControl);
            }
            Frame::Ping(data) => Message::Ping(data),
            Frame::Pong(_) => Message::Pong,
            Frame::Close(reason) => Message::Close(reason),
            Frame::Continuation(Item::FirstText(data)) => self.begin(true, &data)?,
            Frame::Continuation(Item::FirstBinary(data)) => self.begin(false, &data)?,
            Frame::Continuation(Item::Continue(data)) => {
                self.append(&data)?;
                Message::Part
            }
            Frame::Continuation(Item::Last(data)) => {
                self.append(&data)?;
                let Partial { is_text, data } = *self.partial.take().ok_or(AssemblyError::NotBegun)?;
                if is_text { Message::Text(data.freeze()) } else { Message::Binary(data.freeze()) }
            }
        })
    }

    fn begin(&mut self, is_text: bool, data: &[u8]) -> Result<Message, AssemblyError> {
        self.partial = Some(Box::new(Partial { is_text, data: BytesMut::new() }));
        self.append(data)?;
        Ok(Message::Part)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), AssemblyError> {
        let partial = self.partial.as_mut().ok_or(AssemblyError::NotBegun)?;
        if partial.data.len() + data.len() > self.max_bytes {
            return Err(AssemblyError::TooLong);
        }
        partial.data.extend_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(item: fn(Bytes) -> Item, data: &'static str) -> Frame {
        Frame::Continuation(item(Bytes::from_static(data.as_bytes())))
    }

    #[test]
    fn fragments_make_one_message_also_around_control_frames() {
        let mut assembly = Assembly::new(20);
        for (frame, message) in [
            (part(Item::FirstText, "42["), Message::Part),
            (Frame::Ping(Bytes::from_static(b"!")), Message::Ping(Bytes::from_static(b"!"))),
            (part(Item::Continue, "\"a\""), Message::Part),
            (part(Item::Last, "]"), Message::Text(Bytes::from_static(b"42[\"a\"]"))),
            (part(Item::FirstBinary, "one"), Message::Part),
            (part(Item::Last, "two"), Message::Binary(Bytes::from_static(b"onetwo"))),
            (Frame::Text(Bytes::from_static(b"3")), Message::Text(Bytes::from_static(b"3"))),
        ] {
            assert_eq!(assembly.take(frame), Ok(message));
        }
        assert_eq!(assembly.take(part(Item::Last, "")), Err(AssemblyError::NotBegun));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_kept() {
        let mut assembly = Assembly::new(10);
        assert_eq!(assembly.take(part(Item::FirstText, "0123456789")), Ok(Message::Part));
        assert_eq!(assembly.take(part(Item::Continue, "")), Ok(Message::Part));
        assert_eq!(assembly.take(part(Item::Continue, "x")), Err(AssemblyError::TooLong));
    }
}
