//! The Manager's HTTP API, which the relay queries beside the live connection.

use std::time::Duration;

use actix_http::{StatusCode, error::ParseError, header};
use awc::{Client, ClientResponse, error::SendRequestError};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt};

use super::snapshot::{self, Listing, Snapshot, Version};
use crate::{
    client::{Address, http_client, untrusted},
    farm::{
        FieldError, JobId, Room, RoomEntity, Status, TaskId, WorkerTag,
        json::{FromJson, Members},
    },
};

/// The timeout of a response, including its body.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum size of a response. A list of ten thousand jobs has about 10 MB.
const MAX_ANSWER: usize = 128 << 20;

/// Why a request to the Manager's API failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server there does not speak HTTP: {0}")]
    NotHttp(String),
    #[error("{0}")]
    Untrusted(String),
    #[error("it does not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("{path} returns status {status}")]
    Status { path: String, status: StatusCode },
    #[error("it redirects to {0}: give that address")]
    Redirect(String),
    #[error("the server there is not a Flamenco Manager: {path}: {error}")]
    NotAManager { path: String, error: FieldError },
    #[error("the response to {path} is longer than {} MB", MAX_ANSWER >> 20)]
    TooLong { path: String },
    #[error("the response to {path} is incomplete")]
    Cut { path: String },
    #[error("the address leads back to this server")]
    Loop,
}

impl ApiError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// Returns whether retrying is useless, because the address is wrong.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Redirect(_) | Self::NotAManager { .. } | Self::NotHttp(_) | Self::Untrusted(_) | Self::Loop => true,
            Self::Status { status, .. } => status.is_client_error(),
            Self::Unreachable(_) | Self::Timeout | Self::TooLong { .. } | Self::Cut { .. } => false,
        }
    }
}

/// Queries one Manager.
pub struct Api {
    http: Client,
    manager: Address,
}

/// The address and length of a task's log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: String,
    pub(super) size: u64,
}

/// The result of reading a part of a file.
#[derive(Debug)]
pub(super) enum Part {
    /// The requested bytes, as far as they exist.
    Bytes(Vec<u8>),
    /// The file ends before.
    PastEnd,
    /// The file does not exist.
    Missing,
}

impl Api {
    pub fn new(manager: Address) -> Self {
        Self { http: http_client(&manager, TIMEOUT), manager }
    }

    /// Returns the Manager's version. Queried first, because it gives the clearest error.
    ///
    /// # Errors
    ///
    /// The Manager cannot be reached or trusted, does not respond in time, or is none.
    pub async fn version(&self) -> Result<Version, ApiError> {
        let path = "/api/v3/version";
        let body = self.get(path).await?;
        let read = || Members::of(&body)?.required("version");
        let version: String = read().map_err(|error| ApiError::NotAManager { path: path.to_owned(), error })?;
        Ok(Version::new(version))
    }

    /// Returns the current state of the farm.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        let jobs = match self.get("/api/v3/jobs").await {
            // Older Managers need a query with a body.
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

    /// Returns whether the Manager has the job or task that a room belongs to.
    pub(super) async fn has(&self, room: Room) -> Result<bool, ApiError> {
        let path = match room.entity() {
            Some(RoomEntity::Job(job)) => format!("/api/v3/jobs/{job}"),
            Some(RoomEntity::TaskLog(task)) => task_log_path(task),
            None => return Ok(true),
        };
        Ok(self.get_if_there(&path).await?.is_some())
    }

    /// Returns the tasks of a job.
    pub(super) async fn tasks(&self, job: JobId) -> Result<Vec<TaskId>, ApiError> {
        let path = format!("/api/v3/jobs/{job}/tasks");
        let body = self.get(&path).await?;
        Ok(listing(&path, &body, "tasks", |task| Members::of(task)?.required("id"))?.items)
    }

    /// Returns the location of a task's log, or `None` while it has none.
    pub(super) async fn task_log(&self, task: TaskId) -> Result<Option<Log>, ApiError> {
        let path = task_log_path(task);
        let body = self.get(&path).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let read = || {
            let members = Members::of(&body)?;
            let size: i64 = members.required("size")?;
            Ok(Log { path: members.required("url")?, size: size.unsigned_abs() })
        };
        read().map(Some).map_err(|error| ApiError::NotAManager { path, error })
    }

    /// Reads `length` bytes of one of the Manager's files, starting at the byte `from`.
    pub(super) async fn part(&self, path: &str, from: u64, length: u64) -> Result<Part, ApiError> {
        // Whatever the Manager returns, only its own files are requested.
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

    async fn tags(&self) -> Result<Option<Listing<WorkerTag>>, ApiError> {
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
            Err(error) if error.is_not_found() => Ok(None),
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

fn task_log_path(task: TaskId) -> String {
    format!("/api/v3/tasks/{task}/log")
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
        log::warn!("some entries of {path} are invalid; entries missing from it do not count as deleted");
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
