//! The started server, and HTTP by hand.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    program::{self, Program, SERVE, command, deref_to_program},
    response::Response,
};

/// Far above what a healthy server needs on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

/// A running server, which the end of its stdin stops. Dropping it kills it.
pub(crate) struct Server(Program);

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = command(&[&SERVE[..], &["--events-from-stdin"], options].concat());
        command.stdin(Stdio::piped());
        Self(Program::start(command))
    }

    /// Publishes one update of a job for each number.
    pub(crate) async fn publish(&self, numbers: impl IntoIterator<Item = u64>) {
        self.publish_named(numbers, "shot 🎬").await;
    }

    pub(crate) async fn publish_named(&self, numbers: impl IntoIterator<Item = u64>, name: &str) {
        let events: Vec<_> = numbers
            .into_iter()
            .map(|number| {
                json!({ "type": "job-update", "payload": {
                    "id": JOB, "name": name, "updated": "2026-11-23T08:00:00Z", "status": "active", "type": "render",
                    "priority": number, "refresh_tasks": false
                }})
            })
            .collect();
        let count = events.len();
        let request =
            Request { headers: &[("content-type", "application/json")], ..Request::new("POST", "/api/events") };
        let answer = request.body(Value::from(events).to_string().as_bytes()).send(self.manager).await;
        assert_eq!((answer.status, answer.text()), (200, format!("{{\"accepted\":{count}}}")));
    }

    pub(crate) async fn stats(&self) -> Value {
        let answer = Request::new("GET", "/api/stats").send(self.manager).await;
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Reads the stats until `check` accepts them.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Value) -> bool) {
        program::until(what, async || self.stats().await, check).await;
    }

    /// Waits until that many sessions have ended for this reason, and for no other.
    pub(crate) async fn until_ended(&self, reason: &str, count: u64) {
        self.until(reason, |stats| stats["disconnects"][reason] == count && stats["sessions"]["total"] == 0).await;
        let stats = self.stats().await;
        let reasons = stats["disconnects"].as_object().unwrap();
        assert_eq!(reasons.values().filter_map(Value::as_u64).sum::<u64>(), count, "{stats}");
    }

    /// Waits until the server has ended by itself, successfully.
    pub(crate) async fn stopped(mut self) {
        assert!(self.ended().await.success());
    }
}

deref_to_program!(Server);

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The `code` of a refusal.
    pub(crate) fn code(&self) -> Option<u64> {
        serde_json::from_slice::<Value>(&self.body).ok()?["code"].as_u64()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    method: &'a str,
    target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, headers: &[], body: None }
    }

    pub(crate) fn body(self, body: &'a [u8]) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(crate) fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.target);
        for (name, value) in self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = self.body {
            head += &format!("content-length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", self.body.unwrap_or_default()].concat()
    }

    /// Sends it on a connection of its own.
    pub(crate) async fn send(self, to: SocketAddr) -> Answer {
        Connection::open(to).await.request(self).await
    }
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn request(&mut self, request: Request<'_>) -> Answer {
        self.send(&request.bytes()).await;
        self.answer(request.method == "HEAD").await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request and goes, without waiting for its answer.
    pub(crate) async fn begin(&mut self, request: Request<'_>) {
        self.send(&request.bytes()).await;
    }

    pub(crate) async fn answer(&mut self, without_body: bool) -> Answer {
        loop {
            if let Some(Response { status, head, body }) = Response::take(&mut self.buffer, !without_body) {
                return Answer { status, head, body };
            }
            assert!(self.read().await, "the connection ended early: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.read().await, "the connection ended before {count} bytes");
        }
        self.buffer.drain(..count).collect()
    }

    /// Whether there is more.
    pub(crate) async fn read(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match timeout(DEADLINE, self.stream.read(&mut chunk)).await.expect("something comes in time") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
        }
    }

    pub(crate) fn has_unread(&self) -> bool {
        !self.buffer.is_empty()
    }
}
