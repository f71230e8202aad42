//! WebSocket frames (RFC 6455, section 5.2), as far as a Socket.IO v2 client on a good day needs them.

/// A client says nothing longer than this; whoever does is cut off.
const MAX_CLIENT_PAYLOAD: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Engine.IO `2`: the client wants to hear `3`.
    Ping,
    Close,
    Ignored,
}

/// An unmasked text frame.
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x81);
    match payload.len() {
        short @ 0..126 => frame.push(short as u8),
        medium @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The length, header included, of the unmasked frame that `bytes` starts with, which must hold its header.
pub fn length(bytes: &[u8]) -> usize {
    match bytes[1] {
        126 => 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        127 => 10 + u64::from_be_bytes(std::array::from_fn(|i| bytes[2 + i])) as usize,
        short => 2 + usize::from(short),
    }
}

/// Takes one masked frame off the front of `bytes`: how many bytes it took and what it says. `None` asks for more bytes.
pub fn decode(bytes: &[u8]) -> Option<(usize, Input)> {
    let [opcode, length, ..] = *bytes else { return None };
    let (header, payload) = match length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => return Some((bytes.len(), Input::Close)),
        short => (2, usize::from(short)),
    };
    if payload > MAX_CLIENT_PAYLOAD || length & 0x80 == 0 {
        return Some((bytes.len(), Input::Close));
    }
    let mask = bytes.get(header..header + 4)?;
    let masked = bytes.get(header + 4..header + 4 + payload)?;
    let input = match (opcode, masked.first()) {
        (0x88, _) => Input::Close,
        (0x81, Some(first)) if first ^ mask[0] == b'2' => Input::Ping,
        (0x81, Some(first)) if first ^ mask[0] == b'1' => Input::Close,
        _ => Input::Ignored,
    };
    Some((header + 4 + payload, input))
}
