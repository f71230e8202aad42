//! The reasons for the end of a session.

farm::labels! {
    /// Every reason for which a session ends. Its text is the log field and the metrics label.
    ///
    /// The server never reports it in a Socket.IO disconnect packet, because socket.io-client 2.x
    /// does not reconnect after one. It closes the transport instead, and the client reconnects by
    /// itself.
    pub enum Disconnect {
        /// The client closed its connection, with or without a closing handshake.
        TransportClose = "transport-close",
        /// Reading from or writing to the connection failed.
        TransportError = "transport-error",
        /// The client sent nothing for the ping interval and timeout together.
        PingTimeout = "ping-timeout",
        /// The client opened a session by polling and did not return.
        NeverPolled = "never-polled",
        /// The client stopped reading, and its outbox exceeded its limits.
        TooSlow = "too-slow",
        /// The client sent something that is not an Engine.IO or Socket.IO packet, or not a
        /// WebSocket frame.
        ParseError = "parse-error",
        /// The client sent a message over the size limit.
        MessageTooBig = "message-too-big",
        /// The client sent more messages per second, or in one request, than it may.
        TooManyMessages = "too-many-messages",
        /// The client polled while another of its polls was waiting.
        PollOverlap = "poll-overlap",
        /// The server is shutting down.
        ServerShutdown = "server-shutdown",
        /// The session failed; the log has the error.
        SessionFailed = "session-failed",
        /// The Manager was updated to another version, so pages must reload.
        ManagerChanged = "manager-changed",
        /// An operator closed the connection in the console.
        Operator = "operator",
        /// This node cannot reach NATS; another one may.
        CutOff = "cut-off",
        /// This node lost events before it had read them, so its clients may have missed some.
        HistoryLost = "history-lost",
    }
}

impl Disconnect {
    /// Returns the status of the WebSocket's close frame (RFC 6455 §7.4.1), or `None` if the
    /// connection is dropped because the client is gone or does not read.
    pub fn close_code(self) -> Option<u16> {
        match self {
            Self::TransportError | Self::TooSlow | Self::PingTimeout | Self::NeverPolled => None,
            Self::TransportClose => Some(1000),
            Self::ServerShutdown | Self::CutOff => Some(1001),
            Self::ParseError | Self::PollOverlap => Some(1002),
            Self::TooManyMessages => Some(1008),
            Self::MessageTooBig => Some(1009),
            Self::SessionFailed => Some(1011),
            Self::ManagerChanged | Self::Operator | Self::HistoryLost => Some(1012),
        }
    }
}
