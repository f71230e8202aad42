//! The writing half of a session's socket: the outbox, the log and the close frame, until the socket
//! blocks.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::{SessionStream, Socket, SocketPhase};
use crate::{
    clock,
    disconnect::Disconnect,
    outbox::{FromLog, Home, Next, Position, Waiting, Workers},
    transport::worker::{Carrier, Round, SCRATCH},
};

/// The first byte of a close frame (RFC 6455 §5.5.1).
const FIN_CLOSE: u8 = 0x88;

impl<S: SessionStream> Socket<S> {
    /// Writes everything that waits, until the socket blocks.
    pub(super) fn write(&self, scratch: &mut Vec<u8>) -> io::Result<()> {
        loop {
            scratch.clear();
            scratch.append(&mut self.unsent.take());
            let mut first = scratch.len();
            match self.outbox.copy_to(scratch, SCRATCH) {
                Waiting::Frames | Waiting::Nothing => {}
                Waiting::Drop(reason) => {
                    self.abort(reason);
                    return Ok(());
                }
                Waiting::Close(reason) => {
                    self.begin_close(reason, scratch);
                    first = scratch.len();
                }
            }
            if scratch.is_empty() {
                return self.flush_stream();
            }
            let written = self.send(scratch)?;
            self.unsent.replace(scratch[written.min(first)..first].to_vec());
            let next = self.outbox.advance(written.saturating_sub(first), clock::now());
            if written < scratch.len() {
                self.outbox.block(clock::now());
                return Ok(());
            }
            if next == Next::Done {
                return Ok(());
            }
        }
    }

    /// Writes what the outbox lacks of the log. Returns the position from which it still lacks the
    /// log afterwards.
    pub(super) fn write_log(&self, round: &mut Round<'_>) -> io::Result<Option<Position>> {
        let (from, to) = match self.outbox.take_log(round.began) {
            FromLog::Detached => return Ok(None),
            FromLog::Blocked(at) => return Ok(Some(at)),
            FromLog::OwnFirst => {
                self.write(round.scratch)?;
                return Ok(None);
            }
            FromLog::Segment { from, to } => (from, to),
        };
        let Some(lacks) = round.burst.between(from, to, round.log) else {
            self.abort(Disconnect::SessionFailed);
            return Ok(None);
        };
        let written = self.send(lacks)?;
        let is_all = written == lacks.len();
        let next = self.outbox.advance(written, clock::now());
        if !is_all {
            self.outbox.block(clock::now());
            return Ok(Some(from + written as u64));
        }
        if next == Next::Again {
            self.write(round.scratch)?;
        }
        Ok(None)
    }

    /// Sends as many of these bytes as the socket takes. If some are left, the slot is marked when
    /// the socket is writable again.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len()
            && let Poll::Ready(written) = self.poll_write(&bytes[sent..])
        {
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => sent += written,
            }
        }
        self.hub.stats.bytes_out.add(sent as u64);
        if sent == bytes.len() {
            self.flush_stream()?;
        }
        Ok(sent)
    }

    /// Appends the close frame, once, after all frames are sent.
    fn begin_close(&self, reason: Disconnect, scratch: &mut Vec<u8>) {
        if !self.is_open() {
            return;
        }
        match reason.close_code() {
            Some(code) => {
                scratch.extend_from_slice(&[FIN_CLOSE, 2]);
                scratch.extend_from_slice(&code.to_be_bytes());
                self.phase.set(SocketPhase::Closing { reason, since: clock::now() });
            }
            None => self.end(reason),
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_stream(|stream, task| stream.poll_write(task, bytes))
    }

    /// Flushes bytes that the stream itself holds back, as TLS does when the socket blocks.
    fn flush_stream(&self) -> io::Result<()> {
        match self.poll_stream(|stream, task| stream.poll_flush(task)) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Shuts the stream down. The client sees its end once it has read everything, and then closes
    /// its own.
    pub(super) fn poll_shutdown(&self) {
        // The reader sees the result.
        let _ = self.poll_stream(|stream, task| stream.poll_shutdown(task));
    }

    /// Polls the stream, and has the slot marked when the socket is writable again, if it is not
    /// now.
    fn poll_stream<R>(&self, mut poll: impl FnMut(Pin<&mut S>, &mut Context<'_>) -> Poll<R>) -> Poll<R> {
        let mut stream = self.stream.borrow_mut();
        let mut writable = self.writable.borrow_mut();
        if writable.is_none() {
            let polled = poll(Pin::new(&mut *stream), &mut Context::from_waker(Waker::noop()));
            if polled.is_ready() {
                return polled;
            }
        }
        let waker = writable.get_or_insert_with(|| {
            Waker::from(Arc::new(MarkSlot { workers: self.hub.workers.clone(), home: self.home }))
        });
        poll(Pin::new(&mut *stream), &mut Context::from_waker(waker))
    }
}

/// Marks a slot when its socket is writable again.
struct MarkSlot {
    workers: Arc<Workers>,
    home: Home,
}

impl Wake for MarkSlot {
    fn wake(self: Arc<Self>) {
        self.workers.mark(self.home);
    }
}
