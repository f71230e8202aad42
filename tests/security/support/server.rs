//! The server as a process of its own.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::http::Request;
use crate::program::{self, BINARY, Program, deref_to_program, isolated};
pub(crate) use crate::program::{SERVE, command as program, run};

pub(crate) const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

/// With these nobody is held back or evicted.
pub(crate) const PATIENT: [&str; 6] = ["--outbox-bytes", "200000000", "--outbox-age", "60s", "--outbox-lag", "60s"];

/// What a server says that cannot start.
pub(crate) async fn refusal(command: Command) -> String {
    let output = run(command).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
    let said: Vec<&str> = error.lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(said.len(), 1, "one sentence: {error}");
    said[0].to_owned()
}

/// A running server. Dropping it kills it.
pub(crate) struct Server(Program);

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::spawn(program(&[&SERVE, arguments].concat())).await
    }

    /// Starts the server with a socket that browsers shall come to.
    pub(crate) async fn start_on(socket: std::net::TcpListener, arguments: &[&str]) -> Self {
        // A shell puts the socket where the server looks for it, and the process's own number beside it.
        let script = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, BINARY]);
        let mut command = isolated(shell, &[&SERVE, arguments].concat());
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
        Self::spawn(command).await
    }

    /// Starts a server. The services of a test run on its thread, and may be asked before the
    /// server is ready.
    pub(crate) async fn spawn(command: Command) -> Self {
        Self(Program::start_aside(command).await)
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

    /// Reads the stats until `check` accepts them.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Value) -> bool) {
        program::until(what, async || self.stats().await, check).await;
    }

    /// Waits until the server has ended by itself, successfully.
    pub(crate) async fn ended(mut self) {
        assert!(self.0.ended().await.success());
    }
}

deref_to_program!(Server);

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
