//! The server as a process of its own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{DEADLINE, http::Request, within};

pub(crate) const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

/// With these nobody is held back or evicted.
pub(crate) const PATIENT: [&str; 6] = ["--outbox-bytes", "200000000", "--outbox-age", "60s", "--outbox-lag", "60s"];

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// As the ready line has them.
    pub(crate) browsers_url: String,
    pub(crate) manager_url: String,
    pub(crate) browsers: SocketAddr,
    pub(crate) manager: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    bare(Command::new(env!("CARGO_BIN_EXE_flamenco-webupdates")), arguments)
}

/// Every option may come from a variable, and none of the developer's shall.
fn bare(mut command: Command, arguments: &[&str]) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("RUST_LOG", "info").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) async fn run(mut command: Command) -> Output {
    within("the program to end", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

/// What a server says that cannot start.
pub(crate) async fn refusal(command: Command) -> String {
    let output = run(command).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
    let said: Vec<&str> = error.lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(said.len(), 1, "one sentence: {error}");
    said[0].to_owned()
}

pub(crate) const PORTS: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--manager-listen", "127.0.0.1:0"];

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::spawn(program(&[&PORTS, arguments].concat())).await
    }

    /// Starts it with a socket that browsers shall come to.
    pub(crate) async fn start_on(socket: std::net::TcpListener, arguments: &[&str]) -> Self {
        // A shell puts the socket where the server looks for it, and the process's own number beside it.
        let script = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_flamenco-webupdates")]);
        let mut command = bare(shell, &[&PORTS, arguments].concat());
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
        Self::spawn(command).await
    }

    pub(crate) async fn spawn(mut command: Command) -> Self {
        // Whoever a test plays runs on this thread, and may be asked before the server is ready.
        let start = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let log = Arc::new(Log::default());
            let (stderr, copy) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
            std::thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    copy.lines.lock().unwrap().push(line);
                    copy.grown.notify_all();
                }
            });
            let mut ready = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
            (child, ready, log)
        });
        let (child, ready, log) = within("the server to start", start).await.unwrap();
        let url = |name: &str| {
            let rest = ready.split_once(name).unwrap_or_else(|| panic!("not ready: {ready:?} {:?}", log.lines));
            rest.1.split_whitespace().next().unwrap().to_owned()
        };
        let address = |url: &str| url.split_once("://").unwrap().1.parse().unwrap();
        let (browsers_url, manager_url) = (url("browsers="), url("manager="));
        let (browsers, manager) = (address(&browsers_url), address(&manager_url));
        Self { child, browsers_url, manager_url, browsers, manager, log }
    }

    /// Publishes one update of a job for each number, each with `size` bytes of a name.
    pub(crate) async fn publish(&self, numbers: std::ops::Range<u64>, size: usize) {
        let body = events(numbers, size);
        let answer = Request::new("POST", "/api/events").header("content-type", "application/json").body(&body);
        let answer = answer.send(self.manager).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(crate) async fn stats(&self) -> Value {
        serde_json::from_slice(&Request::new("GET", "/api/stats").send(self.manager).await.body).unwrap()
    }

    /// Asks for the figures until they are as they should be.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Value) -> bool) {
        within(what, async {
            while !check(&self.stats().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until the log has `count` lines with this text.
    pub(crate) async fn logged(&self, text: &str, count: usize) {
        let (log, text) = (self.log.clone(), text.to_owned());
        let wait = tokio::task::spawn_blocking(move || {
            let lines = log.lines.lock().unwrap();
            let missing = |lines: &mut Vec<String>| lines.iter().filter(|line| line.contains(&text)).count() < count;
            let (lines, waited) = log.grown.wait_timeout_while(lines, DEADLINE, missing).unwrap();
            assert!(!waited.timed_out(), "waited for {count} × {text:?} in {lines:#?}");
        });
        wait.await.unwrap();
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended by itself, as it should.
    pub(crate) async fn ended(mut self) {
        let status = within("the server to end", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(status.await.success());
    }
}

/// The body that publishes these.
pub(crate) fn events(numbers: std::ops::Range<u64>, size: usize) -> Vec<u8> {
    let event = |number: u64| {
        json!({ "type": "job-update", "payload": {
            "id": JOB, "name": "x".repeat(size), "updated": "2026-11-23T08:00:00Z", "status": "active", "type": "render",
            "priority": number, "refresh_tasks": false
        }})
    };
    Value::from(numbers.map(event).collect::<Vec<_>>()).to_string().into_bytes()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{:#?}", self.log.lines.lock());
        }
    }
}
