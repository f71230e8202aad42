//! The Manager's port: accepts events and serves metrics, health and its own description.

mod console;
#[cfg(feature = "fault-injection")]
mod debug;
mod documents;
mod events;
mod metrics;
mod samples;
mod stats;
mod tail;
mod token;

use std::{future::ready, io, mem, path::PathBuf, sync::Arc};

use actix_http::{Response, error::DispatchError};
use actix_rt::net::TcpStream;
#[cfg(unix)]
use actix_rt::net::UnixStream;
use actix_server::{Server, ServerHandle};
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_service};
use actix_web::{
    App, HttpRequest, HttpResponse, Resource, Route,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn},
    web,
};
use clap::Args;
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

pub use self::token::{Token, TokenError};
use self::{
    events::Incomplete,
    samples::Samples,
    token::{Guesses, HOLD},
};
use crate::{
    actors::Hub,
    clock,
    forwarded::Host,
    http::{self, Admission, HttpLimits, Opened},
    ingest::{EventSource, Intake, SourceContext},
    options::{ListenAddress, at_least_one, heading, listen_address},
    stats::{Refused, Source},
    system::Listener,
    tls::Acceptor,
};

/// The response for an unknown path: which paths exist.
const CONTENTS: &str = "this is the Manager's port: it answers GET and POST /api/events, GET /api/stats, GET /metrics and \
    GET /healthz, has a console at /, and describes itself in /api/openapi.json; browsers connect to the other port\n";

/// The options of the Manager's listener.
#[derive(Debug, Clone, Args)]
pub struct ManagerPortOptions {
    /// Address for the Manager, or unix:/PATH of a socket; repeatable; port 0 picks a free port. Beyond
    /// loopback it needs --manager-token-file
    #[arg(id = "manager-listen", long = "manager-listen", value_name = "ADDR:PORT", env = "WEBUPDATES_MANAGER_LISTEN", default_value = "127.0.0.1:8082", value_delimiter = ',', value_parser = listen_address, help_heading = heading::LISTENING)]
    pub listen: Vec<ListenAddress>,

    /// File with the token that the Manager must send as `Authorization: Bearer <token>`: one line of
    /// at least 16 ASCII characters. SIGHUP reloads it
    #[arg(id = "manager-token-file", long = "manager-token-file", value_name = "FILE", env = "WEBUPDATES_MANAGER_TOKEN_FILE", help_heading = heading::LISTENING)]
    pub token_file: Option<PathBuf>,

    /// Certificate for the Manager's port, as PEM; may be the same file. SIGHUP reloads it
    #[arg(id = "manager-tls-cert", long = "manager-tls-cert", value_name = "FILE", env = "WEBUPDATES_MANAGER_TLS_CERT", help_heading = heading::LISTENING, hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --manager-tls-cert, as PEM
    #[arg(id = "manager-tls-key", long = "manager-tls-key", value_name = "FILE", env = "WEBUPDATES_MANAGER_TLS_KEY", help_heading = heading::LISTENING, hide_short_help = true)]
    pub tls_key: Option<PathBuf>,

    /// Maximum size of the Manager's JSON body, or of one line of a stream
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_BODY", default_value_t = 16_777_216, value_parser = at_least_one(), help_heading = heading::EVENTS, hide_short_help = true)]
    pub max_body: usize,
}

/// What the Manager's listener works with.
#[derive(Clone)]
pub struct Settings {
    /// The HTTP limits of every connection.
    pub limits: HttpLimits,
    /// The token that requests must carry.
    pub token: Option<Arc<Token>>,
    /// Accepts TLS. Without it the Manager connects over plain TCP.
    pub tls: Option<Acceptor>,
    /// The maximum size of a JSON body, and of one line of a stream, in bytes.
    pub max_body: usize,
}

/// The Manager's port as a source.
pub struct ManagerPort {
    stage: Stage,
}

enum Stage {
    Opened(Vec<Listener>, Settings),
    /// The sender ends the readers of the history.
    Serving(ServerHandle, watch::Sender<bool>),
    Ended,
}

impl ManagerPort {
    pub fn new(listeners: Vec<Listener>, settings: Settings) -> Self {
        Self { stage: Stage::Opened(listeners, settings) }
    }
}

impl EventSource for ManagerPort {
    fn name(&self) -> Source {
        Source::Http
    }

    fn start<'a>(&'a mut self, context: &'a SourceContext) -> LocalBoxFuture<'a, io::Result<()>> {
        let Stage::Opened(listeners, settings) = mem::replace(&mut self.stage, Stage::Ended) else {
            return Box::pin(ready(Ok(())));
        };
        let samples = Arc::new(Samples::new(context.hub.stats));
        let (kept, hub) = (samples.clone(), context.hub.clone());
        context.hub.supervisor.keep("samples", move |_| kept.clone().keep(hub.clone()));
        let (stop, stopped) = watch::channel(false);
        let shared = Shared { intake: context.intake.clone(), hub: context.hub.clone(), samples, stopped, settings };
        let started = serve(shared, listeners).map(|server| {
            self.stage = Stage::Serving(server.handle(), stop);
            context.hub.supervisor.run_for_good("the Manager's listener", async move { drop(server.await) });
        });
        Box::pin(ready(started))
    }

    /// Finishes the requests that have arrived.
    fn drain(&mut self) -> LocalBoxFuture<'_, ()> {
        match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Serving(server, stop) => {
                let _ = stop.send(true);
                Box::pin(server.stop(true))
            }
            Stage::Opened(..) | Stage::Ended => Box::pin(ready(())),
        }
    }
}

/// What the requests of all connections share.
#[derive(Clone)]
struct Shared {
    intake: Arc<Intake>,
    hub: Arc<Hub>,
    samples: Arc<Samples>,
    stopped: watch::Receiver<bool>,
    settings: Settings,
}

/// Serves the Manager on `listeners` until the server stops.
fn serve(shared: Shared, listeners: Vec<Listener>) -> io::Result<Server> {
    // A Manager's stream may stay open as long as it lives, so the shutdown does not wait for it.
    let mut server = Server::build().workers(1).disable_signals().shutdown_timeout(1);
    for listener in listeners {
        let shared = shared.clone();
        server = match (listener, shared.settings.tls.clone()) {
            (Listener::Tcp(listener), None) => {
                server.listen("manager", listener, move || plain::<TcpStream>(&shared))?
            }
            (Listener::Tcp(listener), Some(tls)) => server.listen("manager", listener, move || {
                let tls = tls.clone();
                let http = http::<TlsStream<TcpStream>>(&shared);
                fn_service(move |stream| tls.clone().accept(stream)).map(open).and_then(http)
            })?,
            #[cfg(unix)]
            (Listener::Unix(listener), _) => {
                server.listen_uds("manager", listener, move || plain::<UnixStream>(&shared))?
            }
        };
    }
    Ok(server.run())
}

fn open<S: http::Stream>(stream: S) -> Opened<S> {
    http::open(stream, Admission::default())
}

/// Creates the service of connections without TLS.
fn plain<S: http::Stream>(
    shared: &Shared,
) -> impl ServiceFactory<S, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<S> {
    fn_service(async |stream| Ok(open(stream))).and_then(http(shared))
}

/// Creates the service of an open connection.
fn http<S: http::Stream>(
    shared: &Shared,
) -> impl ServiceFactory<Opened<S>, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<S> {
    let Shared { intake, hub, samples, stopped, settings } = shared;
    let app = App::new()
        .app_data(web::Data::from(intake.clone()))
        .app_data(web::Data::from(hub.clone()))
        .app_data(web::Data::new(settings.clone()))
        .app_data(web::Data::from(samples.clone()))
        .app_data(web::Data::new(stopped.clone()))
        .app_data(web::Data::new(console::Files::new()))
        .app_data(web::Data::new(Guesses::default()))
        .app_data(web::Data::new(Incomplete::default()))
        .wrap(from_fn(authorize))
        .configure(|app| {
            for path in resources() {
                app.service(path.build());
            }
        })
        .default_service(web::to(async || not_found()));
    #[cfg(feature = "fault-injection")]
    let app = app.route("/api/debug/panic", web::post().to(debug::panic));
    http::service(app, settings.limits, hub.stats, async |_, framed| {
        let response = Response::build(StatusCode::NOT_FOUND).content_type("text/plain").finish().drop_body();
        http::finish(framed, response, CONTENTS.into()).await
    })
}

/// A path of the port, with the handler of each method.
struct Path {
    path: &'static str,
    /// The methods as `Allow` lists them.
    allow: &'static str,
    routes: Vec<Route>,
}

impl Path {
    /// Creates a path that answers `GET` and `HEAD`.
    fn get(path: &'static str, handler: fn() -> Route) -> Self {
        Self { path, allow: "GET, HEAD", routes: vec![handler().method(Method::GET), handler().method(Method::HEAD)] }
    }

    /// Creates the resource, which answers other methods with 405.
    fn build(self) -> Resource {
        let allow = self.allow;
        let resource = self.routes.into_iter().fold(web::resource(self.path), Resource::route);
        resource.default_service(web::to(move || ready(http::method_not_allowed(allow))))
    }
}

/// Returns all paths of the port; `documents/openapi.json` describes them.
fn resources() -> [Path; 13] {
    let events = vec![web::post().to(events::events), web::get().to(tail::tail)];
    [
        Path { path: "/api/events", allow: "GET, POST", routes: events },
        Path::get("/api/stats", || web::to(stats::stats)),
        Path::get("/api/sessions", || web::to(console::sessions)),
        Path { path: "/api/sessions/{id}", allow: "DELETE", routes: vec![web::delete().to(console::disconnect)] },
        Path::get("/api/rooms", || web::to(console::rooms)),
        Path::get("/api/history", || web::to(console::history)),
        Path { path: "/api/drain", allow: "POST", routes: vec![web::post().to(console::drain)] },
        Path::get(documents::OPENAPI, || web::to(documents::document)),
        Path::get(documents::ASYNCAPI, || web::to(documents::document)),
        Path::get("/", || web::to(console::page)),
        Path::get("/console/{name}", || web::to(console::file)),
        Path::get("/metrics", || web::to(metrics::metrics)),
        Path::get("/healthz", || web::to(health)),
    ]
}

fn not_found() -> HttpResponse {
    HttpResponse::NotFound().content_type("text/plain").body(CONTENTS)
}

async fn health(hub: web::Data<Hub>) -> HttpResponse {
    let (is_well, text) = hub.health().await;
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).content_type("text/plain").body(text)
}

/// Admits requests with the token or, without a configured token, programs on this machine. Pages
/// in a browser on this machine are refused, whatever host name they use.
async fn authorize(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let settings = request.app_data::<web::Data<Settings>>().expect("the settings are part of the app");
    let refusal = match &settings.token {
        Some(_) if console::is_page(request.path()) || documents::is_document(request.path()) => None,
        Some(token) => {
            let guesses = request.app_data::<web::Data<Guesses>>().expect("they are part of the app");
            check_token(request.request(), token, guesses).await
        }
        None => check_page(request.request()),
    };
    let Some(refusal) = refusal else { return Ok(next.call(request).await?.map_into_boxed_body()) };
    if let Some(intake) = request.app_data::<web::Data<Intake>>() {
        intake.stats().refused(Refused::Unauthorized).add(1);
    }
    Ok(request.into_response(refusal.respond()).map_into_boxed_body())
}

async fn check_token(request: &HttpRequest, token: &Token, guesses: &Guesses) -> Option<NotAuthorized> {
    let peer = request.peer_addr();
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // The scheme's case and the number of spaces do not matter (RFC 9110 §11.4).
    let given = given.and_then(|value| value.trim().split_once(' '));
    let Some((_, given)) = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Some(NotAuthorized::NoToken);
    };
    if guesses.hold(peer, clock::now()) {
        actix_rt::time::sleep(HOLD).await;
    }
    if token.matches(given.trim_start()) {
        guesses.know(peer);
        return None;
    }
    guesses.count(peer, clock::now());
    Some(NotAuthorized::WrongToken)
}

fn check_page(request: &HttpRequest) -> Option<NotAuthorized> {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().ok().and_then(Host::parse));
    match host {
        _ if is_of_another_page(request) => Some(NotAuthorized::Page),
        Some(host) if !host.is_some_and(|host| host.is_loopback()) => Some(NotAuthorized::Host),
        Some(_) | None => None,
    }
}

/// Returns whether a page sends this request, unless it is the server's own. A link to the console may be
/// followed from anywhere.
fn is_of_another_page(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let value = |name: &str| headers.get(name).map(|value| value.as_bytes());
    if let Some(origin) = headers.get(header::ORIGIN) {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = host.map(|host| [format!("http://{host}"), format!("https://{host}")]);
        return !own.is_some_and(|own| own.iter().any(|own| origin.as_bytes() == own.as_bytes()));
    }
    matches!(value("sec-fetch-site"), Some(b"cross-site" | b"same-site"))
        && !(value("sec-fetch-mode") == Some(b"navigate") && console::is_page(request.path()))
}

/// Why a request is not authorised, whatever its path.
#[derive(Debug, Clone, Copy)]
enum NotAuthorized {
    NoToken,
    WrongToken,
    Page,
    Host,
}

#[derive(Serialize)]
struct Report {
    error: &'static str,
    accepted: usize,
}

impl NotAuthorized {
    fn respond(self) -> HttpResponse {
        let (mut response, error) = match self {
            Self::NoToken => {
                let mut response = HttpResponse::Unauthorized();
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
                (response, "no token: send it as `Authorization: Bearer <token>`")
            }
            Self::WrongToken => (HttpResponse::Forbidden(), "the token is not the one that this server has"),
            Self::Page => (
                HttpResponse::Forbidden(),
                "pages may not use the Manager's port; give it a token with --manager-token-file",
            ),
            Self::Host => (
                HttpResponse::MisdirectedRequest(),
                "without a token the Manager's port answers only for localhost and 127.0.0.1; see --manager-token-file",
            ),
        };
        response.json(Report { error, accepted: 0 })
    }
}
