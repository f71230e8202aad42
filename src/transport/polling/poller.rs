//! A session that requests carry: found by its id from whatever thread a request comes to, kept in a slot of the worker that
//! began it.

use std::{
    collections::HashMap,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use actix::Addr;
use bytes::Bytes;

use super::{
    super::{
        Door,
        addresses::Admission,
        worker::{Carrier, Round, Worker},
    },
    handover::{GetError, Handover, Over, ProbeError},
};
use crate::{
    actors::{
        SessionActor,
        messages::{ReceiveBody, Tell, TransportClosed},
    },
    clock,
    disconnect::Disconnect,
    outbox::{BodyRoom, Home, Outbox, Position, Taker},
    protocol::SessionId,
};

/// All polling sessions of the server.
#[derive(Default)]
pub(in crate::transport) struct Pollers {
    by_id: Mutex<HashMap<SessionId, Arc<Poller>>>,
}

impl Pollers {
    pub(in crate::transport) fn get(&self, sid: SessionId) -> Option<Arc<Poller>> {
        self.lock().get(&sid).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Poller>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One polling session.
pub(in crate::transport) struct Poller {
    sid: SessionId,
    outbox: Arc<Outbox>,
    session: Addr<SessionActor>,
    home: Home,
    door: Arc<Door>,
    handover: Mutex<Handover>,
    /// Gone with the session, or with the WebSocket that takes it over.
    admission: Mutex<Option<Admission>>,
}

impl Poller {
    /// Begins a session on this worker. Its first packets wait for the first [`get`](Self::get).
    pub(super) fn open(door: &Arc<Door>, worker: &Rc<Worker>, admission: Admission) -> Arc<Self> {
        let sid = SessionId::random();
        let outbox = Arc::new(Outbox::new());
        let session = SessionActor::open(sid, &["websocket"], outbox.clone(), door.hub.clone());
        let home = worker.reserve();
        let handover = Mutex::new(Handover::new(clock::now()));
        let admission = Mutex::new(Some(admission));
        let poller = Arc::new(Self { sid, outbox, session, home, door: door.clone(), handover, admission });
        worker.enter(home, Rc::new(Slot { poller: poller.clone(), worker: worker.clone() }));
        poller.outbox.attach(home, Taker::Polls);
        door.pollers.lock().insert(sid, poller.clone());
        poller
    }

    /// Answers a `GET`, as soon as there is something to answer it with. One that is dropped before ends the session.
    pub(super) async fn get(&self, room: BodyRoom) -> Result<Vec<u8>, GetError> {
        if let Err(error) = self.decide(|handover| handover.begin_get(clock::now())) {
            if error == GetError::Overlap {
                self.close(Disconnect::PollOverlap);
            }
            return Err(error);
        }
        let waiting = WaitingGet(self);
        let mut body = Vec::new();
        poll_fn(|task| {
            self.decide(|handover| handover.poll_get(&self.outbox, &mut body, room, task.waker(), clock::now()))
        })
        .await;
        std::mem::forget(waiting);
        self.door.hub.stats.bytes_out.add(body.len() as u64);
        Ok(body)
    }

    /// Hands the body of a `POST` to the session. Returns why that ends, if it does.
    pub(super) async fn post(&self, body: Bytes) -> Option<Disconnect> {
        self.session.send(ReceiveBody(body)).await.unwrap_or(Some(Disconnect::SessionFailed))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.lock().over(), Some(Over::Ended(_)))
    }

    /// A `POST` begins.
    pub(super) fn hear(&self) {
        self.lock().hear(clock::now());
    }

    /// Ends the session politely.
    pub(super) fn close(&self, reason: Disconnect) {
        self.door.hub.close(&self.outbox, reason);
    }

    /// Whether it is over because the server stops.
    pub(super) fn was_stopped(&self) -> bool {
        self.lock().over() == Some(Over::Ended(Disconnect::ServerShutdown))
    }

    /// Lets a WebSocket try whether it can take over.
    pub(in crate::transport) fn probe(self: Arc<Self>) -> Result<Probe, ProbeError> {
        self.decide(Handover::begin_probe)?;
        Ok(Probe { poller: self })
    }

    /// Makes a decision. If with it requests no longer carry the session, its slot is looked at.
    fn decide<R>(&self, decide: impl FnOnce(&mut Handover) -> R) -> R {
        let mut handover = self.lock();
        let before = handover.over();
        let result = decide(&mut handover);
        if before != handover.over() {
            self.door.hub.workers.mark(self.home);
        }
        result
    }

    fn take_admission(&self) -> Option<Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A panic elsewhere while the lock was held left a state whose every step is complete, so it is used on.
    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered yet.
struct WaitingGet<'a>(&'a Poller);

impl Drop for WaitingGet<'_> {
    fn drop(&mut self) {
        self.0.decide(Handover::abandon_get);
    }
}

/// A WebSocket that is about to take over a polling session.
pub(in crate::transport) struct Probe {
    poller: Arc<Poller>,
}

impl Probe {
    /// Has a waiting `GET` answered. Returns whether requests still carry the session.
    pub(in crate::transport) fn release_get(&self) -> bool {
        self.poller.decide(|handover| {
            handover.release_get();
            handover.over().is_none()
        })
    }

    pub(in crate::transport) fn outbox(&self) -> &Arc<Outbox> {
        &self.poller.outbox
    }

    pub(in crate::transport) fn session(&self) -> &Addr<SessionActor> {
        &self.poller.session
    }

    /// The WebSocket at `home` takes over, and with the session what that was admitted with.
    pub(in crate::transport) fn upgrade(self, home: Home) -> Result<Admission, Over> {
        let poller = &self.poller;
        poller.decide(|handover| handover.upgrade(&poller.outbox, home))?;
        poller.door.pollers.lock().remove(&poller.sid);
        // Whoever closed all connections may have come to either home too early.
        if poller.door.hub.workers.is_closing() {
            poller.close(Disconnect::ServerShutdown);
        }
        Ok(poller.take_admission().expect("a session is taken over once, and not after its end"))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.poller.decide(Handover::end_probe);
    }
}

/// A polling session, as its worker sees it.
struct Slot {
    poller: Arc<Poller>,
    worker: Rc<Worker>,
}

impl Carrier for Slot {
    /// Has the waiting request woken. A session that is over leaves its slot, only here: so it does so once.
    fn flush(&self, _: &mut Vec<u8>) {
        let poller = &*self.poller;
        let over = {
            let mut handover = poller.lock();
            handover.flush(&poller.outbox, clock::now());
            handover.over()
        };
        let Some(over) = over else { return };
        self.worker.leave(poller.home);
        if let Over::Ended(reason) = over {
            poller.door.pollers.lock().remove(&poller.sid);
            drop(poller.take_admission());
            poller.session.tell(TransportClosed { reason });
        }
    }

    fn flush_log(&self, _: &mut Round<'_>) -> Option<Position> {
        None
    }

    fn sweep(&self, now: Instant) {
        let hub = &self.poller.door.hub;
        self.poller.decide(|handover| {
            handover.sweep(&self.poller.outbox, now, hub.rules.silence(), &hub.outbox_limits);
        });
    }

    fn close(&self, reason: Disconnect) {
        self.poller.close(reason);
    }

    fn abort(&self, reason: Disconnect) {
        self.poller.decide(|handover| handover.end(reason));
    }
}
