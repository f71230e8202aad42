//! Listening sockets: TCP and, where the system has them, Unix sockets.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener, path::Path};

use listenfd::ListenFd;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Takes the socket at this position of those that the service manager passed on, if there is one.
    pub(crate) fn inherit(given: &mut ListenFd, index: usize) -> io::Result<Option<Self>> {
        let listener = given.take_tcp_listener(index).map(|listener| listener.map(Self::Tcp));
        #[cfg(unix)]
        let listener = listener.or_else(|error| match given.take_unix_listener(index) {
            Ok(listener) => Ok(listener.map(Self::Unix)),
            Err(_) => Err(error),
        });
        listener
    }

    /// Opens a Unix socket that the owner and the group of the server may use. The socket of a server
    /// that has ended is replaced.
    #[cfg(unix)]
    pub(crate) fn open_unix(path: &Path, backlog: i32) -> io::Result<Self> {
        use std::{
            fs,
            os::unix::{
                fs::{FileTypeExt as _, PermissionsExt as _},
                net::UnixStream,
            },
        };

        use socket2::{Domain, SockAddr, Socket, Type};

        /// Reading and writing for owner and group.
        const MODE: u32 = 0o660;

        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before the socket listens.
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        socket.listen(backlog)?;
        Ok(Self::Unix(socket.into()))
    }

    /// Fails: the parser of addresses refuses Unix sockets.
    #[cfg(not(unix))]
    pub(crate) fn open_unix(_: &Path, _: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{env, fs, os::unix::fs::PermissionsExt as _, os::unix::net::UnixStream, process};

    use super::*;

    #[test]
    fn a_unix_socket_replaces_a_dead_one_and_nothing_else() {
        let path = env::temp_dir().join(format!("webupdates-{}.sock", process::id()));
        let open = || Listener::open_unix(&path, 8);
        let listener = open().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::AddrInUse, "it is alive");
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(path.exists(), "the file stays");
        drop(open().unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a letter").unwrap();
        assert_eq!(open().unwrap_err().to_string(), "there is a file that is no socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
        fs::remove_file(&path).unwrap();
    }
}
