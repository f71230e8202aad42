//! Forward authentication.

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore};

use crate::support::{
    http::{Answer, Connection, POLLING, Request, WEBSOCKET},
    server::Server,
    stub, within,
};

const FORBIDDEN: &str = r#"{"code":4,"message":"Forbidden"}"#;

/// What an authority answers, by the cookie that comes with the question.
async fn decide(head: String) -> Option<String> {
    let cookie = head.lines().find_map(|line| line.strip_prefix("cookie: session="));
    match cookie {
        Some("good") => Some(stub::answer("200 OK", "welcome")),
        Some("empty") => Some(stub::answer("204 No Content", "")),
        Some("bad") => Some(stub::answer("403 Forbidden", "no")),
        Some("lost") => Some(stub::answer("302 Found", "")),
        Some("broken") => Some(stub::answer("500 Internal Server Error", "")),
        Some(_) => None,
        None => Some(stub::answer("401 Unauthorized", "who are you?")),
    }
}

/// A handshake with this cookie over each transport.
async fn handshakes(server: &Server, cookie: &str) -> [Answer; 2] {
    let header = format!("session={cookie}");
    let with_cookie = |request: Request| if cookie.is_empty() { request } else { request.header("cookie", &header) };
    [
        with_cookie(Request::new("GET", POLLING)).send(server.browsers).await,
        with_cookie(Request::upgrade(WEBSOCKET)).send(server.browsers).await,
    ]
}

async fn start(more: &[&str]) -> (Server, std::sync::Arc<stub::Heard>) {
    let (authority, heard) = stub::serve(None, decide);
    let url = format!("http://{authority}/may-come-in?service=farm");
    (Server::start(&[&["--auth-url", &url], more].concat()).await, heard)
}

#[actix_rt::test]
async fn who_is_asked_decides_over_both_transports() {
    let (server, _) = start(&["--auth-timeout", "500ms"]).await;
    for cookie in ["good", "empty"] {
        let [polling, websocket] = handshakes(&server, cookie).await;
        assert_eq!((polling.status, websocket.status), (200, 101), "{cookie}");
    }
    for cookie in ["bad", ""] {
        for answer in handshakes(&server, cookie).await {
            assert_eq!((answer.status, answer.text().as_str()), (403, FORBIDDEN), "{cookie}");
        }
    }
    for cookie in ["lost", "broken", "silent"] {
        for answer in handshakes(&server, cookie).await {
            assert_eq!(answer.status, 503, "{cookie}: {answer:?}");
            assert!(answer.text().contains("does not answer, try again later"), "{answer:?}");
        }
    }
    let stats = server.stats().await;
    assert_eq!((&stats["refused"]["auth-denied"], &stats["refused"]["auth-unavailable"]), (&4.into(), &6.into()));
    assert_eq!(stats["refused"]["forbidden-origin"], 0);
    assert_eq!(stats["sessions"]["polling"], 2);
}

#[actix_rt::test]
async fn the_question_tells_who_wants_what() {
    let (server, heard) = start(&[]).await;
    let target = format!("{WEBSOCKET}&t=1");
    let request = Request::upgrade(&target)
        .header("cookie", "session=good")
        .header("authorization", "Basic Zm9v")
        .header("x-forwarded-for", "10.1.2.3")
        .header("x-forwarded-uri", "/somewhere/else")
        .header("x-secret", "mine");
    assert_eq!(request.send(server.browsers).await.status, 101);
    let heads = heard.heads();
    let [head] = heads.as_slice() else { panic!("one question: {heads:?}") };
    assert!(head.starts_with("get /may-come-in?service=farm http/1.1\r\n"), "{head}");
    for line in [
        "cookie: session=good",
        "authorization: basic zm9v",
        "x-forwarded-for: 10.1.2.3, 127.0.0.1",
        "x-forwarded-host: farm",
        "x-forwarded-proto: http",
        "x-forwarded-method: get",
        "x-forwarded-uri: /socket.io/?eio=3&transport=websocket&t=1",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is missing: {head}");
    }
    for absent in ["x-secret", "somewhere", "upgrade:"] {
        assert!(!head.contains(absent), "{absent} is none of its business: {head}");
    }
}

#[actix_rt::test]
async fn only_handshakes_are_asked_about() {
    let (server, heard) = start(&[]).await;
    let mut browser = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    let sid = browser.request(Request::new("GET", POLLING).header("cookie", "session=good")).await.sid();
    let of_session = |target| format!("{target}&sid={sid}");
    assert_eq!(browser.request(Request::new("POST", &of_session(POLLING)).body(b"1:2")).await.text(), "ok");
    assert!(browser.request(Request::new("GET", &of_session(POLLING))).await.text().contains("1:3"));
    assert_eq!(Request::upgrade(&of_session(WEBSOCKET)).send(server.browsers).await.status, 101);
    assert_eq!(Request::new("GET", "/healthz").send(server.browsers).await.status, 200);
    // Nor about those that are refused anyway.
    let evil = Request::new("GET", POLLING).header("origin", "http://evil.example");
    assert_eq!(evil.send(server.browsers).await.status, 403);
    assert_eq!(Request::new("GET", "/socket.io/?EIO=4&transport=polling").send(server.browsers).await.status, 400);
    assert_eq!(heard.heads().len(), 1, "{:?}", heard.heads());
}

#[actix_rt::test]
async fn nobody_there_is_no_yes_and_is_said_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&["--auth-url", &format!("http://{nobody}/")]).await;
    for _ in 0..3 {
        assert_eq!(handshakes(&server, "good").await.map(|answer| answer.status), [503, 503]);
    }
    server.logged("browsers are refused because --auth-url does not say whether they may come in", 1).await;
    let listener = tokio::net::TcpListener::bind(nobody).await.unwrap();
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(stub::answer("200 OK", "").as_bytes()).await;
        }
    });
    assert_eq!(handshakes(&server, "good").await.map(|answer| answer.status), [200, 101]);
    server.logged("--auth-url answers again", 1).await;
    let complaints = server.log().iter().filter(|line| line.contains("--auth-url does not say")).count();
    assert_eq!(complaints, 1, "{:?}", server.log());
}

#[actix_rt::test]
async fn a_crowd_is_asked_about_in_turns_and_holds_nobody_up() {
    const CROWD: usize = 300;
    let (turns, let_in) = (Rc::new(Semaphore::new(0)), Rc::new(Cell::new(0)));
    let gate = turns.clone();
    let (authority, heard) = stub::serve(None, move |_| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Some(stub::answer("200 OK", ""))
        }
    });
    let server = Server::start(&["--auth-url", &format!("http://{authority}/"), "--auth-timeout", "60s"]).await;
    for _ in 0..CROWD {
        let (to, let_in) = (server.browsers, let_in.clone());
        actix_rt::spawn(async move {
            let mut browser = Connection::new(TcpStream::connect(to).await.unwrap());
            assert_eq!(browser.request(Request::upgrade(WEBSOCKET)).await.status, 101);
            let_in.set(let_in.get() + 1);
            std::future::pending::<()>().await;
        });
    }
    within("questions to be asked", async {
        while heard.open() < 64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(Request::new("GET", "/healthz").send(server.browsers).await.status, 200);
    turns.add_permits(CROWD);
    within("all to be let in", async {
        while let_in.get() < CROWD {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(heard.most_open.load(Ordering::SeqCst), 64);
    server.until("all to be counted", |stats| stats["sessions"]["websocket"] == CROWD as u64).await;
}
