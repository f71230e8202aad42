//! Events from a real MQTT broker, Mosquitto. Without one these tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod broker;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/browser.rs"]
mod browser;
mod faults;
mod manager;
mod mirror;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/real.rs"]
mod real;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/server.rs"]
mod server;
mod topics;
