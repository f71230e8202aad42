//! The origin of a request: its client, scheme and host, as far as its sender is trusted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use actix_http::{
    RequestHead,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use ipnet::IpNet;

const FOR: HeaderName = header::X_FORWARDED_FOR;
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Prefixes of headers in which proxies describe the original request.
const CLAIMS: [&str; 2] = ["x-forwarded-", "x-scheme"];

/// Prefixes of such headers that no proxy is believed, because many proxies forward them as a client sent them. They name another
/// client address than `X-Forwarded-For`, or another path than the one that was checked.
const FOREIGN_CLAIMS: [&str; 10] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-",
    "x-rewrite-",
];

/// A trusted proxy: an address, or a network such as 10.0.0.0/8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self)
            .map_err(|_| "not an address or network, for example 10.0.0.5, 10.0.0.0/8 or fd00::/8".to_owned())
    }
}

impl TrustedProxy {
    fn is(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// The rules by which a listener trusts forwarding headers.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    pub proxies: Vec<TrustedProxy>,
    /// Whether the listener itself uses TLS.
    pub tls: bool,
}

impl Trust {
    /// Returns whether this is the address of a trusted proxy.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.is(peer))
    }
}

/// The origin of a request. Headers of a peer that is not a trusted proxy are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The address nearest to the client that trusted proxies vouch for.
    pub client: IpAddr,
    /// Whether the client's connection uses TLS.
    pub is_tls: bool,
    /// The host that the client requested.
    pub host: Option<HeaderValue>,
    /// Whether the peer is a trusted proxy.
    pub by_proxy: bool,
    /// The value of `X-Forwarded-For` for the next server.
    hops: String,
}

impl Forwarded {
    /// Reads the origin from `head`, which came from `peer`. The address of a peer that has already
    /// disconnected is unknown.
    pub fn of(head: &RequestHead, peer: Option<SocketAddr>, trust: &Trust) -> Self {
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical());
        let by_proxy = trust.is_proxy(peer);
        let claimed = |name: &HeaderName| last(head.headers(), name).filter(|_| by_proxy);
        let is_tls = claimed(&PROTO).map_or(trust.tls, |proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        // The host of a target that is a whole URL counts for more than the header (RFC 9112 §3.2.2).
        let asked = || match head.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str().rsplit('@').next().unwrap_or_default()).ok(),
            None => head.headers().get(header::HOST).cloned(),
        };
        let hops = hops(head, peer, &trust.proxies);
        Self {
            client: hops.first().copied().unwrap_or(peer),
            is_tls,
            host: claimed(&HOST).or_else(asked),
            by_proxy,
            hops: hops.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        }
    }

    /// Writes the origin into the headers of a forwarded request, replacing what others claimed.
    pub fn write(&self, headers: &mut HeaderMap) {
        let is_dropped = |name: &&HeaderName| {
            // To some servers an underscore is a dash, but no proxy writes one.
            let plain = name.as_str().replace('_', "-");
            let begins = |claims: &[&str]| claims.iter().any(|claim| plain.starts_with(claim));
            let is_believed = self.by_proxy && plain == name.as_str();
            begins(&FOREIGN_CLAIMS) || begins(&CLAIMS) && !is_believed
        };
        let dropped: Vec<HeaderName> = headers.keys().filter(is_dropped).cloned().collect();
        dropped.into_iter().for_each(|name| drop(headers.remove(name)));
        if let Ok(hops) = HeaderValue::from_str(&self.hops) {
            headers.insert(FOR, hops);
        }
        headers.insert(PROTO, HeaderValue::from_static(if self.is_tls { "https" } else { "http" }));
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
    }
}

/// The value of a `Host` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host<'a> {
    /// Without a trailing dot; an IPv6 address in brackets.
    pub name: &'a str,
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Parses a host and port. Returns `None` for any other text.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, "")) if !name.contains(':') || name.ends_with(']') => (name, None),
            Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
            Some(_) | None => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
        (!name.is_empty() && name.bytes().all(plain)).then_some(Self { name, port })
    }

    /// Returns whether this is `host`, as a URL contains it.
    pub fn is(&self, host: &str) -> bool {
        let other = Host::parse(host).and_then(|host| host.address());
        self.name.eq_ignore_ascii_case(host) || self.address().is_some_and(|address| Some(address) == other)
    }

    /// Returns the IP address, unless the host is a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.name.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Returns whether it names this machine for clients on this machine.
    pub fn is_loopback(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || self.address().is_some_and(|address| address.to_canonical().is_loopback())
    }
}

/// Returns the addresses that trusted proxies vouch for: the client, then the proxies after it.
/// Clients can forge the entries before theirs.
fn hops(head: &RequestHead, peer: IpAddr, trusted: &[TrustedProxy]) -> Vec<IpAddr> {
    let values: Vec<_> = head.headers().get_all(FOR).collect();
    let mut before =
        values.iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')).map_while(hop);
    let mut address = peer;
    let mut hops = vec![peer];
    while trusted.iter().any(|proxy| proxy.is(address))
        && let Some(next) = before.next()
    {
        address = next;
        hops.push(next);
    }
    hops.reverse();
    hops
}

/// Parses an address as proxies write it, some of them with a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    Some(address.ok()?.to_canonical())
}

/// Returns the last element of a list header, which the nearest proxy added.
fn last(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let list = headers.get_all(name).next_back()?;
    let element = list.as_bytes().rsplit(|&byte| byte == b',').next().unwrap_or_default();
    HeaderValue::from_bytes(element.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(peer: &str, headers: &[(&'static str, &'static str)], trusted: &[&str], tls: bool) -> Forwarded {
        let mut head = RequestHead::default();
        for &(name, value) in headers {
            head.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let proxies = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Forwarded::of(&head, Some(peer.parse().unwrap()), &Trust { proxies, tls })
    }

    #[test]
    fn only_the_word_of_trusted_proxies_is_taken() {
        let proxies = ["10.0.0.0/8", "fd00::1"];
        for (peer, values, expected) in [
            ("192.0.2.1:99", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.5:99", &[], "10.0.0.5"),
            ("10.0.0.5:99", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.5:99", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.5:99", &["198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            ("10.0.0.5:99", &["1.1.1.1", "198.51.100.7,10.9.9.9"], "198.51.100.7"),
            ("10.0.0.5:99", &["198.51.100.7, unknown"], "10.0.0.5"),
            ("10.0.0.5:99", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.5:99", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.5:99", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("[fd00::1]:99", &["2001:db8::1"], "2001:db8::1"),
            ("[::ffff:10.0.0.5]:99", &["::ffff:198.51.100.7"], "198.51.100.7"),
        ] {
            let headers: Vec<_> = values.iter().map(|&value| ("x-forwarded-for", value)).collect();
            let client = forwarded(peer, &headers, &proxies, false).client.to_string();
            assert_eq!(client, expected, "{peer} {values:?}");
        }
        let client = forwarded("10.0.0.5:99", &[("x-forwarded-for", "198.51.100.7")], &[], false).client;
        assert_eq!(client.to_string(), "10.0.0.5");
        assert!("10.0.0.0/33".parse::<TrustedProxy>().is_err());
    }

    const CLAIMED: [(&str, &str); 12] = [
        ("host", "farm:8081"),
        ("x-forwarded-for", "192.168.0.1"),
        ("x-forwarded-for", "10.0.0.9, 203.0.113.9"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-host", "evil.example, farm.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "http, https"),
        ("x-forwarded-prefix", "/farm"),
        ("x_forwarded_for", "192.168.0.1"),
        ("forwarded", "for=192.168.0.1"),
        ("x-real-ip", "192.168.0.1"),
        ("x-original-url", "/admin"),
    ];

    fn written(forwarded: &Forwarded) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in CLAIMED {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        forwarded.write(&mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn claims_of_untrusted_peers_are_not_forwarded() {
        let stranger = forwarded("[::ffff:192.0.2.7]:99", &CLAIMED, &["10.0.0.1"], true);
        assert_eq!(
            written(&stranger),
            [
                "host: farm:8081",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: farm:8081",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_what_it_passed_on_is_not() {
        let proxy = forwarded("10.0.0.1:99", &CLAIMED, &["10.0.0.1"], false);
        assert!(proxy.is_tls && proxy.by_proxy);
        assert_eq!(
            written(&proxy),
            [
                "host: farm:8081",
                "x-forwarded-for: 203.0.113.9, 10.0.0.1",
                "x-forwarded-host: farm.example",
                "x-forwarded-prefix: /farm",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn the_host_of_a_whole_url_counts_for_more() {
        let mut head = RequestHead::default();
        head.uri = "http://user@farm.example:8081/x".parse().unwrap();
        head.headers.insert(header::HOST, HeaderValue::from_static("other"));
        let forwarded = Forwarded::of(&head, None, &Trust::default());
        assert_eq!(forwarded.host.unwrap(), "farm.example:8081");
    }

    #[test]
    fn loopback_has_names() {
        for (host, expected) in [
            ("localhost:1", true),
            ("a.localhost", true),
            ("127.9.9.9:80", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]:8082", true),
            ("192.0.2.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(Host::parse(host).unwrap().is_loopback(), expected, "{host}");
        }
    }
}
