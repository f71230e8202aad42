//! Builds the server, downstream first, and shuts it down.

mod checks;
mod files;
mod health;
mod listeners;
mod machine;
mod running;
mod secrets;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use simulate_farm::Site;
use tokio::sync::{Notify, mpsc, watch};

pub use self::{
    checks::check,
    health::{HealthError, health},
    listeners::ListenUrls,
};
use self::{listeners::Listeners, running::Running, secrets::Secrets};
use crate::{
    actors::{
        Chat, FarmUpdates, GivenUp, Hub, JobUpdates, RestartBudget, RoomRegistry, Supervisor, WorkerUpdates,
        messages::Said,
    },
    backplane::{Apply, Backplane, Connection, Nats, NatsError, Node, OnNew, OnOutside, Publishers},
    client::Address,
    clock,
    config::ServeOptions,
    history::History,
    ingest::{
        EventSource, Intake, Published, SourceContext, SourceEnded,
        demo::Demo,
        mqtt::{Mqtt, feed, mirror},
        note,
        relay::{ApiError, ManagerRelay},
        stdin::Stdin,
    },
    interest::Interest,
    log_budget::{LogBudget, SESSION_LINES},
    manager_port::{self, ManagerPort, TokenError},
    options::ListenAddress,
    outbox::Workers,
    proxy::Proxy,
    service_manager,
    session_state::Rules,
    stats::{Source, Stats},
    system::{Listener, Signals},
    tls::{Acceptor, CertificateError},
    transport,
};

/// How long the Manager may take to open TLS.
const MANAGER_TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of chat messages that wait to be stored in NATS.
const MAX_CHATS: usize = 1000;

/// Why the server could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "cannot listen on {address}: {error}; {}{option} chooses another address",
        listeners::advice(address, error)
    )]
    Listen { address: ListenAddress, option: &'static str, error: io::Error },
    #[error(
        "--manager-listen {0} can be reached from other machines: give the Manager a token with --manager-token-file, or listen on 127.0.0.1"
    )]
    NoToken(SocketAddr),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("no server can be trusted as configured: {0}")]
    Trust(io::Error),
    #[error("{given} needs {missing} too: a certificate and its key go together")]
    HalfAPair { given: &'static str, missing: &'static str },
    #[error("a socket from LISTEN_FDS cannot be used: {0}")]
    HandedOver(io::Error),
    #[error("LISTEN_FDS has {0} sockets, but at most two are expected: the browsers' and the Manager's, in this order")]
    TooManySockets(usize),
    #[error("the ready line cannot be printed: {0}")]
    Stdout(io::Error),
    #[error("the event source {name} cannot be used: {error}")]
    Source { name: Source, error: io::Error },
    #[error("--mqtt-publish cannot be used: {0}")]
    Mirror(io::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    #[error("a listener cannot be served: {0}")]
    Serve(io::Error),
    #[error("--manager {0} leads back to this server: give the address of Flamenco Manager itself")]
    ManagerIsMyself(Box<Address>),
    #[error("--manager {address} cannot work: {error}")]
    Manager { address: Box<Address>, error: Box<ApiError> },
    #[error("--auth-url must not hold a name and password: they would be sent for every visitor without credentials")]
    AuthUrlWithUser,
    #[error(
        "--allow-origin '*' with --auth-url would let every page act on behalf of its visitors: list the allowed origins"
    )]
    AnyOriginWithUsers,
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    GivenUp(#[from] GivenUp),
}

/// Told the addresses of both ports, the browsers' first, once the server serves them.
pub type OnReady = fn(ListenUrls, ListenUrls) -> io::Result<()>;

/// Runs the server on this thread until SIGTERM, SIGINT or, with `--events-from-stdin`, EOF on stdin.
///
/// It blocks, and takes a function pointer, so that all of it is compiled with this crate and not in each program again.
///
/// # Errors
///
/// An option, a file or a Manager cannot work, or a listener, a source or the broker of `--mqtt-
/// publish` cannot be used. The text of the error says which, and what helps.
pub fn serve(options: ServeOptions, ready: OnReady) -> Result<(), ServeError> {
    actix_rt::System::new().block_on(run(options, ready))
}

async fn run(mut options: ServeOptions, ready: OnReady) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    files::fit(&mut options.transport);
    let secrets = Arc::new(Secrets::read(&options)?);
    let Listeners { browsers, manager, shared } =
        Listeners::open(&options.transport.listen, &options.manager_port.listen)?;
    let browsers_place = ListenUrls::of(&browsers, secrets.browsers.is_some())?;
    let manager_place = ListenUrls::of(&manager, secrets.manager.is_some())?;
    checks::check_token(&options, &manager_place.addresses)?;
    checks::check_auth(&options)?;
    checks::check_manager(&options, &[&browsers_place.addresses[..], &manager_place.addresses].concat()).await?;

    let nats = match options.nats.nats.is_empty() {
        true => None,
        false => tokio::select! {
            connection = Connection::open(&options.nats, &options.repetition) => Some(connection?),
            () = signals.stop(|| ()) => return Ok(()),
        },
    };

    let (given_up, mut failure) = mpsc::channel(1);
    let (to_nats, chats) = nats.is_some().then(|| mpsc::channel(MAX_CHATS)).unzip();
    let (hub, publishers) = start_actors(&options, Stats::leak(clock::now()), given_up, to_nats);
    let (ended, mut end) = mpsc::channel(1);
    let demo: Option<Arc<Site>> = options.sources.demo.then(Arc::default);
    let (mirror, publisher) = mirror(&options.mqtt, hub.stats).map_err(ServeError::Mirror)?.unzip();
    let mut running = Running {
        jobs: publishers.jobs.clone(),
        sources: sources(&options, &secrets, manager, demo.clone()),
        intake: None,
        mirror: None,
        browsers: None,
        shared,
        hub: hub.clone(),
    };
    let on_new = mirror.map(|mirror| Box::new(move |event: &_, offset| mirror.publish(event, offset)) as OnNew);
    let published = nats.is_some().then(|| Arc::new(Published::new(&options.mqtt.mqtt_prefix)));
    let (noted, hub_of_notes) = (published.clone(), hub.clone());
    let on_outside: OnOutside = Box::new(move |outside| note(outside, noted.as_deref(), &hub_of_notes));
    let apply = Apply::new(publishers, on_new, on_outside, hub.stats);
    let node = Node {
        name: hub.rules.node().unwrap_or_default().to_owned(),
        once: once(&options),
        mirrors: publisher.is_some(),
        grace: options.nats.backplane_grace,
    };
    let backplane = match nats.zip(chats) {
        None => Backplane::memory(&options.repetition, apply),
        Some((connection, chats)) => tokio::select! {
            nats = Nats::start(connection, node, apply, &hub, chats) => Backplane::nats(nats?),
            () = signals.stop(|| ()) => return Ok(()),
        },
    };
    let intake = Arc::new(Intake::new(backplane, options.intake, hub.stats));
    running.mirror = publisher.map(|publisher| publisher.start(&hub, intake.mirror_leadership()));
    let settings = transport::Settings::new(
        options.transport.clone(),
        options.http,
        &machine::names(),
        secrets.browsers.clone(),
        options.relay.manager.clone().map(|manager| Proxy::new(manager, options.proxy)),
        demo,
    );
    running.start(SourceContext { hub: hub.clone(), intake, published, ended }, settings, browsers).await?;
    ready(browsers_place, manager_place).map_err(ServeError::Stdout)?;
    service_manager::ready();
    let watched = hub.clone();
    hub.supervisor.keep("watchdog", move |_| service_manager::keep_watchdog(watched.clone()));

    tokio::select! {
        () = signals.stop(|| secrets.clone().read_again_aside()) => log::info!("shutting down"),
        () = hub.stop.notified() => log::info!("shutting down: an operator drains the server"),
        Some(SourceEnded { source, result }) = end.recv() => {
            result.map_err(|error| ServeError::Source { name: source, error })?;
            log::info!("{source} has ended: shutting down");
        }
        Some(failure) = failure.recv() => return Err(failure.into()),
    }
    service_manager::stopping();
    hub.supervisor.stopping.store(true, Ordering::Relaxed);
    tokio::select! {
        () = running.drain() => {}
        () = actix_rt::time::sleep(options.shutdown_timeout) => log::warn!("the shutdown timeout has passed; unsent frames are dropped"),
        () = signals.stop(|| ()) => log::warn!("second signal: shutting down immediately"),
        Some(failure) = failure.recv() => return Err(failure.into()),
    }
    Ok(())
}

/// Returns the sources that must not run on several servers that share a stream. With both, the events
/// of MQTT go through the relay, so they run on the same server.
fn once(options: &ServeOptions) -> Vec<Source> {
    let relay = options.relay.manager.as_ref().map(|_| Source::Relay);
    let mqtt = options.mqtt.mqtt.as_ref().map(|_| Source::Mqtt);
    relay.into_iter().chain(mqtt).collect()
}

/// Creates all sources that the options ask for.
fn sources(
    options: &ServeOptions,
    secrets: &Secrets,
    manager: Vec<Listener>,
    demo: Option<Arc<Site>>,
) -> Vec<Box<dyn EventSource>> {
    let max_body = options.manager_port.max_body;
    let port = manager_port::Settings {
        limits: options.http,
        token: secrets.token.clone(),
        tls: secrets.manager.clone().map(|certificate| Acceptor::new(certificate, MANAGER_TLS_TIMEOUT)),
        max_body,
    };
    let mut sources: Vec<Box<dyn EventSource>> = vec![Box::new(ManagerPort::new(manager, port))];
    // With both, the events of MQTT go through the relay.
    let (to_relay, from_mqtt) = (options.relay.manager.is_some() && options.mqtt.mqtt.is_some()).then(feed).unzip();
    sources.extend(ManagerRelay::of(&options.relay, from_mqtt).map(|relay| Box::new(relay) as Box<dyn EventSource>));
    sources.extend(Mqtt::of(&options.mqtt, to_relay).map(|mqtt| Box::new(mqtt) as Box<dyn EventSource>));
    sources.extend(demo.map(|site| Box::new(Demo { site }) as Box<dyn EventSource>));
    if options.sources.events_from_stdin {
        sources.push(Box::new(Stdin { max_line: max_body }));
    }
    sources
}

fn start_actors(
    options: &ServeOptions,
    stats: &'static Stats,
    given_up: mpsc::Sender<GivenUp>,
    chats: Option<mpsc::Sender<Said>>,
) -> (Arc<Hub>, Publishers) {
    let supervisor = Supervisor { budget: RestartBudget::default(), stats, given_up, stopping: Arc::default() };
    let workers = Arc::new(Workers::new());
    let common = options.sessions.default_rooms.first().copied();
    let history = History::new(options.history, clock::now());
    let registry =
        supervisor.start("room-registry", RoomRegistry::new(workers.clone(), common, options.outbox, history, stats));
    let publishers = Publishers {
        jobs: supervisor.start("job-updates", JobUpdates::new(registry.clone(), options.throttle, stats)),
        workers: supervisor.start("worker-updates", WorkerUpdates::new(registry.clone(), stats)),
        farm: supervisor.start("farm-updates", FarmUpdates::new(registry.clone(), stats)),
        chat: supervisor.start("chat", Chat::new(registry.clone(), stats)),
    };
    let rules = Rules::new(options.sessions.clone(), options.nats.node(), clock::now());
    let chat = publishers.chat.clone();
    let new_interest = if options.nats.nats.is_empty() { Interest::default } else { Interest::shared };
    let interest = options.relay.manager.is_some().then(|| Arc::new(new_interest()));
    (
        Arc::new(Hub {
            registry,
            chat,
            workers,
            rules,
            outbox_limits: options.outbox,
            interest,
            chats,
            cut_off: AtomicBool::new(false),
            reached: watch::Sender::default(),
            supervisor,
            log_budget: LogBudget::new(SESSION_LINES, clock::now()),
            stop: Notify::new(),
            stats,
        }),
        publishers,
    )
}
