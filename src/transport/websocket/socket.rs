//! The socket of one session: writes its outbox, and closes.
//!
//! ```text
//!         serve, take_over
//!               │ Socket::enter, Outbox::set_home
//!               ▼
//! Open ── outbox closed, all frames written: begin_close sends the close frame ──▶ Closing
//!  │  │                                                                            │
//!  │  └─ the reason has no close code ──────────────┐    the client closes its end,│
//!  │                                                ▼    or CLOSE_TIMEOUT          ▼
//!  └─ read or write error, eviction, silence ────▶ Ended ◀─────────────────────────┘
//!     (abort: SO_LINGER 0)                          │
//!                                                   └▶ read returns, WorkerSlot::drop, TransportClosed
//! ```
//!
//! RFC 6455 §7.1 has the closing handshake. `write.rs` has the writing half.

mod write;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::io::ReadBuf;

use super::{Opened, stream::SessionStream};
use crate::{
    actors::Hub,
    clock,
    disconnect::Disconnect,
    outbox::{self, Home, Outbox, Position},
    transport::{
        frames::Messages,
        worker::{Carrier, Round, Worker},
    },
};

/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that a client may send after the close frame; then the server stops reading.
const MAX_IGNORED: usize = 256 * 1024;

pub(super) struct Socket<S> {
    stream: RefCell<S>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) home: Home,
    pub(super) hub: Arc<Hub>,
    /// Bytes that precede all frames: the handshake response, and at the end the close frame.
    unsent: RefCell<Vec<u8>>,
    phase: Cell<SocketPhase>,
    heard: Cell<Instant>,
    /// Wakes the task that reads.
    reader: RefCell<Option<Waker>>,
    /// Marks the slot when the socket is writable again. Created when the socket first blocks.
    writable: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy)]
enum SocketPhase {
    Open,
    /// The close frame is sent, the client's is awaited.
    Closing {
        reason: Disconnect,
        since: Instant,
    },
    Ended(Disconnect),
}

impl<S: SessionStream> Socket<S> {
    /// Puts the connection into a slot of the worker.
    pub(super) fn enter(
        hub: &Arc<Hub>,
        worker: &Rc<Worker>,
        opened: Opened<S>,
        outbox: Arc<Outbox>,
    ) -> (Rc<Self>, Messages) {
        let home = worker.reserve();
        opened.stream.limit_unsent();
        let socket = Rc::new(Self {
            stream: RefCell::new(opened.stream),
            outbox,
            home,
            hub: hub.clone(),
            unsent: RefCell::new(opened.greeting),
            phase: Cell::new(SocketPhase::Open),
            heard: Cell::new(clock::now()),
            reader: RefCell::new(None),
            writable: RefCell::new(None),
        });
        worker.enter(home, socket.clone());
        (socket, opened.messages)
    }

    /// Waits for a closing client to end. Keeps reading, so that no reset discards the close frame,
    /// but not forever.
    pub(super) async fn see_off(&self, worker: &Worker) -> Disconnect {
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
        if let SocketPhase::Ended(reason) = self.phase.get() {
            return Poll::Ready(Err(reason));
        }
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            *reader = Some(task.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn poll_read(
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
                // An end without TLS's `close_notify` counts as an end, because WebSocket has its
                // own closing handshake.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Err(self.reason_or(Disconnect::TransportClose)))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(self.reason_or(Disconnect::TransportError))),
            }
        })
    }

    fn is_open(&self) -> bool {
        matches!(self.phase.get(), SocketPhase::Open)
    }

    /// Returns the reason of the end, or `otherwise` if nothing closed the connection before.
    pub(super) fn reason_or(&self, otherwise: Disconnect) -> Disconnect {
        match self.phase.get() {
            SocketPhase::Open => otherwise,
            SocketPhase::Closing { reason, .. } | SocketPhase::Ended(reason) => reason,
        }
    }

    fn end(&self, reason: Disconnect) {
        if !matches!(self.phase.get(), SocketPhase::Ended(_)) {
            self.phase.set(SocketPhase::Ended(reason));
            // Immediately: the log may already drop what a failed client has not taken.
            self.outbox.drop_all(reason);
            if let Some(reader) = self.reader.borrow_mut().take() {
                reader.wake();
            }
        }
    }
}

impl<S: SessionStream> Carrier for Socket<S> {
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
        if matches!(self.phase.get(), SocketPhase::Ended(_)) {
            return;
        }
        if self.write(scratch).is_err() {
            self.end(self.reason_or(Disconnect::TransportError));
        } else if matches!(self.phase.get(), SocketPhase::Closing { .. }) && self.unsent.borrow().is_empty() {
            self.poll_shutdown();
        }
    }

    fn sweep(&self, now: Instant) {
        let elapsed = |since| now.saturating_duration_since(since);
        match self.phase.get() {
            SocketPhase::Open if elapsed(self.heard.get()) > self.hub.rules.silence() => {
                self.abort(Disconnect::PingTimeout)
            }
            SocketPhase::Open => {
                let overdue = self.outbox.evict_overdue(now, &self.hub.outbox_limits);
                self.hub.stats.chat_left_out.add(overdue.left_out);
                if let outbox::Phase::Closed(reason) = self.outbox.phase() {
                    self.abort(reason);
                }
            }
            SocketPhase::Closing { reason, since } if elapsed(since) > CLOSE_TIMEOUT => self.abort(reason),
            SocketPhase::Closing { .. } | SocketPhase::Ended(_) => {}
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

#[cfg(test)]
mod tests {
    use actix::Actor;
    use actix_rt::net::TcpStream;
    use tokio::{
        io::{AsyncRead, AsyncWrite},
        sync::Notify,
    };

    use super::*;
    use crate::{
        actors::{Chat, RestartBudget, RoomRegistry, Supervisor},
        frame::Frame,
        history::{History, HistoryOptions},
        http,
        log_budget::LogBudget,
        options::defaults,
        outbox::{Burst, OutboxLimits, Taker, Workers},
        session_state::Rules,
        stats::Stats,
        transport::websocket::stream::{SEND_BUFFER, TCP_USER_TIMEOUT},
    };

    fn hub() -> Arc<Hub> {
        let (workers, stats) = (Arc::new(Workers::new()), Stats::leak(clock::now()));
        let outbox_limits = OutboxLimits { bytes: 100, age: Duration::from_secs(10), lag: Duration::from_secs(1) };
        let history = History::new(HistoryOptions { bytes: 0, state_entities: 0 }, clock::now());
        let registry = RoomRegistry::new(workers.clone(), None, outbox_limits, history, stats).start();
        let chat = Chat::new(registry.clone(), stats).start();
        let rules = Rules::new(defaults(), None, clock::now());
        let given_up = tokio::sync::mpsc::channel(1).0;
        let supervisor = Supervisor { budget: RestartBudget::default(), stats, given_up, stopping: Arc::default() };
        Arc::new(Hub {
            registry,
            chat,
            workers,
            rules,
            outbox_limits,
            interest: None,
            chats: None,
            cut_off: std::sync::atomic::AtomicBool::new(false),
            reached: tokio::sync::watch::Sender::default(),
            supervisor,
            log_budget: LogBudget::new(0, clock::now()),
            stop: Notify::new(),
            stats,
        })
    }

    /// A stream whose peer is gone, which only a write detects.
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

    impl http::Stream for Gone {
        fn closed(&self) -> http::Closed {
            http::Closed::No
        }

        fn peer(&self) -> Option<std::net::SocketAddr> {
            None
        }
    }

    impl SessionStream for Gone {
        fn limit_unsent(&self) {}

        fn forget_unsent(&self) {}
    }

    #[actix_rt::test]
    async fn a_session_holds_little_in_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let hub = hub();
        let worker = Worker::start(&hub).unwrap();
        let opened = Opened { stream, greeting: Vec::new(), messages: Messages::new(1000) };
        let (socket, _) = Socket::enter(&hub, &worker, opened, Arc::new(Outbox::new()));
        let stream = socket.stream.borrow();
        let options = socket2::SockRef::from(&*stream);
        // Linux doubles the requested size to account for its own bookkeeping.
        assert!(options.send_buffer_size().unwrap() <= 2 * SEND_BUFFER);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(TCP_USER_TIMEOUT));
    }

    /// The task may be busy with its session, and notice the end only after the log has dropped
    /// what this client did not take.
    #[actix_rt::test]
    async fn a_socket_that_fails_in_a_round_detaches_from_the_log() {
        let hub = hub();
        let worker = Worker::start(&hub).unwrap();
        let opened = Opened { stream: Gone, greeting: Vec::new(), messages: Messages::new(1000) };
        let (socket, _) = Socket::enter(&hub, &worker, opened, Arc::new(Outbox::new()));
        let log = hub.workers.log();
        socket.outbox.set_home(socket.home, Taker::Stream);
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
