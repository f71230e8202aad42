//! Every knob of the server: its unit, its default and what follows from it.
//!
//! A value is taken from the command line, else from the environment, else from the file named by `--config`, else the default.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Command, builder::OsStr};

use crate::{
    client::Address,
    farm::Room,
    ingest::relay::TaskLogs,
    protocol::engine_payload::DEFAULT_MAX_PACKETS,
    transport::{TrustedProxy, parse_origin, parse_path},
};

/// Run the web-update server
///
/// Browsers connect with Socket.IO v2 to the first address. The Manager hands over events at the second one, with
/// POST /api/events, and reads the server's figures there, with GET /api/stats.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
When it is ready, it prints one line: listening browsers=http://… manager=http://… (https://… with a certificate)
Everything else goes to stderr; RUST_LOG chooses how much, e.g. RUST_LOG=debug.
Exit codes: 0 stopped as asked, 2 could not start, 3 gave up because a part of it kept failing.")]
pub struct Options {
    /// TOML file with values for these options, under their long names
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_CONFIG")]
    pub config: Option<PathBuf>,

    /// Show a simulated farm, so that there is something to look at
    #[arg(long, env = "WEBUPDATES_DEMO", num_args = 0..=1, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub demo: bool,

    /// Where browsers connect; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", env = "WEBUPDATES_LISTEN", default_value = "127.0.0.1:8081", value_parser = address)]
    pub listen: SocketAddr,

    /// Where the Manager connects; port 0 picks a free one. Beyond loopback it needs --manager-token-file
    #[arg(long, value_name = "ADDR:PORT", env = "WEBUPDATES_MANAGER_LISTEN", default_value = "127.0.0.1:8082", value_parser = address)]
    pub manager_listen: SocketAddr,

    /// Stand in front of the Flamenco Manager at this address: relay its updates, and pass everything else on to it
    #[arg(long, value_name = "URL", env = "WEBUPDATES_MANAGER")]
    pub manager: Option<Address>,

    /// Where live task logs come from in front of a Manager
    #[arg(long, value_name = "HOW", env = "WEBUPDATES_TASK_LOGS", value_enum, default_value = "auto")]
    pub task_logs: TaskLogs,

    /// File with the token that the Manager must bring as `Authorization: Bearer <token>`. SIGHUP reads it again
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_MANAGER_TOKEN_FILE")]
    pub manager_token_file: Option<PathBuf>,

    /// Certificate with which browsers are served over TLS, as PEM, followed by those that lead to its authority. SIGHUP reads it again
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, as PEM
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// The same for the Manager's port, which may have the same files
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_MANAGER_TLS_CERT")]
    pub manager_tls_cert: Option<PathBuf>,

    /// Private key of --manager-tls-cert, as PEM
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_MANAGER_TLS_KEY")]
    pub manager_tls_key: Option<PathBuf>,

    /// Also read events from stdin, one JSON object per line; at its end everything is delivered and the server stops
    #[arg(long, env = "WEBUPDATES_EVENTS_FROM_STDIN", num_args = 0..=1, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub events_from_stdin: bool,

    /// Let pages of this origin connect, e.g. https://dashboard.example; repeatable; `*` is any page [default: only pages of the same host]
    #[arg(long, value_name = "ORIGIN", env = "WEBUPDATES_ALLOW_ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub allow_origin: Vec<String>,

    /// Ask this address whether a browser may connect: its Cookie and Authorization headers go there, 2xx lets it in, 401 and 403 do not
    #[arg(long, value_name = "URL", env = "WEBUPDATES_AUTH_URL")]
    pub auth_url: Option<Address>,

    /// How long that may take; then the browser is refused. Flamenco's page gives a connection up after one second
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_AUTH_TIMEOUT", default_value = "750ms", value_parser = positive_duration)]
    pub auth_timeout: Duration,

    /// Where Socket.IO lives; behind a proxy's sub-path, with that in front
    #[arg(long, value_name = "PATH", env = "WEBUPDATES_PATH", default_value = "/socket.io", value_parser = parse_path)]
    pub path: String,

    /// Rooms that every browser is in from the beginning, as Flamenco's Manager has it
    #[arg(long, value_name = "ROOMS", env = "WEBUPDATES_DEFAULT_ROOMS", value_delimiter = ',', default_value = "Jobs,Chat", value_parser = room)]
    pub default_rooms: Vec<RoomName>,

    /// How often a browser is to ping
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_PING_INTERVAL", default_value = "30s", value_parser = positive_duration)]
    pub ping_interval: Duration,

    /// How much longer than the ping interval nothing may come from a browser before its session ends
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_PING_TIMEOUT", default_value = "60s", value_parser = positive_duration)]
    pub ping_timeout: Duration,

    /// How long a browser's request may take to arrive, without its body; a slower one is answered with 408
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = positive_duration)]
    pub handshake_timeout: Duration,

    /// How long a browser's HTTP connection may be idle between two requests; then it is closed
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_KEEP_ALIVE", default_value = "5s", value_parser = positive_duration)]
    pub keep_alive: Duration,

    /// Browsers that may be connected; more are refused with 503
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_SESSIONS", default_value_t = 50_000, value_parser = at_least_one())]
    pub max_sessions: usize,

    /// Browsers that may be connected from one address (IPv6: one /64 network); more are refused with 429. This machine is not held to it
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_SESSIONS_PER_ADDRESS", default_value_t = 5000, value_parser = at_least_one())]
    pub max_sessions_per_address: usize,

    /// HTTP connections of browsers; more are refused with 503, over TLS just closed. WebSockets are not counted, who polls needs up to two
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_HTTP_CONNECTIONS", default_value_t = 100_000, value_parser = at_least_one())]
    pub max_http_connections: usize,

    /// Proxy whose X-Forwarded-For says where browsers come from, e.g. 10.0.0.5 or 10.0.0.0/8; repeatable [default: none, all behind a proxy count as one address]
    #[arg(long, value_name = "ADDR", env = "WEBUPDATES_TRUSTED_PROXY", value_delimiter = ',')]
    pub trusted_proxy: Vec<TrustedProxy>,

    /// Bytes of a browser's request before its body, 131072 at most; a bigger one is answered with 431, or 414 if it is the address
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_HEAD", default_value_t = 32_768, value_parser = head_size())]
    pub max_head: usize,

    /// Rooms that one browser may be in; more are refused in the acknowledgement
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_ROOMS", default_value_t = 1000)]
    pub max_rooms: usize,

    /// Bytes of a browser's message; a bigger one closes its connection
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_MESSAGE", default_value_t = 65_536, value_parser = at_least_one())]
    pub max_message: usize,

    /// Packets in one request of a browser that polls; more close its session
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_PACKETS", default_value_t = DEFAULT_MAX_PACKETS, value_parser = at_least_one())]
    pub max_packets: usize,

    /// Messages that one browser may send a second; more close its connection
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_MESSAGES_PER_SECOND", default_value_t = 2000)]
    pub max_messages_per_second: u32,

    /// Chat messages that one browser may send a second; more are refused in the acknowledgement
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_CHATS_PER_SECOND", default_value_t = 10)]
    pub max_chats_per_second: u32,

    /// Bytes of a chat message; a longer one is refused in the acknowledgement
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_CHAT", default_value_t = 8192)]
    pub max_chat: usize,

    /// Bytes that may wait for a browser that does not read; more end its session
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_OUTBOX_BYTES", default_value_t = 1_048_576, value_parser = at_least_one())]
    pub outbox_bytes: usize,

    /// How long anything may wait for a browser that does not read; longer ends its session
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_OUTBOX_AGE", default_value = "10s", value_parser = positive_duration)]
    pub outbox_age: Duration,

    /// How long anything may wait for a browser before newer states of a job, task or worker take the place of older ones
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_OUTBOX_LAG", default_value = "1s", value_parser = duration)]
    pub outbox_lag: Duration,

    /// How long the room of all last rendered images waits before it is told of the same job again; 0s never waits
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_LAST_RENDERED_INTERVAL", default_value = "1s", value_parser = duration)]
    pub last_rendered_interval: Duration,

    /// Bytes of the Manager's JSON body, or of one line of a stream
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_BODY", default_value_t = 16_777_216, value_parser = at_least_one())]
    pub max_body: usize,

    /// Events that may be under way at once; a request over it is answered with 503
    #[arg(long, value_name = "N", env = "WEBUPDATES_BACKLOG", default_value_t = 100_000, value_parser = at_least_one())]
    pub backlog: usize,

    /// Ids of accepted events that are remembered, so that a retry is harmless
    #[arg(long, value_name = "N", env = "WEBUPDATES_EVENT_IDS", default_value_t = 100_000)]
    pub event_ids: usize,

    /// How long the id of an accepted event is remembered
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_EVENT_ID_AGE", default_value = "10m", value_parser = duration)]
    pub event_id_age: Duration,

    /// How long a stop may take: then what is not sent is given up
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = positive_duration)]
    pub shutdown_timeout: Duration,

    /// Threads that serve browsers [default: one for each core, at most 2]
    #[arg(long, value_name = "N", env = "WEBUPDATES_WORKERS", default_value_t = default_workers(), hide_default_value = true, value_parser = workers())]
    pub workers: usize,
}

/// A room as an option names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomName(pub Room);

fn room(text: &str) -> Result<RoomName, String> {
    text.trim().parse().map(RoomName).map_err(|_| {
        "no room; rooms are Jobs, Workers, Last-Rendered, Worker-Tags, Chat, job-<uuid>, tasklog-<uuid>".to_owned()
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "no address such as 127.0.0.1:8081 or [::1]:8081".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| "no length of time such as 30s, 500ms or 2m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a length of time cannot be negative".to_owned())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        positive => Ok(positive),
    }
}

fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::builder::RangedU64ValueParser::<u64>::new().range(1..=1 << 40).map(|number| number as usize)
}

/// HTTP's own reader takes no more, however much is allowed.
fn head_size() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::builder::RangedU64ValueParser::<u64>::new().range(1024..=131_072).map(|number| number as usize)
}

/// Two reach the last of a thousand browsers sooner than one, for the same work; more is for those who have the cores to spare.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2))
}

fn workers() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::builder::RangedU64ValueParser::<u64>::new().range(1..=32).map(|number| number as usize)
}

/// Why a configuration file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("the configuration file {} is no TOML: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("the configuration file {} has the unknown option `{name}`: options are those of `serve --help`, without the dashes", path.display())]
    UnknownOption { path: PathBuf, name: String },
    #[error("the configuration file {} has a value for `{name}` that is no text, number, yes or no, or list of them", path.display())]
    BadValue { path: PathBuf, name: String },
}

/// Makes the values of a configuration file the defaults of `serve`, the command's options.
pub fn with_file(serve: Command, path: &Path) -> Result<Command, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| FileError::NotToml {
        path: path.to_owned(),
        message: error.message().to_owned(),
    })?;
    let mut serve = serve;
    for (name, value) in table {
        let known = serve.get_arguments().find(|argument| argument.get_long() == Some(&name) && name != "config");
        let Some(id) = known.map(|argument| argument.get_id().clone()) else {
            return Err(FileError::UnknownOption { path: path.to_owned(), name });
        };
        let Some(values) = as_texts(&value) else {
            return Err(FileError::BadValue { path: path.to_owned(), name });
        };
        serve = serve.mut_arg(id, |argument| argument.default_values(values));
    }
    Ok(serve)
}

fn as_texts(value: &toml::Value) -> Option<Vec<OsStr>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone().into()]),
        toml::Value::Integer(number) => Some(vec![number.to_string().into()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string().into()]),
        toml::Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(as_texts).collect();
            Some(texts?.concat())
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
