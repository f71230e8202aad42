//! A short load: simulated browsers against the started server. Asserts order and completeness, never time.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

const BINARY: &str = env!("CARGO_BIN_EXE_flamenco-webupdates");

/// A running server; ended when this goes.
struct Server {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    browsers: String,
    manager: String,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let mut process = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--manager-listen", "127.0.0.1:0"])
            .args(more)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url =
            |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)).expect("a ready line").to_owned();
        Self { browsers: url("browsers="), manager: url("manager="), process, _stdout: stdout }
    }

    /// Runs the load and expects all connected, and nothing lost, doubled or out of order.
    fn bears(&self, load: &[&str]) {
        let output = Command::new(BINARY)
            .args(["simulate-browsers", &self.browsers, "--publish-url", &format!("{}/api/events", self.manager)])
            .args(load)
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{load:?}\n{report}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn flat_out_nothing_is_lost_doubled_or_out_of_order() {
    let server = Server::start(&["--workers", "1"]);
    server.bears(&["--clients", "300", "--events", "500"]);
    server.bears(&["--clients", "300", "--events", "2000", "--batch", "100"]);
}

#[test]
fn with_two_workers_neither() {
    let server = Server::start(&["--workers", "2"]);
    server.bears(&["--clients", "300", "--events", "1000", "--batch", "10"]);
}

#[test]
fn browsers_that_look_at_different_things_get_what_they_look_at() {
    let server = Server::start(&["--last-rendered-interval", "0s"]);
    server.bears(&["--clients", "200", "--events", "1000", "--page", "mix", "--batch", "20"]);
}

#[test]
fn browsers_that_come_and_go_disturb_nobody() {
    let server = Server::start(&[]);
    server.bears(&["--clients", "200", "--events", "500", "--rate", "250", "--churn", "0.2"]);
}
