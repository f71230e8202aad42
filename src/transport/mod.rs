//! The browsers' listener: HTTP, and WebSockets taken over from it. The only code that knows HTTP and frames on this side.

mod addresses;
mod auth;
mod connections;
mod frames;
mod handshake;
mod pace;
mod polling;
mod upgrade;
mod websocket;
mod worker;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{
    ConnectionType, HttpService, KeepAlive, Protocol, Request, RequestHead, Response, StatusCode, body::BodySize,
    error::DispatchError, h1, header, ws,
};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{Service as _, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory, fn_service, map_config};
use actix_web::{
    App, HttpMessage as _, HttpResponse,
    body::MessageBody,
    dev::{AppConfig, ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    web,
};
use bytes::Bytes;
use futures_util::SinkExt;
use tokio_rustls::server::TlsStream;

pub use self::{
    addresses::TrustedProxy,
    auth::Auth,
    handshake::{Origins, parse_origin, parse_path},
};
use self::{
    addresses::{Addresses, Admission},
    auth::Guard,
    frames::Messages,
    handshake::Refusal,
    pace::{Pace, Paced},
    polling::{Pollers, Probe, ProbeError},
    websocket::{Opened, Stream},
    worker::Worker,
};
use crate::{
    actors::Hub,
    protocol::{HandshakeError, HandshakeQuery, TransportName},
    proxy::{self, Proxy, Upstream},
    stats::Source,
    tls::{Acceptor, accept_plain},
};

/// Where the server says whether it is well.
const HEALTH_PATH: &str = "/healthz";

/// Connections that the kernel holds until they are accepted: a whole farm's browsers come back at once.
const BACKLOG: u32 = 4096;

/// How the browsers' listener behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where Socket.IO lives, as [`parse_path`] gives it; a slash may follow.
    pub path: String,
    pub workers: usize,
    pub origins: Origins,
    pub max_sessions: usize,
    pub max_sessions_per_address: usize,
    /// Connections that are no WebSockets.
    pub max_http_connections: usize,
    /// Who may say where a request comes from.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Bytes of a browser's message.
    pub max_message: usize,
    /// How long a request's head may take to arrive.
    pub handshake_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Opens TLS; without it browsers come over plain TCP.
    pub tls: Option<Acceptor>,
    /// Who is asked whether a browser may come in; without it all may.
    pub auth: Option<Auth>,
    /// Where requests go that are not ours; without it they are not found.
    pub proxy: Option<Proxy>,
}

/// What all requests of browsers come through.
struct Door {
    hub: Arc<Hub>,
    options: Options,
    pollers: Pollers,
    addresses: Arc<Addresses>,
}

impl Door {
    /// Lets a new session in, on the current worker.
    fn enter(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Result<(Rc<Worker>, Admission), Refusal> {
        if self.hub.workers.is_closing() {
            return Err(Refusal::Stopping);
        }
        let presence = self.hub.stats.sessions.enter(self.options.max_sessions).ok_or(Refusal::Full)?;
        // Who is gone already has no address, and takes no place for long.
        let peer = peer.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let address = addresses::client(head, peer, &self.options.trusted_proxies);
        let guest = self.addresses.enter(address, self.options.max_sessions_per_address).ok_or(Refusal::AddressFull)?;
        Ok((self.worker()?, Admission { _presence: presence, _guest: guest }))
    }

    fn worker(&self) -> Result<Rc<Worker>, Refusal> {
        Worker::current(&self.hub).ok_or(Refusal::Full)
    }
}

/// Serves browsers on `listener` until the server is stopped.
pub fn serve(hub: Arc<Hub>, options: Options, listener: TcpListener) -> io::Result<Server> {
    let max_connections = options.max_http_connections + connections::MAX_TURNED_AWAY;
    let server = Server::build()
        .workers(options.workers)
        .max_concurrent_connections(max_connections)
        .backlog(BACKLOG)
        .disable_signals()
        .shutdown_timeout(1);
    let door = Arc::new(Door { hub, options, pollers: Pollers::default(), addresses: Arc::default() });
    let server = match door.options.tls.clone() {
        None => server.listen("browsers", listener, move || {
            let (http, door) = (http::<TcpStream>(&door), door.clone());
            fn_service(move |stream| connections::open(door.clone(), stream, accept_plain)).and_then(http)
        })?,
        Some(tls) => server.listen("browsers", listener, move || {
            let (http, door, tls) = (http::<TlsStream<TcpStream>>(&door), door.clone(), tls.clone());
            fn_service(move |stream| {
                let tls = tls.clone();
                connections::open(door.clone(), stream, |stream| tls.accept(stream))
            })
            .and_then(http)
        })?,
    };
    Ok(server.run())
}

/// What serves a connection once it is open, for as long as it keeps pace.
fn http<S: Stream>(
    door: &Arc<Door>,
) -> impl ServiceFactory<
    (Paced<S>, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> + use<S> {
    let path = &door.options.path;
    let upstream = door.options.proxy.as_ref().map(|proxy| Rc::new(proxy.upstream()));
    let guard = door.options.auth.clone().map(|auth| Rc::new(Guard::new(auth, door.options.tls.is_some())));
    let app = App::new()
        .app_data(web::Data::from(door.clone()))
        .app_data(guard.clone())
        .wrap(from_fn(check))
        .route(HEALTH_PATH, web::get().to(health))
        .route(path, web::route().to(polling::serve))
        .route(&format!("{path}/"), web::route().to(polling::serve));
    let app = match upstream.clone() {
        Some(upstream) => app.app_data(upstream).default_service(web::to(proxy::forward)),
        None => app.default_service(web::to(HttpResponse::NotFound)),
    };
    let options = &door.options;
    let limits =
        pace::Limits { head: options.handshake_timeout, head_bytes: options.max_head, idle: options.keep_alive };
    let stats = door.hub.stats;
    let door = door.clone();
    let http = HttpService::build()
        // Both are looked after in `pace`.
        .client_request_timeout(Duration::ZERO)
        .keep_alive(KeepAlive::Os)
        .on_connect_ext(|stream: &Paced<S>, data| drop(data.insert(stream.pace().clone())))
        // A browser that closes its end is gone, and so is the session of its waiting poll; nor does the Manager have to
        // answer it any more.
        .h1_allow_half_closed(false)
        .upgrade(fn_service(move |(request, framed): (Request, Framed<Paced<S>, h1::Codec>)| {
            let framed = framed.into_map_io(Paced::into_inner);
            upgrade(door.clone(), guard.clone(), upstream.clone(), request, framed)
        }))
        .finish(map_config(app, |_| AppConfig::default()));
    apply_fn_factory(http, move |(stream, protocol, peer): (Paced<S>, _, _), http| {
        let pace = stream.pace().clone();
        // In a box, as it would take its place twice: as what is given, and as what is kept.
        pace::keep(pace, limits, stats, Box::pin(http.call((stream, protocol, peer))))
    })
}

/// Turns away what no request of ours or the Manager's needs.
async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let door = request.app_data::<web::Data<Door>>().expect("the door is part of the app");
    let pace = request.conn_data::<Rc<Pace>>().expect("every connection has one");
    let answering = pace.answer(request.chunked().unwrap_or(true));
    if let Err(refusal) = handshake::check_size(request.head(), door.options.max_head) {
        let mut response = polling::refuse(door, refusal);
        // What its body holds is not waited for.
        response.head_mut().set_connection_type(ConnectionType::Close);
        return Ok(request.into_response(response).map_body(|_, body| answering.until_the_end_of(body)));
    }
    let response = next.call(request).await?.map_into_boxed_body();
    Ok(response.map_body(|_, body| answering.until_the_end_of(body)))
}

/// Green while the registry answers, also while the Manager is away.
async fn health(door: web::Data<Door>) -> HttpResponse {
    if !door.hub.is_well().await {
        let mut unavailable = HttpResponse::ServiceUnavailable();
        return unavailable.content_type("text/plain").body("the room registry does not answer\n");
    }
    let manager = door.hub.stats.source(Source::Relay).state();
    let manager = manager.map_or_else(String::new, |state| format!("manager: {}\n", state.as_str()));
    HttpResponse::Ok().content_type("text/plain").body(format!("ok\n{manager}"))
}

/// A request to become a WebSocket. The connection is served by a task of its own, so that what HTTP needed for it is freed.
async fn upgrade<S: Stream>(
    door: Arc<Door>,
    guard: Option<Rc<Guard>>,
    upstream: Option<Rc<Upstream>>,
    request: Request,
    mut framed: Framed<S, h1::Codec>,
) -> Result<(), actix_web::Error> {
    let refused = handshake::check_size(request.head(), door.options.max_head).err();
    if refused.is_none() && request.path().trim_end_matches('/') != door.options.path {
        if let Some(upstream) = upstream {
            return upstream.tunnel(request, framed).await;
        }
        return answer(framed, StatusCode::NOT_FOUND, "text/plain", "there is no WebSocket here\n".into()).await;
    }
    let admitted = match refused {
        Some(refusal) => Err(refusal),
        None => admit(&door, guard.as_deref(), &request).await,
    };
    let (arrival, response) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            refusal.counted().into_iter().for_each(|reason| door.hub.stats.refused(reason).add(1));
            return answer(framed, refusal.status(), refusal.content_type(), refusal.text().into_owned().into()).await;
        }
    };
    Pin::new(&mut framed).write(h1::Message::Item((response, BodySize::None)))?;
    let parts = framed.into_parts();
    let mut messages = Messages::new(door.options.max_message);
    messages.extend(&parts.read_buf);
    let opened = Opened { stream: parts.io, greeting: parts.write_buf.to_vec(), messages };
    match arrival {
        Arrival::New(worker, admission) => websocket::serve(&door.hub, &worker, opened, admission),
        Arrival::Poller(worker, probe) => {
            actix_rt::spawn(upgrade::serve(door.hub.clone(), worker, opened, probe));
        }
    }
    Ok(())
}

/// Whose WebSocket it is.
enum Arrival {
    New(Rc<Worker>, Admission),
    Poller(Rc<Worker>, Probe),
}

async fn admit(door: &Arc<Door>, guard: Option<&Guard>, request: &Request) -> Result<(Arrival, Response<()>), Refusal> {
    handshake::origin(request.head(), &door.options.origins)?;
    let query = HandshakeQuery::parse(request.uri().query().unwrap_or_default())?;
    if query.transport != TransportName::WebSocket {
        return Err(HandshakeError::BadRequest.into());
    }
    let response = ws::handshake(request.head()).map_err(|_| HandshakeError::BadRequest)?.finish().drop_body();
    let arrival = match query.sid {
        None => {
            if let Some(guard) = guard {
                guard.admit(request.head(), request.peer_addr()).await?;
            }
            let (worker, admission) = door.enter(request.head(), request.peer_addr())?;
            Arrival::New(worker, admission)
        }
        Some(sid) => {
            let poller = door.pollers.get(sid).ok_or(HandshakeError::SessionUnknown)?;
            let worker = door.worker()?;
            let probe = poller.probe().map_err(|error| match error {
                ProbeError::Busy => HandshakeError::BadRequest,
                ProbeError::Over => HandshakeError::SessionUnknown,
            })?;
            Arrival::Poller(worker, probe)
        }
    };
    Ok((arrival, response))
}

/// Answers and closes.
async fn answer<S: Stream>(
    mut framed: Framed<S, h1::Codec>,
    status: StatusCode,
    content_type: &str,
    text: Bytes,
) -> Result<(), actix_web::Error> {
    let response = Response::build(status)
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONNECTION, "close"))
        .finish()
        .drop_body();
    let size = BodySize::Sized(text.len() as u64);
    framed.send(h1::Message::Item((response, size))).await?;
    framed.send(h1::Message::Chunk(Some(text))).await?;
    framed.send(h1::Message::Chunk(None)).await?;
    SinkExt::<h1::Message<(Response<()>, BodySize)>>::close(&mut framed).await?;
    Ok(())
}
