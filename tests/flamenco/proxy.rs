//! Everything that is not ours passes through, in both directions at once.

use std::{cell::Cell, pin::Pin, rc::Rc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use super::{
    server::{Server, until},
    stand_in::{Request, StandIn, response},
};

pub(super) type Handling = Pin<Box<dyn Future<Output = Option<TcpStream>>>>;

/// A Manager whose connections are handled by hand; returns its address. What asks for its version is turned away.
pub(super) async fn manager(handle: impl Fn(Request, TcpStream) -> Handling + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handle = Rc::new(handle);
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let handle = handle.clone();
            actix_rt::spawn(async move {
                while let Some(request) = read_head(&mut stream).await {
                    if request.target().1 == "/api/v3/version" {
                        stream.write_all(&response("503 Service Unavailable", "", b"")).await.unwrap();
                        continue;
                    }
                    match handle(request, stream).await {
                        Some(same) => stream = same,
                        None => return,
                    }
                }
            });
        }
    });
    url
}

/// Reads a request without its body.
async fn read_head(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(Request { head: String::from_utf8(head).unwrap(), body: Vec::new() })
}

pub(super) async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.browsers).await.unwrap()
}

/// Sends this text and reads all that is answered until the end of the connection.
pub(super) async fn exchange(server: &Server, request: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An end that is not clean is one too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) async fn get(server: &Server, path: &str) -> String {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n")).await
}

pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}")).1
}

#[actix_rt::test]
async fn requests_and_answers_stay_what_they_are() {
    let url = manager(|request, mut stream| {
        async move {
            let (method, path) = request.target();
            let answer = match path {
                "/empty" => b"HTTP/1.1 204 No Content\r\netag: x\r\n\r\n".to_vec(),
                "/unchanged" => b"HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 77\r\n\r\n".to_vec(),
                "/chunked" => {
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n".to_vec()
                }
                "/interim" => [
                    &b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"[..],
                    &response("200 OK", "", b"final"),
                ]
                .concat(),
                "/old" => b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec(),
                "/until-the-end" => b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end".to_vec(),
                "/head" if method == "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec(),
                "/gzip" => response("200 OK", "content-encoding: gzip\r\n", b"\x1f\x8bnot really"),
                "/redirect" => response("302 Found", "location: /app/\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n", b""),
                "/garbage" => b"this is no http\r\n\r\n".to_vec(),
                _ => response("200 OK", "keep-alive: timeout=5\r\n", request.head.as_bytes()),
            };
            stream.write_all(&answer).await.unwrap();
            (!matches!(path, "/old" | "/until-the-end" | "/garbage")).then_some(stream)
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;

    let echo = exchange(
        &server,
        "DELETE /a%20b/../c?d=%C3%A9&e HTTP/1.1\r\nHost: farm:8081\r\nX-Forwarded-For: 192.0.2.1\r\nTE: trailers\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nAccept-Encoding: gzip\r\n\r\n",
    )
    .await;
    assert!(body(&echo).starts_with("DELETE /a%20b/../c?d=%C3%A9&e HTTP/1.1\r\n"), "{echo}");
    for line in [
        "host: farm:8081",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: farm:8081",
        "x-forwarded-proto: http",
        "accept-encoding: gzip",
    ] {
        assert!(body(&echo).contains(&format!("\r\n{line}\r\n")), "{line}: {echo}");
    }
    for gone in ["x-mine", "\r\nte:", "keep-alive", "connection: close, x-mine"] {
        assert!(!echo.contains(gone), "{gone}: {echo}");
    }

    for (path, status, expected) in [
        ("/empty", "204 No Content", ""),
        ("/interim", "200 OK", "final"),
        ("/old", "200 OK", "until the end"),
        ("/until-the-end", "200 OK", "until the end"),
        ("/chunked", "200 OK", "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
        ("/redirect", "302 Found", ""),
        ("/garbage", "502 Bad Gateway", "flamenco manager does not answer in HTTP\n"),
    ] {
        let answer = get(&server, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {answer}");
        let text = body(&answer).replace("D\r\nuntil the end\r\n0\r\n\r\n", "until the end");
        assert!(text == expected || text == "7\r\nabcdefg\r\n0\r\n\r\n", "{path}: {answer}");
    }
    let redirect = get(&server, "/redirect").await;
    assert!(redirect.contains("location: /app/") && redirect.matches("set-cookie").count() == 2, "{redirect}");
    let gzip = get(&server, "/gzip").await;
    assert!(gzip.contains("content-encoding: gzip") && gzip.contains("not really"), "{gzip}");
    let unchanged = get(&server, "/unchanged").await;
    assert!(unchanged.starts_with("HTTP/1.1 304 ") && unchanged.contains("etag: x") && body(&unchanged).is_empty());
    let head = exchange(&server, "HEAD /head HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n").await;
    assert!(head.contains("content-length: 1000\r\n") && body(&head).is_empty(), "{head}");
}

#[actix_rt::test]
async fn what_is_ours_does_not_pass() {
    let url = manager(|_, _| panic!("nothing is asked")).await;
    let server = Server::before(&url, &[]).await;
    assert!(get(&server, "/healthz").await.ends_with("ok\nmanager: away\n"));
    for path in ["/socket.io/?EIO=2&transport=polling", "/socket.io", "/socket.io/?EIO=3&transport=x"] {
        assert!(get(&server, path).await.starts_with("HTTP/1.1 400 "), "{path}");
    }
}

/// Reads and throws away; how many bytes.
pub(super) async fn drain(stream: &mut TcpStream) -> u64 {
    copy(stream, &mut tokio::io::sink()).await.unwrap_or(0)
}

const BIG: usize = 1 << 30;
const PIECE: usize = 1 << 20;

#[actix_rt::test]
async fn big_bodies_flow_both_ways_in_little_memory() {
    let url = manager(|request, mut stream| {
        async move {
            let (mut sent, piece) = (0, vec![7; PIECE]);
            if request.target().0 == "GET" {
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").as_bytes()).await.unwrap();
                while sent < BIG {
                    stream.write_all(&piece).await.unwrap();
                    sent += PIECE;
                }
                return Some(stream);
            }
            let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut taken = 0;
            let mut piece = piece;
            while taken < length {
                taken += stream.read(&mut piece).await.unwrap();
            }
            stream.write_all(&response("200 OK", "", taken.to_string().as_bytes())).await.unwrap();
            Some(stream)
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let before = server.rss();
    let mut down = connect(&server).await;
    down.write_all(b"GET /big HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(drain(&mut down).await > BIG as u64);

    let mut up = connect(&server).await;
    let head = format!("PUT /big HTTP/1.1\r\nhost: farm\r\nconnection: close\r\ncontent-length: {BIG}\r\n\r\n");
    up.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![7; PIECE];
    for _ in 0..BIG / PIECE {
        up.write_all(&piece).await.unwrap();
    }
    let mut answer = String::new();
    up.read_to_string(&mut answer).await.unwrap();
    assert_eq!(body(&answer), BIG.to_string());
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{} MB", grown >> 20);
}

/// Flamenco Manager answers so when it already has the file.
#[actix_rt::test]
async fn an_answer_may_come_before_the_upload_is_complete() {
    let url = manager(|_, mut stream| {
        async move {
            stream
                .write_all(b"HTTP/1.1 208 Already Reported\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthere")
                .await
                .unwrap();
            None
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let mut up = connect(&server).await;
    up.write_all(b"PUT /file HTTP/1.1\r\nhost: farm\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
    let (mut read, mut write) = up.split();
    let send = async {
        let piece = vec![7; PIECE];
        while write.write_all(&piece).await.is_ok() {}
        std::future::pending::<()>().await
    };
    let mut answer = vec![0; 500];
    tokio::select! {
        () = send => unreachable!(),
        length = read.read(&mut answer) => answer.truncate(length.unwrap()),
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 208 "), "{answer}");
}

#[actix_rt::test]
async fn a_truncated_response_is_not_presented_as_complete() {
    let url = manager(|request, mut stream| {
        async move {
            let head = match request.target().1 {
                "/sized" => "content-length: 1000",
                _ => "transfer-encoding: chunked",
            };
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nbegin\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            None
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let sized = get(&server, "/sized").await;
    assert!(sized.contains("content-length: 1000\r\n") && body(&sized) == "5\r\nbegin\r\n", "{sized}");
    assert!(body(&get(&server, "/chunked").await) == "5\r\nbegin\r\n");
}

#[actix_rt::test]
async fn a_manager_that_is_away_is_said_to_be_and_found_when_it_is_back() {
    let manager = StandIn::start("3.9").await;
    let server = Server::before(&manager.url(), &["--manager-grace", "0s"]).await;
    assert!(get(&server, "/api/v3/version").await.starts_with("HTTP/1.1 200 "));
    manager.stop().await;
    let plain = get(&server, "/api/v3/version").await;
    assert!(plain.starts_with("HTTP/1.1 502 ") && plain.contains("flamenco manager cannot be reached"), "{plain}");
    let page = "GET /app/ HTTP/1.1\r\nhost: farm\r\naccept: text/html,*/*\r\nconnection: close\r\n\r\n";
    let page = exchange(&server, page).await;
    assert!(page.starts_with("HTTP/1.1 502 ") && page.contains("location.reload()"), "{page}");
    manager.start_again().await;
    assert!(get(&server, "/api/v3/version").await.starts_with("HTTP/1.1 200 "));
}

#[actix_rt::test]
async fn a_kept_connection_that_the_manager_closed_costs_nothing() {
    let url = manager(|_, mut stream| {
        async move {
            stream.write_all(&response("200 OK", "", b"fine")).await.unwrap();
            // It said nothing of closing.
            None
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let mut stream = connect(&server).await;
    for _ in 0..100 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: farm\r\n\r\n").await.unwrap();
        let mut answer = [0; 500];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
    }
}

#[actix_rt::test]
async fn no_work_is_done_for_a_client_that_left() {
    let waiting = Rc::new(Cell::new(0_usize));
    let count = waiting.clone();
    let url = manager(move |_, mut stream| {
        let count = count.clone();
        async move {
            count.set(count.get() + 1);
            // Never answers; notices when nobody waits any more.
            drain(&mut stream).await;
            count.set(count.get() - 1);
            None
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    get(&server, "/healthz").await;
    let files = server.open_files();
    for _ in 0..10 {
        let mut browsers = Vec::new();
        for number in 0..100 {
            let mut stream = connect(&server).await;
            let request = match number % 2 {
                0 => "GET /wait HTTP/1.1\r\nhost: farm\r\n\r\n",
                _ => "PUT /wait HTTP/1.1\r\nhost: farm\r\ncontent-length: 1000\r\n\r\nthe beginning",
            };
            stream.write_all(request.as_bytes()).await.unwrap();
            browsers.push(stream);
        }
        until("all to be at the Manager", async || waiting.get() == 100).await;
        drop(browsers);
        until("the Manager to be rid of them", async || waiting.get() == 0).await;
    }
    // The relay has a connection or two of its own.
    until("the server to have closed all", async || server.open_files() <= files + 3).await;
}

#[actix_rt::test]
async fn five_hundred_at_once() {
    let url = manager(|request, mut stream| {
        async move {
            actix_rt::time::sleep(Duration::from_millis(100)).await;
            stream.write_all(&response("200 OK", "", request.target().1.as_bytes())).await.unwrap();
            Some(stream)
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let one = async |number: usize| {
        let path = format!("/number/{number}");
        let answer = get(&server, &path).await;
        assert_eq!(body(&answer), path);
    };
    join_all((0..500).map(one)).await;
}

#[actix_rt::test]
async fn other_websockets_pass_and_end_together() {
    let ended = Rc::new(Cell::new(false));
    let note = ended.clone();
    let url = manager(move |request, mut stream| {
        let note = note.clone();
        async move {
            if request.target().1 != "/live" {
                stream.write_all(&response("403 Forbidden", "", b"no")).await.unwrap();
                return None;
            }
            assert_eq!(request.header("upgrade"), Some("websocket"));
            assert_eq!(request.header("connection"), Some("upgrade"));
            assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
            let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-extensions: permessage-deflate\r\n\r\nhello";
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = copy(&mut read, &mut write).await;
            note.set(true);
            None
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: farm\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let mut browser = connect(&server).await;
    // Nobody has to wait with the first frame.
    browser.write_all((ask("/live") + "early").as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !(seen.contains("hello") && seen.ends_with("early")) {
        seen.push(browser.read_u8().await.unwrap().into());
    }
    let head = seen.to_lowercase();
    for line in [
        "http/1.1 101 switching protocols",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "sec-websocket-extensions: permessage-deflate",
        "upgrade: websocket",
        "connection: upgrade",
    ] {
        assert!(head.contains(line), "{line}: {seen}");
    }
    browser.write_all(b"echo").await.unwrap();
    let mut echo = [0; 4];
    browser.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"echo");
    drop(browser);
    until("the Manager to see the end", async || ended.get()).await;
    let refused = exchange(&server, &ask("/other")).await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.ends_with("no"), "{refused}");
}

#[actix_rt::test]
async fn a_request_that_comes_back_is_ended() {
    // The Manager's address is that of something that leads back here.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let detour = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::before(&detour, &[]).await;
    let back = server.browsers.to_string();
    actix_rt::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let mut there = TcpStream::connect(&back).await.unwrap();
            actix_rt::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    let answer = get(&server, "/app/").await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    until("the relay to notice", async || server.log().contains("leads back to this server")).await;
}

#[actix_rt::test]
async fn an_upload_in_chunks_goes_on_in_chunks() {
    let url = manager(|request, mut stream| {
        async move {
            assert_eq!(request.header("transfer-encoding"), Some("chunked"));
            assert_eq!(request.header("content-length"), None);
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(&response("200 OK", "", &body)).await.unwrap();
            Some(stream)
        }
        .boxed_local()
    })
    .await;
    let server = Server::before(&url, &[]).await;
    let pieces =
        futures_util::stream::iter((0..50).map(|number| Ok::<_, std::io::Error>(format!("piece {number};").into())));
    let slowly = pieces.then(|piece| async {
        tokio::task::yield_now().await;
        piece
    });
    let mut answer =
        awc::Client::new().post(format!("{}/up", server.browsers_url)).send_stream(Box::pin(slowly)).await.unwrap();
    let body = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
    let text: String =
        body.split("\r\n").enumerate().filter(|(index, _)| index % 2 == 1).map(|(_, text)| text).collect();
    let expected: String = (0..50).map(|number| format!("piece {number};")).collect();
    assert_eq!(text, expected);
}
