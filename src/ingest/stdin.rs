//! Events from standard input, one JSON object per line.

use std::{future::ready, io, sync::Arc};

use futures_util::{TryStreamExt, future::LocalBoxFuture};
use tokio::io::AsyncRead;
use tokio_util::codec::FramedRead;

use super::{
    EventSource, Intake, SourceContext, SourceEnded,
    lines::{Line, LineDecoder},
};
use crate::{faults, stats::Source};

/// The maximum number of lines that are submitted together, if they have already arrived.
const MAX_BATCH: usize = 256;

/// Standard input as a source. EOF shuts the server down.
#[derive(Debug)]
pub struct Stdin {
    /// The maximum length of a line, in bytes.
    pub max_line: usize,
}

impl EventSource for Stdin {
    fn name(&self) -> Source {
        Source::Stdin
    }

    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>> {
        let (intake, ended, max_line) = (context.intake.clone(), context.ended.clone(), self.max_line);
        context.hub.supervisor.run("stdin", async move {
            let result = run(intake, tokio::io::stdin(), max_line).await;
            // The receiver lives as long as the server.
            let _ = ended.send(SourceEnded { source: Source::Stdin, result }).await;
        });
        Box::pin(ready(Ok(())))
    }
}

/// Publishes all lines of `input` until EOF. An invalid line is logged and skipped.
///
/// # Errors
///
/// The input cannot be read.
pub async fn run(intake: Arc<Intake>, input: impl AsyncRead + Unpin, max_line: usize) -> io::Result<()> {
    let mut lines = FramedRead::with_capacity(input, LineDecoder::new(max_line), 64 * 1024);
    let mut batch = Vec::new();
    while let Some(Line { number, event }) = lines.try_next().await? {
        faults::running("stdin");
        match event {
            Ok(event) => batch.push(event),
            Err(error) => {
                intake.stats().refused(error.counted()).add(1);
                log::warn!("stdin, line {number}: {error}; the line is skipped");
            }
        }
        let has_more = lines.read_buffer().contains(&b'\n');
        if batch.len() >= MAX_BATCH || !has_more {
            intake.submit_patiently(Source::Stdin, std::mem::take(&mut batch)).await;
        }
    }
    intake.submit_patiently(Source::Stdin, batch).await;
    Ok(())
}
