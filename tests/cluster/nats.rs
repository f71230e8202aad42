//! A real nats-server on a port of its own.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};

use super::server::until;

/// A NATS server. Dropping it kills it.
pub(super) struct Nats {
    program: String,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Nats {
    /// Starts a server with JetStream. `None` without nats-server.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with("jetstream { store_dir: \"FOLDER/store\", sync_interval: always }\n").await
    }

    /// Starts a server with these lines in its configuration, after those of the listener.
    pub(super) async fn start_with(lines: &str) -> Option<Self> {
        static SAID: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(program) = std::env::var("NATS_SERVER") else {
            SAID.call_once(|| {
                // Written straight to where it is not captured.
                let _ = writeln!(std::io::stderr(), "left out: the tests with a real NATS; set NATS_SERVER to one");
            });
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("webupdates-nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let lines = lines.replace("FOLDER", &folder.display().to_string());
        fs::write(folder.join("nats.conf"), format!("listen: \"127.0.0.1:{port}\"\n{lines}")).unwrap();
        let mut nats = Self { program, folder, port, child: None };
        nats.restart().await;
        Some(nats)
    }

    pub(super) async fn restart(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.join("nats.conf")).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let port = self.port;
        until("NATS to listen", async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).await;
    }

    /// Ends the server with `SIGKILL`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Removes everything that the ended server stored.
    pub(super) fn lose_everything(&self) {
        fs::remove_dir_all(self.folder.join("store")).unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of NATS:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
