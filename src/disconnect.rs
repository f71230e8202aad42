//! Why a session ended.

use std::fmt;

/// Every reason for which a session ends. Its text is the log field and the name in `api/stats`.
///
/// None of them is told to the client as a Socket.IO disconnect packet: socket.io-client 2.x does not reconnect after one.
/// The transport is closed instead, after which a client returns by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// The client closed its connection, politely or not.
    TransportClose,
    /// Reading from or writing to the connection failed.
    TransportError,
    /// Nothing came from the client for the ping interval and time-out together.
    PingTimeout,
    /// Its outbox grew over its bounds while the client did not read.
    TooSlow,
    /// It sent what is no Engine.IO or Socket.IO packet, or no WebSocket frame.
    ParseError,
    /// It sent a message over the size limit.
    MessageTooBig,
    /// It sent more messages a second, or in one request, than it may.
    TooManyMessages,
    /// It polled while another of its polls was waiting.
    PollOverlap,
    /// This server stops.
    ServerShutdown,
    /// The session failed; the log says how.
    SessionFailed,
    /// The Manager is of another version than it was: pages are to load themselves anew.
    ManagerChanged,
}

impl Disconnect {
    /// All of them, in the order of their [`index`](Self::index).
    pub const ALL: [Self; 11] = [
        Self::TransportClose,
        Self::TransportError,
        Self::PingTimeout,
        Self::TooSlow,
        Self::ParseError,
        Self::MessageTooBig,
        Self::TooManyMessages,
        Self::PollOverlap,
        Self::ServerShutdown,
        Self::SessionFailed,
        Self::ManagerChanged,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport-close",
            Self::TransportError => "transport-error",
            Self::PingTimeout => "ping-timeout",
            Self::TooSlow => "too-slow",
            Self::ParseError => "parse-error",
            Self::MessageTooBig => "message-too-big",
            Self::TooManyMessages => "too-many-messages",
            Self::PollOverlap => "poll-overlap",
            Self::ServerShutdown => "server-shutdown",
            Self::SessionFailed => "session-failed",
            Self::ManagerChanged => "manager-changed",
        }
    }

    /// The status of the WebSocket's close frame (RFC 6455 §7.4.1); `None` when the connection is just dropped, because the
    /// client is gone or does not read.
    pub fn close_code(self) -> Option<u16> {
        match self {
            Self::TransportError | Self::TooSlow | Self::PingTimeout => None,
            Self::TransportClose => Some(1000),
            Self::ServerShutdown => Some(1001),
            Self::ParseError | Self::PollOverlap => Some(1002),
            Self::TooManyMessages => Some(1008),
            Self::MessageTooBig => Some(1009),
            Self::SessionFailed => Some(1011),
            Self::ManagerChanged => Some(1012),
        }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_place_in_all() {
        for (place, reason) in Disconnect::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }
}
