//! HTTP timeouts: how long a head may take, how large it may be, how long a connection may be idle
//! between requests, and when a connection ends whose client has left.
//!
//! actix-http limits only the time of the first head, idle time only if no request body is left,
//! and a head to 128 KiB. It also treats a half-closed connection as fully closed, or ignores it.
//! Here a thin layer around the stream records reads and writes, the application records which
//! request is being answered, and [`keep`] applies the timeouts. A stream that becomes a WebSocket
//! leaves these layers behind.
//!
//! ```text
//!         ┌──────── a byte ────────┐
//! Head ─ a whole head ─▶ Answering ─ answered ─▶ Idle
//!   │                        └─ answered before the body's end ─▶ Rest ─ a whole head ─▶ Answering
//!   └─ too slow, too long, no HTTP ─▶ Refused
//! ```

mod coming;
mod fault;
mod stream;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_http::error::DispatchError;
use actix_rt::time::sleep;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;

pub(crate) use self::stream::Paced;
pub use self::stream::{Closed, Stream};
use self::{
    coming::{BodyPhase, Coming, LOOK},
    fault::Fault,
};
use super::{
    addresses::{Admission, Guest},
    limits::HttpLimits,
    refusal::LINGER,
};
use crate::{clock, stats::Stats};

/// Bytes of a complete head that are not counted: method, version, white space.
const UNCOUNTED: usize = 1024;

/// How long the rest of a body may arrive after its request was answered.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the response to a complete request may take to begin after its client has stopped
/// sending. The client may be waiting, or be gone.
const HALF_CLOSED: Duration = Duration::from_secs(3);

/// The response that probes the client of a body.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The state of a connection between and during requests.
#[derive(Debug)]
pub(crate) struct Pace {
    phase: Cell<Phase>,
    /// Whether the stream did not accept all bytes of the last write.
    has_unsent: Cell<bool>,
    /// When the end of the client's stream was read.
    half_closed: Cell<Option<Instant>>,
    /// Whether anything was sent since then.
    has_answered: Cell<bool>,
    body: Cell<BodyPhase>,
    /// Whether the next use of the stream checks if the client is still connected.
    looks: Cell<bool>,
    /// The permit of the request that is being answered.
    share: RefCell<Guest>,
    _admission: Admission,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A head is arriving since then; for the first head, since the connection was opened.
    Head { since: Instant, read: usize },
    /// A request is being answered, or the stream is no longer HTTP.
    Answering,
    /// All requests are answered, and nothing was read or written since then.
    Idle { since: Instant },
    /// The same, but the rest of the last request's body may still arrive.
    Rest { began: Instant, since: Instant },
    /// The head was refused.
    Refused { fault: Fault, since: Instant },
}

/// What follows a request's head.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Nothing,
    Body {
        /// Whether the client may be sent interim responses.
        may_ask: bool,
    },
}

/// What to do if nothing happens until then.
enum Due {
    End(Instant),
    Look(Instant),
}

impl Pace {
    /// Records that a head has arrived and is being answered until the returned guard is dropped.
    pub(super) fn answer(self: &Rc<Self>, body: Expected) -> Answering {
        self.phase.set(Phase::Answering);
        self.body.set(match body {
            Expected::Nothing => BodyPhase::Complete,
            Expected::Body { may_ask } => BodyPhase::Coming(Coming::new(may_ask, clock::now())),
        });
        Answering { pace: self.clone() }
    }

    /// Waits until the client has stopped sending. For handlers of a request on this connection.
    pub(crate) async fn half_closed(&self) {
        // The dispatcher reads before it polls the handler, so no waker is needed.
        poll_fn(|_| if self.half_closed.get().is_some() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Holds a permit until the current request is answered.
    pub(crate) fn hold(&self, share: Guest) {
        self.share.replace(share);
    }

    /// Sets whether the body that is being read may arrive at any rate from now on.
    pub(crate) fn set_patient(&self, patient: bool) {
        if let BodyPhase::Coming(coming) = self.body.get() {
            self.body.set(BodyPhase::Coming(Coming { is_patient: patient, ..coming }));
        }
    }

    pub(super) fn is_patient(&self) -> bool {
        matches!(self.body.get(), BodyPhase::Coming(coming) if coming.is_patient)
    }

    pub(super) fn body_ended(&self) {
        self.body.set(BodyPhase::Complete);
    }

    /// Records that the reader has taken a piece.
    pub(super) fn body_moved(&self, now: Instant) {
        if let BodyPhase::Coming(coming) = self.body.get() {
            self.body.set(BodyPhase::Coming(Coming { left_alone: Some(now), asked: 0, ..coming }));
        }
    }

    /// Records that the reader waits for a piece.
    pub(super) fn body_waits(&self) {
        if let BodyPhase::Coming(coming) = self.body.get() {
            self.body.set(BodyPhase::Coming(Coming { left_alone: None, ..coming }));
        }
    }

    fn read(&self, count: usize) {
        let now = clock::now();
        match self.phase.get() {
            Phase::Head { since, read } => self.phase.set(Phase::Head { since, read: read + count }),
            Phase::Idle { .. } => self.phase.set(Phase::Head { since: now, read: count }),
            Phase::Rest { began, .. } => self.phase.set(Phase::Rest { began, since: now }),
            Phase::Answering | Phase::Refused { .. } => {}
        }
    }

    fn wrote(&self, bytes: &[u8], count: usize) {
        self.has_unsent.set(count < bytes.len());
        self.has_answered.set(self.half_closed.get().is_some());
        let now = clock::now();
        match self.phase.get() {
            Phase::Idle { .. } => self.phase.set(Phase::Idle { since: now }),
            Phase::Rest { began, .. } => self.phase.set(Phase::Rest { began, since: now }),
            Phase::Answering => {
                // Its own response has begun, or an earlier one has not ended.
                if let BodyPhase::Coming(coming) = self.body.get()
                    && bytes != INTERIM
                {
                    self.body.set(BodyPhase::Coming(Coming { may_ask: false, ..coming }));
                }
            }
            Phase::Head { .. } | Phase::Refused { .. } => {}
        }
    }

    fn refuse(&self, fault: Fault) {
        self.phase.set(Phase::Refused { fault, since: clock::now() });
    }

    /// Makes [`look`](Self::look) check the client at the next use of the stream.
    fn have_a_look(&self) {
        if let BodyPhase::Coming(coming) = self.body.get() {
            self.body.set(BodyPhase::Coming(Coming { look: clock::now() + LOOK, ..coming }));
            self.looks.set(true);
        }
    }

    /// Checks whether the client of a body is still connected.
    fn look<S: Stream>(&self, stream: &mut S, task: &mut Context<'_>) {
        if let (true, BodyPhase::Coming(mut coming)) = (self.looks.take(), self.body.get()) {
            if coming.asks(clock::now()) && !self.has_unsent.get() {
                coming.asked += 1;
                match Pin::new(&mut *stream).poll_write(task, INTERIM) {
                    Poll::Ready(Ok(written)) if written == INTERIM.len() => {
                        let _ = Pin::new(&mut *stream).poll_flush(task);
                    }
                    // A partial write would corrupt the stream.
                    Poll::Ready(_) => coming.closed = Closed::Whole,
                    Poll::Pending => {}
                }
            }
            if coming.closed != Closed::Whole {
                coming.closed = stream.closed();
            }
            self.body.set(BodyPhase::Coming(coming));
        }
    }

    fn due(&self, limits: HttpLimits) -> Option<Due> {
        let end = |at: Option<Instant>| at.map(Due::End);
        match self.phase.get() {
            Phase::Head { since, .. } => end(since.checked_add(limits.head)),
            Phase::Idle { since } => end(since.checked_add(limits.idle)),
            Phase::Rest { began, since } => end(since.checked_add(limits.idle).map(|at| at.min(began + DRAIN))),
            Phase::Refused { since, .. } => end(since.checked_add(LINGER)),
            Phase::Answering => match (self.body.get(), self.half_closed.get()) {
                (BodyPhase::Coming(coming), _) => Some(coming.due()),
                // A client that is gone resets a connection on which it is answered.
                (BodyPhase::Complete, Some(at)) if !self.has_unsent.get() && !self.has_answered.get() => {
                    Some(Due::End(at + HALF_CLOSED))
                }
                (BodyPhase::Complete, _) => None,
            },
        }
    }

    fn is_too_long(&self, limits: HttpLimits) -> bool {
        matches!(self.phase.get(), Phase::Head { read, .. } if read > limits.head_bytes + UNCOUNTED)
    }

    fn is_refused(&self) -> bool {
        matches!(self.phase.get(), Phase::Refused { .. })
    }
}

/// Serves a connection within `limits`.
pub(super) async fn keep(
    pace: Rc<Pace>,
    limits: HttpLimits,
    stats: &Stats,
    mut served: Pin<Box<impl Future<Output = Result<(), DispatchError>>>>,
) -> Result<(), DispatchError> {
    let mut timer = pin!(sleep(limits.head));
    let mut is_counted = false;
    let mut count = || {
        if let (false, Phase::Refused { fault, .. }) = (is_counted, pace.phase.get()) {
            is_counted = true;
            stats.refused(fault.counted()).add(1);
        }
    };
    poll_fn(|task| {
        loop {
            // A refusal that was decided below is counted before its answer is written.
            count();
            // The phase changes only in this poll, so the code below sees every change.
            let polled = served.as_mut().poll(task);
            count();
            if polled.is_ready() {
                return polled;
            }
            if pace.is_too_long(limits) {
                pace.refuse(Fault::TooLong);
                continue;
            }
            let Some(due) = pace.due(limits) else { return Poll::Pending };
            let (Due::End(at) | Due::Look(at)) = due;
            timer.as_mut().reset(at.into());
            if timer.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            match (due, pace.phase.get()) {
                (Due::Look(_), _) => pace.have_a_look(),
                (Due::End(_), Phase::Head { .. }) => pace.refuse(Fault::TooSlow),
                (Due::End(_), _) => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// A request that is being answered, including the body of the response.
#[derive(Debug)]
pub(super) struct Answering {
    pace: Rc<Pace>,
}

impl Answering {
    /// Extends the guard to the end of this body.
    pub(super) fn until_the_end_of(self, body: BoxBody) -> Answer {
        Answer { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let now = clock::now();
        self.pace.share.take();
        self.pace.phase.set(match self.pace.body.get() {
            BodyPhase::Complete => Phase::Idle { since: now },
            BodyPhase::Coming(_) => Phase::Rest { began: now, since: now },
        });
    }
}

/// The body of a response.
pub(super) struct Answer {
    body: BoxBody,
    _answering: Answering,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(task)
    }
}
