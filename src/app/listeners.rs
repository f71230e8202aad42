//! The server's listening sockets.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ServeError;
use crate::{
    options::ListenAddress,
    system::{self, Listener},
};

/// Unsent bytes that the kernel accepts from the server. The send buffer itself keeps growing with
/// the round-trip time, as a download requires, while a peer that has stopped reading holds no more
/// than this.
const NOT_SENT: u32 = 128 * 1024;

/// How long a connection is silent before the kernel probes its peer, and how long it then probes.
/// A Manager's stream and a proxied WebSocket have no timeout of their own.
const SILENCE: Duration = Duration::from_secs(60);
const PROBING: Duration = Duration::from_secs(60);

const BACKLOG: i32 = 4096;

/// The addresses of a port's listeners, as their clients write them.
#[derive(Debug, Clone)]
pub struct ListenUrls {
    pub addresses: Vec<ListenAddress>,
    /// Whether those of TCP use TLS.
    pub tls: bool,
}

impl ListenUrls {
    pub(super) fn of(listeners: &[Listener], tls: bool) -> Result<Self, ServeError> {
        let addresses: io::Result<_> = listeners.iter().map(local_address).collect();
        Ok(Self { addresses: addresses.map_err(ServeError::Serve)?, tls })
    }
}

fn local_address(listener: &Listener) -> io::Result<ListenAddress> {
    Ok(match listener {
        Listener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
        #[cfg(unix)]
        Listener::Unix(listener) => {
            ListenAddress::Unix(listener.local_addr()?.as_pathname().map(Into::into).unwrap_or_default())
        }
    })
}

impl fmt::Display for ListenUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.addresses.iter().enumerate() {
            let scheme = match address {
                ListenAddress::Tcp(_) if self.tls => "https://",
                ListenAddress::Tcp(_) => "http://",
                ListenAddress::Unix(_) => "",
            };
            write!(f, "{}{scheme}{address}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The listening sockets for browsers and the Manager.
pub(super) struct Listeners {
    pub(super) browsers: Vec<Listener>,
    pub(super) manager: Vec<Listener>,
    /// Whether the browsers' socket was inherited, so that other processes may accept from it too.
    pub(super) shared: bool,
}

impl Listeners {
    /// Takes the sockets in `LISTEN_FDS`, as systemd passes them: the browsers' first, then the
    /// Manager's. Opens those that are missing.
    pub(super) fn open(browsers: &[ListenAddress], manager: &[ListenAddress]) -> Result<Self, ServeError> {
        let mut given = ListenFd::from_env();
        if given.len() > 2 {
            return Err(ServeError::TooManySockets(given.len()));
        }
        let mut take = |index| Listener::inherit(&mut given, index).and_then(prepare).map_err(ServeError::HandedOver);
        let (given_browsers, given_manager) = (take(0)?, take(1)?);
        let shared = given_browsers.is_some();
        let or_open = |given: Option<Listener>, addresses: &[ListenAddress], option| match given {
            Some(listener) => Ok(vec![listener]),
            None => addresses.iter().map(|address| listen(address, option)).collect(),
        };
        Ok(Self {
            browsers: or_open(given_browsers, browsers, "--listen")?,
            manager: or_open(given_manager, manager, "--manager-listen")?,
            shared,
        })
    }
}

fn listen(address: &ListenAddress, option: &'static str) -> Result<Listener, ServeError> {
    let opened = match address {
        ListenAddress::Tcp(address) => listen_tcp(*address).map(Listener::Tcp),
        ListenAddress::Unix(path) => Listener::open_unix(path, BACKLOG),
    };
    opened.map_err(|error| ServeError::Listen { address: address.clone(), option, error })
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    system::allow_rebind(&SockRef::from(&socket))?;
    set_up(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns the likely cause of an address that cannot be listened on, with a space behind it.
pub(super) fn advice(address: &ListenAddress, error: &io::Error) -> &'static str {
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => "is another server running there? ",
        (io::ErrorKind::PermissionDenied, ListenAddress::Tcp(_)) => {
            "ports below 1024 need root, the capability CAP_NET_BIND_SERVICE, or a socket unit of systemd; "
        }
        (io::ErrorKind::PermissionDenied, ListenAddress::Unix(_)) => "its folder must be writable for the server; ",
        (io::ErrorKind::NotFound, ListenAddress::Unix(_)) => "its folder must exist; ",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine does not have the address; ",
        _ => "",
    }
}

fn prepare(given: Option<Listener>) -> io::Result<Option<Listener>> {
    if let Some(Listener::Tcp(listener)) = &given {
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
        let (accepted, _client) = accept(listen_tcp(any).unwrap());
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
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 81).into());
        let error = ServeError::Listen { address, option: "--listen", error };
        let expected = "cannot listen on 127.0.0.1:81: permission denied; ports below 1024 need root, the capability \
            CAP_NET_BIND_SERVICE, or a socket unit of systemd; --listen chooses another address";
        assert_eq!(error.to_string(), expected);
    }
}
