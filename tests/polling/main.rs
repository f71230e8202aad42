//! Long-polling against the started server, with requests and WebSockets made by hand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod bad_input;
mod browser;
mod requests;
mod server;
mod sessions;
mod upgrade;
