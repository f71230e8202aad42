//! The clock. All other code takes the time as an argument.

use std::time::{Instant, SystemTime};

/// Reads the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Reads the wall clock, for texts that people read.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
