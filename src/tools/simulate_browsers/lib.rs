//! `simulate-browsers`: a load generator for Socket.IO v2 servers that knows nothing of how this one works.
//!
//! It opens many clients, publishes events through an HTTP API and checks every single receipt. It runs on one thread, on
//! top of epoll, because it often shares a small machine with the server it measures: what is received is read into one
//! buffer and looked at in place, and an event that is received costs no allocation and no search.
//!
//! ```text
//! run ──▶ swarm ──▶ live ──▶ connection ──▶ protocol    clients: rounds and timers, sockets, transport, packets
//!  │        └─────────┴────▶ tally ──▶ tracker          every receipt: latency; lost, doubled, out of order
//!  ├────▶ publisher ──▶ traffic, template               every event: content, audience, and the POST that publishes it
//!  └────▶ report, table, plot
//! ```
//!
//! **Other servers.** A server under test needs `/socket.io/` for WebSocket clients and an HTTP address that takes a POST
//! and broadcasts. `--publish-body` writes what that server understands: `{payload}` for one that sends the body to all
//! as a `/jobs` event, `{"event":"{event}","room":"{room}","data":{payload}}` for one that has rooms, or
//! `42["{event}",{payload}]` for one that only puts a frame header in front of it. It must answer with a status of 200 to
//! 299 (`503`: the request is retried) once it has accepted the event, and keep the connection. Events are recognised by a
//! text inside the payload, so JSON may be re-encoded on the way. The server's answer to the WebSocket handshake needs
//! status 101 only. With the page `jobs` there are no subscriptions: every connected client gets
//! everything.
//!
//! **`--json`** prints one object, whose fields are documented in `report.rs`. The main ones: `connect.per_second`,
//! `connect.time.p99_ms`, `connect.over_1s`, `delivery.per_second`, `delivery.lost`, `delivery.doubled`,
//! `delivery.out_of_order`, `latency.p99_ms`, `server.cpu_us_per_delivery`, `server.rss_bytes_per_client.idle`,
//! `generator.is_bottleneck`, `problems`.

mod clock;
mod connection;
mod dial;
mod frame;
mod http;
mod live;
mod options;
mod plot;
mod process;
mod protocol;
mod publisher;
mod report;
mod run;
mod swarm;
mod table;
mod tally;
mod template;
#[cfg(test)]
mod tests;
mod timers;
mod tracker;
mod traffic;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

pub use options::{Options, OptionsError};

use options::Plan;
use run::Run;

/// Why there is no report. The exit code for it is 2.
#[derive(Debug, Error)]
pub enum SimulateBrowsersError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("cannot watch the sockets or the server's process: {0}")]
    Watch(io::Error),
    #[error("cannot write the report: {0}")]
    Print(io::Error),
    #[error("cannot write {path}: {source}")]
    Plot { path: PathBuf, source: io::Error },
}

/// Runs the load and prints the report to stdout. Exit code 0: all connected, nothing was lost, doubled or out of order;
/// 1: something was.
///
/// # Errors
///
/// The options contradict each other, the sockets or the server's process cannot be watched, or the
/// report cannot be written.
pub fn run(options: Options) -> Result<ExitCode, SimulateBrowsersError> {
    let plan = Plan::try_new(options)?;
    let (json, plot) = (plan.json, plan.plot.clone());
    let mut run = Run::new(plan).map_err(SimulateBrowsersError::Watch)?;
    let report = run.perform().map_err(SimulateBrowsersError::Watch)?;
    if let Some(path) = plot {
        let drawing = run.plot(&report.title()).map_err(io::Error::other);
        drawing
            .and_then(|drawing| std::fs::write(&path, drawing))
            .map_err(|source| SimulateBrowsersError::Plot { path, source })?;
    }
    drop(run);
    let text = if json {
        serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(io::Error::other)
    } else {
        Ok(report.to_string())
    };
    text.and_then(|text| io::stdout().write_all(text.as_bytes())).map_err(SimulateBrowsersError::Print)?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
