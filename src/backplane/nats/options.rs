//! The options of a server that shares its events with other nodes.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use async_nats::ServerAddr;
use clap::Args;
use percent_encoding::percent_decode_str;

use crate::options::{at_least_one, between, heading, positive_duration};

/// The nodes' common stream.
#[derive(Debug, Clone, Args)]
pub struct NatsOptions {
    /// NATS server with JetStream over which several servers share all events; repeat it, or separate
    /// with commas, for each server of a NATS cluster. `tls://` encrypts
    #[arg(long, value_name = "URL", env = "WEBUPDATES_NATS", value_delimiter = ',', help_heading = heading::CLUSTER)]
    pub nats: Vec<NatsUrl>,

    /// Credentials file of the NATS user
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_NATS_CREDENTIALS", requires = "nats", help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_credentials: Option<PathBuf>,

    /// PEM file with the authorities that may sign the certificate of NATS; by default the system's
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_NATS_CA", requires = "nats", help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_ca: Option<PathBuf>,

    /// Name of this server among those that share the stream: letters, digits and hyphens. Session ids
    /// begin with it, so that a proxy can send the requests of a session to its node; by default random
    #[arg(long, value_name = "NAME", env = "WEBUPDATES_NODE_NAME", requires = "nats", value_parser = node_name, help_heading = heading::CLUSTER)]
    pub node_name: Option<String>,

    /// Stream of the farm; it is created if it is missing
    #[arg(long, value_name = "NAME", env = "WEBUPDATES_NATS_STREAM", default_value = "webupdates", value_parser = stream_name, help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_stream: String,

    /// Number of NATS servers that store each event, when the stream is created
    #[arg(long, value_name = "N", env = "WEBUPDATES_NATS_REPLICAS", default_value_t = 1, value_parser = between(1, 5), help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_replicas: usize,

    /// Time for which the stream keeps an event, when the stream is created
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_NATS_MAX_AGE", default_value = "24h", value_parser = positive_duration, help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_max_age: Duration,

    /// Maximum size of the stream, when it is created; the oldest events are removed beyond it
    #[arg(long, value_name = "BYTES", env = "WEBUPDATES_NATS_MAX_BYTES", default_value_t = 268_435_456, value_parser = at_least_one(), help_heading = heading::CLUSTER, hide_short_help = true)]
    pub nats_max_bytes: usize,

    /// Time for which browsers stay connected while NATS cannot be reached; after it they are closed,
    /// so that they reconnect to another node
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_BACKPLANE_GRACE", default_value = "15s", value_parser = positive_duration, help_heading = heading::CLUSTER, hide_short_help = true)]
    pub backplane_grace: Duration,
}

impl NatsOptions {
    /// Returns the name of this node, which is random if none is given. `None` without NATS.
    pub fn node(&self) -> Option<String> {
        let random = || format!("{:08x}", fastrand::u32(..));
        (!self.nats.is_empty()).then(|| self.node_name.clone().unwrap_or_else(random))
    }
}

/// The address of a NATS server. It may hold a user name and a password, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(pub(super) ServerAddr);

impl NatsUrl {
    /// Returns the user and the password, if it has them.
    pub(super) fn user(&self) -> Option<(String, String)> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = self.0.username()?;
        Some((decode(user), self.0.password().map(decode).unwrap_or_default()))
    }
}

impl FromStr for NatsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "expected for example nats://farm:4222 or tls://farm:4222";
        let address: ServerAddr = text.parse().map_err(|_| format!("not a URL of NATS; {example}"))?;
        match address.is_websocket() || address.host().is_empty() {
            true => Err(format!("not a URL of NATS; {example}")),
            false => Ok(Self(address)),
        }
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.0.scheme(), self.0.host(), self.0.port())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn node_name(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.len() <= 32 && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '-') {
        true => Ok(text.to_owned()),
        false => Err("the name of a node has 1 to 32 letters, digits and hyphens".to_owned()),
    }
}

fn stream_name(text: &str) -> Result<String, String> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    match !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("the name of a stream has 1 to 64 letters, digits, hyphens and underscores".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_printed() {
        let url: NatsUrl = "nats://farmer:s3cret@farm".parse().unwrap();
        assert_eq!(
            (url.to_string(), format!("{url:?}")),
            ("nats://farm:4222".to_owned(), "nats://farm:4222".to_owned())
        );
        for text in ["", "http://farm", "ws://farm", "nats://", "nats://farm:port"] {
            assert!(text.parse::<NatsUrl>().unwrap_err().starts_with("not a URL of NATS"), "{text}");
        }
        assert!(node_name("a.b").is_err() && node_name("").is_err() && node_name("Node-7").is_ok());
        assert!(stream_name("a.b").is_err() && stream_name("").is_err());
    }
}
