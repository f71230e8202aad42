//! One encoded packet, shared by every outbox that holds it.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{
    farm::{Entity, EventKind, FarmEvent, supersede},
    protocol::{engine_payload, write_event, write_event_with},
};

/// The length of the longest header of an unmasked WebSocket frame (RFC 6455 §5.2).
const MAX_HEADER: usize = 10;
const FIN_TEXT: u8 = 0x81;
const FIN_PONG: u8 = 0x8a;

/// An Engine.IO packet with its WebSocket header in front, encoded once and written to any number
/// of clients.
///
/// Frames from the server are not masked (RFC 6455 §5.1), so the header is the same for every
/// client. The form for polling bodies is also encoded once, when the first polling client needs
/// it.
#[derive(Debug)]
pub struct Frame {
    /// `MAX_HEADER` bytes, of which the last few are the header, then the packet.
    buffer: Box<[u8]>,
    header_start: u8,
    polling: OnceLock<Box<[u8]>>,
    published: Instant,
    is_chat: bool,
    state: Option<EntityState>,
}

/// The state of an entity that a frame carries.
#[derive(Debug)]
struct EntityState {
    entity: Entity,
    event: Arc<FarmEvent>,
}

impl Frame {
    /// Encodes a text packet for one client: a response or an acknowledgement.
    pub fn text(now: Instant, write_packet: impl FnOnce(&mut Vec<u8>)) -> Arc<Self> {
        Arc::new(Self::new(FIN_TEXT, now, None, 128, write_packet))
    }

    /// Encodes the packet for `event`.
    pub fn event(now: Instant, event: &Arc<FarmEvent>) -> Arc<Self> {
        let state = event.entity().map(|entity| EntityState { entity, event: event.clone() });
        let size = event.json().len() + 64;
        let frame = Self::new(FIN_TEXT, now, state, size, |out| write_event(out, event.wire_name(), event.json()));
        Arc::new(Self { is_chat: event.kind() == EventKind::ChatMessage, ..frame })
    }

    /// Encodes the packet for a client that can resume: with the event's token, and never replaced by
    /// a newer one or left out.
    pub fn with_token(now: Instant, event: &FarmEvent, token: &str) -> Arc<Self> {
        Self::event_with(now, event, &format!("\"{token}\""))
    }

    /// Encodes the packet of an event that is the last known state of its entity.
    pub fn of_state(now: Instant, event: &FarmEvent) -> Arc<Self> {
        Self::event_with(now, event, r#"{"state":true}"#)
    }

    fn event_with(now: Instant, event: &FarmEvent, more: &str) -> Arc<Self> {
        let size = event.json().len() + more.len() + 64;
        Arc::new(Self::new(FIN_TEXT, now, None, size, |out| {
            write_event_with(out, event.wire_name(), event.json(), more);
        }))
    }

    /// Returns the frame to send instead of this waiting one and of `newer`, which carries a newer
    /// state of the same entity.
    pub fn superseded_by(&self, newer: &Arc<Self>) -> Arc<Self> {
        let merged = self.state.as_ref().zip(newer.state.as_ref());
        match merged.and_then(|(old, new)| supersede::merge(&old.event, &new.event)) {
            Some(merged) => Self::event(newer.published, &Arc::new(merged)),
            None => newer.clone(),
        }
    }

    /// Encodes the answer to a WebSocket ping (RFC 6455 §5.5.3). Only a WebSocket transport may
    /// send it.
    pub fn websocket_pong(now: Instant, data: &[u8]) -> Arc<Self> {
        Arc::new(Self::new(FIN_PONG, now, None, data.len(), |out| out.extend_from_slice(data)))
    }

    fn new(
        first: u8,
        published: Instant,
        state: Option<EntityState>,
        size: usize,
        write_packet: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut buffer = Vec::with_capacity(MAX_HEADER + size);
        buffer.resize(MAX_HEADER, 0);
        write_packet(&mut buffer);
        let header = Header::new(first, buffer.len() - MAX_HEADER);
        let header_start = MAX_HEADER - header.len;
        buffer[header_start..MAX_HEADER].copy_from_slice(&header.bytes[..header.len]);
        Self {
            buffer: buffer.into_boxed_slice(),
            header_start: header_start as u8,
            polling: OnceLock::new(),
            published,
            is_chat: false,
            state,
        }
    }

    /// Returns whether it is a chat message, which may be left out for a client that does not read.
    pub fn is_chat(&self) -> bool {
        self.is_chat
    }

    /// Returns the bytes for a WebSocket: header and packet.
    pub fn websocket(&self) -> &[u8] {
        &self.buffer[usize::from(self.header_start)..]
    }

    /// Returns the packet alone, or `None` for a frame that exists only on WebSockets.
    pub fn packet(&self) -> Option<&str> {
        if self.buffer[usize::from(self.header_start)] != FIN_TEXT {
            return None;
        }
        std::str::from_utf8(&self.buffer[MAX_HEADER..]).ok()
    }

    /// Returns the bytes for a polling body in text framing: length and packet. Empty for a frame
    /// that exists only on WebSockets.
    pub fn polling(&self) -> &[u8] {
        self.polling.get_or_init(|| {
            let mut framed = Vec::new();
            engine_payload::encode_text(self.packet(), &mut framed);
            framed.into_boxed_slice()
        })
    }

    /// Returns when the frame was encoded.
    pub fn published(&self) -> Instant {
        self.published
    }

    /// Returns the entity whose state it carries, if a newer frame may replace it.
    pub fn entity(&self) -> Option<Entity> {
        self.state.as_ref().map(|state| state.entity)
    }
}

struct Header {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Header {
    fn new(first: u8, payload: usize) -> Self {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = first;
        let len = match payload {
            0..=125 => {
                bytes[1] = payload as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn of_size(size: usize) -> Arc<Frame> {
        Frame::text(clock::now(), |out| out.resize(MAX_HEADER + size, b'x'))
    }

    #[test]
    fn header_is_the_shortest_that_holds_the_length() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 0xff, 0xff]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (0x12_3456, &[0x81, 127, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56]),
        ];
        for (size, header) in cases {
            let frame = of_size(size);
            assert_eq!(&frame.websocket()[..header.len()], header, "{size}");
            assert_eq!(frame.websocket().len(), header.len() + size);
            assert_eq!(frame.packet().map(str::len), Some(size));
        }
    }

    #[test]
    fn a_polling_body_counts_utf16_units() {
        let frame = |packet: &str| Frame::text(clock::now(), |out| out.extend_from_slice(packet.as_bytes()));
        assert_eq!(frame("3probe").polling(), b"6:3probe");
        assert_eq!(frame("3🎬").polling(), "3:3🎬".as_bytes());
        assert_eq!(frame("42[\"🎬\"]").polling(), b"18:42[\"\\ud83c\\udfac\"]");
    }

    #[test]
    fn a_websocket_pong_is_in_no_polling_body() {
        let pong = Frame::websocket_pong(clock::now(), b"abc");
        assert_eq!(pong.websocket(), [0x8a, 3, b'a', b'b', b'c']);
        assert_eq!(pong.polling(), b"");
    }
}
