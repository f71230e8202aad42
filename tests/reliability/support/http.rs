//! A small HTTP client: one connection, one request after the other.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::response;

pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { address: stream.peer_addr().unwrap(), stream, buffer: Vec::new() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, json: &str) -> Response {
        self.request(&post(path, json)).await.unwrap()
    }

    /// Hands over events, which the server must take.
    pub(crate) async fn publish(&mut self, events: &str) {
        let request = post("/api/events", events);
        let response = match self.request(&request).await {
            Some(response) => response,
            // The server closes what is idle for long; events with ids may be sent again.
            None => {
                *self = Self::open(self.address).await;
                self.request(&request).await.unwrap()
            }
        };
        assert_eq!(response.status, 200, "{}", response.body);
    }

    /// Has something go wrong in the server.
    pub(crate) async fn arm(&mut self, fault: &str) {
        let response = self.post("/api/debug/panic", fault).await;
        assert_eq!(response.status, 204, "this test needs --features fault-injection: {}", response.body);
    }

    /// Sends these bytes and reads one response; `None` when the connection ends without one.
    pub(crate) async fn request(&mut self, request: &str) -> Option<Response> {
        self.stream.write_all(request.as_bytes()).await.ok()?;
        self.response().await
    }

    pub(crate) async fn response(&mut self) -> Option<Response> {
        loop {
            if let Some(response::Response { status, body, .. }) = response::Response::take(&mut self.buffer, true) {
                return Some(Response { status, body: String::from_utf8(body).unwrap() });
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

fn post(path: &str, json: &str) -> String {
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
    )
}

impl Response {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
