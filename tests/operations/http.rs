//! What HTTP/1.1 asks of both listeners, section by section; `docs/http.md` names each test.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    metrics::JOB,
    server::{Browser, Connection, DEADLINE, Server, UPGRADE, WEBSOCKET},
};

const POLLING: &str = "/socket.io/?EIO=3&transport=polling";
const TOKEN: &str = "a-token-of-the-test";

/// Sends this and reads what comes until the server closes.
async fn until_closed(to: SocketAddr, request: &[u8]) -> String {
    let mut connection = Connection::open(to).await;
    let _ = connection.stream.write_all(request).await;
    let mut answer = Vec::new();
    timeout(DEADLINE, connection.stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    String::from_utf8(answer).unwrap()
}

fn headers(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

async fn sid(server: &Server) -> String {
    let answer = Connection::open(server.browsers).await.get(POLLING, &[]).await;
    answer.body.split_once("\"sid\":\"").unwrap().1.split('"').next().unwrap().to_owned()
}

/// Of HTTP/2, of a WebSocket that is none, and of nothing.
#[tokio::test]
async fn an_upgrade_that_becomes_none() {
    let server = Server::start(&[]);
    let h2c = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB"];
    for (to, path) in [(server.browsers, "/healthz"), (server.manager, "/api/stats"), (server.manager, "/healthz")] {
        for lines in
            [&h2c[..], &["Connection: upgrade"], &["Upgrade: websocket"], &["Connection: close", "Upgrade: websocket"]]
        {
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", headers(lines));
            let mut connection = Connection::open(to).await;
            let answer = connection.request(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{path} {lines:?}: {}", answer.head);
            assert!(!answer.head.contains("connection: upgrade"), "{path} {lines:?}: {}", answer.head);
            if answer.head.contains("connection: close") {
                assert!(connection.is_closed().await);
            } else {
                assert_eq!(connection.get("/healthz", &[]).await.status, 200, "{path} {lines:?}");
            }
        }
    }
    // Its version knows no upgrade, its method has none: the body is read as any other.
    let old = "GET /healthz HTTP/1.0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert!(until_closed(server.browsers, old.as_bytes()).await.contains("\r\n\r\nok\n"));
    let length = JOB.len();
    let post = format!(
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
        connection: keep-alive\r\nupgrade: websocket\r\n\r\n{JOB}GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    );
    let mut connection = Connection::open(server.manager).await;
    assert_eq!(connection.request(&post).await.unwrap().body, r#"{"accepted":1}"#);
    assert_eq!(connection.answer().await.unwrap().status, 200, "what came behind it is answered too");
}

/// A connection takes a place until the server has noticed its end.
async fn all_ended(server: &Server) {
    server.until("all connections to end", |stats| stats["http_connections"] == 0).await;
}

/// To clients that send all of it before they read.
#[tokio::test]
async fn a_refusal_before_the_body_was_read_arrives() {
    let server = Server::start(&["--max-body", "1000000", "--max-http-connections", "2"]);
    let body = "a".repeat(20_000_000);
    for (to, path, kind, status) in [
        (server.manager, "/api/events", "application/json", 413),
        (server.manager, "/api/events", "text/plain", 415),
        (server.manager, "/nowhere", "text/plain", 404),
        (server.browsers, "/socket.io/?EIO=3&transport=polling&sid=gone", "text/plain", 400),
        (server.browsers, "/socket.io/?EIO=9", "text/plain", 400),
        (server.browsers, "/healthz", "text/plain", 405),
        (server.browsers, "/nowhere", "text/plain", 404),
    ] {
        let mut connection = Connection::open(to).await;
        let answer = connection.post(path, kind, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.head);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{path}: {}", answer.head);
        assert!(answer.body.ends_with(['\n', '}']), "{path}: {}", answer.body);
        drop(connection);
        all_ended(&server).await;
    }
    let sid = sid(&server).await;
    all_ended(&server).await;
    let answer =
        Connection::open(server.browsers).await.post(&format!("{POLLING}&sid={sid}"), "text/plain", &body).await;
    assert_eq!(answer.status, 413);
    // What is no body, and comes after a head that is refused.
    for to in [server.browsers, server.manager] {
        let long = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {body}");
        assert_eq!(Connection::open(to).await.request(&long).await.unwrap().status, 431);
        all_ended(&server).await;
        let garbage = format!("this is no request\r\n{body}");
        assert_eq!(Connection::open(to).await.request(&garbage).await.unwrap().status, 400);
        all_ended(&server).await;
    }
    let mut websocket = Connection::open(server.browsers).await;
    let upgrade: String = UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let refused = format!("GET /nowhere HTTP/1.1\r\nhost: localhost\r\n{upgrade}\r\n{body}");
    assert_eq!(websocket.request(&refused).await.unwrap().status, 404);
}

/// A client that has sent all that it has to say waits for the answer.
#[tokio::test]
async fn half_a_connection_is_closed() {
    let server = Server::start(&[]);
    let length = JOB.len();
    let event = format!(
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{JOB}"
    );
    let sid = sid(&server).await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let poll = get(&format!("{POLLING}&sid={sid}"));
    for (to, request, expected) in [
        (server.browsers, get("/healthz"), "ok\n"),
        (server.browsers, get(POLLING), "0{\"sid\":"),
        (server.browsers, get("/nowhere"), "browsers' port"),
        (server.manager, get("/healthz"), "ok\n"),
        (server.manager, get("/metrics"), "# EOF"),
        (server.manager, event, r#"{"accepted":1}"#),
        // First what waits for it, then that the session has ended: there will be no other request.
        (server.browsers, poll.clone(), "42[\"/jobs\""),
    ] {
        let mut connection = Connection::open(to).await;
        connection.stream.write_all(request.as_bytes()).await.unwrap();
        connection.stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, connection.stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 ") && answer.contains(expected), "{request}: {answer}");
    }
    let mut connection = Connection::open(server.browsers).await;
    connection.stream.write_all(poll.as_bytes()).await.unwrap();
    connection.stream.shutdown().await.unwrap();
    let answer = timeout(DEADLINE, connection.answer()).await.unwrap().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "1:1"));
    server.until("the session has ended", |stats| stats["disconnects"]["transport-close"] == 1).await;
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let server = Server::start(&[]);
    for (to, path) in [
        (server.browsers, "/healthz"),
        (server.manager, "/healthz"),
        (server.manager, "/metrics"),
        (server.manager, "/api/stats"),
    ] {
        let answer = until_closed(
            to,
            format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ncontent-length: "), "{path}: {head}");
        assert_eq!(body, "", "{path}");
    }
}

#[tokio::test]
async fn another_method_is_refused_with_those_there_are() {
    let server = Server::start(&[]);
    for (to, path, method, allow) in [
        (server.browsers, "/healthz", "POST", "get, head"),
        (server.browsers, "/healthz", "BREW", "get, head"),
        (server.browsers, "/healthz", "TRACE", "get, head, post, options"),
        (server.browsers, "farm:80", "CONNECT", "get, head, post, options"),
        (server.manager, "/api/events", "PUT", "get, post"),
        (server.manager, "/api/events", "HEAD", "get, post"),
        (server.manager, "/metrics", "POST", "get, head"),
        (server.manager, "/api/stats", "DELETE", "get, head"),
        (server.manager, "/healthz", "PUT", "get, head"),
        (server.manager, "/metrics", "TRACE", "get, head, post, options"),
        (server.manager, "farm:80", "CONNECT", "get, head, post, options"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut connection = Connection::open(to).await;
        let _ = connection.stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 2000];
        let read = timeout(DEADLINE, connection.stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer[..read].to_ascii_lowercase()).unwrap();
        assert!(answer.starts_with("http/1.1 405 "), "{method} {path}: {answer}");
        assert!(answer.contains(&format!("\r\nallow: {allow}\r\n")), "{method} {path}: {answer}");
    }
    // Engine.IO has a refusal of its own, which its clients know.
    let answer =
        Connection::open(server.browsers).await.request(&format!("PUT {POLLING} HTTP/1.1\r\nhost: farm\r\n\r\n")).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (400, r#"{"code":2,"message":"Bad handshake method"}"#));
}

/// In any order and case, on one line or several.
#[tokio::test]
async fn connection_options_are_a_list() {
    let server = Server::start(&[]);
    for lines in [
        &["Connection: close, Upgrade"][..],
        &["Connection: Upgrade, close"],
        &["Connection: keep-alive, UPGRADE"],
        &["Connection: keep-alive", "Connection: upgrade"],
        &["Connection: close", "Connection: ,upgrade ,"],
    ] {
        let request = format!(
            "GET {WEBSOCKET} HTTP/1.1\r\nhost: farm\r\n{}upgrade: WebSocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            headers(lines)
        );
        let mut connection = Connection::open(server.browsers).await;
        let answer = connection.request(&request).await.unwrap();
        assert_eq!(answer.status, 101, "{lines:?}: {}", answer.head);
        assert!(answer.head.contains("\r\nconnection: upgrade\r\n"), "{lines:?}: {}", answer.head);
        assert!(Browser::over(connection).next().await.unwrap().starts_with("0{"));
    }
}

#[tokio::test]
async fn a_websocket_of_another_version_learns_which_there_is() {
    let server = Server::start(&[]);
    let [connection, upgrade, _, key] = UPGRADE;
    for version in ["12", "14", "0", "thirteen"] {
        let headers = [connection, upgrade, key, ("sec-websocket-version", version)];
        let answer = Connection::open(server.browsers).await.get(WEBSOCKET, &headers).await;
        assert_eq!(answer.status, 426, "{version}: {}", answer.head);
        for line in ["sec-websocket-version: 13", "upgrade: websocket", "connection: close, upgrade"] {
            assert!(answer.head.contains(&format!("\r\n{line}\r\n")), "{version}: {}", answer.head);
        }
    }
    server.until_refused("bad-handshake", 4).await;
}

#[tokio::test]
async fn a_websocket_without_a_key_is_refused() {
    let server = Server::start(&[]);
    let [connection, upgrade, version, key] = UPGRADE;
    let short = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j");
    for headers in
        [&[connection, upgrade, version][..], &[connection, upgrade, version, short], &[connection, upgrade, key]]
    {
        let mut connection = Connection::open(server.browsers).await;
        assert_eq!(connection.get(WEBSOCKET, headers).await.status, 400, "{headers:?}");
        assert!(connection.is_closed().await);
    }
}

#[tokio::test]
async fn of_the_sub_protocols_that_are_offered_the_first_is_taken() {
    let server = Server::start(&[]);
    for (offered, taken) in
        [("flamenco-v1, other", Some("flamenco-v1")), ("x", Some("x")), (" , x", Some("x")), ("a b", None), ("", None)]
    {
        let headers = [&UPGRADE[..], &[("sec-websocket-protocol", offered)]].concat();
        let answer = Connection::open(server.browsers).await.get(WEBSOCKET, &headers).await;
        assert_eq!(answer.status, 101, "{offered:?}");
        let named = answer.head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(named, taken, "{offered:?}");
    }
    let answer = Connection::open(server.browsers).await.get(WEBSOCKET, &UPGRADE).await;
    assert!(!answer.head.contains("sec-websocket-protocol"), "nobody asked: {}", answer.head);
}

#[tokio::test]
async fn a_body_that_is_encoded_is_refused() {
    let server = Server::start(&[]);
    let sid = sid(&server).await;
    let polling = format!("{POLLING}&sid={sid}");
    for (to, path, kind, body) in
        [(server.manager, "/api/events", "application/json", JOB), (server.browsers, &polling, "text/plain", "1:2")]
    {
        for (encoding, status) in [("gzip", 415), ("GZIP", 415), ("br, identity", 415), ("identity", 200)] {
            let length = body.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-encoding: {encoding}\r\n\
                content-length: {length}\r\n\r\n{body}"
            );
            let answer = Connection::open(to).await.request(&request).await.unwrap();
            assert_eq!(answer.status, status, "{path} {encoding}: {}", answer.body);
            assert_eq!(status == 415, answer.head.contains("\r\naccept-encoding: identity\r\n"), "{}", answer.head);
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_json() {
    let server = Server::start(&[]);
    let (one, array) = (format!("\u{feff}{JOB}"), format!("\u{feff}[{JOB}]"));
    let lines = format!("\u{feff}{JOB}\n{JOB}\n\u{feff}{JOB}");
    for (kind, body, accepted) in
        [("application/json", &one, 1), ("application/json", &array, 1), ("application/x-ndjson", &lines, 3)]
    {
        let answer = Connection::open(server.manager).await.post("/api/events", kind, body).await;
        assert_eq!(answer.body, format!(r#"{{"accepted":{accepted}}}"#), "{kind}");
    }
}

#[tokio::test]
async fn a_wrong_path_or_port_is_answered_with_a_sentence() {
    let server = Server::start(&[]);
    for (to, path, named) in [
        (server.browsers, "/nothing", "/healthz"),
        (server.browsers, "/api/events", "the other port"),
        (server.browsers, "/metrics", "the other port"),
        (server.manager, "/nothing", "POST /api/events"),
        (server.manager, POLLING, "browsers connect to the other port"),
    ] {
        let answer = Connection::open(to).await.get(path, &[("accept", "*/*")]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains(named) && answer.body.ends_with('\n'), "{path}: {}", answer.body);
        let answer = Connection::open(to).await.get(path, &UPGRADE).await;
        assert!(answer.status == 404 && answer.body.contains(named), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_scheme_of_a_token_is_written_in_any_case() {
    let file = std::env::temp_dir().join(format!("flamenco-webupdates-http-{}", std::process::id()));
    std::fs::write(&file, TOKEN).unwrap();
    let server = Server::start(&["--manager-token-file", file.to_str().unwrap()]);
    for (authorization, status) in [
        (format!("Bearer {TOKEN}"), 200),
        (format!("bearer {TOKEN}"), 200),
        (format!("BEARER   {TOKEN}"), 200),
        (format!("Bearer{TOKEN}"), 401),
        (format!("Basic {TOKEN}"), 401),
        (format!("Bearer {TOKEN}x"), 403),
    ] {
        let answer = Connection::open(server.manager).await.get("/metrics", &[("authorization", &authorization)]).await;
        assert_eq!(answer.status, status, "{authorization}");
        assert_eq!(status == 401, answer.head.contains("\r\nwww-authenticate: bearer\r\n"), "{}", answer.head);
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn invalid_requests_get_an_explanation() {
    let server = Server::start(&[]);
    let requests = [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n",
        "GET /heal thz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost : localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n",
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: +5\r\n\r\nabcde",
        "POST /api/events HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /api/events HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}a client that opens TLS",
    ];
    for to in [server.browsers, server.manager] {
        for request in requests {
            let mut connection = Connection::open(to).await;
            let answer = connection.request(request).await.unwrap_or_else(|| panic!("{request:?} is not answered"));
            assert_eq!(answer.status, 400, "{request:?}: {}", answer.head);
            assert!(answer.body.starts_with("this is not an HTTP/1.1 request"), "{request:?}: {}", answer.body);
            assert!(answer.head.contains("\r\ndate: ") && answer.head.contains("\r\nconnection: close\r\n"));
            assert!(connection.is_closed().await);
        }
    }
    server.until_refused("bad-http", 2 * requests.len() as u64).await;
}

#[tokio::test]
async fn a_target_may_be_a_whole_address() {
    let server = Server::start(&[]);
    for (to, target, status) in [
        (server.browsers, "http://localhost/healthz", 200),
        (server.manager, "http://localhost/healthz", 200),
        (server.browsers, "http://localhost/nowhere", 404),
        (server.browsers, "*", 404),
    ] {
        let answer = Connection::open(to).await.get(target, &[]).await;
        assert_eq!(answer.status, status, "{target}");
    }
}

#[tokio::test]
async fn chunks_may_have_extensions_and_trailers() {
    let server = Server::start(&[]);
    let (first, second) = JOB.split_at(7);
    let chunks =
        format!("{:x};a=b\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nx-trailer: y\r\n\r\n", first.len(), second.len());
    let head = "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: Chunked\r\n\r\n";
    let mut connection = Connection::open(server.manager).await;
    let answer = connection.request(&format!("{head}{chunks}")).await.unwrap();
    assert_eq!(answer.body, r#"{"accepted":1}"#);
    assert_eq!(connection.get("/healthz", &[]).await.status, 200, "it ends where it ends");
}

#[tokio::test]
async fn requests_may_come_one_behind_the_other() {
    let server = Server::start(&[]);
    for to in [server.browsers, server.manager] {
        let mut connection = Connection::open(to).await;
        // The line break before one is passed over (RFC 9112 §2.2).
        let requests = "\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
        connection.stream.write_all(requests.as_bytes()).await.unwrap();
        for _ in 0..50 {
            assert_eq!(connection.answer().await.unwrap().body, "ok\n");
        }
    }
}

#[tokio::test]
async fn an_expectation_is_met_before_the_body_comes() {
    let server = Server::start(&[]);
    let sid = sid(&server).await;
    let polling = format!("{POLLING}&sid={sid}");
    for (to, path, kind, body) in
        [(server.manager, "/api/events", "application/json", JOB), (server.browsers, &polling, "text/plain", "1:2")]
    {
        let mut connection = Connection::open(to).await;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nexpect: 100-Continue\r\n\r\n"
        );
        assert_eq!(connection.request(&head).await.unwrap().status, 100);
        assert_eq!(connection.request(body).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn every_answer_has_a_date() {
    let server = Server::start(&["--handshake-timeout", "200ms"]);
    for (to, request) in [
        (server.browsers, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (server.browsers, "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (server.browsers, "GET /slow"),
        (server.manager, "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (server.manager, "GET /slow"),
    ] {
        let answer = Connection::open(to).await.request(request).await.unwrap();
        let date = answer.head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        assert!(date.ends_with(" gmt") && date.len() == 29, "{date:?}");
    }
}
