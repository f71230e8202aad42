//! A real nats-server on a port of its own.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    line::{Line, Way},
    server::until,
};

pub(super) fn url(address: SocketAddr) -> String {
    format!("nats://{address}")
}

/// The configuration of JetStream.
const JETSTREAM: &str = "jetstream { store_dir: \"FOLDER/store\", sync_interval: always }\n";

/// Writes straight to where it is not captured.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A NATS server. Dropping it kills it.
pub(super) struct Nats {
    program: String,
    folder: PathBuf,
    port: u16,
    /// The size of its disk in bytes, if it has one of its own.
    disk: Option<usize>,
    child: Option<Child>,
}

impl Nats {
    /// Starts a server with JetStream. `None` without nats-server.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(JETSTREAM).await
    }

    /// Starts a server with these lines in its configuration, after those of the listener.
    pub(super) async fn start_with(lines: &str) -> Option<Self> {
        let mut nats = Self::prepare(lines)?;
        nats.restart().await;
        Some(nats)
    }

    /// Starts a server of a version before 2.12. `None` without one.
    pub(super) async fn start_old() -> Option<Self> {
        let Ok(program) = std::env::var("NATS_SERVER_OLD") else {
            say("left out: the test with an old NATS; set NATS_SERVER_OLD to one before 2.12");
            return None;
        };
        let mut nats = Self::prepare("jetstream { store_dir: \"FOLDER/store\" }\n")?;
        nats.program = program;
        nats.restart().await;
        Some(nats)
    }

    /// Starts a server whose disk has so many bytes. `None` where no file system can be mounted.
    pub(super) async fn start_on_disk(bytes: usize) -> Option<Self> {
        let can_mount =
            Command::new("unshare").args(["--map-root-user", "--mount", "true"]).stderr(Stdio::null()).status();
        if !can_mount.is_ok_and(|status| status.success()) {
            say("left out: the test of a full disk, because unshare may not mount here");
            return None;
        }
        // Otherwise it would keep to three quarters of the disk.
        let mut nats = Self::prepare(&JETSTREAM.replace(" }", ", max_file_store: 1GB }"))?;
        nats.disk = Some(bytes);
        nats.restart().await;
        Some(nats)
    }

    /// Does everything for a start but the start itself.
    fn prepare(lines: &str) -> Option<Self> {
        static SAID: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(program) = std::env::var("NATS_SERVER") else {
            SAID.call_once(|| say("left out: the tests with a real NATS; set NATS_SERVER to one"));
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("webupdates-nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let lines = lines.replace("FOLDER", &folder.display().to_string());
        fs::write(folder.join("nats.conf"), format!("listen: \"127.0.0.1:{port}\"\n{lines}")).unwrap();
        Some(Self { program, folder, port, disk: None, child: None })
    }

    pub(super) async fn restart(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = match self.disk {
            None => Command::new(&self.program),
            Some(bytes) => {
                let store = self.folder.join("store");
                fs::create_dir_all(&store).unwrap();
                let script = format!("mount -t tmpfs -o size={bytes} tmpfs \"$1\" && shift && exec \"$@\"");
                let mut command = Command::new("unshare");
                command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]).arg(store).arg(&self.program);
                command
            }
        };
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

    /// Ends the server with `SIGTERM`.
    pub(super) async fn end(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().unwrap();
        until("NATS to end", async || child.try_wait().unwrap().is_some()).await;
    }

    /// Removes everything that the ended server stored.
    pub(super) fn lose_everything(&self) {
        fs::remove_dir_all(self.folder.join("store")).unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(super) fn url(&self) -> String {
        url(self.address())
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

/// Three NATS servers that store each event three times, with a line from each to each other.
pub(super) struct Cluster {
    pub(super) servers: Vec<Nats>,
    /// The number of a server, of another one, and the line between them.
    routes: Vec<(usize, usize, Line)>,
}

impl Cluster {
    pub(super) async fn start() -> Option<Self> {
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let (mut servers, mut routes) = (Vec::new(), Vec::new());
        for (number, port) in ports.iter().enumerate() {
            let mut urls = Vec::new();
            for (other, port) in ports.iter().enumerate().filter(|(other, _)| *other != number) {
                let line = Line::to((Ipv4Addr::LOCALHOST, *port).into()).await;
                urls.push(format!("\"{}\"", url(line.address)));
                routes.push((number, other, line));
            }
            // Neither clients nor servers are to learn of a way around the lines.
            let lines = format!(
                "server_name: \"{number}\"\njetstream {{ store_dir: \"FOLDER/store\" }}\n\
                 cluster {{ name: farm, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: [{}] }}\n",
                urls.join(", ")
            );
            let mut server = Nats::prepare(&lines)?;
            server.restart().await;
            servers.push(server);
        }
        Some(Self { servers, routes })
    }

    /// Returns the value of `--nats` with all servers.
    pub(super) fn urls(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// Cuts the lines between this server and the others, or opens them again.
    pub(super) fn turn(&self, server: usize, way: Way) {
        for (one, other, line) in &self.routes {
            if [*one, *other].contains(&server) {
                line.turn(way);
            }
        }
    }

    /// Returns the number of the server that leads the stream, as this one knows it.
    pub(super) async fn leader(&self, server: usize) -> usize {
        let client = async_nats::connect(self.servers[server].url()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("webupdates").await.unwrap();
        stream.cached_info().cluster.as_ref().unwrap().leader.as_ref().unwrap().parse().unwrap()
    }
}
