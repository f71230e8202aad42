//! The minimum rate of a request's body.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_http::error::PayloadError;
use actix_rt::time::{Sleep, sleep};
use actix_web::dev::Payload;
use bytes::Bytes;
use futures_util::Stream;

use super::pace::Pace;
use crate::{
    clock,
    stats::{Refused, Stats},
};

/// Bytes that must arrive per second while a reader waits, averaged over the time in
/// [`HttpLimits::body`](super::HttpLimits::body).
const MIN_RATE: u64 = 1024;

/// A body that fails if it arrives too slowly. Only the time for which its reader waits counts.
pub(super) struct Body {
    payload: Payload,
    pace: Rc<Pace>,
    stats: &'static Stats,
    rate: Rate,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) fn new(payload: Payload, pace: Rc<Pace>, window: Duration, stats: &'static Stats) -> Self {
        Self { payload, pace, stats, rate: Rate::new(window), timer: None }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let now = clock::now();
        match Pin::new(&mut this.payload).poll_next(task) {
            Poll::Ready(Some(Ok(chunk))) => {
                this.rate.came(chunk.len() as u64, now);
                this.pace.body_moved(now);
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(None) => {
                this.pace.body_ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Pending if this.pace.is_patient() => {
                this.pace.body_waits();
                Poll::Pending
            }
            Poll::Pending => loop {
                this.pace.body_waits();
                let Some(look) = this.rate.wait(now) else {
                    this.stats.refused(Refused::BodyTooSlow).add(1);
                    return Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))));
                };
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
                timer.as_mut().reset(look.into());
                if timer.as_mut().poll(task).is_pending() {
                    return Poll::Pending;
                }
            },
        }
    }
}

/// Returns whether a body failed because it arrived too slowly.
pub(crate) fn is_too_slow(error: &PayloadError) -> bool {
    matches!(error, PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Measures the rate while the reader waits.
#[derive(Debug)]
struct Rate {
    window: Duration,
    /// The wait in this window before `since`.
    waited: Duration,
    since: Option<Instant>,
    bytes: u64,
}

impl Rate {
    fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, since: None, bytes: 0 }
    }

    fn came(&mut self, bytes: u64, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Returns when to check again, or `None` if too little arrived.
    fn wait(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.since.get_or_insert(now);
        if self.waited + now.saturating_duration_since(since) >= self.window {
            if self.bytes < MIN_RATE * self.window.as_millis() as u64 / 1000 {
                return None;
            }
            (self.waited, self.since, self.bytes) = (Duration::ZERO, Some(now), 0);
        }
        let since = self.since.unwrap_or(now);
        Some(since + self.window.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_spent_waiting_counts() {
        let second = Duration::from_secs(1);
        let (mut rate, start) = (Rate::new(10 * second), clock::now());
        let at = |seconds| start + seconds * second;
        assert_eq!(rate.wait(at(0)), Some(at(10)));
        rate.came(1, at(4));
        // The reader does other work for an hour.
        assert_eq!(rate.wait(at(3604)), Some(at(3610)), "six seconds are left");
        rate.came(10 * MIN_RATE, at(3605));
        assert_eq!(rate.wait(at(3606)), Some(at(3611)));
        assert_eq!(rate.wait(at(3611)), Some(at(3621)), "enough came: a new window");
        assert_eq!(rate.wait(at(3620)), Some(at(3621)));
        rate.came(MIN_RATE, at(3620));
        assert_eq!(rate.wait(at(3620)), Some(at(3621)));
        assert_eq!(rate.wait(at(3621)), None, "a tenth of what must arrive");
    }
}
