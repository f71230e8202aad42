//! Connections as they are accepted: how many may speak HTTP, and what one too many is told.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{Protocol, error::DispatchError};
use actix_rt::{net::TcpStream, time::timeout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Door, pace::Paced};
use crate::stats::Refused;

/// Connections that a worker turns away at the same time; then it stops to accept until some of them are gone.
pub(super) const MAX_TURNED_AWAY: usize = 1000;

/// How long one of them may stay.
const PATIENCE: Duration = Duration::from_secs(1);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 38\r\n\r\ntoo many connections, try again later\n";

/// Has `accept` open a connection, if there may be one more. It counts until it is closed or becomes a WebSocket.
pub(super) async fn open<S, A>(
    door: Arc<Door>,
    stream: TcpStream,
    accept: impl FnOnce(TcpStream) -> A,
) -> Result<(Paced<S>, Protocol, Option<SocketAddr>), DispatchError>
where
    A: Future<Output = Result<(S, Protocol, Option<SocketAddr>), DispatchError>>,
{
    let stats = door.hub.stats;
    let Some(presence) = stats.http_connections.enter(door.options.max_http_connections) else {
        stats.refused(Refused::TooManyHttpConnections).add(1);
        // To open TLS only to say this would cost more than what is saved.
        if door.options.tls.is_none() {
            let _ = timeout(PATIENCE, turn_away(stream)).await;
        }
        return Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
    };
    let (stream, protocol, peer) = accept(stream).await?;
    Ok((Paced::new(stream, presence), protocol, peer))
}

/// Answers, and takes what the client sends until it has seen that: what is not read when a socket is closed makes the kernel
/// reset the connection, and the answer might be lost with it.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(TOO_MANY).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}
