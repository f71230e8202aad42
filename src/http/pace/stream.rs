//! The stream below the HTTP codec: records reads and writes, and refuses heads.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_rt::net::TcpStream;
#[cfg(unix)]
use actix_rt::net::UnixStream;
use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio_rustls::server::TlsStream;

use super::{BodyPhase, Pace, Phase, fault::Fault};
use crate::{clock, http::addresses::Admission};

/// The number of reads of a refused request per poll.
const READS: usize = 16;

/// What stands for the address of a Unix socket's peer. No TCP connection has port 0.
#[cfg(unix)]
const UNIX_PEER: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

/// A byte stream of a listener.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Reports, without a read, whether the peer has closed it.
    fn closed(&self) -> Closed;

    /// Returns the address of the peer, unless it has disconnected. A peer of a Unix socket, which has
    /// none, counts as a client of this machine.
    fn peer(&self) -> Option<SocketAddr>;
}

/// How far a peer has closed a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    No,
    /// It sends nothing more.
    Half,
    /// It receives nothing more either.
    Whole,
}

impl Stream for TcpStream {
    fn closed(&self) -> Closed {
        closed(self.ready(Interest::READABLE | Interest::WRITABLE).now_or_never())
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

#[cfg(unix)]
impl Stream for UnixStream {
    fn closed(&self) -> Closed {
        closed(self.ready(Interest::READABLE | Interest::WRITABLE).now_or_never())
    }

    fn peer(&self) -> Option<SocketAddr> {
        Some(UNIX_PEER)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn closed(&self) -> Closed {
        self.get_ref().0.closed()
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.get_ref().0.peer()
    }
}

fn closed(ready: Option<io::Result<Ready>>) -> Closed {
    match ready {
        Some(Ok(ready)) if ready.is_write_closed() => Closed::Whole,
        Some(Ok(ready)) if ready.is_read_closed() => Closed::Half,
        Some(_) | None => Closed::No,
    }
}

/// Where a dispatcher leaves its stream for the next one.
pub(in crate::http) type Left<S> = Rc<RefCell<Option<Paced<S>>>>;

/// A stream that records its reads and writes.
pub(crate) struct Paced<S> {
    stream: S,
    pace: Rc<Pace>,
    /// Bytes to read before those of the stream.
    again: Bytes,
    left: Left<S>,
    has_refused: bool,
}

impl<S> Paced<S> {
    /// Wraps a stream that was just opened. The admission is held as long as the connection's pace.
    pub(crate) fn new(stream: S, admission: Admission) -> Self {
        let pace = Pace {
            phase: Cell::new(Phase::Head { since: clock::now(), read: 0 }),
            has_unsent: Cell::new(false),
            half_closed: Cell::new(None),
            has_answered: Cell::new(false),
            body: Cell::new(BodyPhase::Complete),
            looks: Cell::new(false),
            share: RefCell::default(),
            _admission: admission,
        };
        Self { stream, pace: Rc::new(pace), again: Bytes::new(), left: Left::default(), has_refused: false }
    }

    pub(in crate::http) fn pace(&self) -> &Rc<Pace> {
        &self.pace
    }

    pub(in crate::http) fn left(&self) -> &Left<S> {
        &self.left
    }

    /// Leaves the stream to another dispatcher, which reads these bytes first.
    pub(in crate::http) fn leave(mut self, again: Bytes) {
        self.again = again;
        let left = self.left.clone();
        left.replace(Some(self));
    }

    /// Suspends the timeouts while a request is answered.
    pub(in crate::http) fn take_time(&self) {
        self.pace.phase.set(Phase::Answering);
    }

    /// Returns the stream itself, without timeouts.
    pub(crate) fn into_inner(self) -> S {
        self.take_time();
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Paced<S> {
    /// Sends the refusal and discards what the client still sends. Ready at the end, with an error,
    /// because only an error ends the codec's dispatcher at once and without a response of its own.
    fn poll_refuse(&mut self, fault: Fault, task: &mut Context<'_>) -> Poll<io::Error> {
        let end = || Poll::Ready(io::ErrorKind::InvalidData.into());
        if !self.has_refused {
            // In the middle of another response the refusal would be read as part of it.
            if self.pace.has_unsent.get() {
                return end();
            }
            self.has_refused = true;
            let answer = fault.answer();
            match Pin::new(&mut self.stream).poll_write(task, &answer) {
                Poll::Ready(Ok(written)) if written == answer.len() => {}
                Poll::Ready(_) | Poll::Pending => return end(),
            }
            let _ = Pin::new(&mut self.stream).poll_flush(task);
            let _ = Pin::new(&mut self.stream).poll_shutdown(task);
        }
        for _ in 0..READS {
            let mut ignored = [0; 4096];
            let mut ignored = ReadBuf::new(&mut ignored);
            match Pin::new(&mut self.stream).poll_read(task, &mut ignored) {
                Poll::Ready(Ok(())) if !ignored.filled().is_empty() => {}
                Poll::Ready(_) => return end(),
                Poll::Pending => return Poll::Pending,
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: Stream> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Phase::Refused { fault, .. } = self.pace.phase.get() {
            return self.poll_refuse(fault, task).map(Err);
        }
        if !self.again.is_empty() {
            let count = self.again.len().min(buffer.remaining());
            buffer.put_slice(&self.again[..count]);
            self.again.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        if let Poll::Ready(Ok(())) = polled {
            match buffer.filled().len() - before {
                0 => self.pace.half_closed.set(self.pace.half_closed.get().or_else(|| Some(clock::now()))),
                count => self.pace.read(count),
            }
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Phase::Head { .. } = self.pace.phase.get()
            && !self.pace.has_unsent.get()
            && let Some(fault) = Fault::of_codec(bytes)
        {
            self.pace.refuse(fault);
        }
        if let Phase::Refused { fault, .. } = self.pace.phase.get() {
            return self.poll_refuse(fault, task).map(Err);
        }
        let polled = Pin::new(&mut self.stream).poll_write(task, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => self.pace.wrote(bytes, *written),
            Poll::Ready(Err(_)) | Poll::Pending => self.pace.has_unsent.set(true),
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The dispatcher flushes at every poll, even if it does not read.
        let this = &mut *self;
        this.pace.look(&mut this.stream, task);
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pace.is_refused() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
