//! A crowd of browsers while the server is stopped and started anew.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use flamenco_webupdates::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Barrier, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::support::{browser::UPGRADE, long, raise_file_limit, run, server::Server, sized};

/// Connects under way at a time, before the restart.
const IN_FLIGHT: usize = 100;

/// What a browser of socket.io-client 2.x waits before it comes back, give or take a half; doubled each time.
const RECONNECTION_DELAY: Duration = Duration::from_secs(1);
const MAX_RECONNECTION_DELAY: Duration = Duration::from_secs(5);

/// How long it tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a WebSocket is sent at last: a close frame with status 1001. And what it is not: socket.io-client 2.x would stay away.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const DISCONNECT: [u8; 4] = [0x81, 2, b'4', b'1'];

/// How a browser lived through it.
struct Story {
    gone: Instant,
    back: Instant,
    /// Of the attempt that brought it back.
    connect: Duration,
    attempts: u32,
    _stream: TcpStream,
}

#[test]
fn everybody_comes_back_after_a_restart() {
    let clients = sized(500, 5000);
    raise_file_limit();
    run(Duration::from_secs(180), || async {
        let mut server = Server::start(&[]);
        let (ready, permits) = (Arc::new(Barrier::new(clients + 1)), Arc::new(Semaphore::new(IN_FLIGHT)));
        let mut browsers = JoinSet::new();
        for _ in 0..clients {
            browsers.spawn(live(server.browsers, ready.clone(), permits.clone()));
        }
        ready.wait().await;
        assert_eq!(server.stats().await["sessions"]["total"], clients);

        let stop = clock::now();
        server.terminate();
        let ended = server.ended_within(Duration::from_secs(15)).await.expect("it ends");
        let stopped = clock::now();
        assert!(ended.success(), "{ended}: {}", server.log());
        let [same, manager] = [server.browsers, server.manager].map(|address| address.to_string());
        let again = Server::start_on([&same, &manager], &[]);
        let started = clock::now();

        let stories = browsers.join_all().await;
        let longest = |of: &dyn Fn(&Story) -> Duration| stories.iter().map(of).max().unwrap();
        let gone = longest(&|story| story.gone.saturating_duration_since(stop));
        let back = longest(&|story| story.back.saturating_duration_since(started));
        let connect = longest(&|story| story.connect);
        let attempts = stories.iter().map(|story| story.attempts).max().unwrap();
        println!(
            "{}",
            serde_json::json!({
                "clients": clients,
                "server_ended_after_s": (stopped - stop).as_secs_f64(),
                "last_connection_closed_after_s": gone.as_secs_f64(),
                "started_again_after_s": (started - stopped).as_secs_f64(),
                "all_back_after_start_s": back.as_secs_f64(),
                "slowest_connect_s": connect.as_secs_f64(),
                "most_attempts": attempts,
            })
        );
        assert_eq!(again.stats().await["sessions"]["total"], clients);
        // A busy test machine must not look like a slow client.
        let (stopping, coming) = if long() { (2, 4) } else { (8, 20) };
        assert!(stopped - stop <= Duration::from_secs(stopping), "it takes {:?} to stop", stopped - stop);
        assert!(gone <= Duration::from_secs(stopping), "connections stay for {gone:?}");
        assert!(back <= Duration::from_secs(coming), "it takes {back:?} until all are back");
        assert!(!long() || connect <= Duration::from_secs(1), "a connect takes {connect:?}");
    });
}

/// Connects, stays until the server closes, and comes back as socket.io-client does.
async fn live(address: SocketAddr, ready: Arc<Barrier>, permits: Arc<Semaphore>) -> Story {
    let mut stream = {
        let _permit = permits.acquire().await.unwrap();
        connect(address).await.expect("it is let in")
    };
    ready.wait().await;
    let mut last = Vec::new();
    // A reset is an end too, only not a polite one: then the close frame is missing.
    while stream.read_buf(&mut last).await.is_ok_and(|read| read > 0) {}
    let gone = clock::now();
    assert!(last.ends_with(&GOING_AWAY), "the last it heard: {last:?}");
    assert!(!last.windows(4).any(|bytes| bytes == DISCONNECT));
    drop(stream);
    let (mut delay, mut attempts) = (RECONNECTION_DELAY, 0);
    loop {
        tokio::time::sleep(delay.mul_f64(0.5 + fastrand::f64())).await;
        let begun = clock::now();
        attempts += 1;
        if let Some(stream) = connect(address).await {
            let back = clock::now();
            return Story { gone, back, connect: back - begun, attempts, _stream: stream };
        }
        assert!(attempts < 10, "it cannot come back");
        delay = (delay * 2).min(MAX_RECONNECTION_DELAY);
    }
}

/// Connects and reads up to the namespace's connect packet; `None` if it is not let in.
async fn connect(address: SocketAddr) -> Option<TcpStream> {
    let attempt = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(UPGRADE.as_bytes()).await.ok()?;
        let mut read = Vec::with_capacity(1024);
        while !read.ends_with(b"\x81\x0240") {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        Some(stream)
    };
    timeout(CONNECT_TIMEOUT, attempt).await.ok().flatten()
}
