//! The options of the server, each with its unit, default and consequence.
//!
//! A value comes from the command line, else from the environment, else from the file of
//! `--config`, else it is the default.

mod example;
mod file;

use std::{path::PathBuf, time::Duration};

use clap::Args;

pub use self::{
    example::example,
    file::{FileError, with_file},
};
use crate::{
    backplane::{NatsOptions, RepetitionOptions},
    client::TrustOptions,
    history::HistoryOptions,
    http::HttpLimits,
    ingest::{IntakeOptions, SourceOptions, mqtt::MqttOptions, relay::RelayOptions},
    last_rendered::ThrottleOptions,
    log_format::LogOptions,
    manager_port::ManagerPortOptions,
    options::{heading, positive_duration},
    outbox::OutboxLimits,
    proxy::ProxyOptions,
    session_state::SessionOptions,
    transport::TransportOptions,
};

// No line of documentation: clap would take it for that of the subcommand.
#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    /// TOML file with values for these options, under their long names
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_CONFIG")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub transport: TransportOptions,

    #[command(flatten)]
    pub manager_port: ManagerPortOptions,

    /// Maximum duration of a shutdown; after it unsent frames are dropped
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = positive_duration, help_heading = heading::LISTENING, hide_short_help = true)]
    pub shutdown_timeout: Duration,

    #[command(flatten)]
    pub log: LogOptions,

    #[command(flatten)]
    pub sources: SourceOptions,

    #[command(flatten)]
    pub relay: RelayOptions,

    #[command(flatten)]
    pub proxy: ProxyOptions,

    #[command(flatten)]
    pub mqtt: MqttOptions,

    #[command(flatten)]
    pub intake: IntakeOptions,

    #[command(flatten)]
    pub repetition: RepetitionOptions,

    #[command(flatten)]
    pub nats: NatsOptions,

    #[command(flatten)]
    pub sessions: SessionOptions,

    #[command(flatten)]
    pub outbox: OutboxLimits,

    #[command(flatten)]
    pub throttle: ThrottleOptions,

    #[command(flatten)]
    pub history: HistoryOptions,

    #[command(flatten)]
    pub http: HttpLimits,

    #[command(flatten, next_help_heading = heading::ACCESS)]
    pub trust: TrustOptions,
}
