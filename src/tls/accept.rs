//! What a listener makes of a connection that it accepted, before HTTP begins.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{Protocol, error::DispatchError};
use actix_rt::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Certificate;

/// A stream, the HTTP that is spoken on it, and who is at its other end.
type Accepted<S> = (S, Protocol, Option<SocketAddr>);

/// Takes a connection as it is.
pub async fn accept_plain(stream: TcpStream) -> Result<Accepted<TcpStream>, DispatchError> {
    let peer = stream.peer_addr().ok();
    Ok((stream, Protocol::Http1, peer))
}

/// Opens TLS on connections.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    /// How long a client may take for its part.
    within: Duration,
}

impl Acceptor {
    pub fn new(certificate: Arc<Certificate>, within: Duration) -> Self {
        Self { tls: TlsAcceptor::from(Arc::new(certificate.server_config())), within }
    }

    pub async fn accept(self, stream: TcpStream) -> Result<Accepted<TlsStream<TcpStream>>, DispatchError> {
        let peer = stream.peer_addr().ok();
        let opened = timeout(self.within, self.tls.accept(stream)).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok((stream, Protocol::Http1, peer)),
            Err(error) => {
                log::debug!("a client does not open TLS: {error}");
                Err(DispatchError::Io(error))
            }
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("within", &self.within).finish_non_exhaustive()
    }
}
