//! What single requests are answered with.

use crate::{
    browser::{Browser, POLLING, WEBSOCKET, decode, encode},
    server::{Answer, Request, Server},
};

const PAGE: &str = "https://dashboard.example";

async fn get(server: &Server, target: &str) -> Answer {
    Request::new("GET", target).send(server.browsers).await
}

#[actix_rt::test]
async fn a_session_begins_with_the_open_packet_and_40() {
    let server = Server::start(&["--ping-interval", "20s", "--ping-timeout", "50s"]);
    for target in [POLLING, "/socket.io?EIO=3&transport=polling", "/socket.io/?transport=polling&EIO=3&t=Nx0&b64=1"] {
        let answer = get(&server, target).await;
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let packets = decode(&answer.text());
        let open: serde_json::Value = serde_json::from_str(&packets[0][1..]).unwrap();
        assert_eq!(packets[0].as_bytes()[0], b'0');
        assert_eq!(packets[1..], ["40"]);
        assert_eq!(open["upgrades"], serde_json::json!(["websocket"]));
        assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&20_000.into(), &50_000.into()));
        let sid = open["sid"].as_str().unwrap();
        assert!(sid.len() == 32 && sid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sid}");
    }
    let stats = server.stats().await;
    assert_eq!(stats["sessions"], serde_json::json!({ "total": 3, "websocket": 0, "polling": 3 }));
}

#[actix_rt::test]
async fn refusals_have_the_numbers_of_the_protocol() {
    let server = Server::start(&[]);
    let browser = Browser::open(&server).await;
    let of_nobody = format!("{POLLING}&sid=0123456789abcdef0123456789abcdef");
    let as_websocket = format!("{WEBSOCKET}&sid={}", browser.sid);
    for (method, target, code) in [
        ("GET", "/socket.io/?EIO=3", 0),
        ("GET", "/socket.io/?EIO=3&transport=flashsocket", 0),
        ("GET", "/socket.io/?EIO=2&transport=polling", 5),
        ("POST", "/socket.io/?EIO=4&transport=polling", 5),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=0123456789abcdef0123456789abcdef", 5),
        ("GET", of_nobody.as_str(), 1),
        ("POST", of_nobody.as_str(), 1),
        ("GET", "/socket.io/?EIO=3&transport=polling&sid=x", 1),
        ("GET", "/socket.io/?EIO=3&transport=polling&sid=", 1),
        ("GET", as_websocket.as_str(), 1),
        ("GET", WEBSOCKET, 3),
        ("POST", POLLING, 2),
        ("PUT", POLLING, 2),
        ("DELETE", &browser.url(), 2),
        ("OPTIONS", POLLING, 2),
        ("OPTIONS", &browser.url(), 2),
        ("PATCH", &browser.url(), 2),
        ("POST", as_websocket.as_str(), 2),
        ("GET", "/socket.io/?EIO=3&transport=polling&j=x", 3),
        ("GET", "/socket.io/?EIO=3&transport=polling&j=-1", 3),
        ("GET", "/socket.io/?EIO=3&transport=polling&j=1.5", 3),
        ("GET", "/socket.io/?EIO=3&transport=polling&j=", 3),
        ("GET", "/socket.io/?EIO=3&transport=polling&j=99999999999999999999", 3),
    ] {
        let answer = Request::new(method, target).body(b"").send(server.browsers).await;
        assert_eq!((answer.status, answer.code()), (400, Some(code)), "{method} {target}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for target in [POLLING, &browser.url()] {
        let head = Request::new("HEAD", target).send(server.browsers).await;
        assert_eq!((head.status, head.header("cache-control")), (400, Some("no-store")));
    }
    let stats = server.stats().await;
    assert_eq!(stats["sessions"]["total"], 1);
    assert_eq!(stats["refused"]["bad-handshake"], 25);
}

#[actix_rt::test]
async fn pages_of_allowed_origins_may_read_and_others_may_not() {
    let server = Server::start(&["--allow-origin", PAGE]);
    let from = |origin: &'static str| Request::new("GET", POLLING).headers(Box::leak(Box::new([("origin", origin)])));
    for origin in [PAGE, "http://localhost", "https://localhost"] {
        let answer = from(origin).send(server.browsers).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    for origin in ["https://evil.example", "null", "http://localhost:1", "", "*", "\u{ff}"] {
        let answer = from(origin).send(server.browsers).await;
        assert_eq!((answer.status, answer.code()), (403, Some(4)), "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let refused = Request::new("GET", "/socket.io/?EIO=2&transport=polling")
        .headers(&[("origin", PAGE)])
        .send(server.browsers)
        .await;
    assert_eq!((refused.code(), refused.header("access-control-allow-origin")), (Some(5), Some(PAGE)));
    assert_eq!(server.stats().await["refused"]["forbidden-origin"], 6);
}

#[actix_rt::test]
async fn a_page_may_ask_before_it_posts() {
    let server = Server::start(&["--allow-origin", PAGE]);
    let asks =
        [("origin", PAGE), ("access-control-request-method", "POST"), ("access-control-request-headers", "x-farm")];
    let answer = Request::new("OPTIONS", POLLING).headers(&asks).send(server.browsers).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-farm"));
    let evil = Request::new("OPTIONS", POLLING).headers(&[("origin", "https://evil.example")]);
    assert_eq!(evil.send(server.browsers).await.status, 403);
}

#[actix_rt::test]
async fn scripts_and_forms_carry_a_session_too() {
    let server = Server::start(&[]);
    let script = |answer: &Answer, index: u32| {
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=UTF-8"));
        let text = answer.text();
        let call = text.strip_prefix(&format!("___eio[{index}](")).and_then(|rest| rest.strip_suffix(");"));
        decode(&serde_json::from_str::<String>(call.unwrap()).unwrap())
    };
    let page = [("referer", "http://localhost/some/page?x#y")];
    let get = async |target: &str| Request::new("GET", target).headers(&page).send(server.browsers).await;
    let packets = script(&get(&format!("{POLLING}&j=0")).await, 0);
    let open: serde_json::Value = serde_json::from_str(&packets[0][1..]).unwrap();
    let url = format!("{POLLING}&sid={}&j=12", open["sid"].as_str().unwrap());
    let body = encode(&["420[\"/chat\",{\"name\":\"Sintel\",\"text\":\"a\\nb 🎬 </script>\"}]"]);
    // The client doubles the backslash of an escaped line feed, and the form percent-encodes.
    let form =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("d", &body.replace("\\n", "\\\\n")).finish();
    let posted = Request::new("POST", &url).headers(&page).body(form.as_bytes()).send(server.browsers).await;
    assert_eq!((posted.status, posted.text().as_str()), (200, "ok"));
    assert_eq!(posted.header("content-type"), Some("text/html; charset=UTF-8"));
    let mut heard = script(&get(&url).await, 12);
    if heard.len() < 2 {
        heard.extend(script(&get(&url).await, 12));
    }
    heard.sort();
    let ascii = r#"42["/message",{"name":"Sintel","text":"a\nb \ud83c\udfac </script>"}]"#;
    assert_eq!(heard, [ascii, r#"430["message sent successfully."]"#]);
}

#[actix_rt::test]
async fn a_script_is_known_by_its_page() {
    let server = Server::start(&["--allow-origin", PAGE]);
    let ask = async |headers: &[(&str, &str)], target: &str| {
        Request::new("GET", target).headers(headers).send(server.browsers).await
    };
    let script = format!("{POLLING}&j=0");
    for page in [
        "https://dashboard.example/farm?x=1",
        "https://dashboard.example",
        "http://localhost/",
        "https://localhost/page",
    ] {
        assert_eq!(ask(&[("referer", page)], &script).await.status, 200, "{page}");
    }
    assert_eq!(ask(&[("origin", PAGE)], &script).await.status, 200);
    let foreign = [
        "https://evil.example/",
        "https://dashboard.example.evil.example/",
        "http://localhost:1/",
        "about:blank",
        "x",
        "",
    ];
    for page in foreign {
        let answer = ask(&[("referer", page)], &script).await;
        assert_eq!((answer.status, answer.code()), (403, Some(4)), "{page}");
    }
    assert_eq!(ask(&[], &script).await.status, 403);
    // Nobody but a script's page needs one.
    assert_eq!(ask(&[("referer", "https://evil.example/")], POLLING).await.status, 200);
    let any = Server::start(&["--allow-origin", "*"]);
    assert_eq!(Request::new("GET", &script).send(any.browsers).await.status, 200);
}

#[actix_rt::test]
async fn the_path_is_a_setting() {
    let server = Server::start(&["--path", "/farm/updates/"]);
    assert_eq!(get(&server, "/farm/updates/?EIO=3&transport=polling").await.status, 200);
    assert_eq!(get(&server, "/farm/updates?EIO=3&transport=polling").await.status, 200);
    // Everything below it is Socket.IO too, in any spelling.
    for below in ["/farm/updates/x?EIO=3&transport=polling", "/farm/%75pdates//?EIO=3&transport=polling"] {
        assert_eq!(get(&server, below).await.status, 200, "{below}");
    }
    for elsewhere in [POLLING, "/updates/?EIO=3&transport=polling", "/farm/updates-x?EIO=3&transport=polling"] {
        assert_eq!(get(&server, elsewhere).await.status, 404, "{elsewhere}");
    }
    assert_eq!(get(&server, "/healthz").await.text(), "ok\n");
}

#[actix_rt::test]
async fn one_session_too_many_is_refused() {
    let server = Server::start(&["--max-sessions", "2"]);
    let first = Browser::open(&server).await;
    let mut socket = crate::browser::WebSocket::open(server.browsers, WEBSOCKET).await.unwrap();
    assert!(socket.next().await.unwrap().starts_with('0'));
    assert_eq!(get(&server, POLLING).await.status, 503);
    // A client that has been admitted may move.
    let mut moving = first.websocket().await;
    moving.send("2probe").await;
    assert_eq!(moving.next().await.as_deref(), Some("3probe"));
    moving.send("5").await;
    moving.send("2here").await;
    assert_eq!(moving.next().await.as_deref(), Some("3here"));
    assert_eq!(server.stats().await["refused"]["too-many-sessions"], 1);
}
