//! The client against a scripted server.

use actix_http::ws::{CloseCode, Frame, Item, Message};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;

use super::peer::{OPEN, Peer, answer, listener, text, welcome};
use super::*;

const IMPATIENT: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":30,"pingTimeout":60}"#;

/// A connected client and its server.
async fn pair(open: &'static str, limits: Limits) -> (Client, Peer) {
    let (listener, address) = listener().await;
    let (client, peer) = tokio::join!(Client::connect(&address, limits), welcome(&listener, open));
    (client.unwrap(), peer)
}

fn short() -> Limits {
    Limits { connect: Duration::from_secs(5), message: 1000, unsent: 1000 }
}

fn shown(incoming: Incoming) -> String {
    let list = |args: Vec<Box<RawValue>>| args.iter().map(|arg| arg.get().to_owned()).collect::<Vec<_>>().join(" ");
    match incoming {
        Incoming::Event { name, args } => format!("{name} {}", list(args)),
        Incoming::Ack { id, args } => format!("ack {id} {}", list(args)),
    }
}

async fn refusal(limits: Limits, serve: impl AsyncFnOnce(TcpListener)) -> String {
    let (listener, address) = listener().await;
    tokio::select! {
        result = Client::connect(&address, limits) => result.err().unwrap().to_string(),
        () = async { serve(listener).await; std::future::pending().await } => unreachable!(),
    }
}

#[actix_rt::test]
async fn events_and_answers_come_in_order_and_pings_are_answered() {
    let (mut client, mut peer) = pair(OPEN, short()).await;
    assert_eq!(client.emit_with_ack("/subscription", &serde_json::json!({"op": "subscribe"})).unwrap(), 0);
    assert_eq!(client.emit_with_ack("/subscription", &"x").unwrap(), 1);
    client.emit("/chat", &["y"]).unwrap();

    for message in [
        text(r#"42["/jobs",{"id": 1}]"#),
        Message::Ping(Bytes::from_static(b"!")),
        text(r#"430["ok"]"#),
        Message::Binary(Bytes::from_static(b"\x04abc")),
        Message::Continuation(Item::FirstText(Bytes::from_static(b"42[\"/st"))),
        Message::Continuation(Item::Last(Bytes::from_static(b"atus\"]"))),
    ] {
        peer.send(message).await.unwrap();
    }
    for expected in [r#"/jobs {"id": 1}"#, r#"ack 0 "ok""#, "/status "] {
        assert_eq!(shown(client.next().await.unwrap()), expected);
    }
    drop(client);

    let mut received = Vec::new();
    while let Some(Ok(frame)) = peer.next().await {
        received.push(if let Frame::Text(text) = &frame {
            String::from_utf8(text.to_vec()).unwrap()
        } else {
            format!("{frame:?}")
        });
    }
    let pong = format!("{:?}", Frame::Pong(Bytes::from_static(b"!")));
    assert_eq!(
        received,
        [
            r#"420["/subscription",{"op":"subscribe"}]"#,
            r#"421["/subscription","x"]"#,
            r#"42["/chat",["y"]]"#,
            pong.as_str()
        ]
    );
}

#[actix_rt::test]
async fn asks_for_a_websocket_below_the_path_of_the_url() {
    let (listener, address) = listener().await;
    let address = format!("{address}/farm/").parse().unwrap();
    let serve = async {
        let (request, mut peer) = answer(&listener, "101 Switching Protocols").await;
        peer.send(text(OPEN)).await.unwrap();
        peer.send(text("40")).await.unwrap();
        request
    };
    let (client, request) = tokio::join!(Client::connect(&address, short()), serve);
    client.unwrap();
    assert!(request.starts_with("GET /farm/socket.io/?EIO=3&transport=websocket HTTP/1.1\r\n"), "{request}");
}

#[actix_rt::test]
async fn says_why_there_is_no_connection() {
    let reason = refusal(short(), async |listener| drop(listener)).await;
    assert!(reason.starts_with("cannot connect: "), "{reason}");

    let reason = refusal(short(), async |listener| drop(answer(&listener, "403 Forbidden").await)).await;
    assert_eq!(reason, "the server responds with status 403 instead of opening a WebSocket");

    let hasty = Limits { connect: Duration::from_millis(50), ..short() };
    let reason = refusal(hasty, async |listener| {
        let _open = answer(&listener, "101 Switching Protocols").await;
        std::future::pending().await
    });
    assert_eq!(reason.await, "no connect packet within 0.05 s");

    let reason = refusal(short(), async |listener| {
        let (_, mut peer) = answer(&listener, "101 Switching Protocols").await;
        peer.send(text("0{}")).await.unwrap();
        std::future::pending().await
    });
    assert_eq!(reason.await, "the server violates the protocol: malformed open packet");
}

#[actix_rt::test]
async fn says_why_a_connection_ended() {
    let long = Message::Text("x".repeat(1001).into());
    let part = |item: fn(Bytes) -> Item, size| Message::Continuation(item("x".repeat(size).into()));
    for (messages, expected) in [
        (vec![Message::Close(Some(CloseCode::Away.into()))], ConnectionEnd::Closed("1001".to_owned())),
        (vec![text("1")], ConnectionEnd::Closed(String::new())),
        (vec![text("41")], ConnectionEnd::Dismissed),
        (vec![long], ConnectionEnd::Fragments(AssemblyError::TooLong)),
        (vec![part(Item::FirstText, 900), part(Item::Last, 101)], ConnectionEnd::Fragments(AssemblyError::TooLong)),
        (vec![text("42")], ConnectionEnd::Protocol(ProtocolError::MalformedJson)),
    ] {
        let (mut client, mut peer) = pair(OPEN, short()).await;
        for message in messages {
            peer.send(message).await.unwrap();
        }
        assert_eq!(client.next().await.unwrap_err(), expected);
    }
    let (mut client, peer) = pair(OPEN, short()).await;
    drop(peer);
    assert_eq!(client.next().await.unwrap_err(), ConnectionEnd::Closed(String::new()));
}

#[actix_rt::test]
async fn a_silent_server_is_given_up_after_its_ping_timeout() {
    let (mut client, mut peer) = pair(IMPATIENT, short()).await;
    assert_eq!(client.next().await.unwrap_err(), ConnectionEnd::PingTimeout);
    assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text(Bytes::from_static(b"2")));
}

#[actix_rt::test]
async fn a_server_that_answers_pings_keeps_the_connection() {
    let (mut client, mut peer) = pair(IMPATIENT, short()).await;
    let serve = async {
        for _ in 0..10 {
            assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text(Bytes::from_static(b"2")));
            peer.send(text("3")).await.unwrap();
        }
        peer.send(text(r#"42["enough"]"#)).await.unwrap();
    };
    let (incoming, ()) = tokio::join!(client.next(), serve);
    assert_eq!(shown(incoming.unwrap()), "enough ");
}

#[actix_rt::test]
async fn queued_bytes_are_bounded() {
    let (mut client, _peer) = pair(OPEN, short()).await;
    let long = "x".repeat(450);
    client.emit("/chat", &long).unwrap();
    client.emit("/chat", &long).unwrap();
    assert!(matches!(client.emit("/chat", &long), Err(EmitError::Backlog)));
    // Once the bytes are written there is room again.
    assert!(tokio::time::timeout(Duration::from_millis(20), client.next()).await.is_err());
    client.emit("/chat", &long).unwrap();
}

#[actix_rt::test]
async fn closing_says_goodbye() {
    let (client, mut peer) = pair(OPEN, short()).await;
    client.close().await;
    let Frame::Close(Some(reason)) = peer.next().await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!(reason.code, CloseCode::Normal);
}
