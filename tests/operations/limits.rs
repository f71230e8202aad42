//! Each limit: what who goes over it is told, and where it is counted.

use std::time::Duration;

use flamenco_webupdates::clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::{
    metrics::JOB,
    server::{Answer, Browser, Connection, DEADLINE, Server, UPGRADE, WEBSOCKET},
};

const POLLING: &str = "/socket.io/?EIO=3&transport=polling";

/// Memory that a server may take for what one client does.
const GROWTH: u64 = 8 << 20;

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body.trim_end())
}

/// Opens a session by polling. Returns its id.
async fn poll(server: &Server, headers: &[(&str, &str)]) -> Result<String, Answer> {
    let answer = Connection::open(server.browsers).await.get(POLLING, headers).await;
    if answer.status != 200 {
        return Err(answer);
    }
    let (_, rest) = answer.body.split_once("\"sid\":\"").unwrap();
    Ok(rest.split('"').next().unwrap().to_owned())
}

#[tokio::test]
async fn sessions() {
    let server = Server::start(&["--max-sessions", "1"]);
    let first = Browser::connect(server.browsers).await;
    let full = (503, "too many sessions, try again later");
    assert_eq!(told(&Browser::try_connect(server.browsers, &[]).await.err().unwrap()), full);
    assert_eq!(told(&poll(&server, &[]).await.unwrap_err()), full);
    server.until_refused("too-many-sessions", 2).await;
    drop(first);
    server.until("it is gone", |stats| stats["sessions"]["total"] == 0).await;
    Browser::connect(server.browsers).await;
}

#[tokio::test]
async fn sessions_of_an_address() {
    let server = Server::start(&["--max-sessions-per-address", "2", "--trusted-proxy", "127.0.0.0/8"]);
    let from = |address| [("x-forwarded-for", address)];
    let first = Browser::try_connect(server.browsers, &from("203.0.113.9, 198.51.100.7")).await.ok().unwrap();
    // A session that moves from polling to a WebSocket is one session of its address all the while.
    let sid = poll(&server, &from("198.51.100.7")).await.unwrap();
    let mut connection = Connection::open(server.browsers).await;
    assert_eq!(connection.get(&format!("{WEBSOCKET}&sid={sid}"), &UPGRADE).await.status, 101);
    let mut moving = Browser::over(connection);
    moving.send("2probe").await;
    assert_eq!(moving.next().await.unwrap(), "3probe");
    moving.send("5").await;
    server.until("it moved", |stats| stats["sessions"]["websocket"] == 2 && stats["sessions"]["polling"] == 0).await;

    let full = (429, "too many sessions from your address, try again later");
    let refused = Browser::try_connect(server.browsers, &from("203.0.113.10, 198.51.100.7")).await.err().unwrap();
    assert_eq!(told(&refused), full);
    assert_eq!(told(&poll(&server, &from("198.51.100.7")).await.unwrap_err()), full);
    server.until_refused("too-many-sessions-per-address", 2).await;
    let _other = Browser::try_connect(server.browsers, &from("198.51.100.8")).await.ok().unwrap();

    drop(moving);
    server.until("it is gone", |stats| stats["sessions"]["total"] == 2).await;
    let _again = Browser::try_connect(server.browsers, &from("198.51.100.7")).await.ok().unwrap();
    drop(first);
}

#[tokio::test]
async fn anybody_may_write_where_a_request_comes_from() {
    let server = Server::start(&["--max-sessions-per-address", "1"]);
    let from = [("x-forwarded-for", "198.51.100.7")];
    let _browsers = [
        Browser::try_connect(server.browsers, &from).await.ok().unwrap(),
        Browser::try_connect(server.browsers, &from).await.ok().unwrap(),
    ];
}

#[tokio::test]
async fn the_head_of_a_request() {
    let server = Server::start(&["--max-head", "2000"]);
    let long = "x".repeat(2000);
    for (target, upgrade) in [("/healthz", &[][..]), (WEBSOCKET, &UPGRADE), (POLLING, &[])] {
        let separator = if target.contains('?') { '&' } else { '?' };
        let mut connection = Connection::open(server.browsers).await;
        let answer = connection.get(&format!("{target}{separator}{long}"), upgrade).await;
        assert_eq!(told(&answer), (414, "the address is too long"), "{target}");
        assert!(connection.is_closed().await);
        let headers = [&[("x-long", long.as_str())], upgrade].concat();
        let answer = Connection::open(server.browsers).await.get(target, &headers).await;
        assert_eq!(told(&answer), (431, "the request's headers are too long"), "{target}");
    }
    // Who sends that much without an end is not waited for.
    let mut connection = Connection::open(server.browsers).await;
    assert_eq!(connection.get("/healthz", &[]).await.status, 200);
    let endless = format!("GET /healthz HTTP/1.1\r\nhost: farm\r\nx-long: {}", long.repeat(2));
    let answer = connection.request(&endless).await.unwrap();
    assert_eq!(told(&answer), (431, "the request's headers are too long"));
    assert!(connection.is_closed().await);
    server.until_refused("head-too-large", 7).await;
    assert_eq!(server.stats().await["sessions"]["total"], 0);

    // A body is no head, whoever does not read it.
    let body = "x".repeat(60_000);
    let answer = Connection::open(server.browsers).await.post("/nowhere", "text/plain", &body).await;
    assert_eq!(answer.status, 404);
    let head = "POST /nowhere HTTP/1.1\r\nhost: farm\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut connection = Connection::open(server.browsers).await;
    assert_eq!(connection.request(head).await.unwrap().status, 404);
    for _ in 0..10 {
        connection.stream.write_all(format!("1770\r\n{}\r\n", &body[..6000]).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connection.stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(connection.get("/healthz", &[]).await.status, 200);
}

/// Of the first request of a connection, or a later one; in small pieces, or not at all.
#[tokio::test]
async fn the_time_for_a_head() {
    let limit = Duration::from_millis(500);
    let server = Server::start(&["--handshake-timeout", "500ms", "--keep-alive", "1m"]);
    let mut browser = Browser::connect(server.browsers).await;
    for (before, begin) in [(0, ""), (0, "G"), (1, "G"), (2, "GET /healthz HTTP/1.1\r\n")] {
        let mut connection = Connection::open(server.browsers).await;
        for _ in 0..before {
            assert_eq!(connection.get("/healthz", &[]).await.status, 200);
            // What passes between two requests is not counted.
            tokio::time::sleep(limit * 3 / 2).await;
        }
        let begun = clock::now();
        connection.stream.write_all(begin.as_bytes()).await.unwrap();
        let answer = loop {
            if !begin.is_empty() {
                // It may be closed already.
                let _ = connection.stream.write_all(b"x").await;
            }
            if let Ok(answer) = tokio::time::timeout(limit / 10, connection.answer()).await {
                break answer.unwrap();
            }
            assert!(clock::now() - begun < DEADLINE, "it waits without end");
        };
        assert_eq!(told(&answer), (408, "the request takes too long to come"), "{before} {begin:?}");
        let took = clock::now() - begun;
        assert!(took > limit * 9 / 10 && took < DEADLINE, "{before} {begin:?}: after {took:?}");
        assert!(connection.is_closed().await);
    }
    server.until_refused("head-too-slow", 4).await;
    browser.send("2still there").await;
    assert_eq!(browser.next().await.unwrap(), "3still there");
}

#[tokio::test]
async fn connections_that_are_no_websockets() {
    let server = Server::start(&["--max-http-connections", "2", "--keep-alive", "1m"]);
    for _ in 0..3 {
        drop(Browser::connect(server.browsers).await);
    }
    let mut browser = Browser::connect(server.browsers).await;
    server.until("WebSockets are not counted", |stats| stats["http_connections"] == 0).await;

    let mut polling = Connection::open(server.browsers).await;
    assert_eq!(polling.get(POLLING, &[]).await.status, 200);
    let idle = Connection::open(server.browsers).await;
    server.until("both are counted", |stats| stats["http_connections"] == 2).await;
    let full = (503, "too many connections, try again later");
    assert_eq!(told(&Browser::try_connect(server.browsers, &[]).await.err().unwrap()), full);
    let mut refused = Connection::open(server.browsers).await;
    assert_eq!(told(&refused.post(POLLING, "text/plain", &"x".repeat(1 << 20)).await), full);
    assert!(refused.is_closed().await);
    server.until_refused("too-many-http-connections", 2).await;
    browser.send("2still there").await;
    assert_eq!(browser.next().await.unwrap(), "3still there");
    assert_eq!(polling.get("/healthz", &[]).await.status, 200);

    drop(idle);
    server.until("it is gone", |stats| stats["http_connections"] == 1).await;
    Browser::connect(server.browsers).await;
}

#[tokio::test]
async fn idle_connections() {
    let limit = Duration::from_secs(1);
    let server = Server::start(&["--keep-alive", "1s", "--handshake-timeout", "1m"]);
    let mut browser = Browser::connect(server.browsers).await;
    let sid = poll(&server, &[]).await.unwrap();
    let mut waiting = Connection::open(server.browsers).await;
    let target = format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: farm\r\n\r\n");
    waiting.stream.write_all(target.as_bytes()).await.unwrap();

    // The second one has not sent all of its body, which nobody reads.
    let unfinished = "POST /nowhere HTTP/1.1\r\nhost: farm\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx";
    for (request, status) in [("GET /healthz HTTP/1.1\r\nhost: farm\r\n\r\n", 200), (unfinished, 404)] {
        let mut connection = Connection::open(server.browsers).await;
        assert_eq!(connection.get("/healthz", &[]).await.status, 200);
        tokio::time::sleep(limit / 5).await;
        assert_eq!(connection.request(request).await.unwrap().status, status);
        let answered = clock::now();
        assert!(connection.is_closed().await);
        let took = clock::now() - answered;
        assert!(took > limit * 9 / 10 && took < DEADLINE, "{status}: after {took:?}");
    }
    browser.send("2still there").await;
    assert_eq!(browser.next().await.unwrap(), "3still there");
    server.publish(JOB).await;
    assert_eq!(waiting.answer().await.unwrap().status, 200, "who waits for an answer is not idle");
    server.until_refused("head-too-slow", 0).await;
}

/// Headers without end, many small ones and one big one: memory stays bounded, and it ends.
#[tokio::test]
async fn a_flood_of_headers() {
    let server = Server::start(&[]);
    let before = server.rss();
    let (small, big) = ("x: y\r\n".repeat(20_000), "x".repeat(1 << 20));
    for flood in [&small, &big] {
        let mut floods = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (address, flood) = (server.browsers, flood.clone());
            floods.spawn(async move {
                let mut connection = Connection::open(address).await;
                connection.stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: farm\r\nx: ").await.unwrap();
                let send = async { while connection.stream.write_all(flood.as_bytes()).await.is_ok() {} };
                tokio::time::timeout(DEADLINE, send).await.expect("it takes without end");
            });
        }
        floods.join_all().await;
    }
    server.until_refused("head-too-large", 40).await;
    let growth = server.rss().saturating_sub(before);
    assert!(growth < GROWTH, "it grew by {growth} bytes");
    assert_eq!(Connection::open(server.browsers).await.get("/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn rooms_of_a_session() {
    let server = Server::start(&["--max-rooms", "3"]);
    let mut browser = Browser::connect(server.browsers).await;
    for (ack, kind, answer) in
        [(1, "allWorkers", "ok"), (2, "allWorkerTags", "too many subscriptions, ignoring request")]
    {
        browser.send(&format!(r#"42{ack}["/subscription",{{"op":"subscribe","type":"{kind}"}}]"#)).await;
        assert_eq!(browser.next().await.unwrap(), format!(r#"43{ack}["{answer}"]"#));
    }
    server.until_refused("too-many-rooms", 1).await;
}

#[tokio::test]
async fn chat() {
    let server = Server::start(&["--max-chats-per-second", "1", "--max-chat", "60"]);
    let mut browser = Browser::connect(server.browsers).await;
    let mut say = async |ack: u32, text: &str| {
        browser.send(&format!(r#"42{ack}["/chat",{{"name":"a","text":"{text}"}}]"#)).await;
        loop {
            let heard = browser.next().await.unwrap();
            if heard.starts_with("43") {
                return heard;
            }
        }
    };
    assert_eq!(say(1, &"x".repeat(60)).await, r#"431["chat message is too long, ignoring request"]"#);
    let refusal = r#"432["too many chat messages, ignoring request"]"#;
    let refused = async { while say(2, "b").await != refusal {} };
    tokio::time::timeout(DEADLINE, refused).await.expect("one of many within a second is refused");
    server.until_refused("chat-too-long", 1).await;
    server.until_refused("too-many-chats", 1).await;
}

#[tokio::test]
async fn messages_a_second() {
    let server = Server::start(&["--max-messages-per-second", "5"]);
    let mut browser = Browser::connect(server.browsers).await;
    // The limit is one of each second, and these may fall into two.
    for _ in 0..11 {
        browser.send("2").await;
    }
    while browser.next().await.is_some() {}
    server.until("it is closed", |stats| stats["disconnects"]["too-many-messages"] == 1).await;
}

#[tokio::test]
async fn the_size_of_a_message() {
    let server = Server::start(&["--max-message", "100"]);
    let mut browser = Browser::connect(server.browsers).await;
    browser.send(&format!("2{}", "x".repeat(100))).await;
    while browser.next().await.is_some() {}
    server.until("it is closed", |stats| stats["disconnects"]["message-too-big"] == 1).await;

    let sid = poll(&server, &[]).await.unwrap();
    let target = format!("{POLLING}&sid={sid}");
    let body = format!("101:2{}", "x".repeat(100));
    let answer = Connection::open(server.browsers).await.post(&target, "text/plain", &body).await;
    assert_eq!(told(&answer), (413, "the message is too big"));
    server.until("it is closed too", |stats| stats["disconnects"]["message-too-big"] == 2).await;
}

#[tokio::test]
async fn packets_in_a_polling_body() {
    let server = Server::start(&["--max-packets", "3"]);
    let sid = poll(&server, &[]).await.unwrap();
    let target = format!("{POLLING}&sid={sid}");
    let answer = Connection::open(server.browsers).await.post(&target, "text/plain", &"1:2".repeat(3)).await;
    assert_eq!(told(&answer), (200, "ok"));
    let answer = Connection::open(server.browsers).await.post(&target, "text/plain", &"1:2".repeat(4)).await;
    assert_eq!(answer.status, 400);
    server.until("it is closed", |stats| stats["disconnects"]["too-many-messages"] == 1).await;
}

#[tokio::test]
async fn the_managers_body() {
    let server = Server::start(&["--max-body", "1000"]);
    let long = " ".repeat(1001);
    for content_type in ["application/json", "application/x-ndjson"] {
        let body = if content_type.ends_with("ndjson") { "x".repeat(1001) } else { long.clone() };
        let answer = Connection::open(server.manager).await.post("/api/events", content_type, &body).await;
        let report: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &report["error"]), (413, &"more than 1000 bytes at once".into()), "{content_type}");
    }
    server.until_refused("too-large", 2).await;
}
