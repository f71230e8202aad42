//! Several addresses, and Unix sockets.

use std::{
    fs,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
};

use crate::{
    program::{self, SERVE, command},
    server::{BINARY, Browser, Connection, Server},
};

/// A folder for the sockets of one test. Their paths are short, because the system wants that.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("webupdates-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Returns the path of a socket, and its address.
    fn socket(&self, name: &str) -> (PathBuf, String) {
        let path = self.0.join(name);
        let address = format!("unix:{}", path.display());
        (path, address)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Passes connections on to a Unix socket, as a proxy on the same machine does.
async fn proxy(path: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, path) = (listener.local_addr().unwrap(), path.to_owned());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let path = path.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(path).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

const STATUS: &str = r#"{"type":"farm-status","payload":{"status":"active"}}"#;

async fn publish(manager: SocketAddr) {
    let answer = Connection::open(manager).await.post("/api/events", "application/json", STATUS).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn every_address_is_listened_on() {
    let folder = Folder::new("several");
    let (browsers, browsers_address) = folder.socket("browsers.sock");
    let (manager, manager_address) = folder.socket("manager.sock");
    let more = ["--listen", "127.0.0.1:0", "--listen", &browsers_address, "--manager-listen", &manager_address];
    let mut server = Server::start(&more);
    let urls: Vec<_> = server.browsers_url.split(',').map(str::to_owned).collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    assert_eq!(urls[2], browsers_address);
    assert!(server.manager_url.ends_with(&format!(",{manager_address}")), "{}", server.manager_url);
    let second: SocketAddr = urls[1].strip_prefix("http://").unwrap().parse().unwrap();
    let mut clients = Vec::new();
    for address in [server.browsers, second, proxy(&browsers).await] {
        clients.push(Browser::connect(address).await);
    }
    let through_socket = proxy(&manager).await;
    publish(server.manager).await;
    publish(through_socket).await;
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(client.next().await.unwrap(), r#"42["/status",{"status":"active"}]"#);
        }
    }
    server.until("three browsers", |stats| stats["sessions"]["total"] == 3).await;
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let folder = Folder::new("stale");
    let (path, address) = folder.socket("browsers.sock");
    let mut server = Server::start(&["--listen", &address]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let refused = program::run(command(&[&SERVE[..], &["--listen", &address]].concat())).await;
    let log = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{log}");
    let expected = format!(
        "cannot listen on {address}: address in use; is another server running there? --listen chooses another address"
    );
    assert!(log.contains(&expected), "{log}");
    Browser::connect(proxy(&path).await).await;
    server.signal(Signal::KILL);
    server.ended().await;
    assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "it was killed");
    let server = Server::start(&["--listen", &address]);
    Browser::connect(proxy(&path).await).await;
    drop(server);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    let refused = program::run(command(&[&SERVE[..], &["--listen", &address]].concat())).await;
    let log = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && log.contains("there is a file that is no socket"), "{log}");
}

/// Who may use the socket is for the file system to say: its clients are of this machine, as those of
/// 127.0.0.1 are.
#[tokio::test]
async fn a_client_of_a_unix_socket_counts_as_one_of_this_machine() {
    let folder = Folder::new("trust");
    let (path, address) = folder.socket("browsers.sock");
    for (options, expected) in [(&[][..], "127.0.0.1"), (&["--trusted-proxy", "127.0.0.1"], "10.1.2.3")] {
        let limits =
            ["--listen", &address, "--max-sessions-per-address", "1", "--max-http-connections-per-address", "1"];
        let server = Server::start(&[&limits, options].concat());
        let socket = proxy(&path).await;
        let forwarded = [("x-forwarded-for", "10.1.2.3")];
        let _first = Browser::try_connect(socket, &forwarded).await.expect("it is admitted");
        let sessions = server.manager_get("/api/sessions").await.body;
        assert!(sessions.contains(&format!(r#""address":"{expected}""#)), "{sessions}");
        let second = Browser::try_connect(socket, &forwarded).await;
        // Only an address that is believed has a limit: this machine has none.
        assert_eq!(second.err().map(|answer| answer.status), (!options.is_empty()).then_some(429), "{options:?}");
    }
}

#[tokio::test]
async fn the_manager_needs_no_token_on_a_unix_socket() {
    let folder = Folder::new("token");
    let (path, address) = folder.socket("manager.sock");
    let listen = ["serve", "--listen", "127.0.0.1:0", "--manager-listen"];
    let refused = program::run(command(&[&listen[..], &[&address, "--manager-listen", "0.0.0.0:0"]].concat())).await;
    let log = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && log.contains("--manager-token-file"), "{log}");
    let token = folder.0.join("token");
    fs::write(&token, "a-token-of-the-manager\n").unwrap();
    let guarded = ["--manager-listen", &address, "--manager-token-file", token.to_str().unwrap()];
    for (options, status) in [(&guarded[..2], 200), (&guarded, 401)] {
        let _server = Server::start(options);
        let answer = Connection::open(proxy(&path).await).await.get("/api/stats", &[]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

/// As systemd passes it on, whose unit says who may use it.
#[tokio::test]
async fn a_unix_socket_may_be_inherited() {
    let folder = Folder::new("inherited");
    let (path, address) = folder.socket("browsers.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#, BINARY]);
    let mut command = program::isolated(shell, &SERVE);
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    let server = Server::start_with(command);
    assert_eq!(server.browsers_url, address);
    let mut browser = Browser::connect(proxy(&path).await).await;
    publish(server.manager).await;
    assert_eq!(browser.next().await.unwrap(), r#"42["/status",{"status":"active"}]"#);
}

/// A port that is taken ends the start, whichever of the addresses it is.
#[tokio::test]
async fn one_address_that_is_taken_is_enough() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = program::run(command(&[&SERVE[..], &["--listen", &address]].concat())).await;
    let log = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && log.contains(&format!("cannot listen on {address}: ")), "{log}");
    drop(taken);
}
