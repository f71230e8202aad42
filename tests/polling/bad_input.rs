//! What no client of the line sends.

use crate::{
    browser::{Browser, POLLING, WEBSOCKET, WebSocket, encode},
    hostile,
    server::{Answer, Connection, Request, Server},
};

fn assert_bad(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code()), (400, Some(3)), "{what}: {answer:?}");
}

#[actix_rt::test]
async fn a_body_that_does_not_parse_ends_its_session_and_no_other() {
    let server = Server::start(&[]);
    let mut bystander = Browser::open(&server).await;
    let many = encode(&vec!["2"; 10_000]);
    let text = hostile::text_bodies();
    let bodies: Vec<&[u8]> = text.iter().chain([&many]).map(String::as_bytes).chain(hostile::BINARY_BODIES).collect();
    for body in &bodies {
        let mut browser = Browser::open(&server).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_bad(&browser.try_post(body).await, &shown);
        browser.assert_unknown().await;
        bystander.assert_alive().await;
    }
    // One of them has too many packets.
    let counted = |stats: &serde_json::Value| {
        let disconnects = &stats["disconnects"];
        let counts = [&disconnects["parse-error"], &disconnects["too-many-messages"], &stats["sessions"]["total"]];
        counts.map(serde_json::Value::as_u64) == [Some(bodies.len() as u64 - 1), Some(1), Some(1)]
    };
    server.until("each session to be counted", counted).await;
}

/// A binary body that was refused and never answered, so that its connection stayed (CVE-2026-59725).
#[actix_rt::test]
async fn a_binary_body_that_is_refused_is_answered() {
    let server = Server::start(&[]);
    let binary = [("content-type", "application/octet-stream")];
    let newer = "/socket.io/?EIO=4&transport=polling";
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut browser = Browser::open(&server).await;
        let mut connection = Connection::open(server.browsers).await;
        assert_bad(&connection.request(Request::new("POST", &browser.url()).headers(&binary).body(b"\xff")).await, "");
        waiting.push(connection);
        browser.assert_unknown().await;
        let mut connection = Connection::open(server.browsers).await;
        assert_eq!(connection.request(Request::new("POST", newer).headers(&binary).body(b"\x04x")).await.status, 400);
        waiting.push(connection);
    }
    // They are idle, and nothing of what was refused keeps them.
    server.until("none to be left", |stats| stats["http_connections"] == 0).await;
    assert_eq!(server.stats().await["sessions"]["total"], 0);
    drop(waiting);
}

#[actix_rt::test]
async fn a_form_that_is_none_ends_its_session() {
    let server = Server::start(&[]);
    for form in ["", "2:40", "x=2:40", "d=", "d=9:2"] {
        let mut browser = Browser::open(&server).await;
        let url = format!("{}&j=0", browser.url());
        let post = Request::new("POST", &url).headers(&[("referer", "http://localhost/")]).body(form.as_bytes());
        assert_bad(&post.send(server.browsers).await, form);
        browser.assert_closed().await;
    }
}

#[actix_rt::test]
async fn a_body_over_the_limit_ends_its_session() {
    let server = Server::start(&["--max-message", "1000"]);
    let fits = encode(&[&format!("2{}", "x".repeat(994))]);
    assert_eq!(fits.len(), 999);
    let mut browser = Browser::open(&server).await;
    browser.try_post(fits.as_bytes()).await;
    assert_eq!(browser.poll().await[0].len(), 995);

    let answer = browser.try_post(&[b'x'; 1001]).await;
    assert_eq!(answer.status, 413);
    browser.assert_unknown().await;

    let mut announced = Browser::open(&server).await;
    let mut connection = Connection::open(server.browsers).await;
    let head = format!("POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n", announced.url());
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.answer(false).await.status, 413);
    announced.assert_unknown().await;

    let mut in_chunks = Browser::open(&server).await;
    let mut connection = Connection::open(server.browsers).await;
    let head = format!("POST {} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n", in_chunks.url());
    connection.send(head.as_bytes()).await;
    for _ in 0..3 {
        connection.send(format!("190\r\n{}\r\n", "x".repeat(400)).as_bytes()).await;
    }
    assert_eq!(connection.answer(false).await.status, 413);
    in_chunks.assert_unknown().await;
    server.until_ended("message-too-big", 3).await;
}

#[actix_rt::test]
async fn a_body_that_breaks_off_ends_its_session() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut connection = Connection::open(server.browsers).await;
    let head = format!("POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n2:4", browser.url());
    connection.send(head.as_bytes()).await;
    drop(connection);
    server.until_ended("transport-error", 1).await;
    browser.assert_unknown().await;
}

/// A request that waits when a body is refused is answered at once; after that the session is unknown.
#[actix_rt::test]
async fn a_get_learns_that_a_body_was_refused() {
    let server = Server::start(&["--max-message", "1000"]);
    for (body, status) in [(&b"abc"[..], 400), (&[b'x'; 1001], 413)] {
        let mut browser = Browser::open(&server).await;
        browser.begin_poll().await;
        assert_eq!(browser.try_post(body).await.status, status);
        // The request may also be read only after that.
        let answer = browser.answer().await;
        assert!(answer.text() == "1:1" || (answer.status, answer.code()) == (400, Some(1)), "{answer:?}");
        browser.assert_unknown().await;
        assert_eq!(browser.try_post(b"1:2").await.code(), Some(1));
    }
}

/// A WebSocket that is about to take over ends with its session.
#[actix_rt::test]
async fn a_body_that_does_not_parse_ends_a_move_to_a_websocket() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    assert_bad(&browser.try_post(b"abc").await, "abc");
    browser.assert_unknown().await;
    socket.send("5").await;
    assert_eq!(socket.next().await, None);
    server.until_ended("parse-error", 1).await;
}

#[actix_rt::test]
async fn a_second_get_ends_the_session() {
    let server = Server::start(&["--workers", "2"]);
    let browser = Browser::open(&server).await;
    let (mut one, mut other) = (Connection::open(server.browsers).await, Connection::open(server.browsers).await);
    let url = browser.url();
    one.begin(Request::new("GET", &url)).await;
    other.begin(Request::new("GET", &url)).await;
    let (waiting, second) = match (one.answer(false).await, other.answer(false).await) {
        (second @ Answer { status: 400, .. }, waiting) => (waiting, second),
        (waiting, second) => (waiting, second),
    };
    assert_eq!((waiting.status, waiting.text().as_str()), (200, "1:1"));
    assert_bad(&second, "the second");
    server.until_ended("poll-overlap", 1).await;
}

#[actix_rt::test]
async fn a_session_of_a_websocket_is_no_polling_session() {
    let server = Server::start(&[]);
    let mut socket = WebSocket::open(server.browsers, WEBSOCKET).await.unwrap();
    let open: serde_json::Value = serde_json::from_str(&socket.next().await.unwrap()[1..]).unwrap();
    assert_eq!(socket.next().await.as_deref(), Some("40"));
    let url = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
    for method in ["GET", "POST"] {
        let answer = Request::new(method, &url).body(b"1:1").send(server.browsers).await;
        assert_eq!((answer.status, answer.code()), (400, Some(1)));
    }
    let upgrade = format!("{WEBSOCKET}&sid={}", open["sid"].as_str().unwrap());
    let answer = WebSocket::open(server.browsers, &upgrade).await.err().unwrap();
    assert_eq!((answer.status, answer.code()), (400, Some(1)));
    socket.send("2").await;
    assert_eq!(socket.next().await.as_deref(), Some("3"));
}

#[actix_rt::test]
async fn too_many_messages_end_the_session() {
    let server = Server::start(&["--max-messages-per-second", "50"]);
    let mut browser = Browser::open(&server).await;
    assert_bad(&browser.try_post(encode(&vec!["3"; 51]).as_bytes()).await, "51 packets");
    browser.assert_unknown().await;
    server.until_ended("too-many-messages", 1).await;
}
