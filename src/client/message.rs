//! WebSocket messages from frames.

use actix_http::ws::{Frame, Item};
use bytes::{Bytes, BytesMut};

use super::Disconnect;

/// What a frame brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Text(Bytes),
    Binary,
    Ping(Bytes),
    Close(String),
    /// Part of a message that is not complete yet, or an answer nobody waits for.
    Nothing,
}

/// Puts the frames of a fragmented message (RFC 6455 §5.4) together, up to a limit: the codec limits only each frame.
#[derive(Debug)]
pub(super) struct Assembly {
    max_bytes: usize,
    text: Option<BytesMut>,
}

impl Assembly {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, text: None }
    }

    /// Takes the next frame. The codec has already checked that the fragments come in an order that makes sense.
    pub(super) fn take(&mut self, frame: Frame) -> Result<Message, Disconnect> {
        Ok(match frame {
            Frame::Text(text) => Message::Text(text),
            Frame::Binary(_) => Message::Binary,
            Frame::Ping(data) => Message::Ping(data),
            Frame::Pong(_) => Message::Nothing,
            Frame::Close(reason) => Message::Close(reason.map_or_else(String::new, |reason| {
                let code = u16::from(reason.code);
                reason.description.map_or_else(|| code.to_string(), |why| format!("{code} {why}"))
            })),
            Frame::Continuation(Item::FirstText(part)) => {
                self.text = Some(BytesMut::new());
                self.append(&part)?;
                Message::Nothing
            }
            // Nothing here reads binary messages, so their parts need not be kept.
            Frame::Continuation(Item::FirstBinary(_)) => Message::Nothing,
            Frame::Continuation(Item::Continue(part)) => {
                self.append(&part)?;
                Message::Nothing
            }
            Frame::Continuation(Item::Last(part)) => {
                self.append(&part)?;
                self.text.take().map_or(Message::Binary, |text| Message::Text(text.freeze()))
            }
        })
    }

    fn append(&mut self, part: &[u8]) -> Result<(), Disconnect> {
        let Some(text) = &mut self.text else { return Ok(()) };
        if text.len() + part.len() > self.max_bytes {
            return Err(Disconnect::MessageTooLong);
        }
        text.extend_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ws::{CloseCode, CloseReason};

    use super::*;

    fn part(item: fn(Bytes) -> Item, data: &'static str) -> Frame {
        Frame::Continuation(item(Bytes::from_static(data.as_bytes())))
    }

    #[test]
    fn fragments_make_one_message_also_around_control_frames() {
        let mut assembly = Assembly::new(10);
        for (frame, message) in [
            (part(Item::FirstText, "42["), Message::Nothing),
            (Frame::Ping(Bytes::from_static(b"!")), Message::Ping(Bytes::from_static(b"!"))),
            (part(Item::Continue, "\"a\""), Message::Nothing),
            (part(Item::Last, "]"), Message::Text(Bytes::from_static(b"42[\"a\"]"))),
            (part(Item::FirstBinary, "more than ten bytes"), Message::Nothing),
            (part(Item::Last, "more than ten bytes"), Message::Binary),
            (Frame::Text(Bytes::from_static(b"3")), Message::Text(Bytes::from_static(b"3"))),
        ] {
            assert_eq!(assembly.take(frame), Ok(message));
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_kept() {
        let mut assembly = Assembly::new(10);
        assert_eq!(assembly.take(part(Item::FirstText, "0123456789")), Ok(Message::Nothing));
        assert_eq!(assembly.take(part(Item::Continue, "")), Ok(Message::Nothing));
        assert_eq!(assembly.take(part(Item::Continue, "x")), Err(Disconnect::MessageTooLong));
    }

    #[test]
    fn a_close_says_why() {
        let close = |reason| Assembly::new(10).take(Frame::Close(reason));
        assert_eq!(close(None), Ok(Message::Close(String::new())));
        let away = CloseReason { code: CloseCode::Away, description: None };
        assert_eq!(close(Some(away)), Ok(Message::Close("1001".to_owned())));
        let away = CloseReason { code: CloseCode::Away, description: Some("restart".to_owned()) };
        assert_eq!(close(Some(away)), Ok(Message::Close("1001 restart".to_owned())));
    }
}
