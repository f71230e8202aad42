//! The Manager's own API: what the relay asks it beside the live connection.

use std::time::Duration;

use actix_http::{StatusCode, error::ParseError, header};
use awc::{Client, ClientResponse, error::SendRequestError};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt};

use super::snapshot::{self, Listing, Snapshot, Version};
use crate::{
    client::{Address, http_client, untrusted},
    farm::{
        FieldError, Status, TaskId,
        json::{FromJson, Members},
    },
};

/// How long an answer may take, with all of its body.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of an answer. A list of ten thousand jobs has about 10 MB.
const MAX_ANSWER: usize = 128 << 20;

/// Why the Manager's API said nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("what answers there does not speak http: {0}")]
    NotHttp(String),
    #[error("{0}")]
    Untrusted(String),
    #[error("it does not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("{path} is answered with status {status}")]
    Status { path: String, status: StatusCode },
    #[error("it redirects to {0}: give that address")]
    Redirect(String),
    #[error("what answers there is no flamenco manager: {path}: {error}")]
    NotAManager { path: String, error: FieldError },
    #[error("the answer to {path} is longer than {} MB", MAX_ANSWER >> 20)]
    TooLong { path: String },
    #[error("the answer to {path} breaks off")]
    Cut { path: String },
    #[error("the address leads back to this server")]
    Loop,
}

impl ApiError {
    /// Whether no amount of waiting helps: the address is wrong.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Redirect(_) | Self::NotAManager { .. } | Self::NotHttp(_) | Self::Untrusted(_) | Self::Loop => true,
            Self::Status { status, .. } => status.is_client_error(),
            Self::Unreachable(_) | Self::Timeout | Self::TooLong { .. } | Self::Cut { .. } => false,
        }
    }
}

/// Asks one Manager.
pub struct Api {
    http: Client,
    manager: Address,
}

/// Where a task's log is and how long it is.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: String,
    pub(super) size: u64,
}

/// A part of a file.
#[derive(Debug)]
pub(super) enum Part {
    /// What was asked for, as far as it exists.
    Bytes(Vec<u8>),
    /// The file ends before.
    PastEnd,
    /// There is no file.
    Missing,
}

impl Api {
    pub fn new(manager: Address) -> Self {
        Self { http: http_client(&manager, TIMEOUT), manager }
    }

    /// Who is there. The first thing to ask: everything else may fail for better reasons.
    pub async fn version(&self) -> Result<Version, ApiError> {
        let path = "/api/v3/version";
        let body = self.get(path).await?;
        let read = || Members::of(&body)?.required("version");
        let version: String = read().map_err(|error| ApiError::NotAManager { path: path.to_owned(), error })?;
        Ok(Version::new(version))
    }

    /// The farm as it is now.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        let jobs = match self.get("/api/v3/jobs").await {
            // Older Managers are asked with a query.
            Err(ApiError::Status { status, .. }) if status.is_client_error() => {
                self.post("/api/v3/jobs/query", "{}").await?
            }
            answered => answered?,
        };
        let workers_path = "/api/v3/worker-mgt/workers";
        Ok(Snapshot {
            jobs: listing("/api/v3/jobs", &jobs, "jobs", snapshot::job)?,
            workers: listing(workers_path, &self.get(workers_path).await?, "workers", snapshot::worker)?,
            tags: self.tags().await?,
            farm: self.farm_status().await?,
        })
    }

    /// Where the log of a task is; `None` while there is none.
    pub(super) async fn task_log(&self, task: TaskId) -> Result<Option<Log>, ApiError> {
        let path = format!("/api/v3/tasks/{task}/log");
        let Some(body) = self.get_if_there(&path).await?.filter(|body| !body.is_empty()) else { return Ok(None) };
        let read = || {
            let members = Members::of(&body)?;
            let size: i64 = members.required("size")?;
            Ok(Log { path: members.required("url")?, size: size.unsigned_abs() })
        };
        read().map(Some).map_err(|error| ApiError::NotAManager { path, error })
    }

    /// `length` bytes of a file of the Manager's, from the byte `from` on.
    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Part, ApiError> {
        // Whatever the Manager says, it is asked for a file of its own.
        let url = self.manager.below(path);
        let range = format!("bytes={from}-{}", from + length - 1);
        let ask = async {
            let answer = self.http.get(url).insert_header((header::RANGE, range)).no_decompress().send().await;
            let mut answer = answer.map_err(unreachable)?;
            match answer.status() {
                StatusCode::PARTIAL_CONTENT => {
                    Ok(Part::Bytes(body(&mut answer, path, length as usize).await?.to_vec()))
                }
                StatusCode::RANGE_NOT_SATISFIABLE => Ok(Part::PastEnd),
                StatusCode::NOT_FOUND => Ok(Part::Missing),
                status => Err(refusal(&answer, path, status)),
            }
        };
        actix_rt::time::timeout(TIMEOUT, ask).await.unwrap_or(Err(ApiError::Timeout))
    }

    async fn tags(&self) -> Result<Option<Listing<crate::farm::WorkerTag>>, ApiError> {
        let path = "/api/v3/worker-mgt/tags";
        match self.get_if_there(path).await? {
            Some(body) => listing(path, &body, "tags", snapshot::tag).map(Some),
            None => Ok(None),
        }
    }

    async fn farm_status(&self) -> Result<Option<Status>, ApiError> {
        let Some(body) = self.get_if_there("/api/v3/status").await? else { return Ok(None) };
        let read = || Members::of(&body)?.required_json("status").and_then(Status::from_json);
        Ok(read().ok())
    }

    async fn get_if_there(&self, path: &str) -> Result<Option<String>, ApiError> {
        match self.get(path).await {
            Err(ApiError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            answered => answered.map(Some),
        }
    }

    async fn get(&self, path: &str) -> Result<String, ApiError> {
        let sent = self.http.get(self.manager.below(path)).no_decompress().send();
        self.text(path, sent).await
    }

    async fn post(&self, path: &str, json: &'static str) -> Result<String, ApiError> {
        let request = self.http.post(self.manager.below(path)).no_decompress();
        self.text(path, request.content_type("application/json").send_body(json)).await
    }

    async fn text<S>(
        &self,
        path: &str,
        sent: impl Future<Output = Result<ClientResponse<S>, SendRequestError>>,
    ) -> Result<String, ApiError>
    where
        S: Stream<Item = Result<bytes::Bytes, actix_http::error::PayloadError>> + Unpin,
    {
        let ask = async {
            let mut answer = sent.await.map_err(unreachable)?;
            let status = answer.status();
            if !status.is_success() {
                return Err(refusal(&answer, path, status));
            }
            let body = body(&mut answer, path, MAX_ANSWER).await?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        actix_rt::time::timeout(TIMEOUT, ask).await.unwrap_or(Err(ApiError::Timeout))
    }
}

async fn body<S>(answer: &mut ClientResponse<S>, path: &str, limit: usize) -> Result<BytesMut, ApiError>
where
    S: Stream<Item = Result<bytes::Bytes, actix_http::error::PayloadError>> + Unpin,
{
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.next().await {
        let chunk = chunk.map_err(|_| ApiError::Cut { path: path.to_owned() })?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::TooLong { path: path.to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn listing<T>(
    path: &str,
    body: &str,
    name: &str,
    read: fn(&str) -> Result<T, FieldError>,
) -> Result<Listing<T>, ApiError> {
    let listing = Listing::parse(body, name, read);
    let listing = listing.map_err(|error| ApiError::NotAManager { path: path.to_owned(), error })?;
    if !listing.is_complete {
        log::warn!("some of what {path} lists cannot be read; nothing of it counts as deleted");
    }
    Ok(listing)
}

fn unreachable(error: SendRequestError) -> ApiError {
    if let SendRequestError::Response(error) = &error
        && !matches!(error, ParseError::Io(_) | ParseError::Incomplete | ParseError::Timeout)
    {
        return ApiError::NotHttp(error.to_string());
    }
    if matches!(error, SendRequestError::Timeout) {
        ApiError::Timeout
    } else {
        untrusted(&error).map_or_else(|| ApiError::Unreachable(error.to_string()), ApiError::Untrusted)
    }
}

fn refusal<S>(answer: &ClientResponse<S>, path: &str, status: StatusCode) -> ApiError {
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    match location {
        _ if status == StatusCode::LOOP_DETECTED => ApiError::Loop,
        Some(location) if status.is_redirection() => ApiError::Redirect(location.to_owned()),
        _ => ApiError::Status { path: path.to_owned(), status },
    }
}
