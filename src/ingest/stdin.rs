//! Events from standard input, one JSON object per line.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::{Intake, decode};
use crate::stats::{Refused, Source};

/// Events that are handed over together, when they are there already.
const MAX_BATCH: usize = 256;

/// Publishes all lines of `input` until it ends. A line that is no event is reported and passed over.
pub async fn run(intake: Arc<Intake>, input: impl AsyncRead + Unpin, max_line: usize) -> std::io::Result<()> {
    let mut lines = Lines { input: BufReader::with_capacity(64 * 1024, input), max_line, number: 0 };
    let mut batch = Vec::new();
    while let Some(line) = lines.next().await? {
        match line {
            Line::Event(bytes) => match decode::decode_event(&bytes) {
                Ok(event) => batch.push(event),
                Err(error) => {
                    let reason = match error {
                        decode::DecodeError::NotJson { .. } => Refused::BadJson,
                        decode::DecodeError::Invalid { .. } => Refused::InvalidEvent,
                    };
                    intake.stats().refused(reason).add(1);
                    log::warn!("stdin, line {}: {error}; the line is passed over", lines.number);
                }
            },
            Line::Blank => {}
            Line::TooLong => {
                intake.stats().refused(Refused::TooLarge).add(1);
                log::warn!("stdin, line {}: more than {max_line} bytes; the line is passed over", lines.number);
            }
        }
        if batch.len() >= MAX_BATCH || !lines.has_more() {
            intake.submit_patiently(Source::Stdin, std::mem::take(&mut batch)).await;
        }
    }
    intake.submit_patiently(Source::Stdin, batch).await;
    Ok(())
}

enum Line {
    Event(Vec<u8>),
    Blank,
    TooLong,
}

struct Lines<R> {
    input: BufReader<R>,
    max_line: usize,
    number: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    async fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let read = self.input.fill_buf().await?;
            if read.is_empty() && line.is_empty() && !too_long {
                return Ok(None);
            }
            let end = read.iter().position(|&byte| byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            too_long |= line.len() + part.len() > self.max_line;
            if !too_long {
                line.extend_from_slice(part);
            }
            let ended = end.is_some() || read.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if ended {
                break;
            }
        }
        self.number += 1;
        Ok(Some(match line.trim_ascii() {
            _ if too_long => Line::TooLong,
            [] => Line::Blank,
            _ => Line::Event(line),
        }))
    }

    /// Whether another whole line has been read already.
    fn has_more(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }
}
