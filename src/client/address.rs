//! The address of a server.

use std::fmt;
use std::str::FromStr;

use awc::http::header::{HeaderName, HeaderValue};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use url::Url;

/// The address of a Socket.IO v2 server, as people write it: `http://farm:8081`, also with `https`,
/// `ws` or `wss`, and with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    base: Url,
    /// The `Authorization` value for the name and password of the URL, which are kept only here.
    authorization: Option<Secret>,
    /// Further headers of requests.
    headers: Vec<Header>,
}

/// A header of requests, parsed from `Name: value`. The value may be a secret and is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: HeaderName,
    value: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a header such as 'Cookie: session=…'")]
pub struct InvalidHeader;

impl Header {
    pub(crate) fn pair(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), self.value.clone())
    }
}

impl FromStr for Header {
    type Err = InvalidHeader;

    fn from_str(text: &str) -> Result<Self, InvalidHeader> {
        let (name, value) = text.split_once(':').ok_or(InvalidHeader)?;
        let name = HeaderName::try_from(name).map_err(|_| InvalidHeader)?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| InvalidHeader)?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidAddress {
    #[error("not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    #[error("the URL begins with {0}:// instead of http:// or https://")]
    UnknownScheme(String),
    #[error("the URL has no host")]
    NoHost,
}

impl Address {
    /// Returns the URL that opens a WebSocket (engine.io-protocol revision 3, "URLs").
    pub fn websocket_url(&self) -> String {
        let mut url = self.base.clone();
        let path = format!("{}/socket.io/", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(Some("EIO=3&transport=websocket"));
        url.set_fragment(None);
        url.into()
    }

    /// Returns the value of `Authorization` for requests to this address, if it has a name and
    /// password.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|secret| secret.0.as_str())
    }

    /// Returns the address with a bearer token in place of its name and password.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { authorization: Some(Secret(format!("Bearer {token}"))), ..self }
    }

    /// Returns the address with further headers of requests to it. They replace what the address says itself.
    #[must_use]
    pub fn with_headers(self, headers: &[Header]) -> Self {
        Self { headers: headers.to_vec(), ..self }
    }

    pub(crate) fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Returns whether the server uses TLS.
    pub fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Returns the address with its path and query.
    pub fn as_str(&self) -> &str {
        self.base.as_str()
    }

    /// Returns the server's host (a name or an IP address) and port.
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        (host, self.base.port_or_known_default().unwrap_or(80))
    }

    /// Returns the path below which the server lives; `/` if it has its host to itself.
    pub fn path(&self) -> &str {
        self.base.path()
    }

    /// Returns the URL of an absolute `path` on this server, below the server's own path.
    pub fn below(&self, path: &str) -> String {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    /// Returns the URL of an absolute path on the same host, such as an image of a job.
    pub fn join(&self, path: &str) -> String {
        self.base.join(path).map_or_else(|_| path.to_owned(), String::from)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        // A host and port alone, such as 127.0.0.1:8080, mean http.
        let mut url = match text.is_empty() || text.contains("://") {
            true => Url::parse(text)?,
            false => Url::parse(&format!("http://{text}"))?,
        };
        match url.scheme() {
            "http" | "https" => {}
            "ws" => url.set_scheme("http").map_err(|()| InvalidAddress::NoHost)?,
            "wss" => url.set_scheme("https").map_err(|()| InvalidAddress::NoHost)?,
            other => return Err(InvalidAddress::UnknownScheme(other.to_owned())),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidAddress::NoHost);
        }
        let authorization = take_user(&mut url);
        Ok(Self { base: url, authorization, headers: Vec::new() })
    }
}

/// Removes the name and password from a URL, so that they are never printed.
fn take_user(url: &mut Url) -> Option<Secret> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let user = [&decode(url.username())[..], b":", &decode(url.password().unwrap_or_default())].concat();
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(user));
    // The URL has a host, so neither can fail.
    let _ = (url.set_username(""), url.set_password(None));
    Some(Secret(authorization))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value_that_is_never_printed() {
        let header: Header = "Cookie:  session=a:b ".parse().unwrap();
        assert_eq!(header.pair(), (HeaderName::from_static("cookie"), HeaderValue::from_static("session=a:b")));
        let address = "http://farm".parse::<Address>().unwrap().with_headers(&[header]);
        assert!(!format!("{address:?} {address}").contains("session"), "{address:?}");
        for text in ["", "Cookie", "a b: c", ": x", "x: a\nb"] {
            assert_eq!(text.parse::<Header>(), Err(InvalidHeader), "{text:?}");
        }
    }

    #[test]
    fn a_path_and_the_scheme_of_a_websocket_are_taken() {
        for (text, expected) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/socket.io/?EIO=3&transport=websocket"),
            ("ws://farm/", "http://farm/socket.io/?EIO=3&transport=websocket"),
            ("wss://farm", "https://farm/socket.io/?EIO=3&transport=websocket"),
            ("127.0.0.1:8081", "http://127.0.0.1:8081/socket.io/?EIO=3&transport=websocket"),
            ("farm:8081/sub", "http://farm:8081/sub/socket.io/?EIO=3&transport=websocket"),
            ("http://[::1]:80/farm/?x#y", "http://[::1]/farm/socket.io/?EIO=3&transport=websocket"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.websocket_url(), expected);
        }
    }

    #[test]
    fn tls_has_a_port_of_its_own() {
        for (text, tls, port) in
            [("https://farm", true, 443), ("wss://farm:8443", true, 8443), ("ws://farm", false, 80)]
        {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.is_tls(), address.host_and_port()), (tls, ("farm", port)), "{text}");
        }
    }

    #[test]
    fn a_name_and_password_are_sent_and_never_shown() {
        let address: Address = "http://farmer:s3%20cret@farm:8080/x".parse().unwrap();
        assert_eq!(address.authorization(), Some("Basic ZmFybWVyOnMzIGNyZXQ="));
        for shown in [address.to_string(), format!("{address:?}"), address.below("/api"), address.websocket_url()] {
            assert!(!shown.contains("s3") && !shown.contains("farmer") && !shown.contains("ZmFy"), "{shown}");
        }
        assert_eq!("http://farm".parse::<Address>().unwrap().authorization(), None);
    }

    #[test]
    fn images_are_found_relative_to_the_host() {
        let address: Address = "http://farm:8081/sub".parse().unwrap();
        assert_eq!(address.join("/job-files/a b.jpg"), "http://farm:8081/job-files/a%20b.jpg");
        assert_eq!(address.to_string(), "http://farm:8081/sub");
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a URL: relative URL without a base"),
            ("farm:port", "not a URL: invalid port number"),
            ("ftp://farm", "the URL begins with ftp:// instead of http:// or https://"),
            ("http://", "not a URL: empty host"),
            ("http://farm:99999", "not a URL: invalid port number"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), reason, "{text}");
        }
    }
}
