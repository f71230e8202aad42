//! Nothing lost: real server processes, real sockets on loopback, things going wrong on purpose.
//!
//! `cargo test --features fault-injection --test reliability`. With `WEBUPDATES_LONG_TESTS=1` the numbers are those of a big
//! farm; without it the same tests run small.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod churn;
mod hostile;
mod panics;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/response.rs"]
mod response;
mod restart;
mod resume;
mod slow_clients;
mod support;
