//! What operators rely on: metrics, limits, and notifications to systemd. Against the started server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod configuration;
mod console;
mod contrib;
mod health;
mod http;
mod limits;
mod listening;
mod metrics;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
mod recordings;
#[path = "../support/response.rs"]
mod response;
mod server;
mod systemd;
mod tables;
