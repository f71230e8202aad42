//! Accepted connections: the limit on HTTP connections, and the refusal beyond it.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{Protocol, error::DispatchError};
use actix_rt::net::TcpStream;
use tokio::io::AsyncWriteExt;

use super::door::Door;
use crate::http::{self, Opened, Paced};

/// The number of refused connections that a worker handles at once; beyond it the worker stops
/// accepting.
pub(super) const MAX_TURNED_AWAY: usize = 1000;

/// How long a refused connection may stay.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens a connection with `accept` if the limits allow one more. It counts until it is closed or
/// becomes a WebSocket.
pub(super) async fn open<S, A>(
    door: Arc<Door>,
    mut stream: TcpStream,
    accept: impl FnOnce(TcpStream) -> A,
) -> Result<Opened<S>, DispatchError>
where
    A: Future<Output = Result<(S, Protocol, Option<SocketAddr>), DispatchError>>,
{
    let admission = match door.admit_connection(stream.peer_addr().ok()) {
        Ok(admission) => admission,
        Err(refusal) => {
            door.count(refusal);
            if let Ok(peer) = stream.peer_addr() {
                door.refusal_log.connection(refusal, peer.ip().to_canonical());
            }
            // Opening TLS only for the refusal would cost more than it saves.
            if door.settings.tls.is_none() {
                let answer = http::raw(refusal.status(), &refusal.text());
                if stream.write_all(&answer).await.is_ok() {
                    http::see_off(&mut stream, PATIENCE).await;
                }
            }
            return Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
        }
    };
    let (stream, protocol, peer) = accept(stream).await?;
    Ok((Paced::new(stream, admission), protocol, peer))
}
