//! Byte streams that carry a WebSocket.

use std::time::Duration;

use actix_rt::net::TcpStream;
#[cfg(unix)]
use actix_rt::net::UnixStream;
use tokio_rustls::server::TlsStream;

use crate::{http, system};

/// The size of the kernel's send buffer for one session. With its default, a stalled session holds
/// 4 MB.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// How long the kernel retries to send to a client that acknowledges nothing.
pub(super) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);

/// A byte stream that carries a session and can be aborted.
pub(in crate::transport) trait SessionStream: http::Stream {
    /// Limits how much, and for how long, the kernel buffers for this connection, which carries a
    /// session from now on.
    fn limit_unsent(&self);

    /// Makes the kernel drop unsent bytes when the stream is dropped.
    fn forget_unsent(&self);
}

impl SessionStream for TcpStream {
    fn limit_unsent(&self) {
        let socket = socket2::SockRef::from(self);
        // It fails only on a dead connection, which the next write detects.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        let _ = system::limit_unacknowledged(&socket, TCP_USER_TIMEOUT);
    }

    fn forget_unsent(&self) {
        // If it fails, the kernel drops the bytes a little later.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(unix)]
impl SessionStream for UnixStream {
    fn limit_unsent(&self) {
        // It fails only on a dead connection, which the next write detects.
        let _ = socket2::SockRef::from(self).set_send_buffer_size(SEND_BUFFER);
    }

    /// Does nothing: what the peer has not read is gone with the stream.
    fn forget_unsent(&self) {}
}

impl SessionStream for TlsStream<TcpStream> {
    fn limit_unsent(&self) {
        self.get_ref().0.limit_unsent();
    }

    fn forget_unsent(&self) {
        self.get_ref().0.forget_unsent();
    }
}
