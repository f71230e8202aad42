//! The options of the browsers' listener.
#![allow(rustdoc::bare_urls, reason = "--help prints the texts of options as they are")]

use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::{
    auth::AuthOptions,
    directory::{Directory, parse_directory},
    handshake::parse_path,
    origins::{AllowedOrigin, parse_host},
};
use crate::{
    forwarded::TrustedProxy,
    options::{ListenAddress, at_least_one, between, heading, listen_address},
};

/// The options of the browsers' listener.
#[derive(Debug, Clone, Args)]
#[allow(rustdoc::bare_urls, reason = "--help prints these texts as they are")]
pub struct TransportOptions {
    /// Address for browsers, :PORT for all IPv4 addresses, or unix:/PATH of a socket for a proxy on
    /// this machine; repeatable; port 0 picks a free port
    #[arg(long, value_name = "ADDR:PORT", env = "WEBUPDATES_LISTEN", default_value = "127.0.0.1:8081", value_delimiter = ',', value_parser = listen_address, help_heading = heading::LISTENING)]
    pub listen: Vec<ListenAddress>,

    /// Certificate for browsers, as PEM, followed by its chain; enables TLS. SIGHUP reloads it
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_TLS_CERT", help_heading = heading::LISTENING)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, as PEM
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_TLS_KEY", help_heading = heading::LISTENING)]
    pub tls_key: Option<PathBuf>,

    /// Accept pages of this origin, e.g. https://dashboard.example, for updates and for what --manager
    /// passes on; repeatable; `*` accepts any page, for reading [default: only pages of the same host]
    #[arg(long, value_name = "ORIGIN", env = "WEBUPDATES_ALLOW_ORIGIN", value_delimiter = ',', help_heading = heading::ACCESS)]
    pub allow_origin: Vec<AllowedOrigin>,

    /// Answer requests for this host name, e.g. farm.example or *.farm.example; repeatable; `*`
    /// accepts any [default: IP addresses, local names, this machine's
    /// names, hosts of --allow-origin]
    #[arg(long, value_name = "HOST", env = "WEBUPDATES_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host, help_heading = heading::ACCESS)]
    pub allowed_host: Vec<String>,

    /// Proxy whose X-Forwarded-For, -Proto and -Host are trusted for browsers' address, scheme and
    /// host, e.g. 10.0.0.5 or 10.0.0.0/8; repeatable [default: none; all clients of a proxy count as
    /// one address]
    #[arg(long, value_name = "ADDR", env = "WEBUPDATES_TRUSTED_PROXY", value_delimiter = ',', help_heading = heading::ACCESS)]
    pub trusted_proxy: Vec<TrustedProxy>,

    #[command(flatten)]
    pub auth: AuthOptions,

    /// Path of Socket.IO, including the sub-path of a proxy
    #[arg(long, value_name = "PATH", env = "WEBUPDATES_PATH", default_value = "/socket.io", value_parser = parse_path, help_heading = heading::ACCESS, hide_short_help = true)]
    pub path: String,

    /// Serve the farm page: at webupdates/ beside --path and, without --manager, also at /
    #[arg(long, value_name = "ON|OFF", env = "WEBUPDATES_PAGE", default_value = "on", action = ArgAction::Set, value_parser = BoolishValueParser::new(), help_heading = heading::ACCESS, hide_short_help = true)]
    pub page: bool,

    /// Serve the files of this folder at static/ beside --path: a page of one's own
    #[arg(long = "static", value_name = "DIR", env = "WEBUPDATES_STATIC", value_parser = parse_directory, help_heading = heading::ACCESS)]
    pub directory: Option<Directory>,

    /// Maximum number of connected browsers; more get 503
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_SESSIONS", default_value_t = 50_000, value_parser = at_least_one(), help_heading = heading::SESSIONS)]
    pub max_sessions: usize,

    /// Maximum number of connected browsers per address (IPv6: per /64 network); more get 429.
    /// Loopback is exempt
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_SESSIONS_PER_ADDRESS", default_value_t = 5000, value_parser = at_least_one(), help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_sessions_per_address: usize,

    /// Maximum size of a browser's message as sent, JSON escapes included; a larger one closes its connection
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_MAX_MESSAGE", default_value_t = 65_536, value_parser = at_least_one(), help_heading = heading::SESSIONS, hide_short_help = true)]
    pub max_message: usize,

    /// Maximum number of browsers' HTTP connections; more get 503, or are closed over TLS.
    /// WebSockets do not count; a long-polling client sometimes holds two
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_HTTP_CONNECTIONS", default_value_t = 100_000, value_parser = at_least_one(), help_heading = heading::HTTP, hide_short_help = true)]
    pub max_http_connections: usize,

    /// Maximum number of browsers' HTTP connections per address (IPv6: per /64 network); more get
    /// 429, or are closed over TLS. Loopback is exempt; requests from a trusted proxy count for the
    /// address in X-Forwarded-For
    #[arg(long, value_name = "N", env = "WEBUPDATES_MAX_HTTP_CONNECTIONS_PER_ADDRESS", default_value_t = 10_000, value_parser = at_least_one(), help_heading = heading::HTTP, hide_short_help = true)]
    pub max_http_connections_per_address: usize,

    /// Threads that serve browsers [default: one per core, at most 2]
    #[arg(long, value_name = "N", env = "WEBUPDATES_WORKERS", default_value_t = default_workers(), hide_default_value = true, value_parser = between(1, 32), help_heading = heading::LISTENING, hide_short_help = true)]
    pub workers: usize,
}

/// Two workers reach the last of a thousand browsers sooner than one, for the same work. More are
/// useful only with spare cores.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2))
}
