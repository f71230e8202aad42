//! The part of the server that a request's path names: one comparison for every transport and for
//! proxied requests.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::{directory, files};

/// The segment under which Socket.IO servers live, including Flamenco Manager's own. A path that
/// contains it is never proxied: a server behind this one may resolve or rewrite the path, and the
/// Manager's Socket.IO does not apply this server's rules.
const SOCKET_IO: &str = "socket.io";

/// The path of the health check.
pub(super) const HEALTH_PATH: &str = "/healthz";

/// The maximum number of times that a path is decoded. Each proxy in front of this server, or
/// between it and the Manager, may decode it once more.
const MAX_DECODINGS: usize = 4;

/// A part of the browsers' listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    SocketIo,
    Health,
    /// An embedded file, by its name.
    File(&'static str),
    /// A file of `--static`, or the Manager's without that option: its path below the folder, decoded
    /// and without dot segments.
    Static(String),
    /// The Manager's, if the server has one.
    Other,
    /// A Socket.IO path that is not this server's, or a path whose meaning depends on the reader.
    /// It is not served.
    Closed,
}

impl Part {
    /// Returns the part that a path names, in any spelling. `socket_io` is the path of Socket.IO,
    /// which includes everything below it.
    pub(super) fn of(path: &str, socket_io: &str) -> Self {
        let Some(path) = decoded_fully(path) else { return Self::Closed };
        // Some readers treat the text after one of these as a parameter or a query, or end the path
        // there.
        let plain = |segment: &'_ str| segment.split([';', '?', '#']).next().unwrap_or_default().len();
        let segments: Vec<&str> = path.split(['/', '\\']).map(|segment| &segment[..plain(segment)]).collect();
        let Some(resolved) = resolved(&segments) else { return Self::Closed };
        let is_below = |path: &str, base: &str| {
            path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let lower = |path: &str| path.to_ascii_lowercase();
        let is_own = is_below(&resolved, socket_io);
        let is_closed = segments.iter().any(|segment| segment.eq_ignore_ascii_case(SOCKET_IO))
            || is_below(&lower(&resolved), &lower(socket_io));
        match files::named(&resolved, socket_io) {
            _ if resolved == HEALTH_PATH => Self::Health,
            // A file that is not offered is the Manager's.
            Some(name) if is_own || !is_closed => Self::File(name),
            None if is_own => Self::SocketIo,
            Some(_) | None if is_closed => Self::Closed,
            None if below_static(&resolved, socket_io).is_some() => {
                Self::Static(static_file(&path, socket_io).unwrap_or_default())
            }
            Some(_) | None => Self::Other,
        }
    }
}

/// Returns the path of a file of `--static` below its folder. A file's name may contain what begins a
/// parameter or query in an address.
fn static_file(path: &str, socket_io: &str) -> Option<String> {
    let segments: Vec<&str> = path.split(['/', '\\']).collect();
    below_static(&resolved(&segments)?, socket_io).map(str::to_owned)
}

/// Returns what follows the folder of `--static` in a resolved path.
fn below_static<'a>(path: &'a str, socket_io: &str) -> Option<&'a str> {
    let (beside, _) = socket_io.rsplit_once('/').unwrap_or_default();
    let rest = path.strip_prefix(beside)?.strip_prefix('/')?.strip_prefix(directory::FOLDER)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Decodes a path until nothing is left to decode. Returns `None` if that takes more rounds than
/// any legitimate path needs, or if the result contains control characters, which end a path for
/// some readers.
fn decoded_fully(path: &str) -> Option<String> {
    let mut path = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_DECODINGS {
        match Cow::from(percent_decode(&path)) {
            Cow::Borrowed(_) => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return (!path.contains(char::is_control)).then_some(path);
            }
            Cow::Owned(decoded) => path = Cow::Owned(decoded),
        }
    }
    None
}

/// Resolves dot segments and drops empty ones. Returns `None` for a path that leads out of the root.
fn resolved(segments: &[&str]) -> Option<String> {
    let mut kept = Vec::new();
    for &segment in segments {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            segment => kept.push(segment),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn every_spelling_means_the_same() {
        for path in [
            "/socket.io",
            "/socket.io/",
            "/socket.io/socket.io/",
            "/socket%2Eio/",
            "/%73ocket.io/",
            "/socket%252Eio/",
            "//socket.io//",
            "/./socket.io/.",
            "/x/../socket.io/",
            "/x/%2e%2e/socket.io",
            "/socket.io%2F",
            "/socket.io;v=1/",
            "\\socket.io\\",
            "/socket.io%3Ftransport=websocket",
            "/socket.io/%252e%252e/socket.io",
        ] {
            assert_eq!(Part::of(path, "/socket.io"), Part::SocketIo, "{path}");
            assert_eq!(Part::of(path, "/updates/socket.io"), Part::Closed, "{path}");
        }
        for path in ["/updates/socket.io/", "/updates//socket.io", "/updates/x/..%2fsocket.io"] {
            assert_eq!(Part::of(path, "/updates/socket.io"), Part::SocketIo, "{path}");
            assert_eq!(Part::of(path, "/socket.io"), Part::Closed, "{path}");
        }
        assert_eq!(Part::of("/live/", "/live"), Part::SocketIo);
        assert_eq!(Part::of("/LIVE/", "/live"), Part::Closed);
    }

    #[test]
    fn a_path_that_may_mean_the_managers_socket_io_is_closed() {
        for path in [
            "/Socket.IO/",
            "/SOCKET.IO",
            "/socket%252525252Eio/",
            // To a reader that decodes once these are below /socket.io.
            "/socket.io/%252e%252e/app",
            "/socket.io/%252e%252e%252fapp",
            "/socket.io/..;/app",
            "/socket.io/%252e%252e/webupdates/page.js",
            // Where the Manager lives below /farm, these lead to its Socket.IO.
            "/../farm/socket.io/",
            "/x/../../farm/Socket.io",
            "/../admin",
            "/app/socket.io",
            "/app%0d%0a/x",
            "/app%00/x",
        ] {
            assert_eq!(Part::of(path, "/socket.io"), Part::Closed, "{path}");
        }
    }

    #[test]
    fn files_are_beside_socket_io_in_whatever_spelling() {
        for (path, socket_io, name) in [
            ("/webupdates", "/socket.io", "index.html"),
            ("/webupdates/", "/socket.io", "index.html"),
            ("/webupdates/client.js", "/socket.io", "client.js"),
            ("//web%75pdates/./client%2Ejs", "/socket.io", "client.js"),
            ("/socket.io/socket.io.js", "/socket.io", "socket.io.js"),
            ("/socket%2Eio/socket.io.js", "/socket.io", "socket.io.js"),
            ("/socket.io/client.js", "/socket.io", "client.js"),
            ("/farm/webupdates/page.js", "/farm/socket.io", "page.js"),
            ("/farm/socket.io/socket.io.js", "/farm/socket.io", "socket.io.js"),
        ] {
            assert_eq!(Part::of(path, socket_io), Part::File(name), "{path}");
        }
        for path in
            ["/webupdatesx", "/webupdates/x.js", "/webupdates/client.js/x", "/webupdates/../page.js", "/page.js"]
        {
            assert_eq!(Part::of(path, "/socket.io"), Part::Other, "{path}");
        }
        assert_eq!(Part::of("/socket.io/page.js", "/socket.io"), Part::SocketIo);
        assert_eq!(Part::of("/webupdates/", "/farm/socket.io"), Part::Other);
        assert_eq!(Part::of("/socket.io/socket.io.js", "/farm/socket.io"), Part::Closed);
    }

    #[test]
    fn the_folder_of_ones_own_files_is_beside_socket_io() {
        for (path, socket_io, file) in [
            ("/static", "/socket.io", ""),
            ("/static/", "/socket.io", ""),
            ("/static/a/b.css", "/socket.io", "/a/b.css"),
            ("//st%61tic/./a%20b;c", "/socket.io", "/a b;c"),
            ("/static/x/../y", "/socket.io", "/y"),
            ("/farm/static/y", "/farm/socket.io", "/y"),
        ] {
            assert_eq!(Part::of(path, socket_io), Part::Static(file.to_owned()), "{path}");
        }
        for (path, part) in [
            ("/statics", Part::Other),
            ("/static/../api/v3/jobs", Part::Other),
            ("/api/v3/static/", Part::Other),
            ("/static/../webupdates/", Part::File("index.html")),
            ("/static/../socket.io/", Part::SocketIo),
            ("/static/Socket.IO/", Part::Closed),
            ("/static/../../etc/passwd", Part::Closed),
            ("/static/%2e%2e/%2e%2e/etc/passwd", Part::Closed),
            ("/static/a%00", Part::Closed),
        ] {
            assert_eq!(Part::of(path, "/socket.io"), part, "{path}");
        }
        assert_eq!(Part::of("/static/", "/farm/socket.io"), Part::Other);
    }

    #[test]
    fn the_rest_is_the_managers() {
        for path in [
            "/",
            "",
            "/socket.iox",
            "/socket",
            "/app/x.socket.io",
            "/a/../b",
            "/api/v3/jobs",
            "/job-files/a%20b%2.jpg",
            "*",
        ] {
            assert_eq!(Part::of(path, "/socket.io"), Part::Other, "{path}");
        }
        assert_eq!(Part::of("/healthz/", "/socket.io"), Part::Health);
    }

    /// A server or proxy behind this one, as it reads a path.
    #[derive(Debug, Clone, Copy)]
    struct Reader {
        decodings: usize,
        /// Whether it resolves dot segments after each decoding, and not only after the last.
        eager: bool,
        backslashes: bool,
        parameters: bool,
        /// Where it lives.
        base: &'static str,
    }

    impl Reader {
        fn all() -> impl Iterator<Item = Self> {
            let flags = (0..8).map(|bits| [1, 2, 4].map(|bit| bits & bit != 0));
            flags.flat_map(|[eager, backslashes, parameters]| {
                (0..4).flat_map(move |decodings| {
                    ["", "/farm"].map(|base| Self { decodings, eager, backslashes, parameters, base })
                })
            })
        }

        fn read(&self, path: &str) -> String {
            let mut path = format!("{}{path}", self.base);
            for _ in 0..self.decodings {
                if self.eager {
                    path = self.resolve(&path);
                }
                path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
            }
            self.resolve(&path)
        }

        fn resolve(&self, path: &str) -> String {
            let mut kept = Vec::new();
            for segment in path.split(|char| char == '/' || char == '\\' && self.backslashes) {
                let segment = if self.parameters { segment.split(';').next().unwrap_or_default() } else { segment };
                match segment {
                    "" | "." => {}
                    ".." => drop(kept.pop()),
                    segment => kept.push(segment),
                }
            }
            format!("/{}/", kept.join("/"))
        }

        fn finds_socket_io(&self, path: &str) -> bool {
            self.read(path).to_ascii_lowercase().starts_with(&format!("{}/socket.io/", self.base))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn no_reader_finds_a_socket_io_in_what_is_passed_on(
            parts in vec(
                select(vec![
                    "/", "/", "/", "\\", "%2f", "%5C", "%252F", "socket.io", "socket.io", "Socket.IO", "socket%2eio", "socket%252Eio",
                    "%73ocket.io", "..", "..", "%2e%2e", "%252e.", ".", "farm", "x", "webupdates/page.js", ";", "%3b", "%25", "%2525", "%",
                ]),
                0..10,
            )
        ) {
            let path = format!("/{}", parts.concat());
            for own in ["/live", "/socket.io"] {
                let is_proxied = match Part::of(&path, own) {
                    Part::Other | Part::Static(_) => true,
                    // Unless the file is offered.
                    Part::File(_) => own == "/live",
                    Part::SocketIo | Part::Health | Part::Closed => false,
                };
                if is_proxied {
                    for reader in Reader::all() {
                        prop_assert!(!reader.finds_socket_io(&path), "{path} is {} to {reader:?}", reader.read(&path));
                    }
                }
            }
        }
    }
}
