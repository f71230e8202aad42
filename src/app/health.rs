//! The question whether a server is healthy, for containers that have no other program to ask it.

use std::time::Duration;

use crate::client::{Address, http_client, untrusted};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 4096;

/// Why a server does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("{0} answers with status {1}: {2}")]
    Unwell(String, u16, String),
}

/// Asks a server for its health, at either of its ports, and returns its answer. Blocks this thread.
///
/// # Errors
///
/// The server is not healthy, or does not answer in time.
pub fn health(server: &Address) -> Result<String, HealthError> {
    actix_rt::System::new().block_on(ask(server))
}

async fn ask(server: &Address) -> Result<String, HealthError> {
    let url = server.join("/healthz");
    let unreachable = |error: String| HealthError::Unreachable(server.as_str().to_owned(), error);
    let request = http_client(server, TIMEOUT).get(&url);
    let mut response =
        request.send().await.map_err(|error| unreachable(untrusted(&error).unwrap_or_else(|| error.to_string())))?;
    let answer = response.body().limit(MAX_ANSWER).await.map_err(|error| unreachable(error.to_string()))?;
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    match response.status().is_success() {
        true => Ok(answer),
        false => Err(HealthError::Unwell(server.as_str().to_owned(), response.status().as_u16(), answer)),
    }
}
