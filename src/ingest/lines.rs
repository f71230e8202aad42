//! Newline-delimited JSON: one event per line, in a request or on stdin.

use std::io;

use bytes::BytesMut;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, Decoder};

use crate::{
    farm::{DecodeError, IncomingEvent, decode::decode_event},
    stats::Refused,
};

/// Decodes lines. Blank lines are skipped, but counted; the rest of a line that is too long is
/// discarded as it arrives.
#[derive(Debug)]
pub struct LineDecoder {
    codec: AnyDelimiterCodec,
    number: usize,
}

/// A line that is not blank.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    pub event: Result<IncomingEvent, LineError>,
}

/// Why a line is not an event.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("more than {limit} bytes")]
    TooLong { limit: usize },
    #[error(transparent)]
    Bad(#[from] DecodeError),
}

impl LineError {
    pub fn counted(&self) -> Refused {
        match self {
            Self::TooLong { .. } => Refused::TooLarge,
            Self::Bad(DecodeError::NotJson { .. }) => Refused::BadJson,
            Self::Bad(DecodeError::Invalid { .. }) => Refused::InvalidEvent,
        }
    }
}

impl LineDecoder {
    /// `max_line` is the maximum length of a line, in bytes.
    pub fn new(max_line: usize) -> Self {
        Self { codec: AnyDelimiterCodec::new_with_max_length(b"\n".into(), b"\n".into(), max_line), number: 0 }
    }

    fn next(
        &mut self,
        input: &mut BytesMut,
        decode: impl Fn(&mut AnyDelimiterCodec, &mut BytesMut) -> Result<Option<bytes::Bytes>, AnyDelimiterCodecError>,
    ) -> io::Result<Option<Line>> {
        loop {
            let event = match decode(&mut self.codec, input) {
                Ok(None) => return Ok(None),
                Ok(Some(line)) if line.trim_ascii().is_empty() => {
                    self.number += 1;
                    continue;
                }
                Ok(Some(line)) => decode_event(&line).map_err(LineError::Bad),
                Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => {
                    Err(LineError::TooLong { limit: self.codec.max_length() })
                }
                Err(AnyDelimiterCodecError::Io(error)) => return Err(error),
            };
            self.number += 1;
            return Ok(Some(Line { number: self.number, event }));
        }
    }
}

impl Decoder for LineDecoder {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<Line>> {
        self.next(input, AnyDelimiterCodec::decode)
    }

    /// Also decodes a last line without an end.
    fn decode_eof(&mut self, input: &mut BytesMut) -> io::Result<Option<Line>> {
        self.next(input, AnyDelimiterCodec::decode_eof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"life-cycle","payload":{"type":"manager-startup"}}"#;

    /// Decodes `input` in parts of `size` bytes, and shows the numbers of the lines with what they are.
    fn shown(input: &str, size: usize) -> Vec<String> {
        let mut lines = LineDecoder::new(100);
        let mut buffer = BytesMut::new();
        let mut shown = Vec::new();
        let mut show = |line: Line| {
            let what = line.event.map_or_else(|error| error.counted().as_str().to_owned(), |_| "event".to_owned());
            shown.push(format!("{} {what}", line.number));
        };
        for part in input.as_bytes().chunks(size) {
            buffer.extend_from_slice(part);
            while let Some(line) = lines.decode(&mut buffer).unwrap() {
                show(line);
            }
        }
        while let Some(line) = lines.decode_eof(&mut buffer).unwrap() {
            show(line);
        }
        shown
    }

    #[test]
    fn lines_are_numbered_however_they_arrive() {
        let input = format!("{EVENT}\n\n \r\n{EVENT}\r\nnonsense\n{}\n{EVENT}\n{{}}\n{EVENT}", "x".repeat(300));
        let lines = ["1 event", "4 event", "5 bad-json", "6 too-large", "7 event", "8 invalid-event", "9 event"];
        for size in [1, 7, 64, 10_000] {
            assert_eq!(shown(&input, size), lines, "in parts of {size}");
        }
    }
}
