//! `POST /api/events`: one event, an array, or one event per line.

use std::{
    io,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    error::PayloadError,
    http::header,
    web::{self, BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::Serialize;
use tokio_util::codec::Decoder as _;

use super::Settings;
use crate::{
    backplane::StoreError,
    farm::{DecodeError, IncomingEvent, decode},
    http::{self, Pace},
    ingest::{
        Intake, SubmitError,
        lines::{Line, LineDecoder, LineError},
    },
    stats::{Refused, Source},
};

/// The maximum total size of incomplete bodies, in bodies of the maximum size.
const MAX_INCOMPLETE: usize = 4;

pub(super) async fn events(
    request: HttpRequest,
    body: Payload,
    intake: web::Data<Intake>,
    settings: web::Data<Settings>,
    incomplete: web::Data<Incomplete>,
) -> HttpResponse {
    let mut buffered = incomplete.share(settings.max_body);
    let pace = request.conn_data::<Rc<Pace>>().expect("every connection has one");
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let is_encoded =
        encodings.into_iter().any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    let (accepted, problem) = match request.content_type().to_ascii_lowercase().as_str() {
        _ if is_encoded => (0, Some(Problem::ContentEncoding)),
        "application/json" if announced.is_some_and(|length: u64| length > settings.max_body as u64) => {
            (0, Some(Problem::TooLarge { line: None, limit: settings.max_body }))
        }
        "application/json" => match whole(body, &intake, settings.max_body, &mut buffered).await {
            Ok(accepted) => (accepted, None),
            Err(problem) => (0, Some(problem)),
        },
        "application/x-ndjson" => Stream::new(&intake, settings.max_body, buffered).run(body, pace).await,
        _ => (0, Some(Problem::MediaType)),
    };
    match problem {
        None => HttpResponse::Ok().json(Accepted { accepted }),
        Some(problem) => {
            if let Some(reason) = problem.counted() {
                intake.stats().refused(reason).add(1);
            }
            problem.respond(accepted)
        }
    }
}

/// Bytes of incomplete bodies and lines, over all connections.
#[derive(Debug, Default)]
pub(super) struct Incomplete(AtomicUsize);

impl Incomplete {
    /// Starts a share of the budget, which holds nothing yet.
    fn share(&self, max_body: usize) -> Buffered<'_> {
        Buffered { of: self, max: max_body.saturating_mul(MAX_INCOMPLETE), bytes: 0 }
    }
}

/// The incomplete bytes of one connection.
struct Buffered<'a> {
    of: &'a Incomplete,
    max: usize,
    bytes: usize,
}

impl Buffered<'_> {
    /// Sets the number of bytes that the connection holds.
    fn set(&mut self, bytes: usize) -> Result<(), Problem> {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let fits = |all: usize| all.checked_add(more).filter(|all| *all <= self.max);
            let added = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
            added.map_err(|_| Problem::TooMuch)?;
        } else {
            self.of.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

/// Publishes one event or an array, entirely or not at all.
async fn whole(
    mut body: Payload,
    intake: &Intake,
    max_body: usize,
    buffered: &mut Buffered<'_>,
) -> Result<usize, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Problem::of(&error))?;
        if bytes.len() + chunk.len() > max_body {
            return Err(Problem::TooLarge { line: None, limit: max_body });
        }
        buffered.set(bytes.len() + chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    let events = decode::decode_body(&bytes).map_err(|error| Problem::Bad {
        error: error.error,
        index: error.index,
        line: None,
    })?;
    let count = events.len();
    intake.submit(Source::Http, events).await?;
    Ok(count)
}

/// Publishes one event per line, as the lines arrive.
struct Stream<'a> {
    intake: &'a Intake,
    lines: LineDecoder,
    /// The received part of an incomplete line.
    rest: BytesMut,
    buffered: Buffered<'a>,
    accepted: usize,
}

impl<'a> Stream<'a> {
    fn new(intake: &'a Intake, max_line: usize, buffered: Buffered<'a>) -> Self {
        Self { intake, lines: LineDecoder::new(max_line), rest: BytesMut::new(), buffered, accepted: 0 }
    }

    /// Returns how many events were accepted, and the error that ended the body early.
    async fn run(mut self, mut body: Payload, pace: &Pace) -> (usize, Option<Problem>) {
        let problem = loop {
            // Events may arrive at any rate, and each is published at once.
            pace.set_patient(self.rest.is_empty());
            let step = match body.next().await {
                Some(Ok(chunk)) => {
                    self.rest.extend_from_slice(&chunk);
                    self.publish(LineDecoder::decode).await
                }
                Some(Err(error)) => Err(Problem::of(&error)),
                None => break self.publish(LineDecoder::decode_eof).await.err(),
            };
            if let Err(problem) = step {
                break Some(problem);
            }
        };
        (self.accepted, problem)
    }

    /// Publishes the lines that are complete, up to the first invalid one.
    async fn publish(
        &mut self,
        decode: impl Fn(&mut LineDecoder, &mut BytesMut) -> io::Result<Option<Line>>,
    ) -> Result<(), Problem> {
        let mut events: Vec<IncomingEvent> = Vec::new();
        let mut problem = None;
        while let Some(Line { number, event }) =
            decode(&mut self.lines, &mut self.rest).map_err(|_| Problem::Interrupted)?
        {
            match event {
                Ok(event) => events.push(event),
                Err(error) => {
                    problem = Some(match error {
                        LineError::TooLong { limit } => Problem::TooLarge { line: Some(number), limit },
                        LineError::Bad(error) => Problem::Bad { error, index: None, line: Some(number) },
                    });
                    break;
                }
            }
        }
        let count = events.len();
        if count > 0 {
            self.intake.submit(Source::Http, events).await?;
            self.accepted += count;
        }
        problem.map_or(Ok(()), Err)?;
        if self.rest.is_empty() {
            // Its memory may be that of a long line.
            self.rest = BytesMut::new();
        }
        self.buffered.set(self.rest.len())
    }
}

/// Why events are not accepted.
#[derive(Debug)]
enum Problem {
    MediaType,
    ContentEncoding,
    TooLarge { line: Option<usize>, limit: usize },
    Bad { error: DecodeError, index: Option<usize>, line: Option<usize> },
    Overloaded,
    NotStored,
    TooMuch,
    Interrupted,
    TooSlow,
}

#[derive(Serialize)]
struct Report<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    accepted: usize,
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Overloaded => Self::Overloaded,
            SubmitError::Store(StoreError::Unavailable) => Self::NotStored,
            SubmitError::Store(StoreError::TooLarge { limit }) => Self::TooLarge { line: None, limit },
        }
    }
}

impl Problem {
    fn of(error: &PayloadError) -> Self {
        if http::is_too_slow(error) { Self::TooSlow } else { Self::Interrupted }
    }

    fn counted(&self) -> Option<Refused> {
        match self {
            Self::MediaType | Self::ContentEncoding => Some(Refused::MediaType),
            Self::TooLarge { .. } => Some(Refused::TooLarge),
            Self::Bad { error: DecodeError::NotJson { .. }, .. } => Some(Refused::BadJson),
            Self::Bad { error: DecodeError::Invalid { .. }, .. } => Some(Refused::InvalidEvent),
            Self::TooMuch => Some(Refused::Overloaded),
            Self::NotStored => Some(Refused::NotStored),
            // The intake or the reader of the body counts it.
            Self::Overloaded | Self::Interrupted | Self::TooSlow => None,
        }
    }

    fn respond(&self, accepted: usize) -> HttpResponse {
        let (mut response, error) = match self {
            Self::MediaType => (
                HttpResponse::UnsupportedMediaType(),
                "the content type must be application/json or application/x-ndjson".to_owned(),
            ),
            Self::ContentEncoding => {
                let mut response = HttpResponse::UnsupportedMediaType();
                response.insert_header((header::ACCEPT_ENCODING, "identity"));
                (response, "the body must not be compressed: send it without Content-Encoding".to_owned())
            }
            Self::TooLarge { limit, .. } => {
                (HttpResponse::PayloadTooLarge(), format!("more than {limit} bytes at once"))
            }
            Self::Bad { error: error @ DecodeError::NotJson { .. }, .. } => {
                (HttpResponse::BadRequest(), error.to_string())
            }
            Self::Bad { error: error @ DecodeError::Invalid { .. }, .. } => {
                (HttpResponse::UnprocessableEntity(), error.to_string())
            }
            Self::Overloaded => {
                let mut response = HttpResponse::ServiceUnavailable();
                response.insert_header((header::RETRY_AFTER, "1"));
                (response, SubmitError::Overloaded.to_string())
            }
            Self::NotStored => {
                let mut response = HttpResponse::ServiceUnavailable();
                response.insert_header((header::RETRY_AFTER, "1"));
                (response, StoreError::Unavailable.to_string())
            }
            Self::TooMuch => {
                let mut response = HttpResponse::ServiceUnavailable();
                response.insert_header((header::RETRY_AFTER, "1"));
                (response, "too many requests are incomplete, try again later".to_owned())
            }
            Self::Interrupted => (HttpResponse::BadRequest(), "the request ended before its body did".to_owned()),
            Self::TooSlow => (HttpResponse::RequestTimeout(), "the request arrives too slowly".to_owned()),
        };
        let (index, line) = match self {
            Self::Bad { index, line, .. } => (*index, *line),
            Self::TooLarge { line, .. } => (None, *line),
            Self::MediaType
            | Self::ContentEncoding
            | Self::Overloaded
            | Self::NotStored
            | Self::TooMuch
            | Self::Interrupted
            | Self::TooSlow => (None, None),
        };
        response.json(Report { error: &error, index, line, field: self.field(), accepted })
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Bad { error: DecodeError::Invalid { field, .. }, .. } => Some(field),
            Self::MediaType
            | Self::ContentEncoding
            | Self::TooLarge { .. }
            | Self::Bad { .. }
            | Self::Overloaded
            | Self::NotStored
            | Self::TooMuch
            | Self::Interrupted
            | Self::TooSlow => None,
        }
    }
}
