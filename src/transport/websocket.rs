//! A client's WebSocket, owned from the moment it was upgraded: no response body, no dispatcher, no buffers while it is idle.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use actix::Addr;
use actix_rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{
    addresses::Admission,
    frames::{Message, Messages},
    polling::Probe,
    worker::{Carrier, Round, SCRATCH, Worker},
};
use crate::{
    actors::{
        Hub, SessionActor,
        messages::{Receive, Tell, TransportClosed},
    },
    clock,
    disconnect::Disconnect,
    frame::Frame,
    outbox::{self, Follower, Home, Next, Outbox, Position, Waiting, Workers},
    protocol::SessionId,
    session::Rate,
    stats::Presence,
};

/// How long a client that was told to close may take to do so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of a client that was told to close, after which it is not read any more.
const MAX_IGNORED: usize = 256 * 1024;

/// First byte of a close frame (RFC 6455 §5.5.1).
const FIN_CLOSE: u8 = 0x88;

/// A byte stream that can be cut off.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Has the kernel forget what it has not sent yet when this is dropped.
    fn forget_unsent(&self);
}

impl Stream for TcpStream {
    fn forget_unsent(&self) {
        // Nothing is lost if it fails: the kernel then forgets a little later.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Stream for TlsStream<TcpStream> {
    fn forget_unsent(&self) {
        self.get_ref().0.forget_unsent();
    }
}

/// A stream that has just become a WebSocket.
pub(super) struct Opened<S> {
    pub(super) stream: S,
    /// What was not yet sent of the HTTP answer.
    pub(super) greeting: Vec<u8>,
    /// What was read beyond the request.
    pub(super) messages: Messages,
}

/// Serves a new client until it ends.
pub(super) fn serve<S: Stream>(hub: &Arc<Hub>, worker: &Rc<Worker>, opened: Opened<S>, admission: Admission) {
    let outbox = Arc::new(Outbox::new());
    let session = SessionActor::open(SessionId::random(), &[], outbox.clone(), hub.clone());
    let (socket, messages) = Socket::enter(hub, worker, opened, outbox);
    socket.outbox.attach(socket.home, outbox::Taker::Stream);
    socket.flush(&mut Vec::new());
    actix_rt::spawn(read(Slot::of(&socket, worker, admission), socket, session, messages));
}

/// Serves a client that comes from polling, with its session, until it ends; not at all if that has ended meanwhile.
pub(super) fn take_over<S: Stream>(hub: &Arc<Hub>, worker: &Rc<Worker>, opened: Opened<S>, probe: Probe) {
    let session = probe.session().clone();
    let (socket, messages) = Socket::enter(hub, worker, opened, probe.outbox().clone());
    let Ok(admission) = probe.upgrade(socket.home) else {
        worker.leave(socket.home);
        return;
    };
    socket.flush(&mut Vec::new());
    actix_rt::spawn(read(Slot::of(&socket, worker, admission), socket, session, messages));
}

/// Takes the client's messages to its session, one at a time, until either ends.
async fn read<S: Stream>(slot: Slot, socket: Rc<Socket<S>>, session: Addr<SessionActor>, mut messages: Messages) {
    let mut uncounted = Rate::new(clock::now());
    let limit = socket.hub.rules.max_messages_per_second;
    let reason = loop {
        let message = match messages.next() {
            // What the session does not see it does not count: pings, and pieces of messages.
            Ok(Some(Message::Ping(_) | Message::Pong | Message::Part)) if !uncounted.allows(limit, clock::now()) => {
                socket.close(Disconnect::TooManyMessages);
                break socket.see_off(&slot.worker).await;
            }
            Ok(Some(message)) => message,
            Ok(None) => {
                let read = poll_fn(|task| socket.poll_read(task, &slot.worker, |bytes| messages.extend(bytes))).await;
                match read {
                    Ok(()) => continue,
                    Err(reason) => break reason,
                }
            }
            Err(reason) => {
                socket.close(reason);
                break socket.see_off(&slot.worker).await;
            }
        };
        let delivered = match message {
            Message::Text(text) => session.send(Receive::Text(text)).await,
            Message::Binary(data) => session.send(Receive::Binary(data)).await,
            Message::Ping(data) => {
                socket.hub.send(&socket.outbox, &Frame::websocket_pong(clock::now(), &data));
                Ok(())
            }
            Message::Close => {
                socket.close(Disconnect::TransportClose);
                socket.flush(&mut Vec::new());
                break socket.reason_or(Disconnect::TransportClose);
            }
            Message::Pong | Message::Part => Ok(()),
        };
        if delivered.is_err() {
            break socket.reason_or(Disconnect::SessionFailed);
        }
        if socket.outbox.phase() != outbox::Phase::Open {
            break socket.see_off(&slot.worker).await;
        }
    };
    drop(slot);
    session.tell(TransportClosed { reason });
}

/// Has the worker forget a connection whose task ends, whatever ends it.
struct Slot {
    worker: Rc<Worker>,
    home: Home,
    outbox: Arc<Outbox>,
    _admission: Admission,
    _presence: Presence,
}

impl Slot {
    fn of<S>(socket: &Socket<S>, worker: &Rc<Worker>, admission: Admission) -> Self {
        let presence = socket.hub.stats.websocket_sessions.add();
        let outbox = socket.outbox.clone();
        Self { worker: worker.clone(), home: socket.home, outbox, _admission: admission, _presence: presence }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Who is not flushed any more must not follow the log.
        self.outbox.drop_all(Disconnect::TransportClose);
        self.worker.leave(self.home);
    }
}

struct Socket<S> {
    stream: RefCell<S>,
    outbox: Arc<Outbox>,
    home: Home,
    hub: Arc<Hub>,
    /// Bytes that come before all frames: the answer to the handshake, at last the close frame.
    unsent: RefCell<Vec<u8>>,
    phase: Cell<Phase>,
    heard: Cell<Instant>,
    /// Wakes the task that reads.
    reader: RefCell<Option<Waker>>,
    /// Marks the slot when the socket takes bytes again. Made when it first does not.
    writable: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    /// The close frame is sent, the client's is awaited.
    Closing {
        reason: Disconnect,
        since: Instant,
    },
    Ended(Disconnect),
}

impl<S: Stream> Socket<S> {
    /// Puts it into a slot of the worker.
    fn enter(hub: &Arc<Hub>, worker: &Rc<Worker>, opened: Opened<S>, outbox: Arc<Outbox>) -> (Rc<Self>, Messages) {
        let home = worker.reserve();
        let socket = Rc::new(Self {
            stream: RefCell::new(opened.stream),
            outbox,
            home,
            hub: hub.clone(),
            unsent: RefCell::new(opened.greeting),
            phase: Cell::new(Phase::Open),
            heard: Cell::new(clock::now()),
            reader: RefCell::new(None),
            writable: RefCell::new(None),
        });
        worker.enter(home, socket.clone());
        (socket, opened.messages)
    }

    /// Waits for the end of a client that was told to close. It is read on, so that it gets to see why; but not for ever.
    async fn see_off(&self, worker: &Worker) -> Disconnect {
        let mut ignored = 0;
        loop {
            let read = poll_fn(|task| match ignored {
                0..MAX_IGNORED => self.poll_read(task, worker, |bytes| ignored += bytes.len()),
                _ => self.poll_end(task),
            });
            if let Err(reason) = read.await {
                return reason;
            }
        }
    }

    fn poll_end(&self, task: &Context<'_>) -> Poll<Result<(), Disconnect>> {
        if let Phase::Ended(reason) = self.phase.get() {
            return Poll::Ready(Err(reason));
        }
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            *reader = Some(task.waker().clone());
        }
        Poll::Pending
    }

    fn poll_read(
        &self,
        task: &mut Context<'_>,
        worker: &Worker,
        take: impl FnOnce(&[u8]),
    ) -> Poll<Result<(), Disconnect>> {
        if let Poll::Ready(ended) = self.poll_end(task) {
            return Poll::Ready(ended);
        }
        worker.with_read_buffer(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut *self.stream.borrow_mut()).poll_read(task, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    Poll::Ready(Err(self.reason_or(Disconnect::TransportClose)))
                }
                Poll::Ready(Ok(())) => {
                    self.heard.set(clock::now());
                    take(read.filled());
                    Poll::Ready(Ok(()))
                }
                // An end without TLS's goodbye is one like any other: WebSocket has its own.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Err(self.reason_or(Disconnect::TransportClose)))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(self.reason_or(Disconnect::TransportError))),
            }
        })
    }

    fn is_open(&self) -> bool {
        matches!(self.phase.get(), Phase::Open)
    }

    /// Why it ends: what it was closed for, or `otherwise` when nobody closed it.
    fn reason_or(&self, otherwise: Disconnect) -> Disconnect {
        match self.phase.get() {
            Phase::Open => otherwise,
            Phase::Closing { reason, .. } | Phase::Ended(reason) => reason,
        }
    }

    fn end(&self, reason: Disconnect) {
        if !matches!(self.phase.get(), Phase::Ended(_)) {
            self.phase.set(Phase::Ended(reason));
            // At once: the log may be forgetting already what a follower that failed did not take.
            self.outbox.drop_all(reason);
            if let Some(reader) = self.reader.borrow_mut().take() {
                reader.wake();
            }
        }
    }

    /// Writes all that waits, as far as the socket takes it.
    fn write(&self, scratch: &mut Vec<u8>) -> io::Result<()> {
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

    /// Writes what it lacks of the log. Returns where what it then still lacks begins.
    fn write_log(&self, round: &mut Round<'_>) -> io::Result<Option<Position>> {
        let (from, to) = match self.outbox.follower(round.began) {
            Follower::No => return Ok(None),
            Follower::Blocked(at) => return Ok(Some(at)),
            Follower::Own => {
                self.write(round.scratch)?;
                return Ok(None);
            }
            Follower::Lacks { from, to } => (from, to),
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

    /// Sends as many of these bytes as the socket takes. If that is not all, the slot is marked when it takes more.
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

    /// Everything is sent: the close frame follows, once.
    fn begin_close(&self, reason: Disconnect, scratch: &mut Vec<u8>) {
        if !self.is_open() {
            return;
        }
        match reason.close_code() {
            Some(code) => {
                scratch.extend_from_slice(&[FIN_CLOSE, 2]);
                scratch.extend_from_slice(&code.to_be_bytes());
                self.phase.set(Phase::Closing { reason, since: clock::now() });
            }
            None => self.end(reason),
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_stream(|stream, task| stream.poll_write(task, bytes))
    }

    /// Writes what the stream itself holds back, as TLS does with what the socket did not take.
    fn flush_stream(&self) -> io::Result<()> {
        match self.poll_stream(|stream, task| stream.poll_flush(task)) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// The client sees the end of the stream once it has read all, and ends it too.
    fn poll_shutdown(&self) {
        // What comes of it is seen when reading.
        let _ = self.poll_stream(|stream, task| stream.poll_shutdown(task));
    }

    /// Has the slot marked when the socket takes bytes again, if it does not now.
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

impl<S: Stream> Carrier for Socket<S> {
    fn flush_log(&self, round: &mut Round<'_>) -> Option<Position> {
        if !self.unsent.borrow().is_empty() {
            self.flush(round.scratch);
            return None;
        }
        self.write_log(round).unwrap_or_else(|_| {
            self.end(self.reason_or(Disconnect::TransportError));
            None
        })
    }

    fn flush(&self, scratch: &mut Vec<u8>) {
        if matches!(self.phase.get(), Phase::Ended(_)) {
            return;
        }
        if self.write(scratch).is_err() {
            self.end(self.reason_or(Disconnect::TransportError));
        } else if matches!(self.phase.get(), Phase::Closing { .. }) && self.unsent.borrow().is_empty() {
            self.poll_shutdown();
        }
    }

    fn sweep(&self, now: Instant) {
        let elapsed = |since| now.saturating_duration_since(since);
        match self.phase.get() {
            Phase::Open if elapsed(self.heard.get()) > self.hub.rules.silence() => self.abort(Disconnect::PingTimeout),
            Phase::Open => {
                self.outbox.evict_overdue(now, &self.hub.outbox_limits);
                if let outbox::Phase::Closed(reason) = self.outbox.phase() {
                    self.abort(reason);
                }
            }
            Phase::Closing { reason, since } if elapsed(since) > CLOSE_TIMEOUT => self.abort(reason),
            Phase::Closing { .. } | Phase::Ended(_) => {}
        }
    }

    fn close(&self, reason: Disconnect) {
        self.hub.close(&self.outbox, reason);
    }

    fn abort(&self, reason: Disconnect) {
        self.stream.borrow().forget_unsent();
        self.end(reason);
    }
}

/// Has a socket flushed once it takes bytes again.
struct MarkSlot {
    workers: Arc<Workers>,
    home: Home,
}

impl Wake for MarkSlot {
    fn wake(self: Arc<Self>) {
        self.workers.mark(self.home);
    }
}

#[cfg(test)]
mod tests {
    use actix::Actor;

    use super::*;
    use crate::{
        actors::{Chat, RoomRegistry},
        outbox::{Burst, Limits, Taker},
        session::Rules,
        stats::Stats,
    };

    fn hub() -> Arc<Hub> {
        let (workers, stats) = (Arc::new(Workers::new()), Stats::leak(clock::now()));
        let outbox_limits = Limits { bytes: 100, age: Duration::from_secs(10), lag: Duration::from_secs(1) };
        let registry = RoomRegistry::new(workers.clone(), None, outbox_limits, stats).start();
        let chat = Chat::new(registry.clone(), stats).start();
        let rules = Rules {
            default_rooms: Vec::new(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(60),
            max_rooms: 1,
            max_packets: 1,
            max_messages_per_second: 1,
            max_chats_per_second: 1,
            max_chat: 1,
        };
        Arc::new(Hub { registry, chat, workers, rules, outbox_limits, interest: None, stats })
    }

    /// A stream whose peer is gone, which shows when it is written to.
    struct Gone;

    impl AsyncRead for Gone {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Gone {
        fn forget_unsent(&self) {}
    }

    /// Its task may be busy with its session, and see the end only after the log has forgotten what this one did not take.
    #[actix_rt::test]
    async fn who_fails_in_a_round_follows_the_log_no_longer() {
        let hub = hub();
        let worker = Worker::current(&hub).unwrap();
        let opened = Opened { stream: Gone, greeting: Vec::new(), messages: Messages::new(1000) };
        let (socket, _) = Socket::enter(&hub, &worker, opened, Arc::new(Outbox::new()));
        let log = hub.workers.log();
        socket.outbox.attach(socket.home, Taker::Stream);
        socket.outbox.admit(log, 0);
        log.append(1, &Frame::text(clock::now(), |out| out.push(b'a')));
        let began = log.end();
        let (burst, scratch) = (&mut Burst::default(), &mut Vec::new());
        assert_eq!(socket.flush_log(&mut Round { log, began, burst, scratch }), None);
        log.taken(socket.home.worker, began);
        socket.outbox.drop_all(Disconnect::TransportClose);
        assert_eq!(socket.outbox.phase(), outbox::Phase::Closed(Disconnect::TransportError));
    }
}
