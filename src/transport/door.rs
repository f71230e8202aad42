//! What all requests of browsers share: the settings, and the admission of sessions, connections and
//! requests.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use actix_http::RequestHead;
use simulate_farm::Site;

use super::{
    TransportOptions,
    auth::Auth,
    files::Files,
    handshake,
    origins::{self, Hosts, Origins},
    paths::Part,
    polling::Pollers,
    refusal::Refusal,
    refusal_log::RefusalLog,
};
use crate::{
    actors::Hub,
    forwarded::{Forwarded, Trust},
    http::{self, Addresses, Admission, Guest},
    proxy::Proxy,
    tls::{Acceptor, Certificate},
};

/// What the browsers' listener works with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) options: TransportOptions,
    /// HTTP timeouts and sizes.
    pub(super) limits: http::HttpLimits,
    pub(super) origins: Origins,
    /// Hosts that the server answers for.
    pub(super) hosts: Hosts,
    /// Which forwarding headers are trusted.
    pub(super) trust: Trust,
    /// Accepts TLS. Without it browsers connect over plain TCP.
    pub(super) tls: Option<Acceptor>,
    /// The auth service. Without it all browsers are admitted.
    pub(super) auth: Option<Auth>,
    /// Forwards requests that this server does not handle. Without it they get 404.
    pub(super) proxy: Option<Proxy>,
    /// The simulated farm, whose API and images are served if there is no Manager.
    pub(super) demo: Option<Arc<Site>>,
}

impl Settings {
    /// `names` are this machine's; `proxy` leads to the Manager that the server is in front of.
    pub fn new(
        options: TransportOptions,
        limits: http::HttpLimits,
        names: &[String],
        certificate: Option<Arc<Certificate>>,
        proxy: Option<Proxy>,
        demo: Option<Arc<Site>>,
    ) -> Self {
        let trust = Trust { proxies: options.trusted_proxy.clone(), tls: certificate.is_some() };
        Self {
            origins: Origins::new(&options.allow_origin),
            hosts: Hosts::new(&options.allowed_host, names),
            auth: Auth::of(&options.auth),
            tls: certificate.map(|certificate| Acceptor::new(certificate, limits.head)),
            demo: demo.filter(|_| proxy.is_none()),
            proxy,
            trust,
            limits,
            options,
        }
    }
}

/// The shared entrance of all browser requests.
pub(super) struct Door {
    pub(super) hub: Arc<Hub>,
    pub(super) settings: Settings,
    pub(super) pollers: Pollers,
    /// The addresses of sessions.
    pub(super) addresses: Arc<Addresses>,
    /// The addresses of connections that are not WebSockets.
    pub(super) connections: Arc<Addresses>,
    pub(super) files: Files,
    pub(super) refusal_log: RefusalLog,
}

impl Door {
    /// Admits a new session.
    pub(super) fn enter(&self, forwarded: &Forwarded) -> Result<Admission, Refusal> {
        if self.hub.cut_off.load(Ordering::Relaxed) {
            return Err(Refusal::CutOff);
        }
        if self.hub.workers.is_closing() {
            return Err(Refusal::Stopping);
        }
        let presence = self.hub.stats.sessions.enter(self.settings.options.max_sessions).ok_or(Refusal::Full)?;
        let limit = self.settings.options.max_sessions_per_address;
        let guest = match self.known_client(forwarded) {
            Some(client) => self.addresses.enter(client, limit).ok_or(Refusal::AddressFull)?,
            None => Guest::default(),
        };
        Ok(Admission { _presence: Some(presence), _guest: guest })
    }

    /// Admits a connection. A trusted proxy's connection carries the requests of many clients,
    /// which are counted one by one.
    pub(super) fn admit_connection(&self, peer: Option<SocketAddr>) -> Result<Admission, Refusal> {
        let stats = self.hub.stats;
        let presence = stats.http_connections.enter(self.settings.options.max_http_connections);
        let presence = presence.ok_or(Refusal::ConnectionsFull)?;
        let peer = peer.map(|peer| peer.ip().to_canonical()).filter(|peer| !self.settings.trust.is_proxy(*peer));
        let guest = self.admit_request(peer)?;
        Ok(Admission { _presence: Some(presence), _guest: guest })
    }

    /// Returns the address that a request counts for. A request of a trusted proxy that names no client
    /// counts for none.
    pub(super) fn known_client(&self, forwarded: &Forwarded) -> Option<IpAddr> {
        Some(forwarded.client).filter(|client| !self.settings.trust.is_proxy(*client))
    }

    /// Counts a request, or a connection, for this address, if it is known.
    pub(super) fn admit_request(&self, client: Option<IpAddr>) -> Result<Guest, Refusal> {
        let Some(client) = client else { return Ok(Guest::default()) };
        let guest = self.connections.enter(client, self.settings.options.max_http_connections_per_address);
        guest.ok_or(Refusal::AddressConnectionsFull)
    }

    /// Counts and logs the refusal of a request.
    pub(super) fn refuse(&self, refusal: Refusal, head: &RequestHead, from: &Forwarded) {
        self.count(refusal);
        self.refusal_log.request(refusal, head, from);
    }

    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(reason) = refusal.counted() {
            self.hub.stats.refused(reason).add(1);
        }
    }

    pub(super) fn forwarded(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Forwarded {
        Forwarded::of(head, peer, &self.settings.trust)
    }

    /// Returns the part of the server that a request is for.
    pub(super) fn part(&self, head: &RequestHead) -> Part {
        Part::of(head.uri.path(), &self.settings.options.path)
    }

    /// Refuses requests with an oversized head, and requests for another host.
    pub(super) fn check(&self, head: &RequestHead, forwarded: &Forwarded) -> Result<(), Refusal> {
        handshake::check_size(head, self.settings.limits.head_bytes)?;
        origins::check_host(forwarded, &self.settings.hosts, &self.settings.origins)
    }
}
