//! All wiring, downstream first, and the way out.

mod listeners;
mod secrets;
mod signals;

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use actix_server::ServerHandle;
use tokio::sync::mpsc;

pub use self::listeners::Place;
use self::{listeners::Listeners, secrets::Secrets, signals::Signals};
use crate::{
    actors::{
        Chat, FarmUpdates, GivenUp, Hub, JobUpdates, RestartBudget, RoomRegistry, Supervisor, WorkerUpdates,
        messages::{ReleaseHeld, TakeCensus},
    },
    client::Address,
    clock,
    config::Options,
    disconnect::Disconnect,
    ingest::{
        self, Intake, Publishers,
        http::TokenError,
        relay::{self, Api, ApiError},
    },
    outbox::{self, Workers},
    proxy::Proxy,
    service_manager,
    session::Rules,
    stats::Stats,
    tls::{Acceptor, CertificateError},
    transport::{self, Auth, Origins},
};

/// How long the Manager may take to open TLS.
const MANAGER_TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a browser whose connection was accepted may take to say what it wants, when another server takes over.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(250);

/// How long browsers wait at the start for what is relayed to them.
const RELAY_HEAD_START: Duration = Duration::from_secs(2);

/// How long the Manager may take at the start to show that it is one.
const MANAGER_CHECK: Duration = Duration::from_secs(2);

/// Why the server could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {error}; is another server running there? {option} chooses another address")]
    Listen { address: SocketAddr, option: &'static str, error: io::Error },
    #[error(
        "--manager-listen {0} can be reached from other machines: give the Manager a token with --manager-token-file, or listen on 127.0.0.1"
    )]
    NoToken(SocketAddr),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{given} needs {missing} too: a certificate and its key go together")]
    HalfAPair { given: &'static str, missing: &'static str },
    #[error("a socket that was handed over with LISTEN_FDS cannot be used: {0}")]
    HandedOver(io::Error),
    #[error(
        "LISTEN_FDS hands over {0} sockets where two are due at most: the browsers' and the Manager's, in this order"
    )]
    TooManySockets(usize),
    #[error("the ready line cannot be printed: {0}")]
    Stdout(io::Error),
    #[error("cannot read events from stdin: {0}")]
    Stdin(io::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    #[error("a listener cannot be served: {0}")]
    Serve(io::Error),
    #[error("--manager {0} leads back to this server: give the address of Flamenco Manager itself")]
    ManagerIsMyself(Address),
    #[error("--manager {address} cannot work: {error}")]
    Manager { address: Address, error: Box<ApiError> },
    #[error(transparent)]
    GivenUp(#[from] GivenUp),
}

/// Runs the server until it is told to stop: SIGTERM, SIGINT or, with `--events-from-stdin`, the end of stdin. `ready` is
/// called with the places of both listeners, the browsers' first, once it serves them.
pub async fn serve(options: Options, ready: impl FnOnce(Place, Place) -> io::Result<()>) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let secrets = Arc::new(Secrets::read(&options)?);
    let Listeners { browsers, manager, shared } = Listeners::open(options.listen, options.manager_listen)?;
    let browsers_place = Place::of(&browsers, secrets.browsers.is_some())?;
    let manager_place = Place::of(&manager, secrets.manager.is_some())?;
    if secrets.token.is_none() && !manager_place.address.ip().is_loopback() {
        return Err(ServeError::NoToken(manager_place.address));
    }

    if let Some(manager) = &options.manager {
        check_manager(manager, [browsers_place.address, manager_place.address]).await?;
    }

    let stats = Stats::leak(clock::now());
    let (given_up, mut failure) = mpsc::channel(1);
    let (hub, publishers) = start_actors(&options, stats, given_up);
    let limits = ingest::Limits { backlog: options.backlog, ids: options.event_ids, id_age: options.event_id_age };
    let jobs = publishers.jobs.clone();
    let intake = Arc::new(Intake::new(publishers, limits, stats));

    if let (Some(manager), Some(interest)) = (options.manager.clone(), hub.interest.clone()) {
        let connected = relay::start(manager, options.task_logs, hub.clone(), intake.clone(), interest);
        // Browsers that come once the relay is there miss nothing. Without the Manager they may come too.
        let _ = actix_rt::time::timeout(RELAY_HEAD_START, connected).await;
    }
    let browsers =
        transport::serve(hub.clone(), transport_options(&options, &secrets), browsers).map_err(ServeError::Serve)?;
    let manager_options = ingest::http::Options {
        token: secrets.token.clone(),
        tls: secrets.manager.clone().map(|certificate| Acceptor::new(certificate, MANAGER_TLS_TIMEOUT)),
        max_body: options.max_body,
    };
    let manager =
        ingest::http::serve(intake.clone(), hub.clone(), manager_options, manager).map_err(ServeError::Serve)?;
    let servers = Servers { browsers: browsers.handle(), manager: manager.handle(), shared };
    actix_rt::spawn(browsers);
    actix_rt::spawn(manager);
    if options.demo {
        actix_rt::spawn(ingest::demo::run(intake.clone()));
    }
    ready(browsers_place, manager_place).map_err(ServeError::Stdout)?;
    service_manager::ready();
    actix_rt::spawn(service_manager::keep_watchdog(hub.clone()));

    let mut end_of_stdin = mpsc::channel(1);
    if options.events_from_stdin {
        let ended = end_of_stdin.0.clone();
        actix_rt::spawn(async move {
            // The receiver is there until the server ends.
            let _ = ended.send(ingest::stdin::run(intake, tokio::io::stdin(), options.max_body).await).await;
        });
    }
    let read_again = || {
        drop(actix_rt::task::spawn_blocking({
            let secrets = secrets.clone();
            move || secrets.read_again()
        }))
    };
    tokio::select! {
        () = signals.stop(read_again) => log::info!("stopping"),
        Some(end) = end_of_stdin.1.recv() => {
            end.map_err(ServeError::Stdin)?;
            log::info!("stdin has ended: stopping");
        }
        Some(failure) = failure.recv() => return Err(failure.into()),
    }
    service_manager::stopping();
    tokio::select! {
        () = drain(&hub, &jobs, servers) => {}
        () = actix_rt::time::sleep(options.shutdown_timeout) => log::warn!("not everything could be sent in time"),
        () = signals.stop(|| ()) => log::warn!("told twice: stopping at once"),
        Some(failure) = failure.recv() => return Err(failure.into()),
    }
    Ok(())
}

fn start_actors(options: &Options, stats: &'static Stats, given_up: mpsc::Sender<GivenUp>) -> (Arc<Hub>, Publishers) {
    let supervisor = Supervisor { budget: RestartBudget::default(), stats, given_up };
    let workers = Arc::new(Workers::new());
    let outbox_limits =
        outbox::Limits { bytes: options.outbox_bytes, age: options.outbox_age, lag: options.outbox_lag };
    let common = options.default_rooms.first().map(|name| name.0);
    let registry = supervisor.start("room-registry", RoomRegistry::new(workers.clone(), common, outbox_limits, stats));
    let publishers = Publishers {
        jobs: supervisor.start("job-updates", JobUpdates::new(registry.clone(), options.last_rendered_interval, stats)),
        workers: supervisor.start("worker-updates", WorkerUpdates::new(registry.clone(), stats)),
        farm: supervisor.start("farm-updates", FarmUpdates::new(registry.clone(), stats)),
        chat: supervisor.start("chat", Chat::new(registry.clone(), stats)),
    };
    let rules = Rules {
        default_rooms: options.default_rooms.iter().map(|name| name.0).collect(),
        ping_interval: options.ping_interval,
        ping_timeout: options.ping_timeout,
        max_rooms: options.max_rooms,
        max_packets: options.max_packets,
        max_messages_per_second: options.max_messages_per_second,
        max_chats_per_second: options.max_chats_per_second,
        max_chat: options.max_chat,
    };
    let chat = publishers.chat.clone();
    let interest = options.manager.is_some().then(Arc::default);
    (Arc::new(Hub { registry, chat, workers, rules, outbox_limits, interest, stats }), publishers)
}

fn transport_options(options: &Options, secrets: &Secrets) -> transport::Options {
    let certificate = secrets.browsers.clone();
    let any = options.allow_origin.iter().any(|origin| origin == "*");
    transport::Options {
        path: options.path.clone(),
        workers: options.workers,
        origins: if any { Origins::Any } else { Origins::SameHostAnd(options.allow_origin.clone()) },
        max_sessions: options.max_sessions,
        max_sessions_per_address: options.max_sessions_per_address,
        max_http_connections: options.max_http_connections,
        trusted_proxies: options.trusted_proxy.clone(),
        max_head: options.max_head,
        max_message: options.max_message,
        handshake_timeout: options.handshake_timeout,
        keep_alive: options.keep_alive,
        proxy: options.manager.clone().map(|manager| Proxy::new(manager, certificate.is_some())),
        auth: options.auth_url.clone().map(|url| Auth::new(url, options.auth_timeout)),
        tls: certificate.map(|certificate| Acceptor::new(certificate, options.handshake_timeout)),
    }
}

/// Refuses an address at which there can never be a Manager. One that does not answer may come yet.
async fn check_manager(manager: &Address, listeners: [SocketAddr; 2]) -> Result<(), ServeError> {
    let mut addresses = manager.host_and_port().to_socket_addrs().into_iter().flatten();
    let leads_to = |address: SocketAddr, listener: SocketAddr| {
        let ip = listener.ip();
        // Only what is this machine's own can be bound.
        let is_this_machine = || TcpListener::bind((address.ip(), 0)).is_ok();
        address.port() == listener.port() && (address.ip() == ip || ip.is_unspecified() && is_this_machine())
    };
    if addresses.any(|address| listeners.into_iter().any(|listener| leads_to(address, listener))) {
        return Err(ServeError::ManagerIsMyself(manager.clone()));
    }
    match actix_rt::time::timeout(MANAGER_CHECK, Api::new(manager.clone()).version()).await {
        Ok(Err(error)) if error.is_permanent() => {
            Err(ServeError::Manager { address: manager.clone(), error: error.into() })
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
    }
}

struct Servers {
    browsers: ServerHandle,
    manager: ServerHandle,
    /// Whether another process may accept browsers from the same socket.
    shared: bool,
}

/// Lets nobody in any more, delivers what was accepted, and closes every browser's connection so that it comes back by itself.
async fn drain(hub: &Hub, jobs: &Addr<JobUpdates>, servers: Servers) {
    if servers.shared {
        // Another server may take over: who comes from now on is for that one. Who has just come here is still let in, because
        // to be closed and come back is what every page can do.
        servers.browsers.pause().await;
        actix_rt::time::sleep(HAND_OVER_PAUSE).await;
    }
    servers.manager.stop(true).await;
    // Each answers after all that came before. Who does not answer has failed, and has nothing to deliver.
    let _ = jobs.send(ReleaseHeld).await;
    let _ = hub.registry.send(TakeCensus { rooms: false }).await;
    // From here on no new session is let in. A listener of its own stays open: who polls comes for the rest with new
    // connections.
    hub.workers.close_all(Disconnect::ServerShutdown);
    while hub.stats.sessions.get() > 0 {
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    servers.browsers.stop(false).await;
}
