//! Where a server is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use url::Url;

/// Address of a Socket.IO v2 server, as people write it: `http://farm:8081`, also with `https`, `ws` or `wss`, and below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    base: Url,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidAddress {
    #[error("not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    #[error("the URL begins with {0}:// where http:// or https:// is due")]
    UnknownScheme(String),
    #[error("the URL names no host")]
    NoHost,
}

impl Address {
    /// The URL that opens a WebSocket (engine.io-protocol revision 3, "URLs").
    pub fn websocket_url(&self) -> String {
        let mut url = self.base.clone();
        let path = format!("{}/socket.io/", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(Some("EIO=3&transport=websocket"));
        url.set_fragment(None);
        url.into()
    }

    /// Whether the server is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// The address, with its path and query.
    pub fn as_str(&self) -> &str {
        self.base.as_str()
    }

    /// Where the server listens: a name or an IP address, and a port.
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        (host, self.base.port_or_known_default().unwrap_or(80))
    }

    /// The path below which the server lives; `/` where it has its host for itself.
    pub fn path(&self) -> &str {
        self.base.path()
    }

    /// The URL of what lives on this server under `path`, which is absolute, below the server's own path.
    pub fn below(&self, path: &str) -> String {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    /// The URL of something on the same server that is named by an absolute path, such as an image of a job.
    pub fn join(&self, path: &str) -> String {
        self.base.join(path).map_or_else(|_| path.to_owned(), String::from)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let mut url = Url::parse(text)?;
        match url.scheme() {
            "http" | "https" => {}
            "ws" => url.set_scheme("http").map_err(|()| InvalidAddress::NoHost)?,
            "wss" => url.set_scheme("https").map_err(|()| InvalidAddress::NoHost)?,
            other => return Err(InvalidAddress::UnknownScheme(other.to_owned())),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidAddress::NoHost);
        }
        Ok(Self { base: url })
    }
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
    fn a_path_and_the_scheme_of_a_websocket_are_taken() {
        for (text, expected) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/socket.io/?EIO=3&transport=websocket"),
            ("ws://farm/", "http://farm/socket.io/?EIO=3&transport=websocket"),
            ("wss://farm", "https://farm/socket.io/?EIO=3&transport=websocket"),
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
    fn images_are_found_relative_to_the_host() {
        let address: Address = "http://farm:8081/sub".parse().unwrap();
        assert_eq!(address.join("/job-files/a b.jpg"), "http://farm:8081/job-files/a%20b.jpg");
        assert_eq!(address.to_string(), "http://farm:8081/sub");
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a URL: relative URL without a base"),
            ("farm", "not a URL: relative URL without a base"),
            ("farm:8081", "the URL begins with farm:// where http:// or https:// is due"),
            ("ftp://farm", "the URL begins with ftp:// where http:// or https:// is due"),
            ("http://", "not a URL: empty host"),
            ("http://farm:99999", "not a URL: invalid port number"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), reason, "{text}");
        }
    }
}
