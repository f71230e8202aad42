//! A long-polling session: found by its id from any thread, kept in a slot of the worker that
//! opened it.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use actix::Addr;
use bytes::Bytes;

use super::{
    super::{
        door::Door,
        sid::random_sid,
        worker::{Carrier, Round, Worker},
    },
    handover::{GetError, Handover, Over, ProbeError},
};
use crate::{
    actors::{
        NewClient, Session,
        messages::{Enqueue, ReceiveBody, TransportClosed},
    },
    clock,
    disconnect::Disconnect,
    http::{Admission, counted},
    outbox::{BodyRoom, Home, Outbox, Position, Taker},
    protocol::{SessionId, TransportName},
    slots::Shrink,
};

/// The maximum number of concurrent `POST`s of one session. Clients send one at a time; a proxy may
/// repeat one.
const MAX_POSTS: usize = 2;

/// Ended sessions that are remembered because a Python client has posted to them since.
const MAX_LOST: usize = 1024;

/// All polling sessions of the server.
#[derive(Default)]
pub(in crate::transport) struct Pollers {
    by_id: Mutex<HashMap<SessionId, Arc<Poller>>>,
    lost: Mutex<VecDeque<SessionId>>,
}

impl Pollers {
    pub(in crate::transport) fn get(&self, sid: SessionId) -> Option<Arc<Poller>> {
        self.lock().get(&sid).cloned()
    }

    /// Notes that a client has posted to a session that is over. Returns whether this is the first time.
    pub(super) fn note_lost(&self, sid: SessionId) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.contains(&sid) {
            return false;
        }
        if lost.len() == MAX_LOST {
            lost.pop_front();
        }
        lost.push_back(sid);
        true
    }

    fn forget(&self, sid: SessionId) {
        let mut by_id = self.lock();
        by_id.remove(&sid);
        by_id.shrink_if_sparse();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Poller>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One polling session.
pub(in crate::transport) struct Poller {
    sid: SessionId,
    outbox: Arc<Outbox>,
    session: Addr<Session>,
    home: Home,
    door: Arc<Door>,
    handover: Mutex<Handover>,
    /// Dropped with the session, or moved to the WebSocket that takes it over.
    admission: Mutex<Option<Admission>>,
    /// The number of `POST`s in progress.
    posts: AtomicUsize,
}

impl Poller {
    /// Opens a session on this worker. Its first packets wait for the first [`get`](Self::get).
    pub(super) fn open(
        door: &Arc<Door>,
        worker: &Rc<Worker>,
        address: IpAddr,
        can_resume: bool,
        admission: Admission,
    ) -> Arc<Self> {
        let sid = random_sid();
        let outbox = Arc::new(Outbox::new());
        let transport = TransportName::Polling;
        let client = NewClient { sid, transport, address, counted: counted(address), can_resume };
        let session = Session::open(client, outbox.clone(), door.hub.clone());
        let home = worker.reserve();
        let handover = Mutex::new(Handover::new(clock::now()));
        let (admission, posts) = (Mutex::new(Some(admission)), AtomicUsize::new(0));
        let poller = Arc::new(Self { sid, outbox, session, home, door: door.clone(), handover, admission, posts });
        worker.enter(home, Rc::new(PollingSlot { poller: poller.clone(), worker: worker.clone() }));
        poller.outbox.set_home(home, Taker::Polls);
        door.pollers.lock().insert(sid, poller.clone());
        poller
    }

    /// Answers a `GET` as soon as there is something to send. If the call is dropped before, the
    /// session ends.
    pub(super) async fn get(&self, room: BodyRoom) -> Result<Vec<u8>, GetError> {
        if let Err(error) = self.decide(|handover| handover.begin_get(clock::now())) {
            if error == GetError::Overlap {
                self.close(Disconnect::PollOverlap);
            }
            return Err(error);
        }
        let waiting = WaitingGet { poller: Some(self) };
        let mut body = Vec::new();
        poll_fn(|task| {
            self.decide(|handover| handover.poll_get(&self.outbox, &mut body, room, task.waker(), clock::now()))
        })
        .await;
        waiting.answered();
        self.door.hub.stats.bytes_out.add(body.len() as u64);
        Ok(body)
    }

    /// Passes the body of a `POST` to the session. Returns the reason of its end, if it ends.
    pub(super) async fn post(&self, body: Bytes) -> Option<Disconnect> {
        self.session.send(ReceiveBody(body)).await.unwrap_or(Some(Disconnect::SessionFailed))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.lock().over(), Some(Over::Ended(_)))
    }

    /// Counts a `POST` as in progress until the returned guard is dropped. Returns `None` if there
    /// are too many.
    pub(super) fn begin_post(&self) -> Option<Post<'_>> {
        self.lock().hear(clock::now());
        let post = Post(self);
        (self.posts.fetch_add(1, Ordering::Relaxed) < MAX_POSTS).then_some(post)
    }

    /// Ends the session once its waiting frames are sent.
    pub(super) fn close(&self, reason: Disconnect) {
        self.door.hub.close(&self.outbox, reason);
    }

    /// Ends the session at once, unless a request waits, which then gets the remaining frames and
    /// the close packet.
    pub(super) fn end_unless_polled(&self, reason: Disconnect) {
        self.decide(|handover| handover.end_unless_polled(reason));
    }

    /// Returns whether the session ended because the server is shutting down.
    pub(super) fn was_stopped(&self) -> bool {
        self.lock().over() == Some(Over::Ended(Disconnect::ServerShutdown))
    }

    /// Starts the probe of a WebSocket.
    pub(in crate::transport) fn probe(self: Arc<Self>) -> Result<Probe, ProbeError> {
        self.decide(Handover::begin_probe)?;
        Ok(Probe { poller: self })
    }

    /// Makes a decision under the lock. If requests no longer carry the session afterwards, its
    /// slot is marked.
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

    /// Every step under the lock is complete, so the state stays usable after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `POST` in progress.
pub(super) struct Post<'a>(&'a Poller);

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.0.posts.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A `GET` in progress. Dropping it abandons the request, unless it was answered.
struct WaitingGet<'a> {
    poller: Option<&'a Poller>,
}

impl WaitingGet<'_> {
    fn answered(mut self) {
        self.poller = None;
    }
}

impl Drop for WaitingGet<'_> {
    fn drop(&mut self) {
        if let Some(poller) = self.poller {
            poller.decide(Handover::abandon_get);
        }
    }
}

/// A WebSocket that is about to take over a polling session.
pub(in crate::transport) struct Probe {
    poller: Arc<Poller>,
}

impl Probe {
    /// Releases a waiting `GET`. Returns whether requests still carry the session.
    pub(in crate::transport) fn release_get(&self) -> bool {
        self.poller.decide(|handover| {
            handover.release_get();
            handover.over().is_none()
        })
    }

    pub(in crate::transport) fn outbox(&self) -> &Arc<Outbox> {
        &self.poller.outbox
    }

    pub(in crate::transport) fn session(&self) -> &Addr<Session> {
        &self.poller.session
    }

    /// Hands the session, with its admission, to the WebSocket at `home`.
    pub(in crate::transport) fn upgrade(self, home: Home) -> Result<Admission, Over> {
        let poller = &self.poller;
        poller.decide(|handover| handover.upgrade(&poller.outbox, home))?;
        poller.door.pollers.forget(poller.sid);
        // A shutdown may have visited either home too early.
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
struct PollingSlot {
    poller: Arc<Poller>,
    worker: Rc<Worker>,
}

impl Carrier for PollingSlot {
    /// Wakes the waiting request. A session that is over leaves its slot only here, and so only
    /// once.
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
            poller.door.pollers.forget(poller.sid);
            drop(poller.take_admission());
            poller.session.enqueue(TransportClosed { transport: TransportName::Polling, reason });
        }
    }

    fn flush_log(&self, _: &mut Round<'_>) -> Option<Position> {
        None
    }

    fn sweep(&self, now: Instant) {
        let hub = &self.poller.door.hub;
        let left_out = self
            .poller
            .decide(|handover| handover.sweep(&self.poller.outbox, now, hub.rules.silence(), &hub.outbox_limits));
        hub.stats.chat_left_out.add(left_out);
    }

    fn close(&self, reason: Disconnect) {
        self.poller.close(reason);
    }

    fn abort(&self, reason: Disconnect) {
        self.poller.decide(|handover| handover.end(reason));
    }
}
