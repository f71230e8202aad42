//! The number of files that the process may open, which limits the number of connections.

use crate::{system, transport::TransportOptions};

/// The share of all files, in quarters, that HTTP connections may use. The rest is for sessions,
/// the Manager and the server itself.
const HTTP_QUARTERS: usize = 3;

/// The minimum number of connections of one address.
const MIN_SHARE: usize = 8;

/// Raises the limit of open files as far as the system allows, and adapts the options to it.
pub(super) fn fit(options: &mut TransportOptions) {
    let files = system::raise_open_files();
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let asked =
        HttpConnections { all: options.max_http_connections, of_an_address: options.max_http_connections_per_address };
    let fitted = asked.within(files);
    if fitted != asked {
        log::warn!(
            "the process may open {files} files, so at most {} HTTP connections are accepted, {} of them from one address; raise `ulimit -n` for more",
            fitted.all,
            fitted.of_an_address,
        );
    }
    if options.max_sessions > files {
        log::warn!(
            "the process may open {files} files, so it cannot hold the {} browsers of --max-sessions; raise `ulimit -n`",
            options.max_sessions,
        );
    }
    (options.max_http_connections, options.max_http_connections_per_address) = (fitted.all, fitted.of_an_address);
}

/// Limits on connections that are not WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HttpConnections {
    all: usize,
    of_an_address: usize,
}

impl HttpConnections {
    /// One address gets a tenth of the files, as it does of the default limits.
    fn within(self, files: usize) -> Self {
        let all = files / 4 * HTTP_QUARTERS;
        if self.all <= all {
            return self;
        }
        Self { all, of_an_address: self.of_an_address.min((all / 10).max(MIN_SHARE)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_files() {
        let asked = HttpConnections { all: 100_000, of_an_address: 10_000 };
        assert_eq!(asked.within(usize::MAX), asked);
        assert_eq!(asked.within(1024), HttpConnections { all: 768, of_an_address: 76 });
        assert_eq!(asked.within(20_000), HttpConnections { all: 15_000, of_an_address: 1500 });
        let few = HttpConnections { all: 2, of_an_address: 10_000 };
        assert_eq!(few.within(1024), few);
    }
}
