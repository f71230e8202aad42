//! Stores events in the stream.
//!
//! A request is one atomic batch. A batch with an id that the stream knows is refused whole; then its
//! events are stored one by one, and the stream recognises each repetition.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_rt::time::sleep;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind, connection::State, jetstream::ErrorCode};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::entry::{self, Content, EXPECTED, FENCE, MSG_ID};
use crate::farm::EventId;

/// How long events may take to be stored before the source is asked to try again.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);

const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The maximum number of messages in an atomic batch.
const MAX_BATCH: usize = 1000;

/// Batches at the same time. The stream allows 50 of all nodes together.
const CONCURRENT: usize = 8;

/// What a message has beside its payload, in bytes, at most.
const HEADROOM: usize = 2048;

/// A message on its way into the stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) id: Option<EventId>,
    pub(super) content: Content,
}

/// The message of the stream with which a node began to run the sources that exist once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) subject: String,
    pub(super) offset: u64,
}

/// Why events are not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Whether they are is not known: ids make another attempt safe.
    #[error("the events cannot be stored now, try again in a second")]
    Unavailable,
    #[error("an event is larger than NATS accepts (max_payload)")]
    TooLarge { limit: usize },
}

/// Why the stream does not take events.
#[derive(Debug)]
pub(super) enum WriteError {
    Store(StoreError),
    /// There is a newer fence, or none; nothing is stored.
    Fenced,
}

enum Failure {
    /// Nothing is stored.
    NotStored(String),
    /// Something may be stored.
    Unknown(String),
    /// A batch has a known id; nothing is stored.
    Repeated,
    /// There is a newer fence, or none; nothing is stored.
    Fenced,
}

/// The stored events.
#[derive(Debug)]
pub(super) struct Stored {
    /// The offset of the last one.
    pub(super) last: u64,
    /// Which of them are new.
    pub(super) is_new: Vec<bool>,
}

/// The answer of the stream.
#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Stores events in the stream.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    client: Client,
    stream: String,
    turns: Arc<Semaphore>,
    /// Why events were last not stored, until some are.
    problem: Arc<Mutex<String>>,
}

impl Writer {
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self { client, stream, turns: Arc::new(Semaphore::new(CONCURRENT)), problem: Arc::default() }
    }

    /// Stores the events in this order, with none of other requests between those of one batch. With a
    /// fence they are stored only if it is the newest of its subject.
    pub(super) async fn store(&self, events: &[Outgoing], fence: Option<&Fence>) -> Result<Stored, WriteError> {
        let limit = self.client.max_payload().saturating_sub(HEADROOM);
        if events.iter().any(|outgoing| outgoing.content.text().len() > limit) {
            return Err(WriteError::Store(StoreError::TooLarge { limit }));
        }
        let _turn = self.turns.acquire().await.expect("the turns are never closed");
        let mut stored = Stored { last: 0, is_new: Vec::with_capacity(events.len()) };
        for batch in events.chunks(MAX_BATCH) {
            let part = self.store_batch(batch, fence).await?;
            stored.last = stored.last.max(part.last);
            stored.is_new.extend(part.is_new);
        }
        Ok(stored)
    }

    async fn store_batch(&self, batch: &[Outgoing], fence: Option<&Fence>) -> Result<Stored, WriteError> {
        let deadline = Instant::now() + STORE_TIMEOUT;
        let can_repeat = batch.iter().all(|outgoing| outgoing.id.is_some());
        loop {
            let failure = match timeout_at(deadline, self.attempt(batch, fence)).await {
                Ok(Ok(stored)) => {
                    self.set_problem("");
                    return Ok(stored);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unknown("it does not answer in time".to_owned()),
            };
            let (reason, is_worth_it) = match failure {
                Failure::NotStored(reason) => (reason, true),
                Failure::Unknown(reason) => (reason, can_repeat),
                Failure::Repeated => ("a batch has an id twice".to_owned(), true),
                Failure::Fenced => return Err(WriteError::Fenced),
            };
            if !is_worth_it || Instant::now() + RETRY_PAUSE >= deadline {
                if self.set_problem(&reason) {
                    log::warn!("events are not stored in NATS: {reason}");
                }
                return Err(WriteError::Store(StoreError::Unavailable));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Returns whether it is another one than before.
    fn set_problem(&self, problem: &str) -> bool {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *known != problem;
        if is_new {
            problem.clone_into(&mut known);
        }
        is_new
    }

    async fn attempt(&self, batch: &[Outgoing], fence: Option<&Fence>) -> Result<Stored, Failure> {
        // What is published without a connection would be sent much later.
        if self.client.connection_state() != State::Connected {
            return Err(Failure::NotStored("it is not connected".to_owned()));
        }
        if batch.len() > 1 {
            match self.store_together(batch, fence).await {
                Err(Failure::Repeated) => {}
                stored => return stored,
            }
        }
        let mut stored = Stored { last: 0, is_new: Vec::with_capacity(batch.len()) };
        for outgoing in batch {
            let answer = self.send(outgoing, headers(outgoing, fence)).await.map_err(|failure| match failure {
                Failure::NotStored(reason) if !stored.is_new.is_empty() => Failure::Unknown(reason),
                failure @ (Failure::NotStored(_) | Failure::Unknown(_) | Failure::Repeated | Failure::Fenced) => {
                    failure
                }
            })?;
            stored.last = stored.last.max(answer.seq);
            stored.is_new.push(!answer.duplicate);
        }
        Ok(stored)
    }

    async fn store_together(&self, batch: &[Outgoing], fence: Option<&Fence>) -> Result<Stored, Failure> {
        let id = Uuid::new_v4().simple().to_string();
        let (last, others) = batch.split_last().expect("a batch has events");
        let headers = |number: usize, outgoing| {
            let mut headers = headers(outgoing, fence);
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (number + 1).to_string().as_str());
            headers
        };
        for (number, outgoing) in others.iter().enumerate() {
            let subject = entry::subject(&self.stream, &outgoing.content);
            let sent =
                self.client.publish_with_headers(subject, headers(number, outgoing), entry::payload(&outgoing.content));
            sent.await.map_err(|error| Failure::NotStored(error.to_string()))?;
        }
        let mut commit = headers(others.len(), last);
        commit.insert("Nats-Batch-Commit", "1");
        let answer = self.send(last, commit).await?;
        Ok(Stored { last: answer.seq, is_new: vec![true; batch.len()] })
    }

    /// Stores a fence, if the last message of its subject has the offset `expected`; 0 is none. Returns
    /// its offset, or `None` if another message is the last one.
    pub(super) async fn raise(
        &self,
        subject: &str,
        payload: Bytes,
        expected: Option<u64>,
    ) -> Result<Option<u64>, String> {
        if self.client.connection_state() != State::Connected {
            return Err("it is not connected".to_owned());
        }
        let mut headers = HeaderMap::new();
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected.to_string().as_str());
        }
        match self.request(subject.to_owned(), headers, payload).await {
            Ok(answer) => Ok(Some(answer.seq)),
            Err(Failure::Fenced) => Ok(None),
            Err(Failure::NotStored(reason) | Failure::Unknown(reason)) => Err(reason),
            Err(Failure::Repeated) => Err("it has an id twice".to_owned()),
        }
    }

    async fn send(&self, outgoing: &Outgoing, headers: HeaderMap) -> Result<Answer, Failure> {
        let subject = entry::subject(&self.stream, &outgoing.content);
        self.request(subject, headers, entry::payload(&outgoing.content)).await
    }

    async fn request(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Answer, Failure> {
        let request = Request::new().headers(headers).payload(payload).timeout(Some(ATTEMPT_TIMEOUT));
        let reply = self.client.send_request(subject, request).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders
            | RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded => Failure::NotStored(error.to_string()),
            RequestErrorKind::TimedOut | RequestErrorKind::Other => Failure::Unknown(error.to_string()),
        })?;
        let answer: Answer =
            serde_json::from_slice(&reply.payload).map_err(|error| Failure::Unknown(error.to_string()))?;
        match answer.error {
            None => Ok(answer),
            Some(refusal) if refusal.err_code == ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE.0 => {
                Err(Failure::Repeated)
            }
            Some(refusal) if refusal.err_code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE.0 => Err(Failure::Fenced),
            Some(refusal) => Err(Failure::NotStored(refusal.description)),
        }
    }
}

fn headers(outgoing: &Outgoing, fence: Option<&Fence>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(fence) = fence {
        headers.insert(EXPECTED, fence.offset.to_string().as_str());
        headers.insert(FENCE, fence.subject.as_str());
    }
    if let Some(id) = &outgoing.id {
        headers.insert(MSG_ID, entry::encode_id(id).as_str());
    }
    headers
}
