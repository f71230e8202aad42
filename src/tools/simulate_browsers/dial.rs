//! Opening a connection without waiting, from as many source addresses as it takes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Clients that share a source address on loopback. A source address has some 28 000 ports, and looking for a free one
/// takes the kernel long when most are taken.
const CLIENTS_PER_SOURCE: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Dialer {
    targets: Vec<SocketAddr>,
    /// How many source addresses turned out to have no port left.
    exhausted: u32,
}

impl Dialer {
    /// `targets` must not be empty.
    pub(super) fn new(targets: Vec<SocketAddr>) -> Self {
        Self { targets, exhausted: 0 }
    }

    /// Begins to connect; whether it succeeds is seen when the stream becomes writable.
    pub(super) fn dial(&mut self, client: u32) -> io::Result<TcpStream> {
        loop {
            let source = self.source(client);
            match dial_from(source, self.target(client)) {
                Err(error) if is_out_of_ports(&error) && source.is_some_and(|(_, last)| !last) => self.exhausted += 1,
                result => return result,
            }
        }
    }

    /// Returns the server of a client: they take turns.
    fn target(&self, client: u32) -> SocketAddr {
        self.targets[client as usize % self.targets.len()]
    }

    /// The source address for a client, and whether it is the last there is; `None` when the target is not on loopback.
    fn source(&self, client: u32) -> Option<(Ipv4Addr, bool)> {
        if !matches!(self.target(client).ip(), IpAddr::V4(address) if address.is_loopback()) {
            return None;
        }
        let wanted = 1 + client / CLIENTS_PER_SOURCE + self.exhausted;
        let number = u8::try_from(wanted).unwrap_or(254).min(254);
        Some((Ipv4Addr::new(127, 0, 0, number), number == 254))
    }
}

fn dial_from(source: Option<(Ipv4Addr, bool)>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some((source, _)) = source.filter(|(source, _)| *source != Ipv4Addr::LOCALHOST) {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if !is_under_way(&error) => Err(error),
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Returns whether the connection is being made.
fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::WouldBlock
    }
}

fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_on_loopback_only() {
        let local = Dialer::new(vec!["127.0.0.1:80".parse().unwrap()]);
        let source = |dialer: &Dialer, client| dialer.source(client).map(|(address, _)| address.octets()[3]);
        assert_eq!(
            [0, 9_999, 10_000, 20_000].map(|client| source(&local, client)),
            [Some(1), Some(1), Some(2), Some(3)]
        );
        assert_eq!(source(&local, u32::MAX), Some(254));
        let exhausted = Dialer { exhausted: 2, ..local };
        assert_eq!(source(&exhausted, 0), Some(3));
        assert_eq!(source(&Dialer::new(vec!["192.0.2.1:80".parse().unwrap()]), 20_000), None);
        assert_eq!(source(&Dialer::new(vec!["[::1]:80".parse().unwrap()]), 20_000), None);
    }
}
