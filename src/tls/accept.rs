//! Accepts TLS on connections.

use std::{fmt, io, sync::Arc, time::Duration};

use actix_http::error::DispatchError;
use actix_rt::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Certificate;

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
    pub async fn accept(self, stream: TcpStream) -> Result<TlsStream<TcpStream>, DispatchError> {
        let opened = timeout(self.within, self.tls.accept(stream)).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(stream),
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
