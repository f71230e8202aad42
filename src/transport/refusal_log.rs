//! The log lines about refused clients.

use std::net::IpAddr;

use actix_http::{RequestHead, header};

use super::{
    origins::{self, MAX_NAME},
    refusal::Refusal,
};
use crate::{
    clock,
    forwarded::{Forwarded, Host},
    log_budget::LogBudget,
    protocol::{HandshakeError, TransportName},
};

/// The lines per second. A client that is refused tries again every few seconds.
const LINES: u32 = 5;

/// Logs refused clients, each with the option that lets it in, if there is one.
pub(super) struct RefusalLog(LogBudget);

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self(LogBudget::new(LINES, clock::now()))
    }

    /// Logs the refusal of a request.
    pub(super) fn request(&self, refusal: Refusal, head: &RequestHead, from: &Forwarded) {
        self.log(refusal, from.client, transport(head), || explain(refusal, head, from));
    }

    /// Logs the refusal of a connection, of which nothing was read.
    pub(super) fn connection(&self, refusal: Refusal, address: IpAddr) {
        self.log(refusal, address, "http", || plain(refusal).map(str::to_owned));
    }

    fn log(
        &self,
        refusal: Refusal,
        address: IpAddr,
        transport: &'static str,
        explain: impl FnOnce() -> Option<String>,
    ) {
        if !log::log_enabled!(log::Level::Warn) {
            return;
        }
        let Some((reason, text)) = refusal.counted().zip(explain()) else { return };
        let Some(left_out) = self.0.spend(clock::now()) else { return };
        if left_out > 0 {
            log::warn!(lines = left_out; "some clients were refused without a line, because there were too many at once");
        }
        log::warn!(address:%, transport, reason = reason.as_str(); "{text}");
    }
}

/// Returns what was asked for, as a session's lines name it.
fn transport(head: &RequestHead) -> &'static str {
    if head.headers().contains_key(header::UPGRADE) {
        TransportName::WebSocket.as_str()
    } else if head.uri.query().is_some_and(|query| query.contains("transport=polling")) {
        TransportName::Polling.as_str()
    } else {
        "http"
    }
}

/// Returns what is refused and what allows it, or `None` for what clients do wrong every day.
fn explain(refusal: Refusal, head: &RequestHead, from: &Forwarded) -> Option<String> {
    let short = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
    if refusal == Refusal::Engine(HandshakeError::Forbidden) {
        return Some(match origins::page_of(head).as_deref().map(short) {
            // A file, or a page in a sandbox.
            Some(page) if page == "null" => {
                "a page of the origin null may not use this server: --allow-origin '*' allows it".to_owned()
            }
            Some(page) => {
                format!("a page of the origin {page} may not use this server: --allow-origin {page} allows it")
            }
            None => "a page that hides its origin may not use this server: --allow-origin '*' allows it".to_owned(),
        });
    }
    if refusal == Refusal::ForeignHost {
        let name = short(Host::parse(from.host.as_ref()?.to_str().ok()?)?.name);
        return Some(format!(
            "a request for the host {name} is refused: --allowed-host {name} allows it, or --trusted-proxy if a proxy \
            passes it on"
        ));
    }
    plain(refusal).map(str::to_owned)
}

/// Returns the same for a refusal that depends on nothing in the request.
fn plain(refusal: Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Denied => Some("a client is refused because the service at --auth-url denies it"),
        Refusal::Full => Some("a client is refused because there are as many sessions as --max-sessions allows"),
        Refusal::AddressFull => Some(
            "a client is refused because its address has as many sessions as --max-sessions-per-address allows; if it \
            is the address of a proxy, name it with --trusted-proxy",
        ),
        Refusal::ConnectionsFull => {
            Some("a connection is refused because there are as many as --max-http-connections allows")
        }
        Refusal::AddressConnectionsFull => Some(
            "a connection is refused because its address has as many as --max-http-connections-per-address allows; if \
            it is the address of a proxy, name it with --trusted-proxy",
        ),
        Refusal::UrlTooLong | Refusal::HeadTooLong => {
            Some("a request is refused because its target and headers are longer than --max-head allows")
        }
        Refusal::ClosedPath => Some("a client asks for Socket.IO at another path than that of --path"),
        Refusal::Engine(HandshakeError::NewerRevision(_) | HandshakeError::UnsupportedVersion) => {
            Some("a client of another version is refused: this server speaks Socket.IO 2 (Engine.IO 3)")
        }
        // The auth service's failure has a line of its own.
        Refusal::AuthUnavailable
        | Refusal::Engine(
            HandshakeError::Forbidden
            | HandshakeError::TransportUnknown
            | HandshakeError::SessionUnknown
            | HandshakeError::BadMethod
            | HandshakeError::BadRequest,
        )
        | Refusal::ForeignHost
        | Refusal::BadHost
        | Refusal::TooBig
        | Refusal::Stopping
        | Refusal::CutOff
        | Refusal::NoPath
        | Refusal::NoFile
        | Refusal::WebSocketVersion
        | Refusal::ContentEncoding
        | Refusal::TooSlow
        | Refusal::PostsFull => None,
    }
}
