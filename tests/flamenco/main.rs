//! The server in front of a Flamenco Manager: one that plays a script, and real ones.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod browser;
mod crowds;
mod farm;
mod gaps;
mod grace;
mod http;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
mod proxy;
mod real;
mod relay;
mod server;
mod stand_in;
mod start;
mod task_logs;
