//! A real Mosquitto on a port of its own.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use flamenco_webupdates::client::mqtt::{Connection, Incoming, SessionOptions};
use serde_json::Value;

use super::server::{PATIENCE, until};

/// A broker. Dropping it kills it.
pub(super) struct Broker {
    program: String,
    pub(super) folder: PathBuf,
    port: u16,
    websocket_port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker with these lines in its configuration, after those of the listener. `None`
    /// without Mosquitto.
    pub(super) async fn start(lines: &str) -> Option<Self> {
        Self::start_with(lines, |_| ()).await
    }

    /// Starts a broker whose configuration names files that `prepare` makes in its folder.
    pub(super) async fn start_with(lines: &str, prepare: impl FnOnce(&Path)) -> Option<Self> {
        static SAID: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(program) = program() else {
            SAID.call_once(|| {
                // Written straight to where it is not captured.
                let _ =
                    writeln!(std::io::stderr(), "left out: the tests with a real MQTT broker; set MOSQUITTO to one");
            });
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("webupdates-broker-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        prepare(&folder);
        let [port, websocket_port] = [(); 2]
            .map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .map(|taken| taken.local_addr().unwrap().port());
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let lines =
            lines.replace("FOLDER", &folder.display().to_string()).replace("ANOTHER", &websocket_port.to_string());
        let anonymous = if lines.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let listener = format!("listener {port} 127.0.0.1\n{user}{anonymous}max_queued_messages 10000\n{lines}");
        fs::write(folder.join("mosquitto.conf"), listener).unwrap();
        let mut broker = Self { program, folder, port, websocket_port, child: None };
        broker.restart().await;
        Some(broker)
    }

    pub(super) async fn restart(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.join("mosquitto.conf")).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let port = self.port;
        until("the broker to listen", async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).await;
    }

    /// Ends the broker with `SIGKILL`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the broker with `SIGTERM`, so that it saves its sessions.
    pub(super) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        actix_rt::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// The address of a second listener, `ANOTHER` in the configuration.
    pub(super) fn websocket_url(&self) -> String {
        format!("ws://127.0.0.1:{}/mqtt", self.websocket_port)
    }

    pub(super) fn tls_url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.port)
    }

    /// Publishes messages in this order, and waits until the broker has accepted all of them.
    pub(super) async fn publish(&self, messages: impl IntoIterator<Item = (String, Value)>) {
        let mut connection = self.connect("publisher").await;
        let (sender, mut waiting) = (connection.sender(), 0);
        for (topic, payload) in messages {
            while !sender.publish(format!("flamenco/{topic}"), payload.to_string().into(), false) {
                waiting -= usize::from(matches!(connection.next().await.unwrap(), Incoming::Published));
            }
            waiting += 1;
        }
        while waiting > 0 {
            waiting -= usize::from(matches!(connection.next().await.unwrap(), Incoming::Published));
        }
        connection.close().await;
    }

    /// Connects a client that gets everything that is published.
    pub(super) async fn subscribe(&self) -> Connection {
        let mut connection = self.connect("subscriber").await;
        connection.subscribe("flamenco/#").unwrap();
        assert!(matches!(connection.next().await.unwrap(), Incoming::Subscribed));
        connection
    }

    pub(super) async fn connect(&self, client_id: &str) -> Connection {
        let session =
            SessionOptions { client_id: client_id.to_owned(), expiry: Duration::ZERO, password: None, tls: None };
        Connection::open(&self.url().parse().unwrap(), &session).await.unwrap()
    }
}

/// The topics and payloads of the next messages, so many.
pub(super) async fn messages(connection: &mut Connection, count: usize) -> Vec<(String, Value)> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let next = actix_rt::time::timeout(PATIENCE, connection.next()).await;
        if let Incoming::Message(message) = next.expect("a message arrives").unwrap() {
            connection.sender().acknowledge(&message);
            let payload = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
            messages.push((message.topic.replace("flamenco/", ""), payload));
        }
    }
    messages
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the broker's log:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the path of Mosquitto, from the variable or where Debian installs it.
fn program() -> Option<String> {
    std::env::var("MOSQUITTO").ok().or_else(|| {
        let usual = "/usr/sbin/mosquitto";
        fs::exists(usual).unwrap_or(false).then(|| usual.to_owned())
    })
}
