//! `GET /api/events`: the events of the history and those that follow, one per line.

use std::{io, time::Duration};

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{self, Bytes},
};
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    actors::{
        Hub,
        messages::{Read, ReadHistory, Since},
    },
    clock,
    history::{Lost, Recorded, Token},
};

/// Roughly the maximum size of the lines that wait for a reader, in bytes.
const CHUNK: usize = 256 * 1024;

/// An empty line is sent after this time without events, so that each end notices when the other is
/// gone.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TailQuery {
    /// The id of the last event that the reader has, or `oldest`.
    since: Option<String>,
}

/// A line. It can be posted to `/api/events` as it is.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    offset: u64,
    time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    payload: &'a RawValue,
}

#[derive(Serialize)]
struct Refusal {
    error: &'static str,
}

/// A reader between two chunks.
struct Tail {
    hub: web::Data<Hub>,
    stopped: watch::Receiver<bool>,
    read: Read,
}

pub(super) async fn tail(
    hub: web::Data<Hub>,
    stopped: web::Data<watch::Receiver<bool>>,
    query: web::Query<TailQuery>,
) -> HttpResponse {
    let since = match query.since.as_deref() {
        None => Since::Now,
        Some("oldest") => Since::Oldest,
        Some(id) => match id.parse() {
            Ok(token) => Since::Token(token),
            Err(_) => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "since is neither the id of an event of this server nor oldest",
                );
            }
        },
    };
    match read(&hub, since).await {
        Ok(first) => {
            let tail = Tail { hub, stopped: (**stopped).clone(), read: first };
            let chunks = stream::try_unfold(tail, |tail| tail.next());
            HttpResponse::Ok().content_type("application/x-ndjson").streaming(chunks)
        }
        Err(Some(lost)) => refuse(StatusCode::GONE, lost_events(lost)),
        Err(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    }
}

fn refuse(status: StatusCode, error: &'static str) -> HttpResponse {
    HttpResponse::build(status).json(Refusal { error })
}

fn lost_events(lost: Lost) -> &'static str {
    match lost {
        Lost::Epoch => "the server was restarted since that event, so what followed it is not known",
        Lost::TooOld | Lost::TooMany | Lost::NotFollowed => {
            "what followed that event is no longer in the history; --history sets its size"
        }
    }
}

async fn read(hub: &Hub, since: Since) -> Result<Read, Option<Lost>> {
    // Without a registry the server is stopping.
    hub.registry.send(ReadHistory { since, max_bytes: CHUNK }).await.map_err(|_| None)?.map_err(Some)
}

impl Tail {
    /// Returns the next lines, or `None` when the server stops. An error ends the connection early,
    /// so that the reader connects again and learns what is lost.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            if !self.read.events.is_empty() {
                let lines = encode(&self.read.events);
                self.advance().await?;
                return Ok(Some((lines, self)));
            }
            let Some(more) = self.read.more.take() else {
                self.advance().await?;
                continue;
            };
            let stopped = async { drop(self.stopped.wait_for(|is_stopped| *is_stopped).await) };
            let is_quiet = tokio::select! {
                _ = more => false,
                () = actix_rt::time::sleep(HEARTBEAT) => true,
                () = stopped => return Ok(None),
            };
            self.advance().await?;
            if is_quiet {
                return Ok(Some((Bytes::from_static(b"\n"), self)));
            }
        }
    }

    async fn advance(&mut self) -> io::Result<()> {
        let next: Token = self.read.next;
        self.read = read(&self.hub, Since::Token(next)).await.map_err(|lost| match lost {
            Some(lost) => io::Error::other(lost_events(lost)),
            None => io::Error::other("the server is stopping"),
        })?;
        Ok(())
    }
}

fn encode(events: &[Recorded]) -> Bytes {
    let (now, wall) = (clock::now(), Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH));
    let mut lines = Vec::new();
    for Recorded { token, offset, at, event } in events {
        let age = SignedDuration::try_from(now.saturating_duration_since(*at)).unwrap_or(SignedDuration::ZERO);
        let time = wall.saturating_sub(age).unwrap_or(wall);
        let payload = serde_json::from_str(event.json()).expect("an event is JSON");
        let line = Line {
            id: token.to_string(),
            offset: *offset,
            time: format!("{time:.3}"),
            kind: event.kind().as_str(),
            payload,
        };
        serde_json::to_writer(&mut lines, &line).expect("texts and numbers serialize");
        lines.push(b'\n');
    }
    lines.into()
}
