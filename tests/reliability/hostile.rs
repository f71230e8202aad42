//! Clients that mean harm, on sockets that are theirs: memory stays bounded, they are closed, and everybody else is served.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    browser::{Browser, Incoming, UPGRADE, frame},
    eventually, run,
    server::Server,
};

/// What a server may grow by while one client floods it: buffers of its worker, and what the allocator keeps.
const GROWTH: u64 = 24 << 20;

const LIMIT: Duration = Duration::from_secs(90);

/// A server with one well-behaved browser, before anything happens.
struct Scene {
    server: Server,
    witness: Browser,
    rss: u64,
    files: usize,
}

impl Scene {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(options: &[&str]) -> Self {
        let server = Server::start(options);
        let mut witness = Browser::connect(server.browsers).await;
        witness.send("2").await;
        assert_eq!(witness.next().await, Incoming::Text("3"));
        let (rss, files) = (server.rss(), server.open_files());
        Self { server, witness, rss, files }
    }

    /// The other browser is served within a second, and the server has not grown.
    async fn is_fine(&mut self) {
        let answer = async {
            self.witness.send("2still there").await;
            assert_eq!(self.witness.next().await, Incoming::Text("3still there"));
            Browser::connect(self.server.browsers).await.reset();
        };
        tokio::time::timeout(Duration::from_secs(1), answer).await.expect("the others wait");
        let growth = self.server.rss().saturating_sub(self.rss);
        assert!(growth < GROWTH, "it grew by {growth} bytes");
    }

    /// The same, and nothing is left of the hostile ones.
    async fn is_clean(&mut self) {
        self.is_fine().await;
        let clean = || async {
            self.server.open_files() <= self.files + 1 && self.server.stats().await["sessions"]["total"] == 1
        };
        eventually("nothing is left of them", Duration::from_secs(10), clean).await;
        assert_eq!(self.server.stats().await["restarts"], 0);
    }

    /// So many clients were closed for this reason.
    async fn closed(&self, reason: &str, count: u64) {
        let closed = || async { self.server.stats().await["disconnects"][reason] == count };
        eventually(reason, Duration::from_secs(5), closed).await;
    }
}

/// Sends without end until the other side closes, which it must do soon.
async fn flood(stream: &mut TcpStream, bytes: &[u8]) {
    let flood = async { while stream.write_all(bytes).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(15), flood).await.expect("it takes without end");
}

#[test]
fn resets_in_the_middle_of_everything() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let mut resetting = JoinSet::new();
        for at in 0..UPGRADE.len() {
            let address = scene.server.browsers;
            resetting.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&UPGRADE.as_bytes()[..at]).await.unwrap();
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            });
        }
        // After the request, and after some of the answer.
        for read in 0..100 {
            let address = scene.server.browsers;
            resetting.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(UPGRADE.as_bytes()).await.unwrap();
                let _ = stream.read_exact(&mut vec![0; read]).await;
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            });
        }
        resetting.join_all().await;
        scene.is_clean().await;
    });
}

#[test]
fn segments_of_one_byte() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let mut stream = TcpStream::connect(scene.server.browsers).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let message = frame(0x81, br#"421["/subscription",{"op":"subscribe","type":"allWorkers"}]"#);
        for &byte in UPGRADE.as_bytes().iter().chain(&message) {
            stream.write_all(&[byte]).await.unwrap();
        }
        let mut answer = Vec::new();
        while !answer.ends_with(br#"431["ok"]"#) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        drop(stream);
        scene.is_clean().await;
    });
}

#[test]
fn a_hundred_thousand_tiny_fragments() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        for payload in [&b"x"[..], b""] {
            let mut browser = Browser::connect(scene.server.browsers).await;
            browser.stream.write_all(&frame(0x01, b"4")).await.unwrap();
            let fragments = frame(0x00, payload).repeat(100_000);
            let _ = browser.stream.write_all(&fragments).await;
            scene.is_fine().await;
            assert_eq!(browser.end().await, Some(1008), "fragments of {} bytes", payload.len());
        }
        scene.closed("too-many-messages", 2).await;
        scene.is_clean().await;
    });
}

#[test]
fn a_message_in_some_fragments_is_fine() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let mut browser = Browser::connect(scene.server.browsers).await;
        let text = format!("2{}", "p".repeat(1000));
        browser.stream.write_all(&frame(0x01, b"")).await.unwrap();
        for byte in text.bytes() {
            browser.stream.write_all(&frame(0x00, &[byte])).await.unwrap();
        }
        browser.stream.write_all(&frame(0x80, b"")).await.unwrap();
        assert!(matches!(browser.next().await, Incoming::Text(pong) if pong[1..] == text[1..]));
        drop(browser);
        scene.is_clean().await;
    });
}

#[test]
fn floods_of_pings() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        // Of the WebSocket, of Engine.IO, and pongs; of a client that reads nothing meanwhile.
        for (what, ping) in [("websocket", frame(0x89, b"")), ("engine", frame(0x81, b"2")), ("pong", frame(0x8a, b""))]
        {
            let mut browser = Browser::connect(scene.server.browsers).await;
            flood(&mut browser.stream, &ping.repeat(1000)).await;
            scene.is_fine().await;
            drop(browser);
            eventually(what, Duration::from_secs(5), || async { scene.server.stats().await["sessions"]["total"] == 1 })
                .await;
        }
        scene.closed("too-many-messages", 3).await;
        scene.is_clean().await;
    });
}

#[test]
fn a_gigabyte_is_announced() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        // In one frame, and in fragments that are each allowed.
        let mut browser = Browser::connect(scene.server.browsers).await;
        let announced = [&[0x81, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 4]].concat();
        browser.stream.write_all(&announced).await.unwrap();
        assert_eq!(browser.end().await, Some(1009));
        let mut browser = Browser::connect(scene.server.browsers).await;
        browser.stream.write_all(&frame(0x01, &[b'x'; 60_000])).await.unwrap();
        browser.stream.write_all(&frame(0x00, &[b'x'; 60_000])).await.unwrap();
        assert_eq!(browser.end().await, Some(1009));
        scene.closed("message-too-big", 2).await;

        // In the body of a request, to either listener.
        for (address, path) in [(scene.server.browsers, "/socket.io/"), (scene.server.manager, "/api/events")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST {path}?EIO=3&transport=websocket HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n",
                1 << 30
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            flood(&mut stream, &vec![b' '; 1 << 20]).await;
            scene.is_fine().await;
        }
        scene.is_clean().await;
    });
}
