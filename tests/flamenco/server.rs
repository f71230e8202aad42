//! The server under test, in front of a Manager.

use std::{process::Output, time::Duration};

use flamenco_webupdates::client::Address;

use super::program::{self, Program, deref_to_program};

/// Nothing here takes longer, also on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub(super) struct Server(Program);

/// Returns the server with these arguments, on free ports unless they name some.
fn command(arguments: &[&str]) -> std::process::Command {
    let mut command = program::command(&["serve"]);
    command.args(arguments);
    for listener in ["--listen", "--manager-listen"] {
        if !arguments.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    command
}

/// Runs a server that is to end by itself.
pub(super) async fn run(arguments: &[&str]) -> Output {
    program::run(command(arguments)).await
}

impl Server {
    pub(super) async fn before(manager: &str, more: &[&str]) -> Self {
        Self::start(&[&["--manager", manager], more].concat()).await
    }

    /// Starts it and waits until it is ready.
    pub(super) async fn start(arguments: &[&str]) -> Self {
        // The Manager of a test runs on this thread, and is asked before the server is ready.
        Self(Program::start_aside(command(arguments)).await)
    }

    pub(super) fn address(&self) -> Address {
        self.browsers_url.parse().unwrap()
    }

    pub(super) async fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&get(&format!("{}/api/stats", self.manager_url)).await).unwrap()
    }

    pub(super) async fn metrics(&self) -> String {
        get(&format!("{}/metrics", self.manager_url)).await
    }

    pub(super) async fn health(&self) -> String {
        get(&format!("{}/healthz", self.browsers_url)).await
    }

    /// Waits until the relay is in this state.
    pub(super) async fn until_relay(&self, state: &str) {
        until(&format!("the relay to be {state}"), async || self.stats().await["sources"]["relay"]["state"] == state)
            .await;
    }
}

deref_to_program!(Server);

async fn get(url: &str) -> String {
    let body = awc::Client::new().get(url).send().await.unwrap().body().limit(1 << 24).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Asks again and again until the answer is yes.
pub(super) async fn until(what: &str, question: impl AsyncFnMut() -> bool) {
    program::until(what, question, |answer| *answer).await;
}
