//! Clients that mean harm, on sockets that are theirs: memory stays bounded, they are closed, and everybody else is served.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use flamenco_webupdates::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Barrier,
    task::JoinSet,
};

use crate::support::{
    browser::{Browser, Incoming, UPGRADE, frame},
    events, eventually,
    http::Connection,
    raise_file_limit, run,
    server::Server,
    sized,
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
        // The Manager's listener has all its files once it has answered.
        server.stats().await;
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

    /// How long another browser takes to connect, and how long a broadcast of this number to both takes then.
    async fn serves_another(&mut self, number: u64) -> (Duration, Duration) {
        let mut manager = self.server.manager().await;
        let begun = clock::now();
        let mut browser = Browser::connect(self.server.browsers).await;
        let connected = clock::now();
        manager.publish(&events::batch(number..number + 1, events::job)).await;
        for browser in [&mut browser, &mut self.witness] {
            let Incoming::Text(text) = browser.next().await else { panic!("it is closed") };
            assert_eq!(events::number(text, "/jobs"), Some(number));
        }
        let delivered = clock::now();
        browser.reset();
        (connected - begun, delivered - connected)
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

/// Bits that RFC 6455 reserves, for which a frame reader threw what nobody caught (CVE-2022-21676).
#[test]
fn reserved_bits() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let (bits, kinds) = (1..8_u8, [0x80, 0x81, 0x82, 0x01, 0x88, 0x89, 0x8a]);
        let frames: Vec<_> = bits.flat_map(|bits| kinds.map(|kind| frame(bits << 4 | kind, b"2"))).collect();
        for bytes in &frames {
            let mut browser = Browser::connect(scene.server.browsers).await;
            browser.stream.write_all(bytes).await.unwrap();
            assert_eq!(browser.end().await, Some(1002), "a frame that begins with {:#x}", bytes[0]);
        }
        scene.closed("parse-error", frames.len() as u64).await;
        scene.is_clean().await;
    });
}

/// Headers of a handshake that took time with the square of their length to read (CVE-2021-32640).
#[test]
fn a_long_header_of_sub_protocols() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let before = scene.server.cpu();
        let mut took = Duration::ZERO;
        for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            for filler in [" ", "\t", ",", ", ", " ,", "; ", "\"", "a,", "a; b=\"c\", "] {
                let value = format!("a{}b", filler.repeat(30_000 / filler.len()));
                let request = UPGRADE.replace("\r\n\r\n", &format!("\r\n{name}: {value}\r\n\r\n"));
                let begun = clock::now();
                let mut connection = Connection::open(scene.server.browsers).await;
                let answer = connection.request(&request).await.unwrap();
                took = took.max(clock::now() - begun);
                assert_eq!(answer.status, 101, "{name} {filler:?}");
            }
        }
        let cpu = scene.server.cpu() - before;
        println!("18 handshakes with a header of 30 KB: {took:?} at most, {cpu:?} of the processor");
        assert!(took < Duration::from_secs(1) && cpu < Duration::from_secs(1), "{took:?}, {cpu:?}");
        scene.is_clean().await;
    });
}

/// More headers than are read, which hid that a handshake's own were missing (CVE-2024-37890).
#[test]
fn more_headers_than_are_read() {
    run(LIMIT, || async {
        let mut scene = Scene::new().await;
        let (line, own) = UPGRADE.trim_end().split_once("\r\n").unwrap();
        for (count, status) in [(50, 101), (97, 431), (1000, 431), (4000, 431)] {
            let others = "x: y\r\n".repeat(count);
            let (before, after) =
                (format!("{line}\r\n{others}{own}\r\n\r\n"), format!("{line}\r\n{own}\r\n{others}\r\n"));
            for request in [before, after] {
                let mut connection = Connection::open(scene.server.browsers).await;
                assert_eq!(connection.request(&request).await.unwrap().status, status, "{count} headers");
                scene.is_fine().await;
            }
        }
        let refused = &scene.server.stats().await["refused"]["head-too-large"];
        assert_eq!(refused, 6);
        // Nor may they be missing for another reason.
        for missing in ["upgrade: websocket\r\n", "connection: upgrade\r\n"] {
            let mut connection = Connection::open(scene.server.browsers).await;
            assert_eq!(connection.request(&UPGRADE.replace(missing, "")).await.unwrap().status, 400, "{missing}");
        }
        scene.is_clean().await;
    });
}

/// Half a request's head, and no more, from many addresses; twice, because what the allocator keeps is there for the next ones.
#[test]
fn half_open_handshakes() {
    let long = format!("{}x: {}", UPGRADE.trim_end(), "y".repeat(30_000));
    let count = sized(1000, 10_000);
    let patience = sized(4, 10);
    raise_file_limit();
    run(LIMIT, || async move {
        for (half, count, ceiling) in [(&UPGRADE[..UPGRADE.len() / 2], count, 40 << 10), (&long, count / 5, 128 << 10)]
        {
            let mut scene = Scene::with(&["--handshake-timeout", &format!("{patience}s")]).await;
            for _ in 0..2 {
                let figures = half_open(&mut scene, half, count, patience).await;
                println!("{figures}");
                assert!(figures["bytes_for_each"].as_u64().unwrap() < ceiling);
            }
            scene.rss = scene.server.rss();
            scene.is_clean().await;
        }
    });
}

/// Returns what it took.
async fn half_open(scene: &mut Scene, half: &str, count: u64, patience: u64) -> serde_json::Value {
    let refused = async |scene: &Scene| scene.server.stats().await["refused"]["head-too-slow"].as_u64().unwrap();
    let refused_before = refused(scene).await;
    let begun = clock::now();
    let mut hostile = JoinSet::new();
    let sent = Arc::new(Barrier::new(count as usize + 1));
    for number in 0..count {
        hostile.spawn(stay(number, scene.server.browsers, half.to_owned(), sent.clone()));
    }
    sent.wait().await;
    let arrived = clock::now();
    let (connect, delivery) = scene.serves_another(refused_before).await;
    // A worker may still have the last of them in its queue.
    let all = || async { scene.server.stats().await["http_connections"] == count };
    eventually("all are there at once", Duration::from_secs(1), all).await;
    let each = scene.server.rss().saturating_sub(scene.rss) / count;

    let last = hostile.join_all().await.into_iter().max().unwrap();
    assert!(connect < Duration::from_secs(1) && delivery < Duration::from_secs(1), "the others wait");
    assert!(last - arrived < Duration::from_secs(patience + 2), "they stay for too long");
    assert_eq!(refused(scene).await, refused_before + count, "{}", scene.server.stats().await);
    let none = || async { scene.server.stats().await["http_connections"] == 0 };
    eventually("none is left", Duration::from_secs(1), none).await;
    serde_json::json!({
        "half_open": count,
        "bytes_of_head": half.len(),
        "all_there_after_s": (arrived - begun).as_secs_f64(),
        "bytes_for_each": each,
        "connect_of_another_ms": connect.as_secs_f64() * 1000.0,
        "broadcast_ms": delivery.as_secs_f64() * 1000.0,
        "last_gone_after_last_came_s": (last - arrived).as_secs_f64(),
    })
}

/// Sends `half` of a head, waits for the others at the barrier, and then for the server. Returns when the server
/// has closed the connection.
async fn stay(number: u64, address: SocketAddr, half: String, sent: Arc<Barrier>) -> Instant {
    let socket = TcpSocket::new_v4().unwrap();
    let source = Ipv4Addr::new(127, 0, 0, (2 + number % 200) as u8);
    socket.bind((source, 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(half.as_bytes()).await.unwrap();
    sent.wait().await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    clock::now()
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
                "POST {path}?EIO=3&transport=websocket HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
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
