//! The options of HTTP on both listeners.

use std::time::Duration;

use clap::Args;

use crate::options::{between, heading, positive_duration};

/// The codec accepts no larger head, whatever the limit.
const MAX_HEAD: u64 = 131_072;

/// The HTTP limits of both listeners.
#[derive(Debug, Clone, Copy, Args)]
pub struct HttpLimits {
    /// Time for a request to arrive, without its body; a slower one gets 408
    #[arg(id = "handshake-timeout", long = "handshake-timeout", value_name = "TIME", env = "WEBUPDATES_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = positive_duration, help_heading = heading::HTTP, hide_short_help = true)]
    pub head: Duration,

    /// Maximum size of a request's head, up to 131072; a larger one gets 431, or 414 for its target
    #[arg(id = "max-head", long = "max-head", value_name = "BYTES", env = "WEBUPDATES_MAX_HEAD", default_value_t = 32_768, value_parser = between(1024, MAX_HEAD), help_heading = heading::HTTP, hide_short_help = true)]
    pub head_bytes: usize,

    /// Window in which a request's body must arrive at 1 KiB/s on average; a slower one gets 408.
    /// Idle streams of events are exempt
    #[arg(id = "body-timeout", long = "body-timeout", value_name = "TIME", env = "WEBUPDATES_BODY_TIMEOUT", default_value = "10s", value_parser = positive_duration, help_heading = heading::HTTP, hide_short_help = true)]
    pub body: Duration,

    /// Time for which an HTTP connection may be idle between two requests before it is closed
    #[arg(id = "keep-alive", long = "keep-alive", value_name = "TIME", env = "WEBUPDATES_KEEP_ALIVE", default_value = "5s", value_parser = positive_duration, help_heading = heading::HTTP, hide_short_help = true)]
    pub idle: Duration,
}
