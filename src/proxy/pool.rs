//! Idle connections to the Manager. Each thread has a pool.

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use actix_http::ServiceConfig;
use actix_rt::net::TcpStream;
use socket2::SockRef;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::ForwardError;
use crate::{client::Address, clock};

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. Flamenco Manager closes one after 15 s; closing first
/// avoids sending a request on a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// The maximum number of idle connections per thread; others are closed after their response.
const MAX_WAITING: usize = 128;

/// A connection to the Manager, with or without TLS.
pub(super) type ManagerStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

pub(super) struct Pool {
    manager: Address,
    http: ServiceConfig,
    waiting: RefCell<Vec<IdleConnection>>,
}

struct IdleConnection {
    stream: ManagerStream,
    since: Instant,
}

impl Pool {
    pub(super) fn new(manager: Address) -> Self {
        Self { manager, http: ServiceConfig::default(), waiting: RefCell::new(Vec::new()) }
    }

    /// The configuration that the codecs of all requests share.
    pub(super) fn http(&self) -> &ServiceConfig {
        &self.http
    }

    /// Returns the most recently used connection that is still alive.
    pub(super) fn take(&self) -> Option<ManagerStream> {
        let mut waiting = self.waiting.borrow_mut();
        let now = clock::now();
        while let Some(IdleConnection { stream, since }) = waiting.pop() {
            if now.saturating_duration_since(since) > KEEP_ALIVE {
                // The connections below have been idle for longer.
                waiting.clear();
                return None;
            }
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose request and response are complete.
    pub(super) fn put(&self, stream: ManagerStream) {
        let now = clock::now();
        let mut waiting = self.waiting.borrow_mut();
        let overdue = waiting.iter().take_while(|idle| now.saturating_duration_since(idle.since) > KEEP_ALIVE).count();
        waiting.drain(..overdue);
        if waiting.len() < MAX_WAITING {
            waiting.push(IdleConnection { stream, since: now });
        }
    }

    pub(super) async fn connect(&self) -> Result<ManagerStream, ForwardError> {
        let (host, port) = self.manager.host_and_port();
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(match self.manager.is_tls() {
                false => Either::Left(stream),
                true => Either::Right(client::connect(stream, host).await?),
            })
        };
        match actix_rt::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| match client::explain(&error) {
                Some(reason) => ForwardError::Untrusted(reason),
                None => ForwardError::Unreachable(error),
            }),
            Err(_) => Err(ForwardError::ConnectTimeout),
        }
    }
}

/// Chooses whether the Manager sees the end of this connection at once, instead of after all bytes
/// sent on it. The kernel otherwise keeps an upload that nothing reads for a minute.
pub(super) fn set_abortive(stream: &ManagerStream, is_abortive: bool) {
    // If it fails, the end arrives later.
    let _ = SockRef::from(tcp(stream)).set_linger(is_abortive.then_some(Duration::ZERO));
}

fn tcp(stream: &ManagerStream) -> &TcpStream {
    match stream {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    }
}

/// Returns whether an idle connection has received nothing: neither bytes nor an end.
fn is_quiet(stream: &ManagerStream) -> bool {
    matches!(tcp(stream).try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
