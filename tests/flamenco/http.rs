//! What HTTP/1.1 asks of a server that passes requests on; `docs/http.md` names each test.

use std::{cell::Cell, rc::Rc, time::Duration};

use flamenco_webupdates::clock;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    proxy::{body, connect, drain, exchange, get, manager},
    server::{Server, until},
    stand_in::response,
};

/// Answers with the head of the request.
async fn echo() -> Server {
    let url = manager(|request, mut stream| {
        async move {
            stream.write_all(&response("200 OK", "", request.head.as_bytes())).await.unwrap();
            Some(stream)
        }
        .boxed_local()
    });
    Server::before(&url.await, &[]).await
}

#[actix_rt::test]
async fn of_two_lengths_the_chunks_count() {
    let url = manager(|request, mut stream| {
        async move {
            let head = match request.target().1 {
                "/both" => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked",
                "/old" => "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
                "/identity" => "HTTP/1.1 200 OK\r\ntransfer-encoding: identity",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 7",
            };
            let text = format!("{head}\r\n\r\n7\r\nabcdefg\r\n0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            None
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    let both = get(&server, "/both").await;
    assert!(both.starts_with("HTTP/1.1 200 ") && !both.contains("content-length"), "{both}");
    assert_eq!(body(&both), "7\r\nabcdefg\r\n0\r\n\r\n");
    for path in ["/old", "/identity", "/twice"] {
        let answer = get(&server, path).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 ") && body(&answer).ends_with("does not answer in HTTP\n"),
            "{path}: {answer}"
        );
    }
}

#[actix_rt::test]
async fn a_request_that_names_no_host_goes_on_with_one() {
    let server = echo().await;
    let old = exchange(&server, "GET /page HTTP/1.0\r\n\r\n").await;
    let seen = body(&old).to_owned();
    let host = seen.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_else(|| panic!("{seen}"));
    assert!(host.starts_with("127.0.0.1:"), "the Manager's own: {host}");
    assert!(seen.contains("\r\nvia: 1.0 flamenco-webupdates-"), "{seen}");
    let named = exchange(&server, "GET /page HTTP/1.0\r\nhost: farm\r\n\r\n").await;
    assert!(body(&named).contains("\r\nhost: farm\r\n"), "{named}");
    // What the target names counts for more than the header (RFC 9112 §3.2.2).
    let whole =
        exchange(&server, "GET http://localhost:8/page HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n").await;
    assert!(body(&whole).starts_with("GET /page HTTP/1.1\r\n"), "{whole}");
    assert!(body(&whole).contains("\r\nhost: localhost:8\r\n"), "{whole}");
    // Nor does a client take it away that calls it its neighbour's.
    let dropped = exchange(&server, "GET /page HTTP/1.1\r\nhost: farm\r\nconnection: close, host\r\n\r\n").await;
    assert!(body(&dropped).contains("\r\nhost: "), "{dropped}");
}

#[actix_rt::test]
async fn an_old_client_gets_no_chunks() {
    let url = manager(|request, mut stream| {
        async move {
            let answer = match request.target().1 {
                "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcdefg",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            (request.target().1 == "/chunked").then_some(stream)
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    for path in ["/chunked", "/until-the-end"] {
        let request = format!("GET {path} HTTP/1.0\r\nhost: farm\r\nconnection: keep-alive\r\n\r\n");
        let answer = exchange(&server, &request).await;
        assert!(!answer.contains("transfer-encoding") && !answer.contains("keep-alive"), "{path}: {answer}");
        assert_eq!(body(&answer), "abcdefg", "{path}");
    }
}

#[actix_rt::test]
async fn an_upgrade_that_is_none_is_passed_on_as_none() {
    let server = echo().await;
    for lines in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB",
        "connection: upgrade",
        "upgrade: websocket",
        "connection: keep-alive\r\nupgrade: websocket",
    ] {
        let mut browser = connect(&server).await;
        let request = format!("GET /app/ HTTP/1.1\r\nhost: farm\r\n{lines}\r\n\r\n");
        browser.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 2000];
        let read = browser.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
        let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("http/1.1 200 ") && !head.contains("upgrade"), "{lines}: {answer}");
        assert!(!seen.contains("upgrade") && !seen.contains("http2"), "{lines}: {answer}");
        if head.contains("connection: close") {
            assert_eq!(drain(&mut browser).await, 0);
        }
    }
    let trace =
        exchange(&server, "TRACE /app/ HTTP/1.1\r\nhost: farm\r\ncookie: a=b\r\nconnection: close\r\n\r\n").await;
    assert!(trace.starts_with("HTTP/1.1 405 ") && !trace.contains("a=b"), "{trace}");
}

#[actix_rt::test]
async fn a_half_closed_client_gets_its_response() {
    let url = manager(|request, mut stream| {
        async move {
            let mut body = vec![0; request.header("content-length").map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).await.unwrap();
            actix_rt::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
            // Once it begins, it takes its time.
            actix_rt::time::sleep(Duration::from_secs(4)).await;
            stream.write_all(b"then5").await.unwrap();
            Some(stream)
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    for request in [
        "GET /a HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n",
        "PUT /a HTTP/1.1\r\nhost: farm\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let mut browser = connect(&server).await;
        browser.write_all(request.as_bytes()).await.unwrap();
        browser.shutdown().await.unwrap();
        let mut answer = String::new();
        browser.read_to_string(&mut answer).await.unwrap();
        assert_eq!(body(&answer), "firstthen5");
    }
}

/// The Manager does not read, so the end of the browser's connection stands behind what it does not take.
#[actix_rt::test]
async fn an_upload_ends_with_its_browser() {
    let (begun, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (count, note) = (begun.clone(), ended.clone());
    let url = manager(move |_, stream| {
        let (count, note) = (count.clone(), note.clone());
        async move {
            count.set(count.get() + 1);
            // It reads nothing, and notices all the same.
            while !stream
                .ready(tokio::io::Interest::ERROR | tokio::io::Interest::READABLE)
                .await
                .unwrap()
                .is_read_closed()
            {
                actix_rt::time::sleep(Duration::from_millis(20)).await;
            }
            note.set(note.get() + 1);
            None
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    for (index, framing) in ["content-length: 100000000", "transfer-encoding: chunked"].into_iter().enumerate() {
        let mut browser = connect(&server).await;
        let head = format!("PUT /file HTTP/1.1\r\nhost: farm\r\n{framing}\r\n\r\n");
        browser.write_all(head.as_bytes()).await.unwrap();
        let piece = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
        // Until nobody takes any more.
        while let Ok(sent) = actix_rt::time::timeout(Duration::from_millis(500), browser.write_all(&piece)).await {
            sent.unwrap();
        }
        until("the Manager to have it", async || begun.get() == index + 1).await;
        let left = clock::now();
        drop(browser);
        until("the upload to end", async || ended.get() == index + 1).await;
        let took = clock::now() - left;
        assert!(took < Duration::from_secs(4), "{framing}: it went on for {took:?}");
    }
}

/// It is asked whether it is still there, and it is.
#[actix_rt::test]
async fn an_upload_outlives_a_pause_of_the_manager() {
    const SIZE: usize = 30_000_000;
    let url = manager(|_, mut stream| {
        async move {
            actix_rt::time::sleep(Duration::from_secs(5)).await;
            let mut taken = vec![0; SIZE];
            stream.read_exact(&mut taken).await.unwrap();
            stream.write_all(&response("200 OK", "", b"whole")).await.unwrap();
            Some(stream)
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    let upload = async |more: &str| {
        let head =
            format!("PUT /file HTTP/1.1\r\nhost: farm\r\n{more}connection: close\r\ncontent-length: {SIZE}\r\n\r\n");
        let mut browser = connect(&server).await;
        browser.write_all(head.as_bytes()).await.unwrap();
        browser.write_all(&vec![b'x'; SIZE]).await.unwrap();
        let mut answer = String::new();
        browser.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (direct, by_proxy) = tokio::join!(upload(""), upload("via: 1.1 nginx\r\n"));
    let (asked, answer) = direct.split_once("HTTP/1.1 200 OK\r\n").unwrap_or_else(|| panic!("{direct}"));
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n".repeat(3), "after 1, 2 and 4 seconds");
    assert_eq!(body(answer), "whole");
    assert!(by_proxy.starts_with("HTTP/1.1 200 OK\r\n"), "a proxy is not asked: {by_proxy}");
}

#[actix_rt::test]
async fn an_upload_that_does_not_come_is_given_up() {
    let url = manager(|_, mut stream| {
        async move {
            drain(&mut stream).await;
            None
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &["--body-timeout", "1s"]).await;
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut browser = connect(&server).await;
        let head = format!("PUT /file HTTP/1.1\r\nhost: farm\r\n{framing}\r\n\r\n5\r\nbegin\r\n");
        browser.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1000];
        let read = browser.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{framing}: {answer}");
        assert_eq!(body(&answer), "the request arrives too slowly\n");
    }
    assert_eq!(server.stats().await["refused"]["body-too-slow"], 2);
}

/// What it sent behind its request stands in the way of nothing.
#[actix_rt::test]
async fn a_refusal_of_a_websocket_that_passes_arrives() {
    let url = manager(|_, mut stream| {
        async move {
            stream.write_all(&response("403 Forbidden", "", b"no")).await.unwrap();
            None
        }
        .boxed_local()
    });
    let server = Server::before(&url.await, &[]).await;
    let upgrade = "GET /live HTTP/1.1\r\nhost: farm\r\nupgrade: websocket\r\nconnection: close, Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = exchange(&server, &(upgrade.to_owned() + &"x".repeat(3_000_000))).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("no"), "{answer}");
}
