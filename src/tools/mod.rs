//! Programs beside the server: something to feed it, to look at it, and to measure it.

pub mod simulate_browsers;
pub mod simulate_farm;
pub mod watch;
