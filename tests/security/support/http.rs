//! HTTP and WebSockets by hand, over whatever carries them.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::within;
use crate::response::Response;

pub(crate) const POLLING: &str = "/socket.io/?EIO=3&transport=polling";
pub(crate) const WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// All values of a header.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The session that a handshake over polling began.
    pub(crate) fn sid(&self) -> String {
        let text = self.text();
        let open = text.split_once(":0").unwrap_or_else(|| panic!("no open packet: {self:?}")).1;
        let open: Value = serde_json::Deserializer::from_str(open).into_iter().next().unwrap().unwrap();
        open["sid"].as_str().unwrap().to_owned()
    }
}

#[derive(Clone)]
pub(crate) struct Request {
    head: String,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { head: format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n"), body: None }
    }

    /// One that asks for a WebSocket.
    pub(crate) fn upgrade(target: &str) -> Self {
        Self::new("GET", target)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Asks for this host in place of `localhost`.
    pub(crate) fn replace_host(mut self, host: &str) -> Self {
        self.head = self.head.replacen("host: localhost\r\n", &format!("host: {host}\r\n"), 1);
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    /// Sends it on a connection of its own, without TLS.
    pub(crate) async fn send(self, to: SocketAddr) -> Answer {
        Connection::new(TcpStream::connect(to).await.unwrap()).request(self).await
    }
}

/// A connection that is kept alive, or became a WebSocket.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// What comes over a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Close(u16),
    /// The end, without a close frame; whether it was reset.
    End {
        reset: bool,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn request(&mut self, request: Request) -> Answer {
        self.begin(request).await;
        self.answer().await
    }

    /// Sends a request without waiting for its answer.
    pub(crate) async fn begin(&mut self, request: Request) {
        let length = request.body.as_ref().map(|body| format!("content-length: {}\r\n", body.len()));
        let head = format!("{}{}\r\n", request.head, length.unwrap_or_default());
        self.send(&[head.as_bytes(), &request.body.unwrap_or_default()].concat()).await;
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        loop {
            if let Some(Response { status, head, body }) = Response::take(&mut self.buffer, true) {
                return Answer { status, head, body };
            }
            self.read_more("an answer").await;
        }
    }

    /// Becomes a WebSocket that is past the open packet and `40`.
    pub(crate) async fn websocket(stream: S) -> Self {
        let mut connection = Self::new(stream);
        let answer = connection.request(Request::upgrade(WEBSOCKET)).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        assert!(matches!(connection.message().await, Message::Text(open) if open.starts_with("0{")));
        assert_eq!(connection.message().await, Message::Text("40".to_owned()));
        connection
    }

    /// The next message of a WebSocket.
    pub(crate) async fn message(&mut self) -> Message {
        if let Err(end) = self.fill(2).await {
            return end;
        }
        let (kind, short) = (self.buffer[0], self.buffer[1]);
        let header = match short {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if let Err(end) = self.fill(header).await {
            return end;
        }
        let length = match short {
            126 => usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]])),
            127 => u64::from_be_bytes(self.buffer[2..10].try_into().unwrap()) as usize,
            short => usize::from(short),
        };
        if let Err(end) = self.fill(header + length).await {
            return end;
        }
        let frame: Vec<u8> = self.buffer.drain(..header + length).collect();
        let payload = &frame[header..];
        match kind {
            0x81 => Message::Text(String::from_utf8(payload.to_vec()).unwrap()),
            0x88 => Message::Close(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("a frame of kind {other:x}"),
        }
    }

    /// The number of the next update of a job.
    pub(crate) async fn number(&mut self) -> u64 {
        match self.message().await {
            Message::Text(text) => {
                let event: Value = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
                event[1]["priority"].as_u64().unwrap()
            }
            end @ (Message::Close(_) | Message::End { .. }) => panic!("{end:?} instead of an update"),
        }
    }

    /// Sends a text message as a client: masked, with a mask of zeros.
    pub(crate) async fn say(&mut self, text: &str) {
        assert!(text.len() < 126);
        let header = [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        self.send(&[&header[..], text.as_bytes()].concat()).await;
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn fill(&mut self, count: usize) -> Result<(), Message> {
        while self.buffer.len() < count {
            match self.read().await {
                Ok(0) => return Err(Message::End { reset: false }),
                Ok(_) => {}
                Err(_) => return Err(Message::End { reset: true }),
            }
        }
        Ok(())
    }

    async fn read_more(&mut self, what: &str) {
        match self.read().await {
            Ok(1..) => {}
            end => panic!("the connection ended in {what}: {end:?}, {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    pub(crate) async fn read(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let read = within("something to read", self.stream.read(&mut chunk)).await?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}
