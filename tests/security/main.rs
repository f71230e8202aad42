//! Who gets in, and how: TLS on both listeners and as a client, files that are read again, forward authentication, origins, and a
//! second server that takes over.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

mod auth;
mod clients;
mod hand_over;
mod origins;
mod reload;
mod start;
mod support;
mod tls;
