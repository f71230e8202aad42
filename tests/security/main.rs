//! Access: TLS on both listeners and as a client, files that are read again, forward authentication, origins, and a
//! second server that takes over.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod auth;
mod clients;
mod hand_over;
mod log;
mod origins;
#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "../support/program.rs"]
mod program;
mod reload;
#[path = "../support/response.rs"]
mod response;
mod start;
mod support;
mod tls;
mod trust;
