//! The server under test, as a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use flamenco_webupdates::{client::Address, clock};

/// Nothing here takes longer, also on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub(super) struct Server {
    child: Child,
    pub(super) browsers: String,
    pub(super) api: String,
    log: Arc<Mutex<String>>,
}

pub(super) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamenco-webupdates"));
    // Every option may come from a variable, and none of the developer's shall.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
    command.arg("serve").args(arguments);
    for listener in ["--listen", "--manager-listen"] {
        if !arguments.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a server that is to end by itself.
pub(super) async fn run(arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    let run = actix_rt::task::spawn_blocking(move || command.output().unwrap());
    actix_rt::time::timeout(PATIENCE, run).await.expect("it ends by itself").unwrap()
}

impl Server {
    pub(super) async fn before(manager: &str, more: &[&str]) -> Self {
        Self::start(&[&["--manager", manager], more].concat()).await
    }

    /// Starts it and waits until it is ready.
    pub(super) async fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        // Whoever plays the Manager runs on this thread, and is asked before the server is ready.
        let start = actix_rt::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let log = Arc::new(Mutex::new(String::new()));
            let (mut stderr, copy) = (child.stderr.take().unwrap(), log.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                    copy.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
                }
            });
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            (child, line, log)
        });
        let (child, line, log) = actix_rt::time::timeout(PATIENCE, start).await.expect("it starts").unwrap();
        let url = |name: &str| {
            let rest =
                line.split_once(name).unwrap_or_else(|| panic!("no ready line: {line:?} {}", log.lock().unwrap()));
            rest.1.split_whitespace().next().unwrap().to_owned()
        };
        Self { browsers: url("browsers="), api: url("manager="), child, log }
    }

    pub(super) fn address(&self) -> Address {
        self.browsers.parse().unwrap()
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Memory that it occupies, in bytes.
    pub(super) fn rss(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    pub(super) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(super) async fn stats(&self) -> serde_json::Value {
        let body =
            awc::Client::new().get(format!("{}/api/stats", self.api)).send().await.unwrap().body().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until the relay is in this state.
    pub(super) async fn until_relay(&self, state: &str) {
        until(&format!("the relay to be {state}"), async || self.stats().await["sources"]["relay"]["state"] == state)
            .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Asks again and again until the answer is yes.
pub(super) async fn until(what: &str, mut question: impl AsyncFnMut() -> bool) {
    let start = clock::now();
    while !question().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
}
