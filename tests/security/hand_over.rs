//! A new server takes the port while the old one drains.

use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::support::{
    http::{Connection, Message, POLLING, Request},
    server::Server,
};

async fn browser(to: SocketAddr) -> Connection<TcpStream> {
    Connection::websocket(TcpStream::connect(to).await.unwrap()).await
}

#[actix_rt::test]
async fn no_browser_is_refused_when_another_server_takes_over() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut old = Server::start_on(socket.try_clone().unwrap(), &[]).await;
    assert_eq!(old.browsers, address);
    let mut first = Vec::new();
    for _ in 0..20 {
        first.push(browser(address).await);
    }
    let polling =
        Connection::new(TcpStream::connect(address).await.unwrap()).request(Request::new("GET", POLLING)).await;
    assert_eq!(old.stats().await["sessions"]["total"], 21);

    let new = Server::start_on(socket, &[]).await;
    old.signal(Signal::TERM);
    // As long as the old one may not have noticed yet either of them may let somebody in, but none sends anybody away.
    let mut between = Vec::new();
    let closed = async {
        for browser in &mut first[1..] {
            assert_eq!(browser.message().await, Message::Close(1001));
        }
    };
    let mut closed = Box::pin(closed);
    loop {
        tokio::select! {
            biased;
            () = &mut closed => break,
            browser = browser(address) => between.push(browser),
        }
    }
    drop(closed);
    // Closed clients reconnect, while the old server still waits for those that do not answer its close frame.
    assert!(old.is_running());
    let mut back = Vec::new();
    for _ in 0..50 {
        back.push(browser(address).await);
    }
    let poll = format!("{POLLING}&sid={}", polling.sid());
    let answer = Connection::new(TcpStream::connect(address).await.unwrap()).request(Request::new("GET", &poll)).await;
    assert_eq!(answer.status, 400, "the new one does not know the old one's sessions: {answer:?}");
    new.publish(0..1, 10).await;
    for browser in &mut back {
        assert_eq!(browser.number().await, 0);
    }
    old.ended().await;
    drop(browser(address).await);
    drop((first, between));
}
