//! Bounds how many lines of one kind are logged, so that clients cannot fill a disk or slow a worker.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::session_state::Rate;

/// The lines per second about sessions that begin and end. The journal of systemd takes 333 by
/// default.
pub const SESSION_LINES: u32 = 200;

/// The lines of one kind.
#[derive(Debug)]
pub struct LogBudget {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    /// Lines that were left out since the last one.
    left_out: u64,
}

impl LogBudget {
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, state: Mutex::new(State { rate: Rate::new(now), left_out: 0 }) }
    }

    /// Returns how many lines were left out before this one, or `None` if this one is left out too.
    pub fn spend(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rate.allows(self.per_second, now) {
            return Some(std::mem::take(&mut state.left_out));
        }
        state.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn the_next_line_knows_how_many_were_left_out() {
        let start = clock::now();
        let budget = LogBudget::new(2, start);
        let spent: Vec<_> = (0..5).map(|_| budget.spend(start)).collect();
        assert_eq!(spent, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(1);
        let spent: Vec<_> = (0..3).map(|_| budget.spend(later)).collect();
        assert_eq!(spent, [Some(3), Some(0), None]);
    }
}
