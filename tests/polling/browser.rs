//! A client, by hand: its requests, and its WebSocket.

use std::net::SocketAddr;

use serde_json::Value;

use crate::server::{Answer, Connection, Request, Server};

pub(crate) const POLLING: &str = "/socket.io/?EIO=3&transport=polling";
pub(crate) const WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";

/// A client that polls.
pub(crate) struct Browser {
    server: SocketAddr,
    pub(crate) sid: String,
    gets: Connection,
    /// Opened with the first request on it: the server waits for none.
    posts: Option<Connection>,
    /// Numbers of jobs that came with the first answer.
    pub(crate) early: Vec<u64>,
}

impl Browser {
    /// One that is past the open packet and `40`, between which it may have heard of what happens since.
    pub(crate) async fn open(server: &Server) -> Self {
        let mut gets = Connection::open(server.browsers).await;
        let answer = gets.request(Request::new("GET", POLLING)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let packets = packets(&answer);
        let open: Value = serde_json::from_str(packets[0].strip_prefix('0').unwrap()).unwrap();
        assert!(packets[1..].contains(&"40".to_owned()), "{packets:?}");
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self { server: server.browsers, sid, gets, posts: None, early: numbers(&packets) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{POLLING}&sid={}", self.sid)
    }

    /// What a `GET` is answered with.
    pub(crate) async fn poll(&mut self) -> Vec<String> {
        let answer = self.try_poll().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        packets(&answer)
    }

    pub(crate) async fn try_poll(&mut self) -> Answer {
        self.gets.request(Request::new("GET", &self.url())).await
    }

    /// Sends a `GET`; [`polled`](Self::polled) waits for its answer.
    pub(crate) async fn begin_poll(&mut self) {
        self.gets.begin(Request::new("GET", &self.url())).await;
    }

    pub(crate) async fn polled(&mut self) -> Vec<String> {
        packets(&self.answer().await)
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.gets.answer(false).await
    }

    /// Goes on connections of its own from now on, as behind a proxy.
    pub(crate) async fn reconnect(&mut self) {
        self.gets = Connection::open(self.server).await;
        self.posts = None;
    }

    pub(crate) async fn post(&mut self, packets: &[&str]) {
        let answer = self.try_post(encode(packets).as_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }

    pub(crate) async fn try_post(&mut self, body: &[u8]) -> Answer {
        let url = self.url();
        if self.posts.is_none() {
            self.posts = Some(Connection::open(self.server).await);
        }
        self.posts.as_mut().unwrap().request(Request::new("POST", &url).body(body)).await
    }

    /// The session ends: the client is notified once, and is unknown from then on.
    pub(crate) async fn assert_closed(&mut self) {
        self.reconnect().await;
        let last = self.poll().await;
        assert_eq!(last.last().map(String::as_str), Some("1"), "{last:?}");
        self.assert_unknown().await;
    }

    pub(crate) async fn assert_unknown(&mut self) {
        self.reconnect().await;
        let answer = self.try_poll().await;
        assert_eq!((answer.status, answer.code()), (400, Some(1)), "{answer:?}");
    }

    /// It works as if nothing had happened.
    pub(crate) async fn assert_alive(&mut self) {
        self.post(&["2alive"]).await;
        assert_eq!(self.poll().await, ["3alive"]);
    }

    pub(crate) async fn websocket(&self) -> WebSocket {
        WebSocket::open(self.server, &format!("{WEBSOCKET}&sid={}", self.sid)).await.unwrap()
    }

    pub(crate) async fn try_websocket(&self) -> Result<WebSocket, Answer> {
        WebSocket::open(self.server, &format!("{WEBSOCKET}&sid={}", self.sid)).await
    }
}

pub(crate) struct WebSocket(Connection);

impl WebSocket {
    pub(crate) async fn open(server: SocketAddr, target: &str) -> Result<Self, Answer> {
        let mut connection = Connection::open(server).await;
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = connection.request(Request::new("GET", target).headers(&headers)).await;
        if answer.status == 101 { Ok(Self(connection)) } else { Err(answer) }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes()).await;
    }

    /// With a mask of zeros, which is one.
    pub(crate) async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length @ ..=125) => frame.push(0x80 | length),
            Ok(_) | Err(_) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.0.send(&frame).await;
    }

    /// The next frame: its first byte and what it holds; `None` at the end of the connection.
    pub(crate) async fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.0.has_unread() && !self.0.read().await {
            return None;
        }
        let head = self.0.take(2).await;
        let length = match head[1] {
            126 => u16::from_be_bytes(self.0.take(2).await.try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.0.take(8).await.try_into().unwrap()) as usize,
            length => length.into(),
        };
        Some((head[0], self.0.take(length).await))
    }

    pub(crate) async fn next(&mut self) -> Option<String> {
        match self.next_frame().await? {
            (0x81, text) => Some(String::from_utf8(text).unwrap()),
            frame => panic!("{frame:?} is no text"),
        }
    }
}

/// A body in text framing.
pub(crate) fn encode(packets: &[&str]) -> String {
    packets.iter().map(|packet| format!("{}:{packet}", packet.encode_utf16().count())).collect()
}

/// What a body in text framing holds.
pub(crate) fn decode(body: &str) -> Vec<String> {
    let units: Vec<u16> = body.encode_utf16().collect();
    let mut rest = &units[..];
    let mut packets = Vec::new();
    while let Some(colon) = rest.iter().position(|&unit| unit == u16::from(b':')) {
        let length: usize = String::from_utf16(&rest[..colon]).unwrap().parse().unwrap();
        packets.push(String::from_utf16(&rest[colon + 1..][..length]).unwrap());
        rest = &rest[colon + 1 + length..];
    }
    assert_eq!(rest, [0; 0]);
    packets
}

pub(crate) fn packets(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    decode(&answer.text())
}

/// The numbers of the published jobs among the packets.
pub(crate) fn numbers(packets: &[String]) -> Vec<u64> {
    let number = |packet: &String| {
        let event: Value = serde_json::from_str(packet.strip_prefix("42")?).unwrap();
        event[1]["priority"].as_u64()
    };
    packets.iter().filter_map(number).collect()
}
