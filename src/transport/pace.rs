//! How long a connection may take for the heads of its requests, and how long it may be idle between them.
//!
//! actix-http bounds the first head only, and idle time only where nothing is left of a request's body. Here a thin layer
//! around the stream notes what comes and goes, the application what is being answered, and [`keep`] looks at the clock. A
//! stream that becomes a WebSocket leaves all of it behind.

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

use crate::{clock, stats::Presence};

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 35\r\n\r\nthe request takes too long to come\n";

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From a head's first byte to its last one.
    pub(super) head: Duration,
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
    /// A request's head has been coming since then; the first one since the connection was opened.
    Head(Instant),
    /// A request is answered, or this is no HTTP any more.
    Answering,
    /// All requests are answered, and nothing was read or written since then.
    Idle(Instant),
    /// A head took too long.
    TooSlow,
}

impl Pace {
    /// The head of a request has come, and it is answered until what this returns is dropped.
    pub(super) fn answer(self: &Rc<Self>) -> Answering {
        self.phase.set(Phase::Answering);
        Answering(self.clone())
    }

    fn read(&self) {
        if let Phase::Idle(_) = self.phase.get() {
            self.phase.set(Phase::Head(clock::now()));
        }
    }

    fn wrote(&self, all: bool) {
        self.has_unsent.set(!all);
        if let Phase::Idle(_) = self.phase.get() {
            self.phase.set(Phase::Idle(clock::now()));
        }
    }

    /// When it has taken too long, if nothing happens until then.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        match self.phase.get() {
            Phase::Head(since) => Some(since + limits.head),
            Phase::Idle(since) => Some(since + limits.idle),
            Phase::Answering | Phase::TooSlow => None,
        }
    }
}

/// Serves a connection for as long as it keeps to `limits`; `too_slow` is called if it ends because a head does not come.
pub(super) async fn keep(
    pace: Rc<Pace>,
    limits: Limits,
    too_slow: impl FnOnce(),
    served: impl Future<Output = Result<(), DispatchError>>,
) -> Result<(), DispatchError> {
    let (mut served, mut timer) = (pin!(served), pin!(sleep(limits.head)));
    let overdue = poll_fn(|task| {
        // Whatever changes the phase happens in here, so what follows sees it.
        if let Poll::Ready(ended) = served.as_mut().poll(task) {
            return Poll::Ready(Some(ended));
        }
        let Some(deadline) = pace.deadline(limits) else { return Poll::Pending };
        timer.as_mut().reset(deadline.into());
        timer.as_mut().poll(task).map(|()| None)
    });
    if let Some(ended) = overdue.await {
        return ended;
    }
    if let Phase::Head(_) = pace.phase.get() {
        too_slow();
        pace.phase.set(Phase::TooSlow);
        // It reads once more, by which the stream learns that it is to answer.
        poll_fn(|task| {
            let _ = served.as_mut().poll(task);
            Poll::Ready(())
        })
        .await;
    }
    Ok(())
}

/// A request that is being answered, its answer's body included.
#[derive(Debug)]
pub(super) struct Answering(Rc<Pace>);

impl Answering {
    /// Lasts as long as this body.
    pub(super) fn until_the_end_of(self, body: BoxBody) -> Answer {
        Answer { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Idle(clock::now()));
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
        let phase = Cell::new(Phase::Head(clock::now()));
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
        if let Phase::TooSlow = self.pace.phase.get() {
            // In the middle of another answer it would be taken for part of that.
            if !self.pace.has_unsent.get() {
                // Whether it gets there or not, this is the end.
                let _ = Pin::new(&mut self.stream).poll_write(task, TOO_SLOW);
                let _ = Pin::new(&mut self.stream).poll_flush(task);
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        if buffer.filled().len() > before {
            self.pace.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(task, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => self.pace.wrote(*written == bytes.len()),
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
