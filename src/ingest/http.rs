//! The Manager's listener: events in, figures out.

#[cfg(feature = "fault-injection")]
mod debug;
mod metrics;
mod stats;
mod token;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix_codec::{AsyncRead, AsyncWrite};
use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{
    App, HttpMessage, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{AppConfig, ServiceRequest, ServiceResponse},
    http::header,
    middleware::{Next, from_fn},
    web::{self, Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::Serialize;
use tokio_rustls::server::TlsStream;

pub use self::token::{Token, TokenError};
use super::{
    Intake,
    decode::{self, DecodeError, IncomingEvent},
};
use crate::{
    actors::Hub,
    stats::{Refused, Source},
    tls::{Acceptor, accept_plain},
};

/// How the Manager's listener behaves.
#[derive(Clone)]
pub struct Options {
    /// Who does not bring it is refused.
    pub token: Option<Arc<Token>>,
    /// Opens TLS; without it the Manager comes over plain TCP.
    pub tls: Option<Acceptor>,
    /// Bytes of a JSON body, and of one line of a stream.
    pub max_body: usize,
}

/// Serves the Manager on `listener` until the server is stopped.
pub fn serve(intake: Arc<Intake>, hub: Arc<Hub>, options: Options, listener: TcpListener) -> io::Result<Server> {
    // A Manager's stream may be open for as long as it lives: nothing here waits for it.
    let server = Server::build().workers(1).disable_signals().shutdown_timeout(1);
    let server = match options.tls.clone() {
        None => server.listen("manager", listener, move || {
            fn_service(accept_plain).and_then(http::<TcpStream>(&intake, &hub, &options))
        })?,
        Some(tls) => server.listen("manager", listener, move || {
            let tls = tls.clone();
            let http = http::<TlsStream<TcpStream>>(&intake, &hub, &options);
            fn_service(move |stream| tls.clone().accept(stream)).and_then(http)
        })?,
    };
    Ok(server.run())
}

/// What serves a connection once it is open.
fn http<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    intake: &Arc<Intake>,
    hub: &Arc<Hub>,
    options: &Options,
) -> impl ServiceFactory<
    (S, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> + use<S> {
    let app = App::new()
        .app_data(web::Data::from(intake.clone()))
        .app_data(web::Data::from(hub.clone()))
        .app_data(web::Data::new(options.clone()))
        .wrap(from_fn(authorize))
        .route("/api/events", web::post().to(events))
        .route("/api/stats", web::get().to(stats::stats))
        .route("/metrics", web::get().to(metrics::metrics))
        .default_service(web::to(HttpResponse::NotFound));
    #[cfg(feature = "fault-injection")]
    let app = app.route("/api/debug/panic", web::post().to(debug::panic));
    HttpService::build().finish(map_config(app, |_| AppConfig::default()))
}

async fn authorize(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let options = request.app_data::<web::Data<Options>>().expect("the options are part of the app");
    if let Some(token) = &options.token {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let refusal = match given.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(given) if token.matches(given) => None,
            Some(_) => Some(Problem::WrongToken),
            None => Some(Problem::NoToken),
        };
        if let Some(problem) = refusal {
            if let Some(intake) = request.app_data::<web::Data<Intake>>() {
                intake.stats().refused(Refused::Unauthorized).add(1);
            }
            return Ok(request.into_response(problem.respond(0)).map_into_boxed_body());
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

async fn events(
    request: HttpRequest,
    body: Payload,
    intake: web::Data<Intake>,
    options: web::Data<Options>,
) -> HttpResponse {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let (accepted, problem) = match request.content_type().to_ascii_lowercase().as_str() {
        "application/json" if announced.is_some_and(|length: u64| length > options.max_body as u64) => {
            (0, Some(Problem::TooLarge { line: None, limit: options.max_body }))
        }
        "application/json" => match whole(body, &intake, options.max_body).await {
            Ok(accepted) => (accepted, None),
            Err(problem) => (0, Some(problem)),
        },
        "application/x-ndjson" => Stream::new(&intake, options.max_body).run(body).await,
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

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

/// One event or an array: all of it or nothing.
async fn whole(mut body: Payload, intake: &Intake, max_body: usize) -> Result<usize, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::Interrupted)?;
        if bytes.len() + chunk.len() > max_body {
            return Err(Problem::TooLarge { line: None, limit: max_body });
        }
        bytes.extend_from_slice(&chunk);
    }
    let events = decode::decode_body(&bytes).map_err(|error| Problem::Bad {
        error: error.error,
        index: error.index,
        line: None,
    })?;
    let count = events.len();
    intake.submit(Source::Http, events).await.map_err(|_| Problem::Overloaded)?;
    Ok(count)
}

/// One event per line, published as the lines arrive.
struct Stream<'a> {
    intake: &'a Intake,
    max_line: usize,
    /// What has arrived of a line that is not complete.
    rest: BytesMut,
    line: usize,
    accepted: usize,
}

impl<'a> Stream<'a> {
    fn new(intake: &'a Intake, max_line: usize) -> Self {
        Self { intake, max_line, rest: BytesMut::new(), line: 0, accepted: 0 }
    }

    /// Returns how many events were accepted, and what ended it early.
    async fn run(mut self, mut body: Payload) -> (usize, Option<Problem>) {
        let problem = loop {
            let step = match body.next().await {
                Some(Ok(chunk)) => self.chunk(chunk).await,
                Some(Err(_)) => Err(Problem::Interrupted),
                None => {
                    let last = self.rest.split();
                    break self.lines([&last[..]].into_iter()).await.err();
                }
            };
            if let Err(problem) = step {
                break Some(problem);
            }
        };
        (self.accepted, problem)
    }

    async fn chunk(&mut self, chunk: Bytes) -> Result<(), Problem> {
        // Only what is new can hold the end of a line: work stays linear however small the chunks are.
        match chunk.iter().rposition(|&byte| byte == b'\n') {
            Some(end) => {
                self.rest.extend_from_slice(&chunk[..end]);
                let complete = self.rest.split();
                self.rest.extend_from_slice(&chunk[end + 1..]);
                self.lines(complete[..].split(|&byte| byte == b'\n')).await?;
            }
            None => self.rest.extend_from_slice(&chunk),
        }
        if self.rest.len() > self.max_line {
            return Err(Problem::TooLarge { line: Some(self.line + 1), limit: self.max_line });
        }
        Ok(())
    }

    /// Publishes these lines up to the first bad one.
    async fn lines(&mut self, lines: impl Iterator<Item = &[u8]>) -> Result<(), Problem> {
        let mut events: Vec<IncomingEvent> = Vec::new();
        let mut problem = None;
        for line in lines {
            self.line += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.len() > self.max_line {
                problem = Some(Problem::TooLarge { line: Some(self.line), limit: self.max_line });
                break;
            }
            match decode::decode_event(line) {
                Ok(event) => events.push(event),
                Err(error) => {
                    problem = Some(Problem::Bad { error, index: None, line: Some(self.line) });
                    break;
                }
            }
        }
        let count = events.len();
        if count > 0 {
            self.intake.submit(Source::Http, events).await.map_err(|_| Problem::Overloaded)?;
            self.accepted += count;
        }
        problem.map_or(Ok(()), Err)
    }
}

/// Why a request to the Manager's listener is not done.
#[derive(Debug)]
enum Problem {
    NoToken,
    WrongToken,
    MediaType,
    TooLarge { line: Option<usize>, limit: usize },
    Bad { error: DecodeError, index: Option<usize>, line: Option<usize> },
    Overloaded,
    Interrupted,
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

impl Problem {
    fn counted(&self) -> Option<Refused> {
        match self {
            Self::NoToken | Self::WrongToken => Some(Refused::Unauthorized),
            Self::MediaType => Some(Refused::MediaType),
            Self::TooLarge { .. } => Some(Refused::TooLarge),
            Self::Bad { error: DecodeError::NotJson { .. }, .. } => Some(Refused::BadJson),
            Self::Bad { error: DecodeError::Invalid { .. }, .. } => Some(Refused::InvalidEvent),
            // The intake counts it.
            Self::Overloaded | Self::Interrupted => None,
        }
    }

    fn respond(&self, accepted: usize) -> HttpResponse {
        let (mut response, error) = match self {
            Self::NoToken => {
                let mut response = HttpResponse::Unauthorized();
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
                (response, "no token: send it as `Authorization: Bearer <token>`".to_owned())
            }
            Self::WrongToken => (HttpResponse::Forbidden(), "the token is not the one that this server has".to_owned()),
            Self::MediaType => (
                HttpResponse::UnsupportedMediaType(),
                "the content type must be application/json or application/x-ndjson".to_owned(),
            ),
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
                (response, super::Overloaded.to_string())
            }
            Self::Interrupted => (HttpResponse::BadRequest(), "the request ended before its body did".to_owned()),
        };
        let (index, line) = match self {
            Self::Bad { index, line, .. } => (*index, *line),
            Self::TooLarge { line, .. } => (None, *line),
            Self::NoToken | Self::WrongToken | Self::MediaType | Self::Overloaded | Self::Interrupted => (None, None),
        };
        response.json(Report { error: &error, index, line, field: self.field(), accepted })
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Bad { error: DecodeError::Invalid { field, .. }, .. } => Some(field),
            Self::NoToken
            | Self::WrongToken
            | Self::MediaType
            | Self::TooLarge { .. }
            | Self::Bad { .. }
            | Self::Overloaded
            | Self::Interrupted => None,
        }
    }
}
