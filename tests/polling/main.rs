//! Long-polling against the started server, with requests and WebSockets made by hand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod bad_input;
mod browser;
#[path = "../support/hostile.rs"]
mod hostile;
mod other_clients;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
mod requests;
#[path = "../support/response.rs"]
mod response;
mod server;
mod sessions;
mod upgrade;
