//! The server's two listening sockets.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ServeError;
use crate::system;

/// Unsent bytes that the kernel accepts from the server. The send buffer itself keeps growing with
/// the round-trip time, as a download requires, while a peer that has stopped reading holds no more
/// than this.
const NOT_SENT: u32 = 128 * 1024;

/// How long a connection is silent before the kernel probes its peer, and how long it then probes.
/// A Manager's stream and a proxied WebSocket have no timeout of their own.
const SILENCE: Duration = Duration::from_secs(60);
const PROBING: Duration = Duration::from_secs(60);

const BACKLOG: i32 = 4096;

/// A listener's address, as its clients write it.
#[derive(Debug, Clone, Copy)]
pub struct ListenUrl {
    pub address: SocketAddr,
    pub tls: bool,
}

impl ListenUrl {
    pub(super) fn of(listener: &TcpListener, tls: bool) -> Result<Self, ServeError> {
        Ok(Self { address: listener.local_addr().map_err(ServeError::Serve)?, tls })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// The listening sockets for browsers and the Manager.
pub(super) struct Listeners {
    pub(super) browsers: TcpListener,
    pub(super) manager: TcpListener,
    /// Whether the browsers' socket was inherited, so that other processes may accept from it too.
    pub(super) shared: bool,
}

impl Listeners {
    /// Takes the sockets in `LISTEN_FDS`, as systemd passes them: the browsers' first, then the
    /// Manager's. Opens those that are missing.
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
        system::allow_rebind(&SockRef::from(&socket))?;
        set_up(SockRef::from(&socket))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| ServeError::Listen { address, option, error })
}

/// Returns the likely cause of an address that cannot be listened on, with a space behind it.
pub(super) fn advice(error: &io::Error) -> &'static str {
    let causes = [
        (io::ErrorKind::AddrInUse, "is another server running there? "),
        (
            io::ErrorKind::PermissionDenied,
            "ports below 1024 need root, the capability CAP_NET_BIND_SERVICE, or a socket unit of systemd; ",
        ),
        (io::ErrorKind::AddrNotAvailable, "this machine does not have the address; "),
    ];
    causes.into_iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, cause)| cause)
}

fn prepare(given: Option<TcpListener>) -> io::Result<Option<TcpListener>> {
    if let Some(listener) = &given {
        set_up(SockRef::from(listener))?;
    }
    Ok(given)
}

/// Sets the options that every connection inherits from its listener. Options for sessions only are
/// set when a session begins, because they would slow down downloads, uploads and tunnels.
fn set_up(listener: SockRef<'_>) -> io::Result<()> {
    system::limit_unsent(&listener, NOT_SENT)?;
    system::keep_alive(&listener, SILENCE, PROBING)?;
    listener.set_tcp_nodelay(true)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn connections_inherit_the_common_options() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let accept = |listener: TcpListener| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, client)
        };
        let (plain, _client) = accept(TcpListener::bind(any).unwrap());
        let (accepted, _client) = accept(listen(any, "--listen").unwrap());
        let (plain, accepted) = (SockRef::from(&plain), SockRef::from(&accepted));
        assert_eq!(accepted.send_buffer_size().unwrap(), plain.send_buffer_size().unwrap(), "the kernel sizes it");
        assert_eq!(accepted.tcp_user_timeout().unwrap(), None, "a paused download is not a dead peer");
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), NOT_SENT);
        assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.linger().unwrap(), None);
    }

    #[test]
    fn a_port_without_rights_is_explained() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = ServeError::Listen { address: ([127, 0, 0, 1], 81).into(), option: "--listen", error };
        let expected = "cannot listen on 127.0.0.1:81: permission denied; ports below 1024 need root, the capability \
            CAP_NET_BIND_SERVICE, or a socket unit of systemd; --listen chooses another address";
        assert_eq!(error.to_string(), expected);
    }
}
