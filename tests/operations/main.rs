//! What those who run a server rely on: figures, limits, and what systemd is told. Against the started server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod contrib;
mod known_failures;
mod limits;
mod metrics;
mod server;
mod systemd;
