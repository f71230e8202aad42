//! A render farm that does not exist: `simulate-farm` prints what its Manager would say, one event a line, as
//! `POST /api/events` takes it, and `serve --demo` runs the same farm inside the server, with the Manager's API and images.
//!
//! ```text
//! Settings { workers, jobs, seed, start } ──▶ Farm ──▶ (when, FarmEvent), (when, FarmEvent), …
//! ```
//!
//! INVARIANT: a [`Farm`] has no clock and no other source of chance than its seed.

mod agenda;
mod farm;
mod job;
mod logs;
mod machines;
mod operator;
mod picture;
mod report;
mod site;
mod stream;
#[cfg(test)]
mod tests;
mod work;
mod worker;

use fastrand::Rng;
use uuid::Uuid;

pub use farm::{Farm, Settings};
pub use site::{Answer, Site};
pub use stream::{Options, run};

/// A UUID such as a Manager makes, but from this farm's chance.
fn random_uuid(rng: &mut Rng) -> Uuid {
    uuid::Builder::from_random_bytes(rng.u128(..).to_le_bytes()).into_uuid()
}
