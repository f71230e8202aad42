//! A server process, and what the system reports about it.

use std::{process::Stdio, time::Duration};

use rustix::process::Signal;

use super::http::{Connection, Response};
use crate::program::{Program, command, deref_to_program};

/// A running server. Dropping it kills it.
pub(crate) struct Server(Program);

impl Server {
    /// Starts it on free ports, and waits until it is ready.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_on(["127.0.0.1:0", "127.0.0.1:0"], options)
    }

    pub(crate) fn start_on([browsers, manager]: [&str; 2], options: &[&str]) -> Self {
        let mut command = command(&["serve", "--listen", browsers, "--manager-listen", manager]);
        command.args(options);
        if options.contains(&"--events-from-stdin") {
            command.stdin(Stdio::piped());
        }
        Self(Program::start(command))
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Processor time that it has taken.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Bytes that the kernel holds for the browsers' port and has not been able to send, by connection.
    pub(crate) fn unsent(&self) -> Vec<u64> {
        let port = format!(":{:04X}", self.browsers.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let queue = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let queues = fields.nth(2)?;
            local.ends_with(&port).then(|| u64::from_str_radix(queues.split(':').next()?, 16).ok())?
        };
        table.lines().skip(1).filter_map(queue).collect()
    }

    pub(crate) async fn manager(&self) -> Connection {
        Connection::open(self.manager).await
    }

    /// Its figures.
    pub(crate) async fn stats(&self) -> serde_json::Value {
        self.manager().await.get("/api/stats").await.json()
    }

    pub(crate) async fn healthz(&self) -> Response {
        Connection::open(self.browsers).await.get("/healthz").await
    }
}

deref_to_program!(Server);
