//! The log: a line for each session that begins, ends, or is refused.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{
    http::{Connection, POLLING, Request, WEBSOCKET},
    server::{SERVE, Server, program, run},
};

#[actix_rt::test]
async fn sessions_have_a_line_when_they_begin_and_when_they_end() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.1"]).await;
    let mut polling = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    let open = Request::new("GET", POLLING).header("x-forwarded-for", "2001:db8:1:2:3::4");
    let sid = polling.request(open).await.sid();
    server.logged("a session has begun session=1 address=2001:db8:1:2:3::4 transport=polling", 1).await;
    let close = Request::new("POST", &format!("{POLLING}&sid={sid}")).body(b"1:1");
    assert_eq!(polling.request(close).await.status, 200);
    let ended = "a session has ended session=1 address=2001:db8:1:2:: transport=polling reason=transport-close";
    server.logged(ended, 1).await;

    let websocket = Request::upgrade(WEBSOCKET).header("x-forwarded-for", "192.0.2.7");
    let mut stream = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    stream.begin(websocket).await;
    server.logged("a session has begun session=2 address=192.0.2.7 transport=websocket", 1).await;
    // What it has not read resets the connection, so the reason is `transport-close` or `transport-error`.
    drop(stream);
    let ended = "a session has ended session=2 address=192.0.2.7 transport=websocket reason=transport-";
    server.logged(ended, 1).await;
}

#[actix_rt::test]
async fn a_flood_of_sessions_is_no_flood_of_lines() {
    let server = Server::start(&[]).await;
    let begun = flamenco_webupdates::clock::now();
    for _ in 0..600 {
        assert_eq!(Request::new("GET", POLLING).send(server.browsers).await.status, 200);
    }
    let lines = server.log_lines().iter().filter(|line| line.contains("a session has begun")).count();
    let most = 200 * (begun.elapsed().as_secs() as usize + 2);
    assert!((1..=most).contains(&lines), "{lines} lines in {:?}", begun.elapsed());
}

#[actix_rt::test]
async fn log_lines_can_be_json() {
    let server = Server::start(&["--log-format", "json"]).await;
    let polling = Request::new("GET", POLLING);
    assert_eq!(polling.clone().send(server.browsers).await.status, 200);
    assert_eq!(polling.header("origin", "https://evil.example").send(server.browsers).await.status, 403);
    server.logged("may not use this server", 1).await;
    let lines: Vec<Value> = server.log_lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |message: &str| {
        let is_it = |line: &&Value| line["message"].as_str().unwrap().contains(message);
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("{message}: {lines:#?}"));
        assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        line.clone()
    };
    let begun = find("a session has begun");
    assert_eq!(
        (&begun["level"], &begun["session"], &begun["address"]),
        (&"INFO".into(), &1.into(), &"127.0.0.1".into())
    );
    let refused = find("may not use this server");
    assert_eq!((&refused["level"], &refused["reason"]), (&"WARN".into(), &"forbidden-origin".into()));

    // Also what keeps it from starting.
    let token = ["--manager-token-file", "/no/such/file", "--log-format", "json"];
    let output = run(program(&[&SERVE[..], &token].concat())).await;
    assert_eq!(output.status.code(), Some(2));
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"] != "ERROR" || line["message"].as_str().unwrap().contains("/no/such/file"), "{line}");
    }
}
