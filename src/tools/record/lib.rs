//! Recordings of a farm: `record` writes what a server publishes, one event per line, and `replay` posts
//! such lines to a server.
//!
//! ```text
//! server ── GET /api/events ──▶ record ──▶ {"id", "offset", "time", "type", "payload"} ──▶ replay ── POST /api/events ──▶ server
//! ```

mod line;
mod recorder;
mod replayer;

use std::{fs, io, path::PathBuf, time::Duration};

use awc::Client;
use client::{Address, TrustOptions, http_client};
use thiserror::Error;

pub use recorder::{RecordOptions, record};
pub use replayer::{ReplayOptions, replay};

/// The time that a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of an answer that is no event, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Where the Manager's port of a server is.
#[derive(Clone, Debug, clap::Args)]
pub struct Port {
    /// Address of the server's port for the Manager
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8082")]
    pub url: Address,

    /// File with the bearer token of that port
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    #[command(flatten)]
    pub trust: TrustOptions,
}

/// Why recording or replaying ended.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error("cannot read {0}: {1}")]
    File(String, io::Error),
    #[error("cannot write: {0}")]
    Output(io::Error),
    #[error("no server can be trusted as configured: {0}")]
    Trust(io::Error),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("{0} answers with status {1}: {2}")]
    Refused(String, u16, String),
    #[error("line {0}: {1}")]
    Line(u64, String),
}

impl Port {
    /// Returns a client that sends the token, without a time limit for the body of an answer.
    fn client(&self) -> Result<Client, RecordError> {
        self.trust.apply().map_err(RecordError::Trust)?;
        let Some(file) = &self.token_file else { return Ok(http_client(&self.url, ANSWER_TIMEOUT)) };
        let named = |error| RecordError::File(file.display().to_string(), error);
        let token = fs::read_to_string(file).map_err(named)?;
        Ok(http_client(&self.url.clone().with_token(token.trim()), ANSWER_TIMEOUT))
    }

    fn events(&self) -> String {
        self.url.below("/api/events")
    }
}

/// The text of a refusal: its `error` member, if it has one.
fn refusal(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
    }
    serde_json::from_slice(body)
        .map_or_else(|_| String::from_utf8_lossy(body).chars().take(200).collect(), |refusal: Refusal| refusal.error)
}
