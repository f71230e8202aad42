//! The browsers' listener: HTTP, and the WebSockets upgraded from it. The only code on this side
//! that knows HTTP and frames.

mod auth;
mod connections;
mod cors;
mod directory;
mod door;
mod files;
mod frames;
mod handshake;
mod local;
mod opening;
mod options;
mod origins;
mod paths;
mod polling;
mod refusal;
mod refusal_log;
mod requests;
mod sid;
mod upgrade;
mod websocket;
mod worker;

use std::{io, sync::Arc};

use actix_http::error::DispatchError;
use actix_rt::net::TcpStream;
#[cfg(unix)]
use actix_rt::net::UnixStream;
use actix_server::Server;
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_service};
use actix_web::{App, middleware::from_fn, web};
use tokio_rustls::server::TlsStream;

pub use self::{
    auth::{AuthOptions, AuthScope},
    directory::Directory,
    door::Settings,
    options::TransportOptions,
    origins::AllowedOrigin,
};
use self::{
    door::Door, files::Files, local::Local, polling::Pollers, refusal_log::RefusalLog, websocket::SessionStream,
};
use crate::{actors::Hub, http, system::Listener};

/// The kernel's queue of connections to accept: a whole farm's browsers reconnect at once.
const BACKLOG: u32 = 4096;

/// Serves browsers on `listeners` until the server stops. TLS is for TCP only.
///
/// # Errors
///
/// A listener cannot be used by the runtime.
pub fn serve(hub: Arc<Hub>, settings: Settings, listeners: Vec<Listener>) -> io::Result<Server> {
    let max_connections = settings.options.max_http_connections + connections::MAX_TURNED_AWAY;
    let mut server = Server::build()
        .workers(settings.options.workers)
        .max_concurrent_connections(max_connections)
        .backlog(BACKLOG)
        .disable_signals()
        .shutdown_timeout(1);
    let has_api = settings.proxy.is_some() || settings.demo.is_some();
    let files = Files::new(&settings.options.path, settings.options.page, has_api);
    let door = Arc::new(Door {
        files,
        hub,
        settings,
        refusal_log: RefusalLog::new(),
        pollers: Pollers::default(),
        addresses: Arc::default(),
        connections: Arc::default(),
    });
    for listener in listeners {
        let door = door.clone();
        server = match (listener, door.settings.tls.clone()) {
            (Listener::Tcp(listener), None) => {
                server.listen("browsers", listener, move || plain::<TcpStream>(&door))?
            }
            (Listener::Tcp(listener), Some(tls)) => server.listen("browsers", listener, move || {
                let (http, door, tls) = (http::<TlsStream<TcpStream>>(&door), door.clone(), tls.clone());
                fn_service(move |stream| {
                    let tls = tls.clone();
                    connections::open(door.clone(), stream, |stream| tls.accept(stream))
                })
                .and_then(http)
            })?,
            #[cfg(unix)]
            (Listener::Unix(listener), _) => {
                server.listen_uds("browsers", listener, move || plain::<UnixStream>(&door))?
            }
        };
    }
    Ok(server.run())
}

/// Creates the service of connections without TLS.
fn plain<S: SessionStream>(
    door: &Arc<Door>,
) -> impl ServiceFactory<S, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<S> {
    let (http, door) = (http::<S>(door), door.clone());
    fn_service(move |stream| connections::open(door.clone(), stream, async |stream| Ok(stream))).and_then(http)
}

/// Creates the service of an open connection, which applies the HTTP timeouts.
fn http<S: SessionStream>(
    door: &Arc<Door>,
) -> impl ServiceFactory<http::Opened<S>, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<S> {
    let local = Local::new(door);
    let app = App::new()
        .app_data(web::Data::from(door.clone()))
        .app_data(local.clone())
        .wrap(from_fn(requests::check))
        .default_service(web::to(requests::dispatch));
    let (limits, stats, door) = (door.settings.limits, door.hub.stats, door.clone());
    http::service(app, limits, stats, move |request, framed| {
        opening::open(door.clone(), local.clone(), request, framed)
    })
}
