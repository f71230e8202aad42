//! Allowed origins and hosts, compared by their parts and never as text.

use std::{fmt, str::FromStr};

use actix_http::{
    RequestHead,
    header::{self, HeaderName, HeaderValue},
};
use url::Url;

use super::refusal::Refusal;
use crate::{
    forwarded::{Forwarded, Host},
    protocol::HandshakeError,
};

/// Names that no public domain has, so a web page cannot point them to this server.
const LOCAL_SUFFIXES: [&str; 5] = [".localhost", ".local", ".lan", ".internal", ".home.arpa"];

/// The maximum length of a domain name (RFC 1035 §2.3.4).
pub(super) const MAX_NAME: usize = 253;

/// The origins that may connect.
#[derive(Debug, Clone)]
pub(super) enum Origins {
    /// Any origin. Only if configured explicitly.
    Any,
    /// Origins with the host of the request, and these origins.
    SameHostAnd(Vec<Origin>),
}

/// An origin in an option: scheme, host and port. All are exact, except that the first label of the
/// host may be `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Without `*.` if `is_wildcard`.
    host: String,
    is_wildcard: bool,
    port: Option<u16>,
}

/// A value of `--allow-origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    Any,
    One(Origin),
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    #[error("not an origin such as https://farm.example: {0}")]
    NotAUrl(#[from] url::ParseError),
    #[error("an origin is scheme://host or scheme://host:port, nothing more")]
    TooMuch,
    #[error("`*` may only be the first label of a host, as in https://*.farm.example")]
    Wildcard,
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let url = Url::parse(text)?;
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if host.is_empty() || !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidOrigin::TooMuch);
        }
        let scheme = match url.scheme() {
            "ws" => "http",
            "wss" => "https",
            other => other,
        };
        let (host, is_wildcard) = match host.strip_prefix("*.") {
            Some(rest) => (rest.to_owned(), true),
            None => (host, false),
        };
        // The root's dot may end a name; it means the same without.
        let host = host.strip_suffix('.').filter(|name| !name.is_empty()).map_or(host.clone(), str::to_owned);
        if host.contains('*') || host.is_empty() {
            return Err(InvalidOrigin::Wildcard);
        }
        Ok(Self { scheme: scheme.to_owned(), host, is_wildcard, port: url.port_or_known_default() })
    }
}

impl FromStr for AllowedOrigin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(f, "{}://{wildcard}{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Origin {
    fn covers(&self, other: &Self) -> bool {
        self.covers_host(&other.host) && self.scheme == other.scheme && self.port == other.port
    }

    fn covers_host(&self, host: &str) -> bool {
        match self.is_wildcard {
            false => self.host == host,
            true => {
                host.strip_suffix(self.host.as_str()).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
        }
    }
}

impl Origins {
    pub(super) fn new(allowed: &[AllowedOrigin]) -> Self {
        let one = |allowed: &AllowedOrigin| match allowed {
            AllowedOrigin::Any => None,
            AllowedOrigin::One(origin) => Some(origin.clone()),
        };
        allowed.iter().map(one).collect::<Option<_>>().map_or(Self::Any, Self::SameHostAnd)
    }

    /// Returns whether a page of this origin may connect to the server under this host.
    fn allow(&self, origin: &str, site: &Site<'_>) -> bool {
        let Self::SameHostAnd(allowed) = self else { return true };
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        !origin.is_wildcard && (site.is_of(&origin) || allowed.iter().any(|allowed| allowed.covers(&origin)))
    }

    /// Returns whether `--allow-origin` lists this origin.
    pub(super) fn list(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Origin>().ok());
        origin.is_some_and(|origin| !origin.is_wildcard && self.named().iter().any(|listed| listed.covers(&origin)))
    }

    fn named(&self) -> &[Origin] {
        match self {
            Self::Any => &[],
            Self::SameHostAnd(origins) => origins,
        }
    }
}

/// The server's address as a client sees it.
struct Site<'a> {
    host: Option<Host<'a>>,
    is_tls: bool,
}

impl<'a> Site<'a> {
    fn of(forwarded: &'a Forwarded) -> Self {
        let host = forwarded.host.as_ref().and_then(|host| host.to_str().ok());
        Self { host: host.and_then(Host::parse), is_tls: forwarded.is_tls }
    }

    /// A listener without TLS may be behind an undeclared TLS proxy; a listener with TLS is not.
    fn is_of(&self, origin: &Origin) -> bool {
        let Some(host) = &self.host else { return false };
        let default = match origin.scheme.as_str() {
            "https" => 443,
            "http" if !self.is_tls => 80,
            _ => return false,
        };
        host.is(&origin.host) && host.port.unwrap_or(default) == origin.port.unwrap_or(default)
    }
}

/// The hosts that the server answers for. Other names may belong to a page that points its name
/// here (DNS rebinding).
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// In lower case; a leading dot covers all subdomains.
    allowed: Vec<String>,
    any: bool,
}

impl Hosts {
    /// Creates the set. `allowed` are names, `*.name` for subdomains, or `*`; `machine` are this
    /// machine's own names.
    pub(super) fn new(allowed: &[String], machine: &[String]) -> Self {
        let names = allowed.iter().chain(machine);
        let lower = |name: &String| name.trim_start_matches('*').trim_end_matches('.').to_ascii_lowercase();
        Self { allowed: names.map(lower).collect(), any: allowed.iter().any(|name| name == "*") }
    }

    fn allow(&self, name: &Host<'_>, origins: &Origins) -> bool {
        let lower = name.name.to_ascii_lowercase();
        let covers = |allowed: &String| match allowed.strip_prefix('.') {
            Some(_) => lower.ends_with(allowed.as_str()),
            None => lower == *allowed,
        };
        self.any
            || name.address().is_some()
            || !lower.contains('.')
            || LOCAL_SUFFIXES.iter().any(|suffix| lower.ends_with(suffix))
            || self.allowed.iter().any(covers)
            || origins.named().iter().any(|origin| origin.covers_host(&lower))
    }
}

/// Parses a value of `--allowed-host`.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) && !name.is_empty();
    if text == "*" || is_name {
        Ok(text.to_owned())
    } else {
        Err("not a host such as farm.example or *.farm.example, without a port".to_owned())
    }
}

/// Refuses a request for a host that this server does not answer for. Requests of a trusted proxy
/// are not checked.
pub(super) fn check_host(forwarded: &Forwarded, hosts: &Hosts, origins: &Origins) -> Result<(), Refusal> {
    let Some(host) = forwarded.host.as_ref().filter(|_| !forwarded.by_proxy) else { return Ok(()) };
    let host = host.to_str().ok().and_then(Host::parse).ok_or(Refusal::BadHost)?;
    if hosts.allow(&host, origins) {
        return Ok(());
    }
    Err(Refusal::ForeignHost)
}

/// Returns the origin of the page that sent a request, if it has one and may connect.
pub(super) fn check_origin<'a>(
    head: &'a RequestHead,
    forwarded: &Forwarded,
    origins: &Origins,
) -> Result<Option<&'a HeaderValue>, Refusal> {
    let Some(origin) = head.headers().get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    if origins.allow(text, &Site::of(forwarded)) { Ok(Some(origin)) } else { Err(HandshakeError::Forbidden.into()) }
}

/// Returns the origin of the page that sent a request, as far as it is known.
pub(super) fn page_of(head: &RequestHead) -> Option<String> {
    let text = |name: HeaderName| head.headers().get(name).and_then(|value| value.to_str().ok());
    let script = || Some(Url::parse(text(header::REFERER)?).ok()?.origin().ascii_serialization());
    text(header::ORIGIN).map(str::to_owned).or_else(script)
}

/// Refuses a request that a page of another site makes without an `Origin`. It could not read the
/// response, but could make each of its visitors open sessions.
pub(super) fn check_fetch(head: &RequestHead, origins: &Origins) -> Result<(), Refusal> {
    let site = head.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    match (origins, site) {
        (Origins::SameHostAnd(_), Some(b"cross-site" | b"same-site"))
            if !head.headers().contains_key(header::ORIGIN) =>
        {
            Err(HandshakeError::Forbidden.into())
        }
        (Origins::Any | Origins::SameHostAnd(_), _) => Ok(()),
    }
}

/// Checks the page of a script (JSONP), for which browsers send no `Origin`. The page is known only
/// from `Referer`, so a page that hides it is refused: otherwise any web page could read the
/// response.
pub(super) fn check_script(head: &RequestHead, forwarded: &Forwarded, origins: &Origins) -> Result<(), Refusal> {
    if matches!(origins, Origins::Any) || head.headers().contains_key(header::ORIGIN) {
        return Ok(());
    }
    let page = head.headers().get(header::REFERER).and_then(|page| Url::parse(page.to_str().ok()?).ok());
    match page.map(|page| page.origin().ascii_serialization()) {
        Some(page) if origins.allow(&page, &Site::of(forwarded)) => Ok(()),
        Some(_) | None => Err(HandshakeError::Forbidden.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], origin: &str, host: Option<&str>, is_tls: bool) -> bool {
        let allowed: Vec<AllowedOrigin> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Origins::new(&allowed).allow(origin, &Site { host: host.and_then(Host::parse), is_tls })
    }

    #[test]
    fn pages_of_the_same_host_may_connect() {
        for (host, origin, plain, tls) in [
            ("farm:8081", "http://farm:8081", true, false),
            ("farm:8081", "https://farm:8081", true, true),
            ("farm:80", "http://farm", true, false),
            ("farm", "http://farm:80", true, false),
            ("farm:443", "https://farm", true, true),
            ("farm", "https://farm", true, true),
            ("farm:443", "wss://farm", true, true),
            ("FARM.:8081", "http://farm:8081", true, false),
            ("farm.example.:8081", "http://farm.example.:8081", true, false),
            ("[0:0::1]:8081", "http://[::1]:8081", true, false),
            ("192.0.2.7:8081", "http://192.0.2.7:8081", true, false),
            ("[::1]:8081", "http://[::1]:8081", true, false),
            ("farm:80", "https://farm", false, false),
            ("farm:8081", "http://farm:8080", false, false),
            ("farm:8081", "http://farm:8081.evil.example", false, false),
            ("farm:8081", "http://evil.example/farm:8081", false, false),
            ("farm:8081", "ftp://farm:8081", false, false),
            ("farm:8081", "null", false, false),
            ("farm:8081", "", false, false),
            ("farm:8081", "farm:8081", false, false),
            ("*.example", "http://*.example", false, false),
        ] {
            assert_eq!(allows(&[], origin, Some(host), false), plain, "{host} {origin}");
            assert_eq!(allows(&[], origin, Some(host), true), tls, "{host} {origin} over TLS");
        }
        assert!(!allows(&[], "http://farm", None, false));
        assert!(allows(&["*"], "null", None, false));
    }

    #[test]
    fn origins_are_compared_by_their_parts() {
        for (allowed, origin, expected) in [
            ("https://dashboard.example", "https://dashboard.example", true),
            ("https://dashboard.example", "HTTPS://Dashboard.example:443", true),
            ("wss://dashboard.example", "https://dashboard.example", true),
            ("https://dashboard.example", "http://dashboard.example", false),
            ("https://dashboard.example", "https://dashboard.example:8443", false),
            ("https://*.farm.example", "https://a.farm.example", true),
            ("https://*.farm.example", "https://a.b.farm.example", true),
            ("https://*.farm.example", "https://farm.example", false),
            ("https://*.farm.example", "https://evilfarm.example", false),
            ("https://*.farm.example", "https://.farm.example", false),
            ("https://*.farm.example", "https://*.farm.example", false),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("https://dashboard.example.", "https://dashboard.example", true),
            ("capacitor://localhost", "http://localhost", false),
            ("app://.", "app://.", true),
            ("tauri://localhost", "tauri://LOCALHOST", true),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop", true),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://other", false),
        ] {
            assert_eq!(allows(&[allowed], origin, Some("updates"), false), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn an_invalid_origin_is_refused_with_a_reason() {
        for (text, reason) in [
            ("farm.example", "not an origin such as https://farm.example: relative URL without a base"),
            ("https://farm.example/page", "an origin is scheme://host or scheme://host:port, nothing more"),
            ("https://user@farm.example", "an origin is scheme://host or scheme://host:port, nothing more"),
            ("file:///home", "an origin is scheme://host or scheme://host:port, nothing more"),
            ("https://a.*.example", "`*` may only be the first label of a host, as in https://*.farm.example"),
            ("https://*", "`*` may only be the first label of a host, as in https://*.farm.example"),
        ] {
            assert_eq!(text.parse::<AllowedOrigin>().unwrap_err().to_string(), reason, "{text}");
        }
        assert_eq!("https://Farm.example:443/".parse::<Origin>().unwrap().to_string(), "https://farm.example:443");
    }

    #[test]
    fn hosts_that_a_page_of_the_web_cannot_have_are_answered_for() {
        let hosts =
            Hosts::new(&["farm.example".to_owned(), "*.studio.example".to_owned()], &["node7.site.example".to_owned()]);
        let origins = ["https://dashboard.example", "https://*.pages.example"].map(|origin| origin.parse().unwrap());
        let origins = Origins::new(&origins);
        for (host, expected) in [
            ("127.0.0.1:8081", true),
            ("192.0.2.7", true),
            ("[2001:db8::1]:8081", true),
            ("localhost:8081", true),
            ("farm", true),
            ("FARM.local:8081", true),
            ("farm.example", true),
            ("farm.example.:8081", true),
            ("a.farm.example", false),
            ("x.studio.example", true),
            ("studio.example", false),
            ("node7.site.example", true),
            ("dashboard.example", true),
            ("a.pages.example", true),
            ("pages.example", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
        ] {
            assert_eq!(hosts.allow(&Host::parse(host).unwrap(), &origins), expected, "{host}");
        }
        assert!(Hosts::new(&["*".to_owned()], &[]).allow(&Host::parse("evil.example").unwrap(), &origins));
        for bad in ["", ":80", "a b", "a/b", "farm:port", "farm:99999", "a@b"] {
            assert_eq!(Host::parse(bad), None, "{bad}");
        }
    }
}
