//! A browser: Socket.IO over a WebSocket, by hand.

use std::{
    io::{Error, Result},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) const UPGRADE: &str = "GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n";

const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

pub(crate) struct Browser {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    Text(&'a str),
    Pong,
    Close(u16),
    /// The connection has ended; `true` when it was reset.
    End {
        reset: bool,
    },
}

impl Browser {
    /// Connects and reads up to the namespace's connect packet.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, UPGRADE).await.unwrap()
    }

    pub(crate) async fn greeted(stream: TcpStream) -> Self {
        let mut browser = Self::upgraded(stream).await;
        browser.admitted().await.unwrap();
        browser
    }

    /// One that may resume, and is in no room until it asks.
    pub(crate) async fn resuming(address: SocketAddr) -> Self {
        Self::try_resuming(address).await.unwrap()
    }

    /// The same, where the server may refuse it or not be there.
    pub(crate) async fn try_resuming(address: SocketAddr) -> Result<Self> {
        Self::try_connect(address, &UPGRADE.replace("EIO=3", "EIO=3&resume=1")).await
    }

    pub(crate) async fn try_connect(address: SocketAddr, request: &str) -> Result<Self> {
        let mut browser = Self::requested(TcpStream::connect(address).await?, request).await?;
        browser.admitted().await?;
        Ok(browser)
    }

    async fn admitted(&mut self) -> Result<()> {
        for expected in ["0{", "40"] {
            match self.next().await {
                Incoming::Text(text) if text.starts_with(expected) => {}
                other => return Err(Error::other(format!("{other:?} instead of {expected}"))),
            }
        }
        Ok(())
    }

    /// A WebSocket from which nothing was read yet.
    pub(crate) async fn upgraded(stream: TcpStream) -> Self {
        Self::requested(stream, UPGRADE).await.unwrap()
    }

    async fn requested(mut stream: TcpStream, request: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut buffer = Vec::new();
        let end = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                let received = String::from_utf8_lossy(&buffer);
                return Err(Error::other(format!("the connection ended during the handshake: {received}")));
            }
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !buffer.starts_with(b"HTTP/1.1 101 ") {
            return Err(Error::other(String::from_utf8_lossy(&buffer)));
        }
        Ok(Self { stream, buffer, start: end })
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Incoming<'_> {
        let (opcode, begin, end) = loop {
            if let Some(frame) = self.frame() {
                break frame;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(16 * 1024);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Incoming::End { reset: false },
                Ok(_) => {}
                Err(_) => return Incoming::End { reset: true },
            }
        };
        self.start = end;
        let payload = &self.buffer[begin..end];
        match opcode {
            0x81 => Incoming::Text(std::str::from_utf8(payload).unwrap()),
            0x8a => Incoming::Pong,
            0x88 => Incoming::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
            other => panic!("a frame that begins with {other:#x}"),
        }
    }

    /// Cuts the connection off.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Takes bytes that were read from the stream elsewhere.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next text of those that have arrived already.
    pub(crate) fn buffered(&mut self) -> Option<String> {
        let (_, begin, end) = self.frame()?;
        self.start = end;
        Some(String::from_utf8(self.buffer[begin..end].to_vec()).unwrap())
    }

    /// What ends the connection: the close status, if one came.
    pub(crate) async fn end(&mut self) -> Option<u16> {
        let mut status = None;
        loop {
            match self.next().await {
                Incoming::Close(code) => status = Some(code),
                Incoming::End { .. } => return status,
                Incoming::Text(_) | Incoming::Pong => {}
            }
        }
    }

    /// A whole frame that has arrived: its first byte, and where its payload begins and ends.
    fn frame(&self) -> Option<(u8, usize, usize)> {
        let bytes = &self.buffer[self.start..];
        let (header, length) = match *bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(*bytes[2..].first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*bytes[2..].first_chunk()?)).unwrap()),
            length => (2, usize::from(length)),
        };
        (bytes.len() >= header + length).then(|| (bytes[0], self.start + header, self.start + header + length))
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.try_send(text).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(&frame(0x81, text.as_bytes())).await
    }

    /// Sends a subscription, and takes what comes until it is acknowledged with `ok`.
    pub(crate) async fn subscribe(&mut self, ack: u64, op: &str, kind: &str, mut event: impl FnMut(&str)) {
        self.send(&format!(r#"42{ack}["/subscription",{{"op":"{op}","type":"{kind}"}}]"#)).await;
        let expected = format!(r#"43{ack}["ok"]"#);
        loop {
            match self.next().await {
                Incoming::Text(text) if text == expected => return,
                Incoming::Text(text) => event(text),
                other => panic!("{other:?} instead of an acknowledgement"),
            }
        }
    }
}

/// A masked frame; `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
    bytes
}
