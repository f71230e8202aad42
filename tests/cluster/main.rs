//! Several servers that share the stream of a real NATS. Without one these tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/browser.rs"]
mod browser;
mod faults;
mod nats;
mod nodes;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
mod refusals;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/server.rs"]
mod server;
