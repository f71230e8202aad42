//! Pages of other hosts, where the tests of the single transports do not look.

use std::time::Duration;

use flamenco_webupdates::clock;
use tokio::net::TcpStream;

use crate::support::{
    http::{Connection, POLLING, Request, WEBSOCKET},
    server::Server,
    stub,
};

const EVIL: &str = "https://evil.example";
const LISTED: &str = "https://dashboard.example";
const FOREIGN: &str = r#"{"code":4,"message":"Forbidden","reason":"--allow-origin lets pages of this origin in"}"#;

#[actix_rt::test]
async fn any_page_may_come_only_where_that_is_said() {
    for (arguments, polling, websocket, allowed) in
        [(&["--allow-origin", "*"][..], [200, 204], 101, Some("*")), (&[][..], [403, 403], 403, None)]
    {
        let server = Server::start(arguments).await;
        for (method, status) in ["GET", "OPTIONS"].into_iter().zip(polling) {
            let answer = Request::new(method, POLLING).header("origin", EVIL).send(server.browsers).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, allowed), "{method}");
            assert_eq!(answer.header("access-control-allow-credentials"), None, "no page that nobody named has users");
        }
        let answer = Request::upgrade(WEBSOCKET).header("origin", EVIL).send(server.browsers).await;
        assert_eq!(answer.status, websocket);
    }
}

#[actix_rt::test]
async fn a_page_that_knows_a_session_may_not_use_it() {
    let server = Server::start(&[]).await;
    let mut browser = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    let sid = browser.request(Request::new("GET", POLLING)).await.sid();
    let of_session = |target| format!("{target}&sid={sid}");
    for request in [
        Request::new("GET", &of_session(POLLING)),
        Request::new("POST", &of_session(POLLING)).body(b"1:1"),
        Request::new("GET", &format!("{}&j=0", of_session(POLLING))),
        Request::new("OPTIONS", &of_session(POLLING)),
        Request::upgrade(&of_session(WEBSOCKET)),
    ] {
        let answer = request.header("origin", EVIL).send(server.browsers).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, FOREIGN));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(browser.request(Request::new("POST", &of_session(POLLING)).body(b"1:2")).await.text(), "ok");
    let stats = server.stats().await;
    assert_eq!((&stats["sessions"]["polling"], &stats["refused"]["forbidden-origin"]), (&1.into(), &5.into()));
}

#[actix_rt::test]
async fn the_log_names_the_option_for_a_refused_origin() {
    let server = Server::start(&[]).await;
    for _ in 0..3 {
        let answer = Request::new("GET", POLLING).header("origin", EVIL).send(server.browsers).await;
        assert_eq!(answer.text(), FOREIGN);
    }
    let line = "a page of the origin https://evil.example may not use this server: --allow-origin https://evil.example \
        allows it address=127.0.0.1 transport=polling reason=forbidden-origin";
    server.logged(line, 3).await;
    for _ in 0..50 {
        Request::upgrade(WEBSOCKET).header("origin", EVIL).send(server.browsers).await;
    }
    let begun = clock::now();
    server.until("a second line to be allowed", |_| begun.elapsed() > Duration::from_secs(1)).await;
    Request::new("GET", POLLING).header("origin", EVIL).send(server.browsers).await;
    server.logged("some clients were refused without a line, because there were too many at once", 1).await;
    let said = server.log_lines().iter().filter(|line| line.contains("evil.example")).count();
    assert!(said < 50, "{said} lines about 54 refusals");
}

/// A Manager that shares with every page by itself.
async fn share(head: String) -> Option<String> {
    let body = match head.starts_with("GET /api/v3/version ") {
        true => r#"{"name":"x","version":"3.9","shortversion":"3.9","git":"x"}"#,
        false => "the Manager's",
    };
    let length = body.len();
    Some(format!(
        "HTTP/1.1 200 OK\r\nvary: Accept\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: maybe\r\n\
        content-length: {length}\r\n\r\n{body}"
    ))
}

/// What a response lets pages do: `Access-Control-Allow-Origin`, `-Credentials` and the `Vary` headers.
fn sharing(answer: &crate::support::http::Answer) -> [String; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"]
        .map(|name| answer.headers(name).join(", "))
}

#[actix_rt::test]
async fn a_listed_origin_may_use_the_managers_api() {
    let (manager, managed) = stub::serve(None, share);
    let manager = format!("http://{manager}");
    let server = Server::start(&["--manager", &manager, "--allow-origin", LISTED]).await;
    let ask = |method: &'static str, target: &'static str, origin: &'static str| {
        Request::new(method, target).header("origin", origin).send(server.browsers)
    };
    for (method, target) in [("GET", "/api/v3/jobs"), ("DELETE", "/api/v3/jobs/x"), ("GET", "/healthz")] {
        let answer = ask(method, target, LISTED).await;
        let [origin, credentials, vary] = sharing(&answer);
        assert_eq!((origin.as_str(), credentials.as_str()), (LISTED, "true"), "{method} {target}");
        assert!(vary.contains("Origin"), "{vary}");
    }
    // Its own headers pass for others, and caches keep the two apart.
    assert_eq!(sharing(&ask("GET", "/api/v3/jobs", EVIL).await), ["*", "maybe", "Accept, Origin"]);
    let answer = Request::new("GET", "/api/v3/jobs").send(server.browsers).await;
    assert_eq!(sharing(&answer)[2], "Accept, Origin");
    server.logged("--allow-origin https://evil.example allows it", 1).await;

    let preflight = |origin| {
        Request::new("OPTIONS", "/api/v3/jobs/preflight")
            .header("origin", origin)
            .header("access-control-request-method", "DELETE")
            .header("access-control-request-headers", "content-type, x-farm")
            .send(server.browsers)
    };
    let answer = preflight(LISTED).await;
    assert_eq!((answer.status, sharing(&answer)), (204, [LISTED, "true", "Origin"].map(str::to_owned)));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type, x-farm"));
    assert_eq!(preflight(EVIL).await.text(), "the Manager's");
    let preflights = managed.heads().into_iter().filter(|head| head.contains("/preflight ")).count();
    assert_eq!(preflights, 1, "the Manager is not asked about listed origins");
}

#[actix_rt::test]
async fn every_page_may_read_but_not_change_the_farm_where_that_is_said() {
    let (manager, _) = stub::serve(None, share);
    let server = Server::start(&["--manager", &format!("http://{manager}"), "--allow-origin", "*"]).await;
    let ask = |method| Request::new(method, "/api/v3/jobs").header("origin", EVIL);
    assert_eq!(sharing(&ask("GET").send(server.browsers).await), ["*", "", "Accept"]);
    let preflight = ask("OPTIONS").header("access-control-request-method", "PUT").send(server.browsers).await;
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, HEAD"));
}

#[actix_rt::test]
async fn without_listed_origins_nothing_is_shared() {
    let server = Server::start(&[]).await;
    for target in ["/", "/webupdates/", "/healthz", "/nothing"] {
        let answer = Request::new("GET", target).header("origin", EVIL).send(server.browsers).await;
        assert_eq!(sharing(&answer)[..2], ["", ""], "{target}");
        assert!(!sharing(&answer)[2].contains("Origin"), "{target}");
    }
}

#[actix_rt::test]
async fn a_preflight_request_needs_no_user() {
    let (authority, asked) = stub::serve(None, async |_| Some(stub::answer("401 Unauthorized", "")));
    let authority = format!("http://{authority}/");
    let server = Server::start(&["--auth-url", &authority, "--allow-origin", LISTED]).await;
    let preflight = Request::new("OPTIONS", "/api/v3/jobs").header("access-control-request-method", "GET");
    assert_eq!(preflight.clone().header("origin", LISTED).send(server.browsers).await.status, 204);
    assert_eq!(asked.heads().len(), 0);
    assert_eq!(preflight.header("origin", EVIL).send(server.browsers).await.status, 401);
    // The page may see that its user has to log in.
    let denied = Request::new("GET", "/webupdates/").header("origin", LISTED).send(server.browsers).await;
    assert_eq!((denied.status, sharing(&denied)[0].as_str()), (401, LISTED));
}
