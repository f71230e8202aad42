//! Several servers that share the stream of a real NATS. Without one these tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

#[allow(dead_code, reason = "shared with the tests of MQTT")]
#[path = "../mqtt/broker.rs"]
mod broker;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/browser.rs"]
mod browser;
mod crowd;
mod farm;
mod faults;
mod history;
mod line;
mod logs;
mod long;
mod mirror;
mod nats;
mod nodes;
mod outages;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/real.rs"]
mod real;
mod refusals;
mod replicas;
mod resume;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/server.rs"]
mod server;
mod sources;
#[allow(dead_code, reason = "shared with the tests in front of a Manager")]
#[path = "../flamenco/stand_in.rs"]
mod stand_in;
#[allow(dead_code, reason = "shared with the tests of reliability")]
#[path = "../reliability/support/browser.rs"]
mod wire;
