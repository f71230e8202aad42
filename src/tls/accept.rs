//! Prepares an accepted connection for HTTP, with or without TLS.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{Protocol, error::DispatchError};
use actix_rt::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Certificate;

/// A stream, its HTTP version, and its peer's address.
type Accepted<S> = (S, Protocol, Option<SocketAddr>);

/// Takes a connection without TLS.
///
/// # Errors
///
/// Never: the signature is that of [`Acceptor::accept`].
pub async fn accept_plain(stream: TcpStream) -> Result<Accepted<TcpStream>, DispatchError> {
    let peer = stream.peer_addr().ok();
    Ok((stream, Protocol::Http1, peer))
}

/// Accepts TLS on connections.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    /// How long a client may take for its part of the handshake.
    within: Duration,
}

impl Acceptor {
    pub fn new(certificate: Arc<Certificate>, within: Duration) -> Self {
        Self { tls: TlsAcceptor::from(Arc::new(certificate.server_config())), within }
    }

    /// Performs the TLS handshake of a connection.
    ///
    /// # Errors
    ///
    /// The handshake fails or takes too long.
    pub async fn accept(self, stream: TcpStream) -> Result<Accepted<TlsStream<TcpStream>>, DispatchError> {
        let peer = stream.peer_addr().ok();
        let opened = timeout(self.within, self.tls.accept(stream)).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok((stream, Protocol::Http1, peer)),
            Err(error) => {
                log::debug!("a TLS handshake failed: {error}");
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
