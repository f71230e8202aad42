//! Proxied requests wait while the Manager restarts.

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    proxy::{self, connect, get},
    server::{Server, until},
    stand_in::StandIn,
};

const POST: &str = "POST /api/v3/jobs/query HTTP/1.1\r\nhost: farm\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

async fn until_waiting(server: &Server, count: usize) {
    until(&format!("{count} to wait"), async || server.stats().await["proxy"]["waiting"] == count).await;
}

/// Returns the final answer. While a request waits, the server may find out with `100 Continue` whether
/// its client is still there.
async fn exchange(server: &Server, request: &str) -> String {
    let answers = proxy::exchange(server, request).await;
    answers.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n").to_owned()
}

#[actix_rt::test]
async fn requests_of_workers_wait_while_the_manager_restarts() {
    let manager = StandIn::start("3.9").await;
    let server = &Server::before(&manager.url(), &["--manager-grace", "60s"]).await;
    // Some connections are kept when the Manager stops.
    for answer in join_all((0..10).map(|_| exchange(server, POST))).await {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    manager.stop().await;
    let requests = join_all((0..50).map(|number| async move {
        match number % 2 {
            0 => exchange(server, POST).await,
            _ => get(server, "/api/v3/worker-mgt/workers").await,
        }
    }));
    let restart = async {
        until_waiting(server, 50).await;
        let page = exchange(server, "GET / HTTP/1.1\r\nhost: farm\r\naccept: text/html\r\nconnection: close\r\n\r\n");
        assert!(page.await.contains("Flamenco Manager does not answer"), "a page does not wait");
        manager.start_again().await;
    };
    let (answers, ()) = futures_util::future::join(requests, restart).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let proxy = &server.stats().await["proxy"];
    assert_eq!(proxy["waiting"], 0);
    assert_eq!(proxy["waits"]["connected"], 50);
    let metrics = server.metrics().await;
    assert!(metrics.contains("webupdates_proxy_waits_total{result=\"connected\"} 50\n"), "{metrics}");
    assert!(metrics.contains("webupdates_proxy_waiting 0\n"), "{metrics}");
}

#[actix_rt::test]
async fn a_wait_ends_with_the_grace_and_with_its_client() {
    let manager = StandIn::start("3.9").await;
    let server = Server::before(&manager.url(), &["--manager-grace", "1s"]).await;
    manager.stop().await;
    let answer = exchange(&server, POST).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("flamenco manager cannot be reached"), "{answer}");
    assert_eq!(server.stats().await["proxy"]["waits"]["expired"], 1);

    let server = Server::before(&manager.url(), &["--manager-grace", "1h"]).await;
    let mut client = connect(&server).await;
    client.write_all(POST.as_bytes()).await.unwrap();
    until_waiting(&server, 1).await;
    drop(client);
    until_waiting(&server, 0).await;
}

#[actix_rt::test]
async fn waiting_requests_are_bounded_in_number() {
    let manager = StandIn::start("3.9").await;
    let server = Server::before(&manager.url(), &["--manager-grace", "1h"]).await;
    manager.stop().await;
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = connect(&server).await;
        client.write_all(POST.as_bytes()).await.unwrap();
        clients.push(client);
    }
    until_waiting(&server, 500).await;
    assert!(exchange(&server, POST).await.starts_with("HTTP/1.1 502 "), "one too many does not wait");
    assert_eq!(server.stats().await["proxy"]["waits"]["full"], 1);
    manager.start_again().await;
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        // Meanwhile the server may probe whether the client of a body is still connected.
        assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    }
}

#[actix_rt::test]
async fn waiting_uploads_are_bounded_in_bytes() {
    const SIZE: usize = 4 << 20;
    let manager = StandIn::start("3.9").await;
    let server = Server::before(&manager.url(), &["--manager-grace", "1h"]).await;
    assert!(exchange(&server, POST).await.starts_with("HTTP/1.1 200 "));
    manager.stop().await;
    let before = server.rss();
    let head = format!(
        "POST /api/v3/jobs/query HTTP/1.1\r\nhost: farm\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n"
    );
    let uploads = join_all((0..64).map(|_| async {
        let (mut reader, mut writer) = connect(&server).await.into_split();
        let upload = async {
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&vec![b'x'; SIZE]).await.unwrap();
        };
        let mut answer = String::new();
        let (_, answered) = futures_util::future::join(upload, reader.read_to_string(&mut answer)).await;
        answered.unwrap();
        assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    }));
    let restart = async {
        until_waiting(&server, 64).await;
        assert!(exchange(&server, &head).await.starts_with("HTTP/1.1 502 "), "one too many does not wait");
        // 256 MiB want in.
        let grown = server.rss().saturating_sub(before);
        assert!(grown < 48 << 20, "{grown} bytes are held for waiting requests");
        manager.start_again().await;
    };
    futures_util::future::join(uploads, restart).await;
}
