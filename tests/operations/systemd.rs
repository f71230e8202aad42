//! The notifications to systemd, and how its unit treats exit codes.

use std::{fs, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use rustix::process::Signal;

use crate::{
    program::{SERVE, command},
    server::{DEADLINE, Server},
};

/// The socket to which a server sends its notifications.
struct Listener {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Listener {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, path }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).expect("the server says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[tokio::test]
async fn systemd_is_notified_of_start_health_and_stop() {
    let systemd = Listener::new("notify");
    let environment = [("NOTIFY_SOCKET", systemd.path.to_str().unwrap()), ("WATCHDOG_USEC", "60000")];
    let mut server = Server::start_in(&environment, &[]);
    assert_eq!(systemd.next(), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(systemd.next(), "WATCHDOG=1\n");
    }
    // A process that hangs says nothing: this is what the watchdog is for.
    server.signal(Signal::STOP);
    systemd.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while systemd.socket.recv(&mut [0; 256]).is_ok() {}
    server.signal(Signal::CONT);
    systemd.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(systemd.next(), "WATCHDOG=1\n");
    server.signal(Signal::TERM);
    while systemd.next() != "STOPPING=1\n" {}
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn it_runs_without_systemd() {
    let systemd = Listener::new("nobody-listens");
    let path = systemd.path.clone();
    drop(systemd);
    let mut server = Server::start_in(&[("NOTIFY_SOCKET", path.to_str().unwrap())], &[]);
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
}

/// An exit code after which a fresh start cannot help is one of which the unit says so.
#[test]
fn a_server_that_cannot_start_is_not_started_again() {
    let output = command(&[&SERVE[..], &["--manager-token-file", "/nonexistent"]].concat()).output().unwrap();
    let code = output.status.code().unwrap();
    let unit = include_str!("../../contrib/flamenco-webupdates.service");
    assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={code}")), "{code}");
    assert!(unit.lines().any(|line| line == "Restart=always"));
}
