//! How long a connection may take for the heads of its requests, how long these may be, and how long it may be idle between
//! them.
//!
//! actix-http bounds the time of the first head only, idle time only where nothing is left of a request's body, and a head by
//! 128 KiB. Here a thin layer around the stream notes what comes and goes, the application what is being answered, and
//! [`keep`] looks at the clock. A stream that becomes a WebSocket leaves all of it behind.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_http::error::DispatchError;
use actix_rt::time::sleep;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock,
    stats::{Presence, Refused, Stats},
};

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 35\r\n\r\nthe request takes too long to come\n";

const TOO_LONG: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 35\r\n\r\nthe request's headers are too long\n";

/// How a 431 begins that actix-http answers by itself, to more headers than it reads.
const STATUS_TOO_LONG: &[u8] = b"HTTP/1.1 431 ";

/// Bytes of a head that are not looked at once it is complete: its method, its version, white space.
const UNCOUNTED: usize = 1024;

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From a head's first byte to its last one.
    pub(super) head: Duration,
    /// Bytes of a head that is not complete. A complete one is measured by who answers it.
    pub(super) head_bytes: usize,
    /// From the end of an answer to the next byte. What came of the next request before that is not seen.
    pub(super) idle: Duration,
}

/// Where a connection is with its requests.
#[derive(Debug)]
pub(super) struct Pace {
    phase: Cell<Phase>,
    /// Whether the stream did not take all that it was to send.
    has_unsent: Cell<bool>,
    _presence: Presence,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A request's head has been coming since then; the first one since the connection was opened. How much of it was read is
    /// not known where the rest of a body may have come before.
    Head { since: Instant, read: Option<usize> },
    /// A request is answered, or this is no HTTP any more.
    Answering,
    /// All requests are answered, and nothing was read or written since then. Of the last one's body there may be more to come.
    Idle { since: Instant, has_rest: bool },
    /// A head is not waited for any longer.
    Refused(Fault),
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy)]
enum Fault {
    TooSlow,
    TooLong,
}

impl Fault {
    fn answer(self) -> &'static [u8] {
        match self {
            Self::TooSlow => TOO_SLOW,
            Self::TooLong => TOO_LONG,
        }
    }

    fn counted(self) -> Refused {
        match self {
            Self::TooSlow => Refused::HeadTooSlow,
            Self::TooLong => Refused::HeadTooLarge,
        }
    }
}

impl Pace {
    /// The head of a request has come, and it is answered until what this returns is dropped. actix-http reads on what is left
    /// of a body in chunks then.
    pub(super) fn answer(self: &Rc<Self>, in_chunks: bool) -> Answering {
        self.phase.set(Phase::Answering);
        Answering { pace: self.clone(), in_chunks }
    }

    fn read(&self, count: usize) {
        match self.phase.get() {
            Phase::Head { since, read } => {
                self.phase.set(Phase::Head { since, read: read.map(|before| before + count) });
            }
            Phase::Idle { has_rest, .. } => {
                self.phase.set(Phase::Head { since: clock::now(), read: (!has_rest).then_some(count) });
            }
            Phase::Answering | Phase::Refused(_) => {}
        }
    }

    fn wrote(&self, bytes: &[u8], count: usize) {
        self.has_unsent.set(count < bytes.len());
        match self.phase.get() {
            Phase::Head { .. } if bytes.starts_with(STATUS_TOO_LONG) => self.phase.set(Phase::Refused(Fault::TooLong)),
            Phase::Idle { has_rest, .. } => self.phase.set(Phase::Idle { since: clock::now(), has_rest }),
            Phase::Head { .. } | Phase::Answering | Phase::Refused(_) => {}
        }
    }

    /// When it has taken too long, if nothing happens until then; `None` while it may take its time.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        match self.phase.get() {
            Phase::Head { since, .. } => since.checked_add(limits.head),
            Phase::Idle { since, .. } => since.checked_add(limits.idle),
            Phase::Answering | Phase::Refused(_) => None,
        }
    }

    fn is_too_long(&self, limits: Limits) -> bool {
        matches!(self.phase.get(), Phase::Head { read: Some(read), .. } if read > limits.head_bytes + UNCOUNTED)
    }
}

/// Serves a connection for as long as it keeps to `limits`.
pub(super) async fn keep(
    pace: Rc<Pace>,
    limits: Limits,
    stats: &Stats,
    mut served: Pin<Box<impl Future<Output = Result<(), DispatchError>>>>,
) -> Result<(), DispatchError> {
    let mut timer = pin!(sleep(limits.head));
    let ended = poll_fn(|task| {
        // Whatever changes the phase happens in here, so what follows sees it.
        if let Poll::Ready(ended) = served.as_mut().poll(task) {
            return Poll::Ready(Some(ended));
        }
        if pace.is_too_long(limits) {
            pace.phase.set(Phase::Refused(Fault::TooLong));
            return Poll::Ready(None);
        }
        let Some(deadline) = pace.deadline(limits) else { return Poll::Pending };
        timer.as_mut().reset(deadline.into());
        timer.as_mut().poll(task).map(|()| {
            if let Phase::Head { .. } = pace.phase.get() {
                pace.phase.set(Phase::Refused(Fault::TooSlow));
            }
            None
        })
    });
    let ended = ended.await;
    if let Phase::Refused(fault) = pace.phase.get() {
        stats.refused(fault.counted()).add(1);
    }
    if let Some(ended) = ended {
        return ended;
    }
    // It reads once more, by which the stream learns that it is to answer.
    poll_fn(|task| {
        let _ = served.as_mut().poll(task);
        Poll::Ready(())
    })
    .await;
    Ok(())
}

/// A request that is being answered, its answer's body included.
#[derive(Debug)]
pub(super) struct Answering {
    pace: Rc<Pace>,
    in_chunks: bool,
}

impl Answering {
    /// Lasts as long as this body.
    pub(super) fn until_the_end_of(self, body: BoxBody) -> Answer {
        Answer { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.pace.phase.set(Phase::Idle { since: clock::now(), has_rest: self.in_chunks });
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: BoxBody,
    _answering: Answering,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(task)
    }
}

/// A stream that notes when it is read and written.
pub(super) struct Paced<S> {
    stream: S,
    pace: Rc<Pace>,
}

impl<S> Paced<S> {
    /// One that was just opened, and counts for as long as it has a pace.
    pub(super) fn new(stream: S, presence: Presence) -> Self {
        let phase = Cell::new(Phase::Head { since: clock::now(), read: Some(0) });
        let pace = Pace { phase, has_unsent: Cell::new(false), _presence: presence };
        Self { stream, pace: Rc::new(pace) }
    }

    pub(super) fn pace(&self) -> &Rc<Pace> {
        &self.pace
    }

    /// The stream itself, which may take its time from now on.
    pub(super) fn into_inner(self) -> S {
        self.pace.phase.set(Phase::Answering);
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Phase::Refused(fault) = self.pace.phase.get() {
            // In the middle of another answer it would be taken for part of that.
            if !self.pace.has_unsent.get() {
                // Whether it gets there or not, this is the end.
                let _ = Pin::new(&mut self.stream).poll_write(task, fault.answer());
                let _ = Pin::new(&mut self.stream).poll_flush(task);
            }
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        if buffer.filled().len() > before {
            self.pace.read(buffer.filled().len() - before);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(task, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => self.pace.wrote(bytes, *written),
            Poll::Ready(Err(_)) | Poll::Pending => self.pace.has_unsent.set(true),
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
