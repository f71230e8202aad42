//! The started server, HTTP by hand, and WebSockets as far as these tests need them.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub(crate) use crate::program::BINARY;
use crate::{
    program::{self, Program, SERVE, command, deref_to_program},
    response::Response,
};

/// Far above what a healthy server needs on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills it.
pub(crate) struct Server(Program);

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(&[], options)
    }

    /// Starts it with these environment variables.
    pub(crate) fn start_in(environment: &[(&str, &str)], options: &[&str]) -> Self {
        let mut command = command(&[&SERVE, options].concat());
        command.envs(environment.iter().copied());
        Self::start_with(command)
    }

    pub(crate) fn start_with(command: std::process::Command) -> Self {
        Self(Program::start(command))
    }

    pub(crate) async fn manager_get(&self, path: &str) -> Answer {
        Connection::open(self.manager).await.get(path, &[]).await
    }

    /// Sends a request with these headers to the Manager's port.
    pub(crate) async fn manager_request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let host = if headers.iter().any(|(name, _)| *name == "host") {
            String::new()
        } else {
            format!("host: {}\r\n", self.manager)
        };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request = format!("{method} {target} HTTP/1.1\r\n{host}{headers}content-length: {length}\r\n\r\n{body}");
        Connection::open(self.manager).await.request(&request).await.expect("an answer")
    }

    pub(crate) async fn stats(&self) -> Value {
        serde_json::from_str(&self.manager_get("/api/stats").await.body).unwrap()
    }

    /// Reads the stats until `check` accepts them.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Value) -> bool) {
        program::until(what, async || self.stats().await, check).await;
    }

    /// Waits until so many were refused for this reason.
    pub(crate) async fn until_refused(&self, reason: &str, count: u64) {
        self.until(reason, |stats| stats["refused"][reason] == count).await;
    }

    pub(crate) async fn publish(&self, events: &str) {
        let answer = Connection::open(self.manager).await.post("/api/events", "application/json", events).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

deref_to_program!(Server);

/// A connection that is kept alive.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.request(&format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).await.expect("an answer")
    }

    pub(crate) async fn post(&mut self, target: &str, content_type: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        self.request(&(head + body)).await.expect("an answer")
    }

    /// Sends these bytes and reads one answer; `None` when the connection ends without one.
    pub(crate) async fn request(&mut self, request: &str) -> Option<Answer> {
        // A server that refuses may do so before it has all.
        let _ = self.stream.write_all(request.as_bytes()).await;
        timeout(DEADLINE, self.answer()).await.expect("it answers in time")
    }

    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some(Response { status, head, body }) = Response::take(&mut self.buffer, true) {
                return Some(Answer {
                    status,
                    head: head.to_ascii_lowercase(),
                    body: String::from_utf8(body).unwrap(),
                });
            }
            self.read().await?;
        }
    }

    /// Whether the server closes it without sending anything more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        timeout(DEADLINE, self.read()).await.expect("it is closed in time").is_none()
    }

    async fn read(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

/// A browser with a WebSocket that is greeted.
pub(crate) struct Browser(Connection);

/// The target of a WebSocket's handshake.
pub(crate) const WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";

/// The headers of one.
pub(crate) const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Browser {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to, &[]).await.unwrap_or_else(|refusal| panic!("it is refused: {refusal:?}"))
    }

    /// One that has been upgraded, and is greeted in its own way.
    pub(crate) fn over(connection: Connection) -> Self {
        Self(connection)
    }

    /// With these headers too.
    pub(crate) async fn try_connect(to: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut connection = Connection::open(to).await;
        let answer = connection.get(WEBSOCKET, &[&UPGRADE, headers].concat()).await;
        if answer.status != 101 {
            return Err(answer);
        }
        let mut browser = Self(connection);
        assert!(browser.next().await.unwrap().starts_with("0{"));
        assert_eq!(browser.next().await.unwrap(), "40");
        Ok(browser)
    }

    /// The text of the next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        timeout(DEADLINE, async {
            loop {
                let bytes = &self.0.buffer;
                let header = match bytes.get(1) {
                    Some(126) => bytes.get(2..4).map(|l| (4, usize::from(u16::from_be_bytes([l[0], l[1]])))),
                    Some(&length) => Some((2, usize::from(length))),
                    None => None,
                };
                if let Some((start, length)) = header.filter(|(start, length)| bytes.len() >= start + length) {
                    let frame: Vec<u8> = self.0.buffer.drain(..start + length).collect();
                    return Some(String::from_utf8_lossy(&frame[start..]).into_owned());
                }
                self.0.read().await?;
            }
        })
        .await
        .expect("something comes in time")
    }

    /// Sends a short text; nothing if the server has closed.
    pub(crate) async fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 126, "it is short");
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        let _ = self.0.stream.write_all(&frame).await;
    }
}
