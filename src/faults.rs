//! Faults on purpose, with which tests prove that the server survives them.
//!
//! Only with the feature `fault-injection`, which no release is built with: without it every function here is nothing.

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

    /// What shall go wrong, where and when.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Fault {
        /// The actor's name in logs.
        actor: String,
        when: When,
        /// For [`When::AlwaysOnEvent`]: what the Manager calls the event.
        event_id: Option<String>,
        /// For [`When::MidFanOut`]: how many sessions, at least, have the broadcast by then.
        #[serde(default)]
        after: u64,
        /// For [`When::MidFanOut`]: the kind of event that is broadcast by then; any if this is absent.
        kind: Option<String>,
        /// Milliseconds for which the actor stands still, instead of failing.
        stall_ms: Option<u64>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum When {
        /// Once: at the next broadcast, or at a session's next message.
        NextPublish,
        /// Once: in the middle of the next broadcast that reaches enough sessions.
        MidFanOut,
        /// Each time this event is tried.
        AlwaysOnEvent,
    }

    static ARMED: Mutex<Vec<Fault>> = Mutex::new(Vec::new());
    /// How many of them there are: what is asked at every push costs no lock.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    /// From now on this goes wrong.
    pub fn arm(fault: Fault) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(fault);
        COUNT.store(armed.len(), Ordering::Release);
    }

    /// An actor begins to publish this event.
    pub fn publishing(actor: &str, event: Option<&EventId>) {
        fail_if(|fault| match fault.when {
            When::NextPublish => fault.actor == actor,
            When::AlwaysOnEvent => {
                fault.actor == actor && fault.event_id.as_deref() == event.map(EventId::as_str) && event.is_some()
            }
            When::MidFanOut => false,
        });
    }

    /// The registry has given a broadcast to this many sessions, or to one more that it does not know of yet.
    pub fn fanning_out(kind: EventKind, deliveries: u64) {
        fail_if(|fault| {
            fault.when == When::MidFanOut
                && fault.after <= deliveries
                && fault.kind.as_deref().is_none_or(|wanted| wanted == kind.as_str())
        });
    }

    /// An actor begins to handle a client's message.
    pub fn receiving(actor: &str) {
        fail_if(|fault| fault.when == When::NextPublish && fault.actor == actor);
    }

    fn fail_if(is_due: impl Fn(&Fault) -> bool) {
        if COUNT.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(fault) = take(is_due) {
            match fault.stall_ms {
                Some(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
                #[expect(clippy::panic, reason = "this is what it is for")]
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
