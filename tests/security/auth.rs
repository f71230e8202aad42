//! Forward authentication.

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore};

use crate::support::{
    http::{Answer, Connection, POLLING, Request, WEBSOCKET},
    server::{Server, program},
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
        None => Some(stub::answer("401 Unauthorized", "log in first")),
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
async fn the_auth_service_decides_over_both_transports() {
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
async fn watch_sends_the_headers_of_a_log_in() {
    let (server, _) = start(&[]).await;
    let url = server.browsers_url.clone();
    let mut stranger = program(&["watch", &url]).spawn().unwrap();
    server.until("a refusal", |stats| stats["refused"]["auth-denied"] == 1).await;
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let mut watch = program(&["watch", "--header", "Cookie: session=good", "--header", "X-Team: lighting", &url]);
    let mut watch = watch.spawn().unwrap();
    server.until("watch to be in its rooms", |stats| stats["rooms"]["Worker-Tags"] == 1).await;
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[actix_rt::test]
async fn the_auth_request_describes_client_and_request() {
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
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: localhost",
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
    assert_eq!(Request::new("GET", "/socket.io/?EIO=2&transport=polling").send(server.browsers).await.status, 400);
    assert_eq!(heard.heads().len(), 1, "{:?}", heard.heads());
}

#[actix_rt::test]
async fn an_unreachable_auth_service_refuses_and_is_logged_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&["--auth-url", &format!("http://{nobody}/")]).await;
    for _ in 0..3 {
        assert_eq!(handshakes(&server, "good").await.map(|answer| answer.status), [503, 503]);
    }
    server.logged("browsers are refused because --auth-url gives no decision", 1).await;
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
    let complaints = server.log_lines().iter().filter(|line| line.contains("--auth-url gives no decision")).count();
    assert_eq!(complaints, 1, "{:?}", server.log_lines());
}

#[actix_rt::test]
async fn a_crowd_is_asked_about_in_turns_without_delaying_others() {
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
    for number in 0..CROWD {
        let (to, let_in) = (server.browsers, let_in.clone());
        actix_rt::spawn(async move {
            let mut browser = Connection::new(TcpStream::connect(to).await.unwrap());
            let cookie = format!("session={number}");
            assert_eq!(browser.request(Request::upgrade(WEBSOCKET).header("cookie", &cookie)).await.status, 101);
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

/// A stranger's request: its address, and its invented credentials.
type Stranger = fn(usize) -> (String, Option<String>);

#[actix_rt::test]
async fn strangers_do_not_delay_users() {
    const LOOPBACK: &str = "127.0.0.1";
    const ELSEWHERE: &str = "198.51.100.7";
    let anonymous: Stranger = |_| (LOOPBACK.to_owned(), None);
    let inventive: Stranger = |number| ("203.0.113.9".to_owned(), Some(format!("session=invented{number}")));
    let network: Stranger = |number| (format!("2001:db8::{number:x}"), Some(format!("session=invented{number}")));
    let beside: Stranger = |_| (ELSEWHERE.to_owned(), None);
    for (stranger, user, most_open) in
        [(anonymous, LOOPBACK, 17), (inventive, ELSEWHERE, 17), (network, ELSEWHERE, 17), (beside, ELSEWHERE, 9)]
    {
        // Strangers get no answer, so that all their questions stay open.
        let (authority, heard) = stub::serve(None, async |head: String| {
            head.contains("cookie: session=good").then(|| stub::answer("200 OK", ""))
        });
        let url = format!("http://{authority}/");
        let server = Server::start(&["--auth-url", &url, "--auth-timeout", "60s", "--trusted-proxy", LOOPBACK]).await;
        for number in 0..300 {
            let to = server.browsers;
            let (address, cookie) = stranger(number);
            let request = Request::upgrade(WEBSOCKET).header("x-forwarded-for", &address);
            let request = cookie.into_iter().fold(request, |request, cookie| request.header("cookie", &cookie));
            actix_rt::spawn(async move { request.send(to).await });
        }
        within("questions about strangers", async {
            while heard.open() < most_open - 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        for number in 0..30 {
            // Credentials that are not known yet.
            let cookie = format!("session=good; number={number}");
            for request in [Request::new("GET", POLLING), Request::upgrade(WEBSOCKET)] {
                let request = request.header("x-forwarded-for", user).header("cookie", &cookie);
                let status = request.send(server.browsers).await.status;
                assert!([200, 101].contains(&status), "{user}: {status}");
            }
        }
        assert_eq!(heard.most_open.load(Ordering::SeqCst), most_open, "strangers, and a user");
    }
}

#[actix_rt::test]
async fn a_crowd_is_not_taken_for_a_service_that_is_away() {
    let (authority, _) = stub::serve(None, async |head: String| {
        let is_user = head.contains("cookie: session=good");
        if !is_user {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Some(stub::answer(if is_user { "200 OK" } else { "401 Unauthorized" }, ""))
    });
    let url = format!("http://{authority}/");
    let server = Server::start(&["--auth-url", &url, "--auth-timeout", "2s"]).await;
    let strangers: Vec<_> = (0..300)
        .map(|_| {
            let to = server.browsers;
            actix_rt::spawn(async move { Request::upgrade(WEBSOCKET).send(to).await.status })
        })
        .collect();
    let mut answers = [0; 2];
    for stranger in strangers {
        match within("an answer to a stranger", stranger).await.unwrap() {
            403 => answers[0] += 1,
            503 => answers[1] += 1,
            status => panic!("{status}"),
        }
    }
    assert!(answers.iter().all(|&count| count > 0), "some are asked about, some wait in vain: {answers:?}");
    assert_eq!(handshakes(&server, "good").await.map(|answer| answer.status), [200, 101]);
    assert!(
        !server.log_lines().iter().any(|line| line.contains("--auth-url gives no decision")),
        "{:?}",
        server.log_lines()
    );
}

#[actix_rt::test]
async fn a_yes_holds_for_the_same_user_for_a_moment() {
    let (server, heard) = start(&[]).await;
    for _ in 0..10 {
        assert_eq!(handshakes(&server, "good").await.map(|answer| answer.status), [200, 101]);
    }
    assert_eq!(heard.heads().len(), 1);
    for _ in 0..2 {
        assert_eq!(handshakes(&server, "bad").await.map(|answer| answer.status), [403, 403]);
    }
    assert_eq!(heard.heads().len(), 5, "a no is asked for each time");
}

/// Answers every request, as a Manager.
async fn manage(head: String) -> Option<String> {
    Some(match head.starts_with("GET /api/v3/version ") {
        true => stub::answer("200 OK", r#"{"name":"x","version":"3.9","shortversion":"3.9","git":"x"}"#),
        false => stub::answer("200 OK", "the Manager's"),
    })
}

#[actix_rt::test]
async fn the_managers_responses_need_a_user_too() {
    let (manager, managed) = stub::serve(None, manage);
    let manager = format!("http://{manager}");
    let (server, _) = start(&["--manager", &manager]).await;
    server.logged("--auth-url is asked about every request", 1).await;
    let ask = |cookie: &'static str, upgrade: bool| {
        let request = if upgrade { Request::upgrade("/api/v3/jobs") } else { Request::new("GET", "/api/v3/jobs") };
        request.header("cookie", cookie).send(server.browsers)
    };
    for upgrade in [false, true] {
        assert_eq!(ask("session=good", upgrade).await.text(), "the Manager's");
    }
    assert_eq!(ask("", false).await.status, 401, "a browser learns that it must log in");
    assert_eq!(ask("session=bad", false).await.status, 403);
    assert_eq!(ask("session=broken", false).await.status, 503);
    for cookie in ["", "session=bad"] {
        assert_eq!(ask(cookie, true).await.status, 403);
    }
    assert_eq!(Request::new("GET", "/healthz").send(server.browsers).await.status, 200);
    // A page of another site sends a user's cookies along, and reads nothing: it must not change anything either.
    for (method, origin, status) in [
        ("POST", "http://evil.example", 403),
        ("DELETE", "null", 403),
        ("POST", "http://localhost", 200),
        ("GET", "http://evil.example", 200),
    ] {
        let request = Request::new(method, "/api/v3/other").header("origin", origin).header("cookie", "session=good");
        assert_eq!(request.send(server.browsers).await.status, status, "{method} {origin}");
    }
    let others = managed.heads().iter().filter(|head| head.contains(" /api/v3/other ")).count();
    assert_eq!(others, 2);
    let jobs = managed.heads().iter().filter(|head| head.starts_with("get /api/v3/jobs ")).count();
    assert_eq!(jobs, 2, "nothing that was denied reaches the Manager");

    let (server, _) = start(&["--manager", &manager, "--auth-scope", "sessions"]).await;
    server.logged("what --manager passes on is open", 1).await;
    assert_eq!(Request::new("GET", "/api/v3/jobs").send(server.browsers).await.status, 200);
    assert_eq!(handshakes(&server, "").await.map(|answer| answer.status), [403, 403]);
}

#[actix_rt::test]
async fn a_log_in_page_is_shown_to_whoever_looks_at_the_manager() {
    let (authority, _) = stub::serve(None, async |_| {
        let location = "HTTP/1.1 302 Found\r\nlocation: https://login.example/\r\nset-cookie: at=page\r\n";
        Some(format!("{location}content-length: 0\r\n\r\n"))
    });
    let (manager, _) = stub::serve(None, manage);
    let (authority, manager) = (format!("http://{authority}/"), format!("http://{manager}"));
    let server = Server::start(&["--auth-url", &authority, "--manager", &manager]).await;
    let answer = Request::new("GET", "/app/").send(server.browsers).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://login.example/")));
    assert_eq!(answer.header("set-cookie"), Some("at=page"));
    assert_eq!(handshakes(&server, "").await.map(|answer| answer.status), [403, 403]);
}
