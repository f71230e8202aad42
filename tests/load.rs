//! A short load: simulated browsers against the started server. Asserts order and completeness, never time.

#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with the other tests of the program")]
#[path = "support/program.rs"]
mod program;

use program::{Program, command, deref_to_program};

/// A running server. Dropping it kills it.
struct Server(Program);

deref_to_program!(Server);

impl Server {
    fn start(options: &[&str]) -> Self {
        Self(Program::serve(options))
    }

    /// Runs the load and expects all connected, and nothing lost, doubled or out of order.
    fn bears(&self, load: &[&str]) {
        let (browsers, events) = (&self.browsers_url, format!("{}/api/events", self.manager_url));
        let mut simulate = command(&["simulate-browsers", browsers, "--publish-url", &events]);
        let output = simulate.args(load).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{load:?}\n{report}");
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
fn browsers_that_come_and_go_disturb_no_others() {
    let server = Server::start(&[]);
    server.bears(&["--clients", "200", "--events", "500", "--rate", "250", "--churn", "0.2"]);
}
