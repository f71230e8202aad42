//! Accepted connections: the limit on HTTP connections, and the refusal beyond it.

use std::{future::Future, io, sync::Arc, time::Duration};

use actix_http::error::DispatchError;
use tokio::io::AsyncWriteExt;

use super::door::Door;
use crate::http::{self, Opened};

/// The number of refused connections that a worker handles at once; beyond it the worker stops
/// accepting.
pub(super) const MAX_TURNED_AWAY: usize = 1000;

/// How long a refused connection may stay.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens a connection with `accept` if the limits allow one more. It counts until it is closed or
/// becomes a WebSocket.
pub(super) async fn open<R: http::Stream, S: http::Stream, A>(
    door: Arc<Door>,
    mut stream: R,
    accept: impl FnOnce(R) -> A,
) -> Result<Opened<S>, DispatchError>
where
    A: Future<Output = Result<S, DispatchError>>,
{
    let admission = match door.admit_connection(stream.peer()) {
        Ok(admission) => admission,
        Err(refusal) => {
            door.count(refusal);
            if let Some(peer) = stream.peer() {
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
    Ok(http::open(accept(stream).await?, admission))
}
