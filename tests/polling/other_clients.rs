//! Clients that differ from `socket.io-client` 2.x in what they send: older ones, newer ones, and Python's.

use crate::{
    browser::{Browser, POLLING, WEBSOCKET, WebSocket, packets},
    server::{Connection, Request, Server},
};

const NEWER_POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const NEWER_WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
const PAGE: &str = "http://farm.example";

/// The refusal as a client of Socket.IO 3.x or 4.x receives it, without its open packet.
const SENTENCE: &str = "44{\"message\":\"Unsupported protocol version: this server works with socket.io-client";

fn assert_refusal(open: &str, refusal: &str) {
    assert!(open.starts_with("0{\"sid\":\""), "{open}");
    assert!(refusal.starts_with(SENTENCE), "{refusal}");
}

#[actix_rt::test]
async fn newer_clients_are_refused_in_their_own_protocol() {
    let server = Server::start(&["--allow-origin", PAGE]);
    let answer = Request::new("GET", NEWER_POLLING).headers(&[("origin", PAGE)]).send(server.browsers).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(PAGE)));
    let text = answer.text();
    let (open, refusal) = text.split_once('\x1e').unwrap();
    assert_refusal(open, refusal);

    let mut socket = WebSocket::open(server.browsers, NEWER_WEBSOCKET).await.unwrap();
    assert_refusal(&socket.next().await.unwrap(), &socket.next().await.unwrap());
    let stats = server.stats().await;
    assert_eq!((&stats["refused"]["bad-handshake"], &stats["sessions"]["total"]), (&2.into(), &0.into()));
}

/// Only the request that such a client opens with gets an answer in its protocol.
#[actix_rt::test]
async fn other_requests_of_newer_clients_are_refused_as_all_are() {
    let server = Server::start(&[]);
    let sid = "0123456789abcdef0123456789abcdef";
    for (method, target) in [
        ("GET", NEWER_WEBSOCKET.to_owned()),
        ("POST", NEWER_POLLING.to_owned()),
        ("GET", format!("{NEWER_POLLING}&sid={sid}")),
        ("POST", format!("{NEWER_POLLING}&sid={sid}")),
        ("GET", format!("{NEWER_POLLING}&j=0")),
    ] {
        let answer = Request::new(method, &target).send(server.browsers).await;
        assert_eq!((answer.status, answer.code()), (400, Some(5)), "{method} {target}");
    }
    for target in [NEWER_POLLING.to_owned(), format!("{NEWER_WEBSOCKET}&sid={sid}")] {
        let answer = WebSocket::open(server.browsers, &target).await.err().unwrap();
        assert_eq!((answer.status, answer.code()), (400, Some(5)), "{target}");
    }
    let strange = [("origin", "http://evil.example")];
    let answer = Request::new("GET", NEWER_POLLING).headers(&strange).send(server.browsers).await;
    assert_eq!((answer.status, answer.code()), (403, Some(4)));
    assert_eq!(server.stats().await["refused"]["bad-handshake"], 7);
}

/// What is refused takes no session, counts as a connection, and ends soon, whether its client reads, writes or does neither.
#[actix_rt::test]
async fn refused_newer_clients_are_bounded_and_leave() {
    let server = Server::start(&["--max-sessions", "1", "--max-http-connections", "4"]);
    let mut refused = Vec::new();
    for _ in 0..4 {
        refused.push(WebSocket::open(server.browsers, NEWER_WEBSOCKET).await.unwrap());
    }
    server.until("all of them to count", |stats| stats["http_connections"] == 4).await;
    let too_many = Connection::open(server.browsers).await.answer(false).await;
    assert_eq!(too_many.status, 503, "{too_many:?}");
    refused[0].send(&"x".repeat(100)).await;
    refused[1].send_frame(0x89, b"still there?").await;
    server.until("none to be left", |stats| stats["http_connections"] == 0).await;
    for mut socket in refused {
        assert_refusal(&socket.next().await.unwrap(), &socket.next().await.unwrap());
        assert_eq!(socket.next().await, None);
    }
    let mut socket = WebSocket::open(server.browsers, WEBSOCKET).await.unwrap();
    assert!(socket.next().await.unwrap().starts_with("0{"));
}

#[actix_rt::test]
async fn a_client_that_names_no_revision_speaks_the_third() {
    let server = Server::start(&[]);
    let older = "/socket.io/?transport=polling";
    let script = [("referer", "http://localhost/")];
    let jsonp = Request::new("GET", "/socket.io/?transport=polling&j=0").headers(&script).send(server.browsers).await;
    assert!(jsonp.text().starts_with("___eio[0](\""), "{jsonp:?}");
    let opened = packets(&Request::new("GET", older).send(server.browsers).await);
    let open: serde_json::Value = serde_json::from_str(opened[0].strip_prefix('0').unwrap()).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let session = format!("{older}&sid={sid}");
    let post = Request::new("POST", &session).body(b"6:2alive").send(server.browsers).await;
    assert_eq!((post.status, post.text().as_str()), (200, "ok"));
    assert_eq!(packets(&Request::new("GET", &session).send(server.browsers).await), ["3alive"]);

    let probe = format!("/socket.io/?transport=websocket&sid={sid}");
    let mut socket = WebSocket::open(server.browsers, &probe).await.unwrap();
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    let mut socket = WebSocket::open(server.browsers, "/socket.io/?transport=websocket").await.unwrap();
    assert!(socket.next().await.unwrap().starts_with("0{"));
}

const PYTHON: [(&str, &str); 1] = [("user-agent", "python-requests/2.31")];

/// Whether a POST of a Python client was answered at all, and if so with `ok`.
async fn is_answered(server: &Server, url: &str, body: &[u8]) -> bool {
    let mut connection = Connection::open(server.browsers).await;
    connection.begin(Request::new("POST", url).headers(&PYTHON).body(body)).await;
    if !connection.read().await {
        return false;
    }
    let answer = connection.answer(false).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    true
}

/// python-socketio stops for good after a refused POST. Its reader stops after a refused GET, and its writer, if it misses that,
/// after a POST that is not answered; then it reconnects.
#[actix_rt::test]
async fn a_python_client_is_not_refused_a_post_to_a_lost_session() {
    let server = Server::start(&[]);
    let of_nobody = format!("{POLLING}&sid=0123456789abcdef0123456789abcdef");
    assert!(is_answered(&server, &of_nobody, b"1:2").await);
    let get = Request::new("GET", &of_nobody).headers(&PYTHON).send(server.browsers).await;
    assert_eq!((get.status, get.code()), (400, Some(1)));
    for _ in 0..2 {
        assert!(!is_answered(&server, &of_nobody, b"1:2").await, "its writer would go on without its reader");
    }
    let of_another = format!("{POLLING}&sid=0123456789abcdef0123456789abcde0");
    assert!(is_answered(&server, &of_another, b"1:2").await);
    // Others are refused.
    let post = Request::new("POST", &of_nobody).body(b"1:2").send(server.browsers).await;
    assert_eq!((post.status, post.code()), (400, Some(1)));
    assert_eq!(server.stats().await["refused"]["bad-handshake"], 6);
}

/// The same when its own POST ends the session.
#[actix_rt::test]
async fn a_python_client_is_not_refused_the_post_that_ends_its_session() {
    let server = Server::start(&["--max-message", "1000", "--max-messages-per-second", "50"]);
    let many = "1:3".repeat(51);
    for body in [&b"abc"[..], &[b'x'; 1001], many.as_bytes()] {
        let mut browser = Browser::open(&server).await;
        assert!(is_answered(&server, &browser.url(), body).await);
        browser.assert_unknown().await;
        assert!(!is_answered(&server, &browser.url(), b"1:2").await);
    }
    let reasons = ["parse-error", "message-too-big", "too-many-messages"];
    server.until("each to be counted", |stats| reasons.iter().all(|&reason| stats["disconnects"][reason] == 1)).await;
    // What ends no session is refused: a client that gets `ok` would take its message for sent.
    let browser = Browser::open(&server).await;
    let gzip = [PYTHON[0], ("content-encoding", "gzip")];
    let answer = Request::new("POST", &browser.url()).headers(&gzip).body(b"1:2").send(server.browsers).await;
    assert_eq!(answer.status, 415);
}
