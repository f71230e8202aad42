//! WebSocket frames from the server, read in place (RFC 6455 §5.2).

use thiserror::Error;

/// Largest frame, or message of several frames, that is read, in bytes. It fits the shared read buffer twice.
pub(super) const MAX_MESSAGE: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    pub(super) payload: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("frame with an unknown opcode or extension bits")]
    Unknown,
    #[error("masked frame from the server")]
    Masked,
    #[error("message over {MAX_MESSAGE} bytes")]
    TooLarge,
}

/// Takes the first whole frame off `input`, or gives `None` when more bytes are needed.
pub(super) fn next_frame<'a>(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
    let &[first, second, ref rest @ ..] = *input else { return Ok(None) };
    let opcode = match first & 0x7f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err(FrameError::Unknown),
    };
    let (length, rest) = match second {
        short @ 0..126 => (usize::from(short), rest),
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (usize::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX), rest),
            None => return Ok(None),
        },
        128.. => return Err(FrameError::Masked),
    };
    if length > MAX_MESSAGE {
        return Err(FrameError::TooLarge);
    }
    let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *input = rest;
    Ok(Some(Frame { last: first & 0x80 != 0, opcode, payload }))
}

/// Appends one frame as a client must send it: whole and masked.
///
/// The mask is a constant: it protects caches between browser and server, and there is none here.
pub(super) fn write_masked(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];
    out.push(
        0x80 | match opcode {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        },
    );
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            0..126 => frame.push(payload.len() as u8),
            126..65536 => {
                frame.push(126);
                frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn every_length_form_is_read() {
        for length in [0, 1, 125, 126, 330, 65_535, 65_536, MAX_MESSAGE] {
            let payload = vec![b'x'; length];
            let mut bytes = server_frame(0x81, &payload);
            bytes.push(0x81);
            let mut input = bytes.as_slice();
            let frame = next_frame(&mut input).unwrap().unwrap();
            assert_eq!((frame.last, frame.opcode, frame.payload.len()), (true, Opcode::Text, length));
            assert_eq!(input, [0x81]);
        }
    }

    #[test]
    fn any_part_of_a_frame_waits_for_more() {
        for payload in [vec![b'x'; 5], vec![b'x'; 300], vec![b'x'; 70_000]] {
            let bytes = server_frame(0x81, &payload);
            for end in (0..14).chain([bytes.len() - 1]).filter(|&end| end < bytes.len()) {
                let mut input = &bytes[..end];
                assert_eq!(next_frame(&mut input), Ok(None));
                assert_eq!(input.len(), end, "nothing is taken off");
            }
        }
    }

    #[test]
    fn broken_frames_are_refused() {
        assert_eq!(next_frame(&mut &[0x81, 0x81][..]), Err(FrameError::Masked));
        assert_eq!(next_frame(&mut &[0xc1, 0x00][..]), Err(FrameError::Unknown));
        assert_eq!(next_frame(&mut &[0x83, 0x00][..]), Err(FrameError::Unknown));
        assert_eq!(
            next_frame(&mut &[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..]),
            Err(FrameError::TooLarge)
        );
    }

    #[test]
    fn a_written_frame_is_masked_and_whole() {
        let mut out = Vec::new();
        write_masked(Opcode::Text, b"2", &mut out);
        assert_eq!(out, [0x81, 0x81, 0x5a, 0x17, 0xc3, 0x88, b'2' ^ 0x5a]);
        for length in [125, 126, 65_535, 65_536] {
            out.clear();
            write_masked(Opcode::Text, &vec![0; length], &mut out);
            let header = out.len() - length;
            assert_eq!(
                header,
                if length < 126 {
                    6
                } else if length < 65_536 {
                    8
                } else {
                    14
                }
            );
        }
    }
}
