//! Each limit: the response to a client that exceeds it, and the counter.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use flamenco_webupdates::clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::{
    metrics::JOB,
    program::{SERVE, isolated},
    server::{Answer, BINARY, Browser, Connection, DEADLINE, Server, UPGRADE, WEBSOCKET},
};

const POLLING: &str = "/socket.io/?EIO=3&transport=polling";

/// Memory that a server may take for what one client does.
const GROWTH: u64 = 8 << 20;

fn summary(answer: &Answer) -> (u16, &str) {
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
    assert_eq!(summary(&Browser::try_connect(server.browsers, &[]).await.err().unwrap()), full);
    assert_eq!(summary(&poll(&server, &[]).await.unwrap_err()), full);
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
    assert_eq!(summary(&refused), full);
    assert_eq!(summary(&poll(&server, &from("198.51.100.7")).await.unwrap_err()), full);
    server.until_refused("too-many-sessions-per-address", 2).await;
    let _other = Browser::try_connect(server.browsers, &from("198.51.100.8")).await.ok().unwrap();

    drop(moving);
    server.until("it is gone", |stats| stats["sessions"]["total"] == 2).await;
    let _again = Browser::try_connect(server.browsers, &from("198.51.100.7")).await.ok().unwrap();
    drop(first);
}

/// A trusted proxy that does not say where its requests come from stands for everybody behind it.
#[tokio::test]
async fn a_trusted_proxy_is_no_client() {
    let shares = ["--max-sessions-per-address", "1", "--max-http-connections-per-address", "1"];
    let proxies = ["--trusted-proxy", "127.0.0.0/8", "--trusted-proxy", "10.0.0.0/8"];
    let server = Server::start(&[shares, proxies].concat());
    for from in [&[][..], &[("x-forwarded-for", "10.0.0.9")]] {
        let _browsers = [
            Browser::try_connect(server.browsers, from).await.ok().unwrap(),
            Browser::try_connect(server.browsers, from).await.ok().unwrap(),
        ];
        let sids = [poll(&server, from).await.unwrap(), poll(&server, from).await.unwrap()];
        let mut waiting = Vec::new();
        for sid in sids {
            let mut connection = Connection::open(server.browsers).await;
            let from: String = from.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let target = format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: localhost\r\n{from}\r\n");
            connection.stream.write_all(target.as_bytes()).await.unwrap();
            waiting.push(connection);
        }
        server.publish(JOB).await;
        for mut connection in waiting {
            assert_eq!(connection.answer().await.unwrap().status, 200);
        }
    }
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
        assert_eq!(summary(&answer), (414, "the request target is too long"), "{target}");
        assert!(connection.is_closed().await);
        let headers = [&[("x-long", long.as_str())], upgrade].concat();
        let answer = Connection::open(server.browsers).await.get(target, &headers).await;
        assert_eq!(summary(&answer), (431, "the request's headers are too long"), "{target}");
    }
    // A head that long without an end is not awaited.
    let mut connection = Connection::open(server.browsers).await;
    assert_eq!(connection.get("/healthz", &[]).await.status, 200);
    let endless = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-long: {}", long.repeat(2));
    let answer = connection.request(&endless).await.unwrap();
    assert_eq!(summary(&answer), (431, "the request's headers are too long"));
    assert!(connection.is_closed().await);
    server.until_refused("head-too-large", 7).await;
    assert_eq!(server.stats().await["sessions"]["total"], 0);

    // A body is no head, even if no handler reads it.
    let body = "x".repeat(60_000);
    let answer = Connection::open(server.browsers).await.post("/nowhere", "text/plain", &body).await;
    assert_eq!(answer.status, 404);
    let head = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
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
        assert_eq!(summary(&answer), (408, "the request arrives too slowly"), "{before} {begin:?}");
        let took = clock::now() - begun;
        assert!(took > limit * 9 / 10 && took < DEADLINE, "{before} {begin:?}: after {took:?}");
        assert!(connection.is_closed().await);
    }
    server.until_refused("head-too-slow", 4).await;
    browser.send("2still there").await;
    assert_eq!(browser.next().await.unwrap(), "3still there");
}

/// On both ports. A Manager's stream of events may be idle for as long as it likes, unless it is in the middle of one.
#[tokio::test]
async fn a_body_that_does_not_come() {
    let limit = Duration::from_millis(500);
    let server = Server::start(&["--body-timeout", "500ms"]);
    let sid = poll(&server, &[]).await.unwrap();
    let post = |target: &str, kind: &str, framing: &str| {
        format!("POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n")
    };
    let stream = post("/api/events", "application/x-ndjson", "transfer-encoding: chunked");
    let mut patient = Connection::open(server.manager).await;
    let line = format!("{:x}\r\n{JOB}\n\r\n", JOB.len() + 1);
    patient.stream.write_all(format!("{stream}{line}").as_bytes()).await.unwrap();

    let json = post("/api/events", "application/json", "content-length: 10000000");
    let polling = post(&format!("{POLLING}&sid={sid}"), "text/plain", "content-length: 1000");
    for (to, begin, drip) in [
        (server.manager, format!("{json}[{JOB},"), ""),
        (server.manager, json.clone(), " "),
        (server.manager, format!("{stream}{line}5\r\nbegin\r\n"), ""),
        (server.manager, stream.clone() + "1\r\n{\r\n", "1\r\n \r\n"),
        (server.browsers, polling.clone() + "999:4", "x"),
    ] {
        let mut connection = Connection::open(to).await;
        connection.stream.write_all(begin.as_bytes()).await.unwrap();
        let begun = clock::now();
        let answer = loop {
            // It may be closed already.
            let _ = connection.stream.write_all(drip.as_bytes()).await;
            if let Ok(answer) = tokio::time::timeout(limit / 10, connection.answer()).await {
                break answer.unwrap();
            }
            assert!(clock::now() - begun < DEADLINE, "it waits without end for {begin:?}");
        };
        assert_eq!(answer.status, 408, "{begin:?}: {}", answer.body);
        assert!(answer.body.contains("the request arrives too slowly"), "{begin:?}: {}", answer.body);
        assert!(answer.head.contains("connection: close"), "{begin:?}: {}", answer.head);
        assert!(clock::now() - begun > limit * 9 / 10, "{begin:?}");
    }
    server.until_refused("body-too-slow", 5).await;
    patient.stream.write_all(format!("{line}0\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(patient.answer().await.unwrap().body, r#"{"accepted":2}"#);
    server.until("its session is gone", |stats| stats["disconnects"]["transport-error"] == 1).await;
}

/// Sends each of these on a connection of its own, and waits until so many are answered. Returns those answers, and the other
/// connections.
async fn some_answered(to: SocketAddr, requests: &[&str], count: usize) -> (Vec<Answer>, Vec<Connection>) {
    let mut waiting = Vec::new();
    for request in requests {
        let mut connection = Connection::open(to).await;
        let _ = connection.stream.write_all(request.as_bytes()).await;
        waiting.push(connection);
    }
    let (mut answers, begun) = (Vec::new(), clock::now());
    while answers.len() < count {
        assert!(clock::now() - begun < DEADLINE, "{count} are answered");
        let mut still = Vec::new();
        for mut connection in waiting {
            match tokio::time::timeout(Duration::from_millis(20), connection.answer()).await {
                Ok(answer) => answers.push(answer.unwrap()),
                Err(_) => still.push(connection),
            }
        }
        waiting = still;
    }
    (answers, waiting)
}

/// However many connections there are, what they hold of bodies that are not complete is bounded.
#[tokio::test]
async fn bodies_that_are_incomplete_together() {
    let server = Server::start(&["--max-body", "1000000"]);
    let head = |kind: &str, framing: &str| {
        format!("POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n")
    };
    let most = "x".repeat(999_000);
    let json = head("application/json", "content-length: 1000000") + &most;
    let line = head("application/x-ndjson", "transfer-encoding: chunked") + &format!("{:x}\r\n{most}\r\n", most.len());
    let (refused, waiting) = some_answered(server.manager, &[&json, &line, &json, &line, &json, &line], 2).await;
    for answer in refused {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("too many requests are incomplete"), "{}", answer.body);
    }
    drop(waiting);
    let events = format!("[{JOB}{}]", format!(",{JOB}").repeat(4000));
    let accepted = async {
        while Connection::open(server.manager).await.post("/api/events", "application/json", &events).await.status
            != 200
        {}
    };
    tokio::time::timeout(DEADLINE, accepted).await.expect("what is gone is not counted");
}

#[tokio::test]
async fn requests_of_a_session_at_a_time() {
    let server = Server::start(&[]);
    let sid = poll(&server, &[]).await.unwrap();
    let target = format!("{POLLING}&sid={sid}");
    let half = format!("POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n1:");
    let (refused, waiting) = some_answered(server.browsers, &[&half, &half, &half], 1).await;
    assert_eq!(summary(&refused[0]), (429, "too many concurrent requests of this session"));
    server.until_refused("too-many-posts", 1).await;
    for mut connection in waiting {
        assert_eq!(summary(&connection.request("2").await.unwrap()), (200, "ok"));
    }
    let answer = Connection::open(server.browsers).await.post(&target, "text/plain", "1:2").await;
    assert_eq!(summary(&answer), (200, "ok"), "the session lives, and those that are answered count no more");
}

/// Behind a trusted proxy each request counts for its client, and the proxy's own connections for nobody.
#[tokio::test]
async fn connections_of_an_address() {
    // One worker handles the poll, which was sent first, before the requests that must find its place taken.
    let arguments = ["--workers", "1", "--max-http-connections-per-address", "1", "--trusted-proxy", "127.0.0.0/8"];
    let server = Server::start(&arguments);
    let [one, other] = ["198.51.100.7", "198.51.100.8"].map(|address| [("x-forwarded-for", address)]);
    let mut connections = [Connection::open(server.browsers).await, Connection::open(server.browsers).await];
    let sid = poll(&server, &one).await.unwrap();
    let target =
        format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 198.51.100.7\r\n\r\n");
    let mut waiting = Connection::open(server.browsers).await;
    waiting.stream.write_all(target.as_bytes()).await.unwrap();
    let full = (429, "too many connections from your address, try again later");
    let refused = async {
        loop {
            let answer = Connection::open(server.browsers).await.get("/healthz", &one).await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(DEADLINE, refused).await.expect("one too many is refused");
    assert_eq!(summary(&answer), full);
    assert!(answer.head.contains("\r\nretry-after: 1\r\n"), "{}", answer.head);
    server.until_refused("too-many-http-connections-per-address", 1).await;
    for connection in &mut connections {
        assert_eq!(connection.get("/healthz", &other).await.status, 200);
    }
    server.publish(JOB).await;
    assert_eq!(waiting.answer().await.unwrap().status, 200);
    assert_eq!(waiting.get("/healthz", &one).await.status, 200);
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
    assert_eq!(summary(&Browser::try_connect(server.browsers, &[]).await.err().unwrap()), full);
    let mut refused = Connection::open(server.browsers).await;
    assert_eq!(summary(&refused.post(POLLING, "text/plain", &"x".repeat(1 << 20)).await), full);
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
    let target = format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    waiting.stream.write_all(target.as_bytes()).await.unwrap();

    // The second one has not sent all of its body, which nobody reads.
    let unfinished = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx";
    for (request, status) in [("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", 200), (unfinished, 404)] {
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
    assert_eq!(waiting.answer().await.unwrap().status, 200, "a connection that waits for a response is not idle");
    server.until_refused("head-too-slow", 0).await;
}

/// Headers without end, many small ones and one big one: memory stays bounded, and it ends.
#[tokio::test]
async fn a_flood_of_headers() {
    let server = Server::start(&[]);
    let (small, big) = ("x: y\r\n".repeat(20_000), "x".repeat(1 << 20));
    // The first round also loads code and fills the allocator's caches.
    send_floods(&server, [&small, &big]).await;
    server.until_refused("head-too-large", 40).await;
    let before = server.rss();
    send_floods(&server, [&small, &big]).await;
    server.until_refused("head-too-large", 80).await;
    let growth = server.rss().saturating_sub(before);
    assert!(growth < GROWTH, "it grew by {growth} bytes");
    assert_eq!(Connection::open(server.browsers).await.get("/healthz", &[]).await.status, 200);
}

/// Sends heads that repeat each of these without end over 20 connections, until the server closes them.
async fn send_floods(server: &Server, floods: [&String; 2]) {
    for flood in floods {
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (address, flood) = (server.browsers, flood.clone());
            connections.spawn(async move {
                let mut connection = Connection::open(address).await;
                connection.stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
                let send = async { while connection.stream.write_all(flood.as_bytes()).await.is_ok() {} };
                tokio::time::timeout(DEADLINE, send).await.expect("it takes without end");
            });
        }
        connections.join_all().await;
    }
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
async fn rooms_of_an_address() {
    let server = Server::start(&["--max-subscriptions", "10"]);
    let mut browsers = [Browser::connect(server.browsers).await, Browser::connect(server.browsers).await];
    let mut ack = 0;
    let mut join = async |browser: &mut Browser, kind: &str, number: usize, op: &str| {
        ack += 1;
        let uuid = format!("4b2c1f0e-7c3f-4f0f-9a53-{number:012}");
        browser.send(&format!(r#"42{ack}["/subscription",{{"op":"{op}","type":"{kind}","uuid":"{uuid}"}}]"#)).await;
        browser.next().await.unwrap().split_once('[').unwrap().1.trim_end_matches(']').to_owned()
    };
    let refusal = r#""too many subscriptions from your address or in all, ignoring request""#;
    // It is in two rooms from the beginning, 20 are for everybody, and two are its address's.
    for number in 0..20 {
        assert_eq!(join(&mut browsers[0], "job", number, "subscribe").await, r#""ok""#, "{number}");
    }
    assert_eq!(join(&mut browsers[0], "job", 20, "subscribe").await, refusal);
    for number in 0..18 {
        assert_eq!(join(&mut browsers[1], "job", number, "subscribe").await, r#""ok""#, "{number}");
    }
    assert_eq!(join(&mut browsers[1], "job", 18, "subscribe").await, refusal);
    assert_eq!(join(&mut browsers[0], "job", 0, "unsubscribe").await, r#""ok""#);
    assert_eq!(join(&mut browsers[1], "job", 18, "subscribe").await, r#""ok""#);
    server.until_refused("too-many-subscriptions", 2).await;
    let [one, mut other] = browsers;
    drop(one);
    server.until("it is gone", |stats| stats["sessions"]["total"] == 1).await;
    // Its places are free a moment later.
    let joined = async {
        while join(&mut other, "job", 19, "subscribe").await == refusal {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, joined).await.expect("its places are free");
}

/// As a page of the web can have its visitors' browsers begin them.
#[tokio::test]
async fn sessions_that_never_poll() {
    let server = Server::start(&[]);
    let begun = clock::now();
    let sid = poll(&server, &[]).await.unwrap();
    let (_gone, _gone_too) = (poll(&server, &[]).await.unwrap(), poll(&server, &[]).await.unwrap());
    let answer =
        Connection::open(server.browsers).await.post(&format!("{POLLING}&sid={sid}"), "text/plain", "1:6").await;
    assert_eq!(answer.status, 200);
    server.until("those that never came again are gone", |stats| stats["disconnects"]["never-polled"] == 2).await;
    let took = clock::now() - begun;
    assert!(took > Duration::from_secs(9), "after {took:?}");
    assert_eq!(server.stats().await["sessions"]["total"], 1, "the one that sent something is there");
}

#[tokio::test]
async fn a_page_of_another_site_may_not_begin_sessions() {
    let server = Server::start(&[]);
    for (site, mode, allowed) in [
        ("same-origin", "cors", true),
        ("none", "navigate", true),
        ("same-site", "no-cors", false),
        ("cross-site", "no-cors", false),
        ("cross-site", "navigate", false),
    ] {
        let answer = poll(&server, &[("sec-fetch-site", site), ("sec-fetch-mode", mode)]).await;
        assert_eq!(answer.is_ok(), allowed, "{site} {mode}");
        if let Err(answer) = answer {
            assert!(answer.body.starts_with(r#"{"code":4,"message":"Forbidden","reason":"#), "{}", answer.body);
        }
    }
    server.until_refused("forbidden-origin", 3).await;
    let any = Server::start(&["--allow-origin", "*"]);
    assert!(poll(&any, &[("sec-fetch-site", "cross-site")]).await.is_ok());
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
    assert_eq!(summary(&answer), (413, "the message is too big"));
    server.until("it is closed too", |stats| stats["disconnects"]["message-too-big"] == 2).await;
}

#[tokio::test]
async fn packets_in_a_polling_body() {
    let server = Server::start(&["--max-packets", "3"]);
    let sid = poll(&server, &[]).await.unwrap();
    let target = format!("{POLLING}&sid={sid}");
    let answer = Connection::open(server.browsers).await.post(&target, "text/plain", &"1:2".repeat(3)).await;
    assert_eq!(summary(&answer), (200, "ok"));
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

/// Runs a server under these limits of open files until the end of its input, and returns its log.
fn log_under(limits: &str, options: &[&str]) -> String {
    let script = format!("{limits}; exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh", BINARY]);
    let output = isolated(shell, &[&SERVE[..], &["--events-from-stdin"], options].concat()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    log
}

#[test]
fn more_sessions_than_files_are_reported_at_start() {
    let sessions = ["--max-sessions", "600"];
    let log = log_under("ulimit -n 500", &sessions);
    assert!(log.contains("may open 500 files, so it cannot hold the 600 browsers of --max-sessions"), "{log}");
    // The soft limit is raised to the hard one.
    let log = log_under("ulimit -Sn 500; ulimit -Hn 700", &sessions);
    assert!(!log.contains("--max-sessions"), "{log}");
}

/// Connections for which the process has no file left wait in the kernel. Meanwhile the server neither spins nor
/// fills the log, and it goes on as soon as others leave.
#[tokio::test]
async fn connections_without_a_file_wait_quietly() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", BINARY]);
    let server = Server::start_with(isolated(shell, &SERVE));
    let mut browsers = Vec::new();
    for _ in 0..100 {
        let mut connection = Connection::open(server.browsers).await;
        let headers = UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let request = format!("GET {WEBSOCKET} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        connection.stream.write_all(request.as_bytes()).await.unwrap();
        browsers.push(connection);
    }
    server.logged("Too many open files", 1).await;
    let complaints = || server.log_lines().iter().filter(|line| !line.contains(" a session has ")).count();
    let (spent, lines) = (cpu_ticks(server.pid()), complaints());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (spent, lines) = (cpu_ticks(server.pid()) - spent, complaints() - lines);
    // Two attempts per second and port; a tick is 10 ms.
    assert!(lines <= 24, "{lines} lines in 3 s: {}", server.log());
    assert!(spent < 50, "{spent} ticks in 3 s");
    let waiting = browsers.split_off(browsers.len() / 2);
    drop(browsers);
    for mut connection in waiting {
        assert_eq!(tokio::time::timeout(DEADLINE, connection.answer()).await.unwrap().unwrap().status, 101);
    }
    Browser::connect(server.browsers).await;
}

/// Returns the time that a process has used, in ticks of the kernel.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
