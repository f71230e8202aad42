//! A client's WebSocket, from the upgrade on: no response body, no dispatcher, no buffers while it
//! is idle. `socket.rs` has its states.

mod socket;
mod stream;

use std::{future::poll_fn, net::IpAddr, rc::Rc, sync::Arc};

use actix::Addr;

use self::socket::Socket;
pub(super) use self::stream::SessionStream;
use super::{
    frames::{ClientMessage, Messages},
    polling::Probe,
    sid::random_sid,
    worker::{Carrier, Worker},
};
use crate::{
    actors::{
        Hub, NewClient, Session,
        messages::{Enqueue, Receive, TransportClosed},
    },
    clock,
    disconnect::Disconnect,
    frame::Frame,
    http::{Admission, counted},
    outbox::{self, Home, Outbox},
    protocol::TransportName,
    session_state::Rate,
    stats::Presence,
};

/// A stream that has just become a WebSocket.
pub(super) struct Opened<S> {
    pub(super) stream: S,
    /// The unsent part of the HTTP response.
    pub(super) greeting: Vec<u8>,
    /// Bytes that were read after the request.
    pub(super) messages: Messages,
}

/// Serves a new client until it ends.
pub(super) fn serve<S: SessionStream>(
    hub: &Arc<Hub>,
    worker: &Rc<Worker>,
    opened: Opened<S>,
    address: IpAddr,
    can_resume: bool,
    admission: Admission,
) {
    let outbox = Arc::new(Outbox::new());
    let (sid, transport) = (random_sid(), TransportName::WebSocket);
    let client = NewClient { sid, transport, address, counted: counted(address), can_resume };
    let session = Session::open(client, outbox.clone(), hub.clone());
    let (socket, messages) = Socket::enter(hub, worker, opened, outbox);
    socket.outbox.set_home(socket.home, outbox::Taker::Stream);
    socket.flush(&mut Vec::new());
    actix_rt::spawn(read(WorkerSlot::of(&socket, worker, admission), socket, session, messages));
}

/// Takes over a polling client's session and serves it until it ends. Does nothing if the session
/// has ended meanwhile.
pub(super) fn take_over<S: SessionStream>(hub: &Arc<Hub>, worker: &Rc<Worker>, opened: Opened<S>, probe: Probe) {
    let session = probe.session().clone();
    let (socket, messages) = Socket::enter(hub, worker, opened, probe.outbox().clone());
    let Ok(admission) = probe.upgrade(socket.home) else {
        worker.leave(socket.home);
        return;
    };
    socket.flush(&mut Vec::new());
    actix_rt::spawn(read(WorkerSlot::of(&socket, worker, admission), socket, session, messages));
}

/// Passes the client's messages to its session, one at a time, until either ends.
async fn read<S: SessionStream>(
    slot: WorkerSlot,
    socket: Rc<Socket<S>>,
    session: Addr<Session>,
    mut messages: Messages,
) {
    let mut uncounted = Rate::new(clock::now());
    let limit = socket.hub.rules.options.max_messages_per_second;
    let reason = loop {
        let message = match messages.next() {
            // Counts what the session does not see: pings, and fragments of messages.
            Ok(Some(ClientMessage::Ping(_) | ClientMessage::Pong | ClientMessage::Part))
                if !uncounted.allows(limit, clock::now()) =>
            {
                socket.close(Disconnect::TooManyMessages);
                break socket.see_off(&slot.worker).await;
            }
            Ok(Some(message)) => message,
            Ok(None) => {
                let read = poll_fn(|task| socket.poll_read(task, &slot.worker, |bytes| messages.extend(bytes))).await;
                match read {
                    Ok(()) => continue,
                    Err(reason) => break reason,
                }
            }
            Err(reason) => {
                socket.close(reason);
                break socket.see_off(&slot.worker).await;
            }
        };
        let delivered = match message {
            ClientMessage::Text(text) => session.send(Receive::Text(text)).await,
            ClientMessage::Binary(data) => session.send(Receive::Binary(data)).await,
            ClientMessage::Ping(data) => {
                socket.hub.send(&socket.outbox, &Frame::websocket_pong(clock::now(), &data));
                Ok(())
            }
            ClientMessage::Close => {
                socket.close(Disconnect::TransportClose);
                socket.flush(&mut Vec::new());
                break socket.reason_or(Disconnect::TransportClose);
            }
            ClientMessage::Pong | ClientMessage::Part => Ok(()),
        };
        if delivered.is_err() {
            break socket.reason_or(Disconnect::SessionFailed);
        }
        if socket.outbox.phase() != outbox::Phase::Open {
            break socket.see_off(&slot.worker).await;
        }
    };
    drop(slot);
    session.enqueue(TransportClosed { transport: TransportName::WebSocket, reason });
}

/// Removes a connection from its worker when its task ends, for any reason.
struct WorkerSlot {
    worker: Rc<Worker>,
    home: Home,
    outbox: Arc<Outbox>,
    _admission: Admission,
    _presence: Presence,
}

impl WorkerSlot {
    fn of<S>(socket: &Socket<S>, worker: &Rc<Worker>, admission: Admission) -> Self {
        let presence = socket.hub.stats.websocket_sessions.add();
        let outbox = socket.outbox.clone();
        Self { worker: worker.clone(), home: socket.home, outbox, _admission: admission, _presence: presence }
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        // An outbox that is not flushed any more must not stay attached to the log.
        self.outbox.drop_all(Disconnect::TransportClose);
        self.worker.leave(self.home);
    }
}
