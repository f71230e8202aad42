//! The server in front of a Flamenco Manager: one that plays a script, and real ones.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod browser;
mod farm;
mod gaps;
mod proxy;
mod relay;
mod server;
mod stand_in;
mod start;
mod task_logs;
