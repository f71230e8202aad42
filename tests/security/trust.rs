//! Whose word is taken: hosts, forwarding headers, and paths that lead around the rules.

use std::{cell::Cell, net::SocketAddr, os::unix::fs::PermissionsExt, rc::Rc, time::Duration};

use flamenco_webupdates::clock;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    authority::{Authority, Folder},
    http::{Connection, POLLING, Request, WEBSOCKET},
    server::{SERVE, Server, program, refusal, run},
    stub, within,
};

const EVIL: &str = "http://evil.example";

/// A Manager that resolves paths, as something before it may: it opens a WebSocket under any spelling of `/socket.io`.
fn manager() -> (String, std::sync::Arc<stub::Heard>) {
    let (address, heard) = stub::serve(None, async |head: String| {
        let path = head.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
        Some(if path.ends_with("/api/v3/version") {
            stub::answer("200 OK", r#"{"name":"x","version":"3.9","shortversion":"3.9","git":"x"}"#)
        } else if head.to_ascii_lowercase().contains("\nupgrade: websocket") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
            format!("{switch}x-from: manager\r\n\r\n")
        } else {
            stub::answer("200 OK", "the Manager's")
        })
    });
    (format!("http://{address}"), heard)
}

/// Spellings that mean Socket.IO's path to some reader.
const SPELLINGS: [&str; 19] = [
    "/socket.io/",
    "/socket.io",
    "/socket.io/socket.io/",
    "/socket%2Eio/",
    "/%73ocket.io/",
    "/socket%252Eio/",
    "/%2573ocket%25252Eio/",
    "//socket.io/",
    "/./socket.io/",
    "/x/../socket.io/",
    "/x%2f..%5csocket.io/",
    "/../socket.io/",
    "/../farm/socket.io/",
    "/socket.io/.",
    "/socket.io/%252e%252e/app",
    "/socket.io/%252e%252e/webupdates/page.js",
    "/socket.io%2F",
    "/Socket.IO/",
    "/socket.io;x/",
];

#[actix_rt::test]
async fn no_spelling_of_its_path_leads_to_the_managers_socket_io() {
    for (path, below) in [("/socket.io", ""), ("/updates/socket.io", ""), ("/live", "/farm")] {
        let (url, heard) = manager();
        let server = Server::start(&["--manager", &format!("{url}{below}"), "--path", path, "--page", "off"]).await;
        for spelling in SPELLINGS {
            for transport in ["websocket", "polling"] {
                let target = format!("{spelling}?EIO=3&transport={transport}");
                let request = match transport {
                    "websocket" => Request::upgrade(&target),
                    _ => Request::new("GET", &target),
                };
                let foreign = request.clone().header("origin", EVIL).send(server.browsers).await;
                assert!([403, 404].contains(&foreign.status), "{target}: {foreign:?}");
                let own = request.send(server.browsers).await;
                assert_eq!(own.header("x-from"), None, "{target}");
                assert!([200, 101, 404].contains(&own.status), "{target}: {own:?}");
            }
        }
        let passed: Vec<String> = heard.heads().into_iter().filter(|head| !head.contains("/api/v3/")).collect();
        // The relay's own connection is the only one that may lead there.
        let relay = format!("get {below}/socket.io/?eio=3&transport=websocket ");
        assert!(passed.iter().all(|head| head.starts_with(&relay)), "{passed:#?}");
        assert!(!passed.iter().any(|head| head.contains("x-forwarded-for")), "{passed:#?}");
    }
}

#[actix_rt::test]
async fn everything_below_the_path_is_socket_io() {
    for path in ["/socket.io", "/updates/socket.io"] {
        let server = Server::start(&["--path", path]).await;
        for below in ["", "/", "/socket.io/", "/x/y"] {
            let target = |transport| format!("{path}{below}?EIO=3&transport={transport}");
            assert_eq!(
                Request::new("GET", &target("polling")).send(server.browsers).await.status,
                200,
                "{path}{below}"
            );
            assert_eq!(Request::upgrade(&target("websocket")).send(server.browsers).await.status, 101, "{path}{below}");
        }
        let beside = Request::new("GET", &format!("{path}x/?EIO=3&transport=polling")).send(server.browsers).await;
        assert_eq!(beside.status, 404);
    }
}

/// Over a connection that becomes HTTP/2 a client could send requests that this server never sees.
#[actix_rt::test]
async fn a_connection_becomes_a_websocket_or_nothing() {
    let (url, heard) = manager();
    let server = Server::start(&["--manager", &url]).await;
    let offers = |protocols: [&str; 2]| {
        let request = Request::new("GET", "/some/socket").header("connection", "upgrade, http2-settings");
        protocols.into_iter().fold(request, |request, protocol| request.header("upgrade", protocol))
    };
    for protocols in [["h2c", "websocket"], ["websocket", "h2c"], ["h2c", "h2c"], ["h2c, websocket", "x"]] {
        offers(protocols).header("http2-settings", "AAMAAABkAAQAAP__").send(server.browsers).await;
    }
    let passed: Vec<String> = heard.heads().into_iter().filter(|head| head.contains("/some/socket")).collect();
    assert_eq!(passed.len(), 4, "{passed:#?}");
    assert!(!passed.iter().any(|head| head.contains("h2c") || head.contains("http2")), "{passed:#?}");
}

#[actix_rt::test]
async fn what_is_passed_through_is_a_pages_like_the_rest() {
    let (url, _) = manager();
    let server = Server::start(&["--manager", &url]).await;
    let tunnel = || Request::upgrade("/some/socket");
    assert_eq!(tunnel().send(server.browsers).await.header("x-from"), Some("manager"));
    let own = tunnel().header("origin", "http://localhost").send(server.browsers).await;
    assert_eq!(own.status, 101, "{own:?}");
    assert_eq!(tunnel().header("origin", EVIL).send(server.browsers).await.status, 403);
}

#[actix_rt::test]
async fn claims_of_strangers_are_not_forwarded() {
    let (url, heard) = manager();
    let claims = |request: Request| {
        request
            // What nginx and Apache make of a header that a client sent: they add to it.
            .header("x-forwarded-for", "192.168.0.1, 10.1.2.3")
            .header("x-forwarded-host", "evil.example, farm.example")
            .header("x-forwarded-proto", "http")
            .header("x-forwarded-proto", "https")
            .header("x_forwarded_for", "192.168.0.1")
            .header("x-real-ip", "192.168.0.1")
            .header("forwarded", "for=192.168.0.1")
            .header("x-original-url", "/evil.example")
    };
    for (arguments, expected, hidden) in [
        (
            &[][..],
            ["x-forwarded-for: 127.0.0.1", "x-forwarded-host: localhost", "x-forwarded-proto: http"],
            &["10.1.2.3", "192.168.0.1", "farm.example", "evil.example"][..],
        ),
        (
            &["--trusted-proxy", "127.0.0.1"][..],
            ["x-forwarded-for: 10.1.2.3, 127.0.0.1", "x-forwarded-host: farm.example", "x-forwarded-proto: https"],
            &["192.168.0.1", "evil.example"],
        ),
    ] {
        let auth = format!("{url}/auth");
        let server = Server::start(&[&["--manager", &url, "--auth-url", &auth], arguments].concat()).await;
        let before = heard.heads().len();
        for request in [Request::new("GET", "/page"), Request::upgrade("/tunnel"), Request::new("GET", POLLING)] {
            let status = claims(request).send(server.browsers).await.status;
            assert!([200, 101].contains(&status), "{status}");
        }
        let heads: Vec<String> = heard.heads().split_off(before);
        let heads: Vec<&String> = heads.iter().filter(|head| head.contains("x-forwarded-for")).collect();
        assert_eq!(heads.len(), 5, "three questions, and two that were passed on: {heads:#?}");
        for head in heads {
            assert!(expected.iter().all(|line| head.contains(&format!("\r\n{line}\r\n"))), "{head}");
            assert!(!hidden.iter().any(|text| head.contains(text)), "{head}");
        }
    }
}

/// nginx passes on its own name for the server, or the host that the page has with `proxy_set_header Host`.
#[actix_rt::test]
async fn a_trusted_proxy_says_which_host_a_page_is_of() {
    let (url, _) = manager();
    let server = Server::start(&["--manager", &url, "--trusted-proxy", "127.0.0.1"]).await;
    for (host, headers, status) in [
        ("webupdates.site", &[("x-forwarded-host", "farm.example"), ("x-forwarded-proto", "https")][..], 200),
        ("farm.example", &[("x-forwarded-proto", "https")], 200),
        ("farm.example:443", &[("x-forwarded-proto", "https")], 200),
        ("farm.example", &[], 200),
        ("farm.example.", &[], 200),
        ("webupdates.site", &[("x-forwarded-proto", "https")], 403),
        ("farm.example:8443", &[("x-forwarded-proto", "https")], 403),
        ("farm.example", &[("x-forwarded-host", "other.example"), ("x-forwarded-proto", "https")], 403),
    ] {
        for request in [Request::new("GET", POLLING), Request::upgrade(WEBSOCKET), Request::upgrade("/tunnel")] {
            let request = request.replace_host(host).header("origin", "https://farm.example");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            let answer = request.send(server.browsers).await;
            assert_eq!(answer.status == 403, status == 403, "{host} {headers:?}: {answer:?}");
        }
        let insecure = Request::new("GET", POLLING).replace_host(host).header("origin", "http://farm.example");
        let insecure = headers.iter().fold(insecure, |request, (name, value)| request.header(name, value));
        let says_https = headers.contains(&("x-forwarded-proto", "https"));
        let answer = insecure.send(server.browsers).await;
        assert_eq!(answer.status == 403, says_https || status == 403, "{host} {headers:?}: {answer:?}");
    }
}

#[actix_rt::test]
async fn a_foreign_host_name_is_not_answered() {
    let (url, _) = manager();
    let server = Server::start(&["--manager", &url, "--allowed-host", "farm.example"]).await;
    let ask = |request: Request, host: &str| request.replace_host(host).send(server.browsers);
    for request in [Request::new("GET", POLLING), Request::upgrade(WEBSOCKET), Request::new("GET", "/api/v3/jobs")] {
        for host in ["127.0.0.1:8081", "localhost", "farm", "farm.example:8081"] {
            let answer = ask(request.clone(), host).await;
            assert!([200, 101].contains(&answer.status), "{host}: {answer:?}");
        }
        let answer = ask(request, "rebound.example:8081").await;
        assert_eq!(answer.status, 421);
        assert!(answer.text().contains("--allowed-host lets the name in"), "{answer:?}");
    }
    assert_eq!(ask(Request::new("GET", "/healthz"), "rebound.example").await.status, 200);
    assert_eq!(ask(Request::new("GET", POLLING), "a b").await.status, 400);
    assert_eq!(server.stats().await["refused"]["forbidden-host"], 4);
    server.logged("--allowed-host rebound.example allows it", 3).await;
}

#[actix_rt::test]
async fn pages_do_not_reach_the_managers_port() {
    let server = Server::start(&[]).await;
    let event = br#"{"type":"life-cycle","payload":{"type":"manager-shutdown"}}"#;
    let post = || Request::new("POST", "/api/events").header("content-type", "application/json").body(event);
    for (request, status) in [
        (post(), 200),
        (post().replace_host("127.0.0.1:8082"), 200),
        (post().replace_host("[::1]:8082"), 200),
        (post().replace_host("rebound.example"), 421),
        (post().replace_host("farm"), 421),
        (post().header("origin", "http://localhost:8082"), 403),
        (Request::new("GET", "/api/stats").replace_host("rebound.example"), 421),
        (Request::new("GET", "/metrics").header("origin", "null"), 403),
    ] {
        let answer = request.send(server.manager).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let stats = server.stats().await;
    assert_eq!((&stats["events"]["life-cycle"], &stats["refused"]["unauthorized"]), (&3.into(), &5.into()));
}

/// All paths: a rebound page of the machine's browser must not read one, nor change anything. `/healthz` of the browsers' port
/// is the only exception, which docs/security.md names.
#[actix_rt::test]
async fn no_path_of_either_port_answers_for_a_foreign_host() {
    let document: Value = serde_json::from_str(include_str!("../../src/manager_port/documents/openapi.json")).unwrap();
    let mut requests = vec![("GET", "/console/console.js"), ("GET", "/nothing"), ("OPTIONS", "/api/events")];
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, name) in [("get", "GET"), ("post", "POST"), ("delete", "DELETE")] {
            requests.extend(methods.get(method).map(|_| (name, path.as_str())));
        }
    }
    assert!(requests.len() > 12, "{requests:?}");
    let folder = env!("CARGO_MANIFEST_DIR").to_owned() + "/examples/dashboard";
    let server = Server::start(&["--demo", "--static", &folder]).await;
    for (method, path) in requests {
        let path = path.replace(['{', '}'], "");
        let answer = Request::new(method, &path).replace_host("rebound.example:8082").send(server.manager).await;
        assert_eq!(answer.status, 421, "{method} {path}: {answer:?}");
    }
    for path in ["/", "/webupdates/", "/webupdates/client.js", "/static/", "/api/v3/jobs", "/nothing", POLLING] {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = Request::new(method, path).replace_host("rebound.example:8081").send(server.browsers).await;
            assert_eq!(answer.status, 421, "{method} {path}: {answer:?}");
        }
        let answer = Request::new("GET", path).send(server.browsers).await;
        assert_ne!(answer.status, 421, "{path}: {answer:?}");
    }
}

#[actix_rt::test]
async fn passwords_in_addresses_are_used_or_refused_and_never_shown() {
    let (url, heard) = manager();
    let with_user = url.replace("//", "//farmer:s3cret@");
    let server = Server::start(&["--manager", &with_user]).await;
    server.until("the relay to ask", |_| heard.heads().iter().any(|head| head.contains("/api/v3/version"))).await;
    server.until("the relay to connect", |_| heard.heads().iter().any(|head| head.contains("get /socket.io/"))).await;
    assert_eq!(Request::new("GET", "/page").send(server.browsers).await.status, 200);
    assert_eq!(Request::upgrade("/tunnel").send(server.browsers).await.status, 101);
    for (path, is_own) in [("/api/v3/version", true), ("/socket.io/", true), ("/page", false), ("/tunnel", false)] {
        let head = heard.heads().into_iter().find(|head| head.starts_with(&format!("get {path}"))).unwrap();
        assert_eq!(head.contains("authorization: basic zmfybwvyonmzy3jlda=="), is_own, "{head}");
    }
    assert!(
        !server.log_lines().iter().any(|line| line.contains("s3cret") || line.contains("farmer")),
        "{:?}",
        server.log_lines()
    );

    for (arguments, expected) in [
        (&["--auth-url", with_user.as_str()][..], "--auth-url must not hold a name and password"),
        (&["--auth-url", url.as_str(), "--allow-origin", "*"], "would let every page act on behalf of its visitors"),
    ] {
        let mut command = program(&SERVE);
        command.args(arguments);
        let refusal = refusal(command).await;
        assert!(refusal.contains(expected) && !refusal.contains("s3cret"), "{refusal}");
    }
}

/// What is wrong with how the server was started may end in a log, and so may its help.
#[actix_rt::test]
async fn passwords_are_not_quoted() {
    for arguments in [
        &["serve", "--manager", "htp://farmer:s3cret@farm"][..],
        &["serve", "--manager", "farmer:s3cret@farm:port"],
        &["serve", "--manager", "http://farmer:s3/cret@farm"],
        &["serve", "--auth-url=http://farmer:s3cret@farm:99999"],
        &["serve", "http://farmer:s3cret@farm"],
        &["watch", "http://farmer:s3cret@farm:99999"],
    ] {
        let output = run(program(arguments)).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("…@farm") && !error.contains("cret"), "{error}");
    }
    for name in ["WEBUPDATES_MANAGER", "WEBUPDATES_AUTH_URL"] {
        let mut help = program(&["serve", "--help"]);
        help.env(name, "http://farmer:s3cret@farm");
        let help = String::from_utf8(run(help).await.stdout).unwrap();
        assert!(help.contains(name) && !help.contains("s3cret"), "{help}");
    }
}

const TOKEN: &str = "the-token-of-this-farm";

fn with_token(token: &str) -> Request {
    Request::new("GET", "/api/stats").header("authorization", &format!("Bearer {token}"))
}

/// A connection from this address of the machine.
async fn connection(from: &str, to: SocketAddr) -> Connection<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    Connection::new(socket.connect(to).await.unwrap())
}

#[actix_rt::test]
async fn guesses_are_slow_and_lock_nobody_out() {
    const GUESSERS: u32 = 20;
    const SECONDS: u32 = 3;
    let folder = Folder::new();
    let server = Server::start(&["--manager-token-file", &folder.write("token", TOKEN)]).await;
    let to = server.manager;
    let mut manager = connection("127.0.0.1", to).await;
    assert_eq!(manager.request(with_token(TOKEN)).await.status, 200);

    let guesses = Rc::new(Cell::new(0));
    let strangers: Vec<_> = (0..GUESSERS)
        .map(|number| {
            let guesses = guesses.clone();
            actix_rt::spawn(async move {
                let mut stranger = connection("127.0.0.2", to).await;
                for guess in 0.. {
                    let answer = stranger.request(with_token(&format!("guess-{number}-{guess}-of-the-token"))).await;
                    assert_eq!(answer.status, 403);
                    guesses.set(guesses.get() + 1);
                }
            })
        })
        .collect();
    let begun = clock::now();
    within("guesses", async {
        while guesses.get() < GUESSERS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Neither the address of the Manager, nor a connection on which it has come, nor a new one of the strangers' address.
    for from in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(connection(from, to).await.request(with_token(TOKEN)).await.status, 200);
    }
    assert_eq!(manager.request(with_token(TOKEN)).await.status, 200);
    tokio::time::sleep_until((begun + Duration::from_secs(SECONDS.into())).into()).await;
    let most = 10 + GUESSERS * ((clock::now() - begun).as_secs() as u32 + 1);
    assert!(guesses.get() <= most, "{} guesses, where {most} are possible", guesses.get());
    strangers.iter().for_each(actix_rt::task::JoinHandle::abort);
}

#[actix_rt::test]
async fn secrets_that_are_none_are_refused_and_open_ones_named() {
    let folder = Folder::new();
    for (text, expected) in [
        ("", "is empty"),
        ("too-short", "has fewer than 16 characters"),
        ("one-line-of-the-file\nand-another-one\n", "holds more than one word"),
        ("\u{feff}a-token-from-notepad", "holds characters that no header can carry"),
        ("ein-Schlüssel-für-alle", "holds characters that no header can carry"),
    ] {
        let mut command = program(&SERVE);
        command.args(["--manager-token-file", &folder.write("token", text)]);
        let refusal = refusal(command).await;
        assert!(refusal.contains(expected), "{refusal}");
    }

    let (certificate, key) = Authority::new().sign_for(&["localhost"]).write(&folder, "farm");
    let token = folder.write("token", TOKEN);
    let arguments = ["--manager-token-file", &token, "--tls-cert", &certificate, "--tls-key", &key];
    for (mode, is_named) in [(0o644, true), (0o640, false)] {
        for file in [&token, &key] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let server = Server::start(&arguments).await;
        for file in [&token, &key] {
            let named = format!("{file} can be read by every user of this machine");
            match is_named {
                true => server.logged(&named, 1).await,
                false => {
                    assert!(!server.log_lines().iter().any(|line| line.contains(&named)), "{:?}", server.log_lines())
                }
            }
        }
    }
}
