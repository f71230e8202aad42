//! Connections to the Manager that wait for their next request. One pool per thread.

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use actix_http::ServiceConfig;
use actix_rt::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::ForwardError;
use crate::{client::Address, clock, tls};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection waits for its next request. Flamenco Manager closes one after 15 s; closing first means that no
/// request meets a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// Connections that wait, per thread; more are closed after their answer.
const MAX_WAITING: usize = 128;

/// A connection to the Manager, over TLS or not.
pub(super) type ManagerStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

pub(super) struct Pool {
    manager: Address,
    http: ServiceConfig,
    waiting: RefCell<Vec<Waiting>>,
}

struct Waiting {
    stream: ManagerStream,
    since: Instant,
}

impl Pool {
    pub(super) fn new(manager: Address) -> Self {
        Self { manager, http: ServiceConfig::default(), waiting: RefCell::new(Vec::new()) }
    }

    /// What the codec of every request shares.
    pub(super) fn http(&self) -> &ServiceConfig {
        &self.http
    }

    /// The connection that was used last, if there is one that still lives.
    pub(super) fn take(&self) -> Option<ManagerStream> {
        let mut waiting = self.waiting.borrow_mut();
        let now = clock::now();
        while let Some(Waiting { stream, since }) = waiting.pop() {
            if now.saturating_duration_since(since) > KEEP_ALIVE {
                // Those below waited longer.
                waiting.clear();
                return None;
            }
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose request and answer are complete.
    pub(super) fn put(&self, stream: ManagerStream) {
        let now = clock::now();
        let mut waiting = self.waiting.borrow_mut();
        let overdue = waiting.iter().take_while(|idle| now.saturating_duration_since(idle.since) > KEEP_ALIVE).count();
        waiting.drain(..overdue);
        if waiting.len() < MAX_WAITING {
            waiting.push(Waiting { stream, since: now });
        }
    }

    pub(super) async fn connect(&self) -> Result<ManagerStream, ForwardError> {
        let (host, port) = self.manager.host_and_port();
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(match self.manager.is_tls() {
                false => Either::Left(stream),
                true => Either::Right(tls::connect(stream, host).await?),
            })
        };
        match actix_rt::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| match tls::explain(&error) {
                Some(reason) => ForwardError::Untrusted(reason),
                None => ForwardError::Unreachable(error),
            }),
            Err(_) => Err(ForwardError::ConnectTimeout),
        }
    }
}

/// Whether nothing has come on a connection on which nothing is due: neither its end nor anything else.
fn is_quiet(stream: &ManagerStream) -> bool {
    let stream = match stream {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    };
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
