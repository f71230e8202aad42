//! Fault injection, with which tests prove that the server survives faults.
//!
//! Active only with the feature `fault-injection`, which no release enables. Without it every
//! function here is empty.

#[cfg(not(feature = "fault-injection"))]
pub use self::none::*;
#[cfg(feature = "fault-injection")]
pub use self::some::*;

#[cfg(not(feature = "fault-injection"))]
mod none {
    use crate::farm::{EventId, EventKind};

    #[inline(always)]
    pub fn publishing(_actor: &str, _event: Option<&EventId>) {}

    #[inline(always)]
    pub fn fanning_out(_kind: EventKind, _deliveries: u64) {}

    #[inline(always)]
    pub fn receiving(_actor: &str) {}

    #[inline(always)]
    pub fn running(_task: &str) {}

    #[inline(always)]
    pub fn ending_thread(_task: &str) {}
}

#[cfg(feature = "fault-injection")]
mod some {
    use std::{
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use serde::Deserialize;

    use crate::farm::{EventId, EventKind};

    /// A fault to inject, with its place and time.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Fault {
        /// The actor's or task's name in logs.
        actor: String,
        when: When,
        /// For [`When::AlwaysOnEvent`]: the event's id.
        event_id: Option<String>,
        /// For [`When::MidFanOut`]: the minimum number of sessions that have the broadcast at that
        /// time.
        #[serde(default)]
        after: u64,
        /// For [`When::MidFanOut`]: the kind of event being broadcast; any kind if absent.
        kind: Option<String>,
        /// Milliseconds for which the actor blocks instead of panicking.
        stall_ms: Option<u64>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum When {
        /// Once: at the next broadcast, at a session's next message, or in a task's next round.
        NextPublish,
        /// Once: in the middle of the next broadcast that reaches enough sessions.
        MidFanOut,
        /// Each time this event is tried.
        AlwaysOnEvent,
        /// Once: in a task's next round its whole thread ends.
        EndThread,
    }

    static ARMED: Mutex<Vec<Fault>> = Mutex::new(Vec::new());
    /// The number of armed faults, so that the check at every push needs no lock.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    /// Arms a fault.
    pub fn arm(fault: Fault) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(fault);
        COUNT.store(armed.len(), Ordering::Release);
    }

    /// Called when an actor begins to publish this event.
    pub fn publishing(actor: &str, event: Option<&EventId>) {
        fail_if(|fault| match fault.when {
            When::NextPublish => fault.actor == actor,
            When::AlwaysOnEvent => {
                fault.actor == actor && fault.event_id.as_deref() == event.map(EventId::as_str) && event.is_some()
            }
            When::MidFanOut | When::EndThread => false,
        });
    }

    /// Called when the registry has delivered a broadcast to this many sessions, or to one more
    /// that is not counted yet.
    pub fn fanning_out(kind: EventKind, deliveries: u64) {
        fail_if(|fault| {
            fault.when == When::MidFanOut
                && fault.after <= deliveries
                && fault.kind.as_deref().is_none_or(|wanted| wanted == kind.as_str())
        });
    }

    /// Called when an actor begins to handle a client's message.
    pub fn receiving(actor: &str) {
        fail_if(|fault| fault.when == When::NextPublish && fault.actor == actor);
    }

    /// Called when a task begins its next round.
    pub fn running(task: &str) {
        fail_if(|fault| fault.when == When::NextPublish && fault.actor == task);
    }

    /// A task begins its next round, in a thread that may end.
    pub fn ending_thread(task: &str) {
        if COUNT.load(Ordering::Acquire) > 0
            && take(|fault| fault.when == When::EndThread && fault.actor == task).is_some()
        {
            actix_rt::Arbiter::current().stop();
        }
    }

    fn fail_if(is_due: impl Fn(&Fault) -> bool) {
        if COUNT.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(fault) = take(is_due) {
            match fault.stall_ms {
                Some(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
                #[expect(clippy::panic, reason = "fault injection panics on purpose")]
                None => panic!("a fault on purpose"),
            }
        }
    }

    fn take(is_due: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let index = armed.iter().position(is_due)?;
        if armed[index].when == When::AlwaysOnEvent {
            return Some(armed[index].clone());
        }
        let fault = armed.remove(index);
        COUNT.store(armed.len(), Ordering::Release);
        Some(fault)
    }
}
