//! A scripted server for tests.

use std::net::SocketAddr;

use actix_codec::Framed;
use actix_http::ws::{self, Codec, Message};
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Address;

pub const OPEN: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":60000}"#;

pub type Peer = Framed<TcpStream, Codec>;

pub async fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, address)
}

/// Reads and answers the request. Returns the peer's WebSocket if the answer opens one.
pub async fn answer(listener: &TcpListener, status: &str) -> (String, Peer) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = String::from_utf8(ws::hash_key(key.as_bytes()).to_vec()).unwrap();
    let response = format!(
        "HTTP/1.1 {status}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await.unwrap();
    (request, Framed::new(stream, Codec::new()))
}

pub async fn welcome(listener: &TcpListener, open: &'static str) -> Peer {
    let (_, mut peer) = answer(listener, "101 Switching Protocols").await;
    peer.send(text(open)).await.unwrap();
    peer.send(text("40")).await.unwrap();
    peer
}

pub fn text(text: &'static str) -> Message {
    Message::Text(text.into())
}
