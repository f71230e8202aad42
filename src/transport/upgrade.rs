//! A WebSocket on which a polling client tries whether it can move there, and then does.

use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::io::{AsyncWriteExt, ReadBuf};

use super::{
    frames::{Message, Messages},
    polling::Probe,
    websocket::{self, Opened, Stream},
    worker::Worker,
};
use crate::{actors::Hub, clock, frame::Frame, protocol::EnginePacket, session::Rate};

/// How long a client may take to move. Its polling session stays as it is if it does not.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a waiting poll is released: the client may have begun another one before it knew that it can move.
const RELEASE_INTERVAL: Duration = Duration::from_millis(100);

/// What a client says to try a transport, and hears if it works.
const PROBE: &str = "probe";

/// Serves a WebSocket that was opened for a polling session: as that session's, once the client says so.
pub(super) async fn serve<S: Stream>(hub: Arc<Hub>, worker: Rc<Worker>, mut opened: Opened<S>, probe: Probe) {
    let outcome = actix_rt::time::timeout(PROBE_TIMEOUT, run(&hub, &worker, &mut opened, &probe)).await;
    if let Ok(Some(Moved)) = outcome {
        websocket::take_over(&hub, &worker, opened, probe);
    }
}

struct Moved;

/// `None` if the client goes, or says anything else.
async fn run<S: Stream>(hub: &Hub, worker: &Worker, opened: &mut Opened<S>, probe: &Probe) -> Option<Moved> {
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
        if !heard.allows(hub.rules.max_messages_per_second, clock::now()) {
            return None;
        }
        let answer = match message {
            Message::Text(text) => match EnginePacket::decode_text(&text) {
                Ok(EnginePacket::Ping(PROBE)) => {
                    probed = true;
                    Frame::text(clock::now(), |out| EnginePacket::Pong(PROBE).encode_text(out))
                }
                Ok(EnginePacket::Upgrade) => return Some(Moved),
                Ok(_) | Err(_) => return None,
            },
            Message::Ping(data) => Frame::websocket_pong(clock::now(), &data),
            Message::Pong | Message::Part => continue,
            Message::Binary(_) | Message::Close => return None,
        };
        write(stream, answer.websocket()).await?;
    }
}

async fn write<S: Stream>(stream: &mut S, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

/// The client's next message; `None` if there will be none.
async fn next<S: Stream>(worker: &Worker, stream: &mut S, messages: &mut Messages) -> Option<Message> {
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
