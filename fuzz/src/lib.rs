//! What must hold whatever comes in: one function for each fuzz target, which panics when it does not.
//!
//! `tests/fuzz_corpus.rs` gives them the committed corpus, so that what a fuzzer once found interesting is tried by every
//! ordinary test run.

mod farm;
mod protocol;
mod session;

pub use farm::{ingest_json, subscription};
pub use protocol::{engine_packet, payload, socket_packet};
pub use session::session_model;
