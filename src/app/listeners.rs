//! The two sockets that the server listens on.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ServeError;

/// Bytes that the kernel may hold for one browser. Its own default lets a stalled one hold 4 MB.
const SEND_BUFFER: usize = 64 * 1024;

/// How long the kernel tries to send to a browser that does not answer at all.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);

const BACKLOG: i32 = 4096;

/// Where a listener is, as its clients write it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub address: SocketAddr,
    pub tls: bool,
}

impl Place {
    pub(super) fn of(listener: &TcpListener, tls: bool) -> Result<Self, ServeError> {
        Ok(Self { address: listener.local_addr().map_err(ServeError::Serve)?, tls })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// The sockets that browsers and the Manager come to.
pub(super) struct Listeners {
    pub(super) browsers: TcpListener,
    pub(super) manager: TcpListener,
    /// Whether the browsers' socket came from whoever started the server: then others may accept from it too.
    pub(super) shared: bool,
}

impl Listeners {
    /// Takes the sockets that were handed over with `LISTEN_FDS`, as systemd does: the browsers' first, then the Manager's. What
    /// is missing is opened.
    pub(super) fn open(browsers: SocketAddr, manager: SocketAddr) -> Result<Self, ServeError> {
        let mut given = ListenFd::from_env();
        if given.len() > 2 {
            return Err(ServeError::TooManySockets(given.len()));
        }
        let mut take = |index| given.take_tcp_listener(index).and_then(prepare).map_err(ServeError::HandedOver);
        let (given_browsers, given_manager) = (take(0)?, take(1)?);
        let shared = given_browsers.is_some();
        let or_open = |given: Option<TcpListener>, address, option| given.map_or_else(|| listen(address, option), Ok);
        Ok(Self {
            browsers: or_open(given_browsers, browsers, "--listen")?,
            manager: or_open(given_manager, manager, "--manager-listen")?,
            shared,
        })
    }
}

fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, ServeError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        set_up(SockRef::from(&socket))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| ServeError::Listen { address, option, error })
}

fn prepare(given: Option<TcpListener>) -> io::Result<Option<TcpListener>> {
    if let Some(listener) = &given {
        set_up(SockRef::from(listener))?;
    }
    Ok(given)
}

/// What is set on the listener, each accepted connection has from the beginning.
fn set_up(listener: SockRef<'_>) -> io::Result<()> {
    listener.set_send_buffer_size(SEND_BUFFER)?;
    listener.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    listener.set_tcp_nodelay(true)
}
