//! Addresses at which there is no Manager.

use super::{
    server::{self, Server},
    stand_in::{Request, StandIn, response},
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

async fn refusal(arguments: &[&str]) -> String {
    let output = server::run(arguments).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    let error: Vec<&str> = error.lines().filter(|line| !line.starts_with('[')).collect();
    error.first().copied().unwrap_or_default().to_owned()
}

/// A server that answers every request with this.
async fn somebody(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if Request::read(&mut stream).await.is_some() {
                let _ = stream.write_all(&answer).await;
            }
        }
    });
    url
}

#[actix_rt::test]
async fn what_can_never_work_is_said_in_one_sentence() {
    for (url, expected) in [("farm:port", "not a URL"), ("ftp://farm", "begins with ftp://"), ("http://", "not a URL")]
    {
        let refusal = refusal(&["--manager", url]).await;
        assert!(refusal.contains(expected), "{url}: {refusal}");
    }
    for (answer, expected) in [
        (response("404 Not Found", "", b"nothing"), "/api/v3/version returns status 404 Not Found"),
        (response("200 OK", "", b"<html>"), "the server there is not a Flamenco Manager"),
        (response("200 OK", "", b"{\"version\":[]}"), "the server there is not a Flamenco Manager"),
        (response("401 Unauthorized", "", b""), "/api/v3/version returns status 401 Unauthorized"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "the server there does not speak HTTP"),
        (
            response("301 Moved Permanently", "location: https://farm.example/\r\n", b""),
            "it redirects to https://farm.example/: give that address",
        ),
    ] {
        let url = somebody(answer).await;
        let refusal = refusal(&["--manager", &url]).await;
        assert!(refusal.contains(expected) && refusal.contains(&url), "{refusal}");
    }
}

#[actix_rt::test]
async fn an_address_that_leads_back_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (listen, manager) in [
        (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}")),
        (format!("127.0.0.1:{port}"), format!("http://localhost:{port}/")),
        (format!("0.0.0.0:{port}"), format!("http://127.0.0.1:{port}")),
        // Another address of this machine.
        (format!("0.0.0.0:{port}"), format!("http://127.9.9.9:{port}")),
    ] {
        let refusal = refusal(&["--listen", &listen, "--manager", &manager]).await;
        assert!(refusal.contains("leads back to this server"), "{refusal}");
    }
    // The other listener, too, is no Manager.
    let manager = format!("http://127.0.0.1:{port}");
    let refusal = refusal(&["--manager-listen", &manager["http://".len()..], "--manager", &manager]).await;
    assert!(refusal.contains("leads back to this server"), "{refusal}");
}

#[actix_rt::test]
async fn what_may_work_later_is_tried_again() {
    let url = somebody(response("503 Service Unavailable", "", b"starting")).await;
    let server = Server::before(&url, &[]).await;
    assert_eq!(server.stats().await["sources"]["relay"]["state"], "away");
    let manager = StandIn::start("3.9").await;
    manager.stop().await;
    let server = Server::before(&manager.url(), &[]).await;
    manager.start_again().await;
    server.until_relay("connected").await;
}
