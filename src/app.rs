//! All wiring, downstream first, and the way out.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use actix_server::ServerHandle;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

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
        http::Token,
        relay::{self, Api, ApiError},
    },
    outbox::{self, Workers},
    proxy::Proxy,
    service_manager,
    session::Rules,
    stats::Stats,
    transport::{self, Origins},
};

/// Bytes that the kernel may hold for one browser. Its own default lets a stalled one hold 4 MB.
const SEND_BUFFER: usize = 64 * 1024;

/// How long the kernel tries to send to a browser that does not answer at all.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);

const BACKLOG: i32 = 4096;

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
    #[error("cannot read the token file {}: {error}", path.display())]
    TokenFile { path: PathBuf, error: io::Error },
    #[error("the token file {} is empty", .0.display())]
    EmptyToken(PathBuf),
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
/// called with the addresses, once it listens on both.
pub async fn serve(
    options: Options,
    ready: impl FnOnce(SocketAddr, SocketAddr) -> io::Result<()>,
) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let token = manager_token(&options)?;
    let browsers = listen(options.listen, "--listen")?;
    let manager = listen(options.manager_listen, "--manager-listen")?;
    let addresses = (local_address(&browsers)?, local_address(&manager)?);

    if let Some(manager) = &options.manager {
        check_manager(manager, [addresses.0, addresses.1]).await?;
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
    let browsers = transport::serve(hub.clone(), transport_options(&options), browsers).map_err(ServeError::Serve)?;
    let manager_options = ingest::http::Options { token, max_body: options.max_body };
    let manager =
        ingest::http::serve(intake.clone(), hub.clone(), manager_options, manager).map_err(ServeError::Serve)?;
    let servers = [browsers.handle(), manager.handle()];
    actix_rt::spawn(browsers);
    actix_rt::spawn(manager);
    if options.demo {
        actix_rt::spawn(ingest::demo::run(intake.clone()));
    }
    ready(addresses.0, addresses.1).map_err(ServeError::Stdout)?;
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
    tokio::select! {
        () = signals.next() => log::info!("stopping"),
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
        () = signals.next() => log::warn!("told twice: stopping at once"),
        Some(failure) = failure.recv() => return Err(failure.into()),
    }
    Ok(())
}

fn start_actors(options: &Options, stats: &'static Stats, given_up: mpsc::Sender<GivenUp>) -> (Arc<Hub>, Publishers) {
    let supervisor = Supervisor { budget: RestartBudget::default(), stats, given_up };
    let workers = Arc::new(Workers::new());
    let outbox_limits =
        outbox::Limits { bytes: options.outbox_bytes, age: options.outbox_age, lag: options.outbox_lag };
    let registry = supervisor.start("room-registry", RoomRegistry::new(workers.clone(), outbox_limits, stats));
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

fn transport_options(options: &Options) -> transport::Options {
    let any = options.allow_origin.iter().any(|origin| origin == "*");
    transport::Options {
        path: options.path.clone(),
        workers: options.workers,
        origins: if any { Origins::Any } else { Origins::SameHostAnd(options.allow_origin.clone()) },
        max_sessions: options.max_sessions,
        max_message: options.max_message,
        handshake_timeout: options.handshake_timeout,
        proxy: options.manager.clone().map(|manager| Proxy::new(manager, false)),
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

fn manager_token(options: &Options) -> Result<Option<Token>, ServeError> {
    let Some(path) = &options.manager_token_file else {
        let address = options.manager_listen;
        return if address.ip().is_loopback() { Ok(None) } else { Err(ServeError::NoToken(address)) };
    };
    let text = std::fs::read_to_string(path).map_err(|error| ServeError::TokenFile { path: path.clone(), error })?;
    Token::new(&text).map(Some).ok_or_else(|| ServeError::EmptyToken(path.clone()))
}

/// What is set on the listener, each accepted connection has from the beginning.
fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, ServeError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| ServeError::Listen { address, option, error })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(ServeError::Serve)
}

/// Lets nobody in any more, delivers what was accepted, and closes every browser's connection so that it comes back by itself.
async fn drain(hub: &Hub, jobs: &Addr<JobUpdates>, [browsers, manager]: [ServerHandle; 2]) {
    manager.stop(true).await;
    // Each answers after all that came before. Who does not answer has failed, and has nothing to deliver.
    let _ = jobs.send(ReleaseHeld).await;
    let _ = hub.registry.send(TakeCensus { rooms: false }).await;
    // From here on no new session is let in. The listener stays open: who polls comes for the rest with new connections.
    hub.workers.close_all(Disconnect::ServerShutdown);
    while hub.stats.sessions() > 0 {
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    browsers.stop(false).await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
