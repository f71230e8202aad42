//! Browsers and the Manager over TLS.

use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::support::{
    authority::{Authority, Folder},
    http::{Connection, Message, POLLING, Request, WEBSOCKET},
    server::{JOB, PATIENT, Server, events},
    stub, within,
};

struct Secure {
    authority: Authority,
    folder: Folder,
    server: Server,
}

impl Secure {
    async fn start(arguments: &[&str]) -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let certificate = authority.sign().arguments(&folder, "tls");
        let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
        let server = Server::start(&[&certificate[..], arguments].concat()).await;
        Self { authority, folder, server }
    }

    async fn websocket(&self) -> Connection<TlsStream<TcpStream>> {
        Connection::websocket(self.authority.connect(self.server.browsers).await).await
    }

    /// A WebSocket whose kernel holds little for it.
    async fn narrow(&self) -> Connection<TlsStream<TcpStream>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.server.browsers.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(socket.into()).unwrap();
        Connection::websocket(self.authority.open(stream).await.unwrap()).await
    }
}

#[actix_rt::test]
async fn the_ready_line_says_how_each_listener_is_spoken_to() {
    let secure = Secure::start(&[]).await;
    assert!(secure.server.browsers_url.starts_with("https://127.0.0.1:"), "{}", secure.server.browsers_url);
    assert!(secure.server.manager_url.starts_with("http://127.0.0.1:"), "{}", secure.server.manager_url);
}

#[actix_rt::test]
async fn a_page_that_came_without_tls_is_none_of_the_servers() {
    let (manager, _) = stub::serve(None, async |_| {
        Some(stub::answer("200 OK", r#"{"name":"x","version":"3.9","shortversion":"3.9","git":"x"}"#))
    });
    let secure = Secure::start(&["--manager", &format!("http://{manager}")]).await;
    for (origin, is_own) in [
        ("https://localhost", true),
        ("wss://LOCALHOST:443", true),
        ("http://localhost", false),
        ("ws://localhost", false),
    ] {
        for request in [Request::new("GET", POLLING), Request::upgrade(WEBSOCKET), Request::upgrade("/tunnel")] {
            let mut browser = Connection::new(secure.authority.connect(secure.server.browsers).await);
            let status = browser.request(request.header("origin", origin)).await.status;
            assert_eq!(status != 403, is_own, "{origin}: {status}");
        }
    }
}

#[actix_rt::test]
async fn a_polling_session_moves_to_a_websocket() {
    let secure = Secure::start(&[]).await;
    let mut polls = Connection::new(secure.authority.connect(secure.server.browsers).await);
    let opened = polls.request(Request::new("GET", POLLING)).await;
    let sid = opened.sid();
    let of_session = |target| format!("{target}&sid={sid}");
    if !opened.text().contains("2:40") {
        assert_eq!(polls.request(Request::new("GET", &of_session(POLLING))).await.text(), "2:40");
    }
    secure.server.publish(0..1, 10).await;
    let polled = polls.request(Request::new("GET", &of_session(POLLING))).await;
    assert!(polled.text().contains(JOB), "{polled:?}");

    let mut websocket = Connection::new(secure.authority.connect(secure.server.browsers).await);
    assert_eq!(websocket.request(Request::upgrade(&of_session(WEBSOCKET))).await.status, 101);
    websocket.say("2probe").await;
    assert_eq!(websocket.message().await, Message::Text("3probe".to_owned()));
    websocket.say("5").await;
    secure.server.until("the session to move", |stats| stats["sessions"]["websocket"] == 1).await;
    secure.server.publish(1..3, 10).await;
    assert_eq!([websocket.number().await, websocket.number().await], [1, 2]);
}

#[actix_rt::test]
async fn a_browser_that_reads_late_gets_everything_in_order() {
    let secure = Secure::start(&PATIENT).await;
    let mut late = secure.narrow().await;
    let mut other = secure.websocket().await;
    // More than all buffers on the way hold, so that the socket takes no more again and again, also in the middle of a record.
    for hundred in 0..20 {
        secure.server.publish(hundred * 100..(hundred + 1) * 100, 3000).await;
    }
    for number in 0..2000 {
        assert_eq!(other.number().await, number);
    }
    for number in 0..2000 {
        assert_eq!(late.number().await, number);
    }
    // Nothing more comes that could push out what TLS still holds: what is there must have come by itself.
    secure.server.until("nobody to have ended", |stats| stats["sessions"]["websocket"] == 2).await;
}

#[actix_rt::test]
async fn a_browser_that_does_not_read_is_evicted_and_its_connection_reset() {
    let secure = Secure::start(&["--outbox-age", "60s"]).await;
    let mut stalled = secure.narrow().await;
    let mut other = secure.websocket().await;
    let mut next = 0;
    while secure.server.stats().await["disconnects"]["too-slow"] == 0 {
        assert!(next < 20_000, "60 MB do not evict");
        secure.server.publish(next..next + 100, 3000).await;
        next += 100;
        for number in next - 100..next {
            assert_eq!(other.number().await, number);
        }
    }
    let end = loop {
        match stalled.message().await {
            Message::Text(_) => {}
            end @ (Message::Close(_) | Message::End { .. }) => break end,
        }
    };
    assert_eq!(end, Message::End { reset: true });
    secure.server.until("it to be forgotten", |stats| stats["sessions"]["total"] == 1).await;
}

#[actix_rt::test]
async fn a_stop_says_goodbye_in_websocket_and_in_tls() {
    let secure = Secure::start(&PATIENT).await;
    let mut browser = secure.websocket().await;
    let mut late = secure.narrow().await;
    secure.server.publish(0..300, 3000).await;
    secure.server.signal(Signal::TERM);
    for number in 0..300 {
        assert_eq!(browser.number().await, number);
    }
    for number in 0..300 {
        assert_eq!(late.number().await, number, "what waited is sent before the goodbye");
    }
    for browser in [&mut browser, &mut late] {
        assert_eq!(browser.message().await, Message::Close(1001));
        // rustls reports an end without TLS's own goodbye as an error.
        assert_eq!(browser.message().await, Message::End { reset: false });
    }
    drop((browser, late));
    secure.server.ended().await;
}

#[actix_rt::test]
async fn a_browser_that_just_goes_has_closed_its_connection() {
    let secure = Secure::start(&[]).await;
    drop(secure.websocket().await);
    let gone = |stats: &serde_json::Value| stats["disconnects"]["transport-close"] == 1;
    secure.server.until("the session to have ended", gone).await;
}

#[actix_rt::test]
async fn a_client_without_tls_is_closed_and_harms_no_others() {
    let secure = Secure::start(&["--handshake-timeout", "1s"]).await;
    let mut silent = TcpStream::connect(secure.server.browsers).await.unwrap();
    let mut plain = TcpStream::connect(secure.server.browsers).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    // An alert, or nothing.
    let _ = within("plain HTTP to be closed", plain.read_to_end(&mut said)).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    within("a silent connection to be closed", silent.read_to_end(&mut said)).await.unwrap();
    let mut connection = Connection::new(secure.authority.connect(secure.server.browsers).await);
    assert_eq!(connection.request(Request::new("GET", "/healthz")).await.status, 200);
}

#[actix_rt::test]
async fn a_head_may_not_take_long_over_tls_either() {
    let secure = Secure::start(&["--handshake-timeout", "1s", "--keep-alive", "1m"]).await;
    let mut slow = Connection::new(secure.authority.connect(secure.server.browsers).await);
    assert_eq!(slow.request(Request::new("GET", "/healthz")).await.status, 200);
    slow.send(b"GET /healthz").await;
    assert_eq!(slow.answer().await.status, 408);
    secure.server.until("it to be counted", |stats| stats["refused"]["head-too-slow"] == 1).await;
}

#[actix_rt::test]
async fn one_connection_too_many_is_closed_before_it_opens_tls() {
    let secure = Secure::start(&["--max-http-connections", "1"]).await;
    let mut browser = secure.websocket().await;
    let only_the_websocket = |stats: &serde_json::Value| stats["http_connections"] == 0;
    secure.server.until("the WebSocket not to be counted", only_the_websocket).await;
    let _waiting = TcpStream::connect(secure.server.browsers).await.unwrap();
    secure.server.until("it to be counted", |stats| stats["http_connections"] == 1).await;
    let another = TcpStream::connect(secure.server.browsers).await.unwrap();
    assert!(within("it to be closed", secure.authority.open(another)).await.is_err());
    secure.server.until("it to be counted", |stats| stats["refused"]["too-many-http-connections"] == 1).await;
    secure.server.publish(0..1, 10).await;
    assert_eq!(browser.number().await, 0);
}

#[actix_rt::test]
async fn the_managers_port_has_a_certificate_of_its_own() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let certificate = authority.sign().arguments(&folder, "manager-tls");
    let server = Server::start(&certificate.each_ref().map(String::as_str)).await;
    assert!(server.manager_url.starts_with("https://") && server.browsers_url.starts_with("http://"));
    let mut browser = Connection::websocket(TcpStream::connect(server.browsers).await.unwrap()).await;
    let mut manager = Connection::new(authority.connect(server.manager).await);
    for number in 0..3 {
        let post = Request::new("POST", "/api/events").header("content-type", "application/json");
        let answer = manager.request(post.body(&events(number..number + 1, 10))).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"accepted":1}"#));
        assert_eq!(browser.number().await, number);
    }
}

#[actix_rt::test]
async fn a_proxied_request_says_that_the_browser_uses_tls() {
    let (manager, heard) = stub::serve(None, async |_| Some(stub::answer("200 OK", r#"{"version":"3.9"}"#)));
    let secure = Secure::start(&["--manager", &format!("http://{manager}")]).await;
    let mut browser = Connection::new(secure.authority.connect(secure.server.browsers).await);
    assert_eq!(browser.request(Request::new("GET", "/app/jobs")).await.status, 200);
    let head = heard.heads().into_iter().find(|head| head.starts_with("get /app/jobs")).unwrap();
    assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
    drop(secure.folder);
}
