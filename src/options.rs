//! What the options of all subsystems have in common: the headings of `serve --help`, and the
//! parsers of values.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::builder::{RangedU64ValueParser, TypedValueParser};

/// The headings of `serve --help`.
pub mod heading {
    pub const LISTENING: &str = "Listening";
    pub const EVENTS: &str = "Events";
    pub const CLUSTER: &str = "Several servers";
    pub const ACCESS: &str = "Access";
    pub const SESSIONS: &str = "Sessions";
    pub const DELIVERY: &str = "Delivery";
    pub const HTTP: &str = "HTTP";
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Parses an [`address`], or `unix:` and the absolute path of a Unix socket.
///
/// # Errors
///
/// The text is neither, or the system has no Unix sockets.
pub fn listen_address(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        None => address(text).map(ListenAddress::Tcp),
        Some(_) if !cfg!(unix) => Err("this system has no Unix sockets for servers".to_owned()),
        Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(ListenAddress::Unix(path.into())),
        Some(_) => Err("not a path such as unix:/run/flamenco-webupdates/browsers.sock".to_owned()),
    }
}

/// Parses an address with a port, such as `127.0.0.1:8081`, `localhost:8081` or `:8081`. Without a
/// host it is every IPv4 address of the machine. Of a name's addresses, an IPv4 one comes first.
///
/// # Errors
///
/// The text is not an address with a port, or the name has no address.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match split {
        Some(("", port)) => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        Some((host, port)) if !host.contains([':', '/', '[']) => {
            let found: Vec<SocketAddr> = (host, port).to_socket_addrs().into_iter().flatten().collect();
            let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
            first.copied().ok_or_else(|| format!("the name {host:?} has no address"))
        }
        Some(_) | None => Err("not an address such as 127.0.0.1:8081, localhost:8081, :8081 or [::1]:8081".to_owned()),
    }
}

/// Parses a duration such as `30s`, `500ms` or `2m`.
///
/// # Errors
///
/// The text is not a duration, or it is negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| "not a duration such as 30s, 500ms or 2m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

/// Parses a duration that is not zero.
///
/// # Errors
///
/// The text is not a duration, or it is not positive.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be greater than zero".to_owned()),
        positive => Ok(positive),
    }
}

/// Returns a parser of numbers from 1 on.
pub fn at_least_one() -> impl TypedValueParser<Value = usize> {
    between(1, 1 << 40)
}

/// Returns a parser of numbers in this range, both ends included.
pub fn between(min: u64, max: u64) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<u64>::new().range(min..=max).map(|number| number as usize)
}

/// Returns the options of a module with their defaults, for tests.
#[cfg(test)]
pub(crate) fn defaults<T: clap::Args>() -> T {
    let command = T::augment_args(clap::Command::new("test").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from([""; 0])).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_the_host_or_name_it() {
        for (text, expected) in [
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("[::1]:0", "[::1]:0"),
            (":8081", "0.0.0.0:8081"),
            ("localhost:8081", "127.0.0.1:8081"),
        ] {
            assert_eq!(address(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", ":", "8081", "localhost", "localhost:", "localhost:99999", "::1:8081", "http://localhost:8081"]
        {
            let error = address(text).unwrap_err();
            assert!(error.starts_with("not an address such as "), "{text}: {error}");
        }
        assert!(address("no.such.name.invalid:80").unwrap_err().contains("has no address"));
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_has_an_absolute_path() {
        let parsed = listen_address("unix:/run/farm.sock").unwrap();
        assert_eq!(
            (parsed.to_string().as_str(), parsed),
            ("unix:/run/farm.sock", ListenAddress::Unix("/run/farm.sock".into()))
        );
        assert_eq!(listen_address(":8081"), Ok(ListenAddress::Tcp(([0, 0, 0, 0], 8081).into())));
        for text in ["unix:", "unix:farm.sock", "unix:/run/", "unix://"] {
            assert!(listen_address(text).unwrap_err().starts_with("not a path such as unix:/"), "{text}");
        }
    }
}
