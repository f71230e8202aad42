//! The transport upgrade: a WebSocket on which a polling client first probes the transport and then
//! moves to it.

use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::io::{AsyncWriteExt, ReadBuf};

use super::{
    frames::{ClientMessage, Messages},
    polling::Probe,
    websocket::{self, Opened, SessionStream},
    worker::Worker,
};
use crate::{actors::Hub, clock, frame::Frame, protocol::EnginePacket, session_state::Rate};

/// How long a client may take to move. Otherwise its polling session continues unchanged.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a waiting poll is released. The client may have sent another one before it knew that
/// it can move.
const RELEASE_INTERVAL: Duration = Duration::from_millis(100);

/// The payload of the probe ping and pong.
const PROBE: &str = "probe";

/// Serves a WebSocket that was opened for a polling session, and takes the session over once the
/// client sends an upgrade packet.
pub(super) async fn serve<S: SessionStream>(hub: Arc<Hub>, worker: Rc<Worker>, mut opened: Opened<S>, probe: Probe) {
    let outcome = actix_rt::time::timeout(PROBE_TIMEOUT, run(&hub, &worker, &mut opened, &probe)).await;
    if let Ok(Some(Moved)) = outcome {
        websocket::take_over(&hub, &worker, opened, probe);
    }
}

struct Moved;

/// Returns `None` if the client leaves, or sends any other packet.
async fn run<S: SessionStream>(hub: &Hub, worker: &Worker, opened: &mut Opened<S>, probe: &Probe) -> Option<Moved> {
    let Opened { stream, greeting, messages } = opened;
    write(stream, &std::mem::take(greeting)).await?;
    let mut release = actix_rt::time::interval(RELEASE_INTERVAL);
    let mut probed = false;
    let mut heard = Rate::new(clock::now());
    loop {
        let message = tokio::select! {
            message = next(worker, stream, messages) => message?,
            _ = release.tick(), if probed => {
                if probe.release_get() {
                    continue;
                }
                return None;
            }
        };
        if !heard.allows(hub.rules.options.max_messages_per_second, clock::now()) {
            return None;
        }
        let answer = match message {
            ClientMessage::Text(text) => match EnginePacket::decode_text(&text) {
                Ok(EnginePacket::Ping(PROBE)) => {
                    probed = true;
                    Frame::text(clock::now(), |out| EnginePacket::Pong(PROBE).encode_text(out))
                }
                Ok(EnginePacket::Upgrade) => return Some(Moved),
                Ok(_) | Err(_) => return None,
            },
            ClientMessage::Ping(data) => Frame::websocket_pong(clock::now(), &data),
            ClientMessage::Pong | ClientMessage::Part => continue,
            ClientMessage::Binary(_) | ClientMessage::Close => return None,
        };
        write(stream, answer.websocket()).await?;
    }
}

async fn write<S: SessionStream>(stream: &mut S, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

/// Returns the client's next message, or `None` at the end of the stream.
async fn next<S: SessionStream>(worker: &Worker, stream: &mut S, messages: &mut Messages) -> Option<ClientMessage> {
    loop {
        if let Some(message) = messages.next().ok()? {
            return Some(message);
        }
        let read = poll_fn(|task| {
            worker.with_read_buffer(|buffer| {
                let mut read = ReadBuf::new(buffer);
                let poll = Pin::new(&mut *stream).poll_read(task, &mut read);
                if let Poll::Ready(Ok(())) = poll {
                    messages.extend(read.filled());
                }
                poll.map_ok(|()| read.filled().len())
            })
        });
        if read.await.ok()? == 0 {
            return None;
        }
    }
}
