//! Browsers that do not read, or only slowly.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use flamenco_webupdates::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Barrier, watch},
    task::JoinSet,
};

use crate::support::{
    browser::{Browser, Incoming, frame},
    events::{self, InOrder},
    eventually,
    http::Connection,
    long, run, run_beside_others,
    server::Server,
    sized,
};

/// Bytes of an event's name: about 2 KB an event fill a stalled connection in a second or two.
const PADDING: usize = 2000;
const MIB: u64 = 1 << 20;

/// How a crowd is served.
struct Load {
    healthy: usize,
    stalled: usize,
    events_per_second: u32,
    seconds: u32,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    p99: Duration,
    /// What the server and the kernel held more than before the load, at most, for each stalled client.
    held: u64,
    /// From the first event until the last stalled client was evicted.
    evicted_after: Duration,
}

#[test]
fn stalled_clients_are_evicted_and_harm_no_others() {
    let (clients, stalled) = sized((200, 20), (1000, 100));
    let rounds = sized(1, 3);
    let load = |stalled| Load { healthy: clients - stalled, stalled, events_per_second: 50, seconds: 20 };
    run(Duration::from_secs(300), || async {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Small crowds on a busy machine are not compared.
            if long() {
                without.push(serve(load(0)).await.p99);
            }
            with.push(serve(load(stalled)).await);
        }
        let without_p99 = long().then(|| median(without));
        let with = Outcome {
            p99: median(with.iter().map(|outcome| outcome.p99).collect()),
            held: with.iter().map(|outcome| outcome.held).max().unwrap(),
            evicted_after: with.iter().map(|outcome| outcome.evicted_after).max().unwrap(),
        };
        println!(
            "{}",
            serde_json::json!({
                "clients": clients,
                "stalled": stalled,
                "rounds": rounds,
                "p99_without_stalled_ms": without_p99.map(|p99| p99.as_secs_f64() * 1000.0),
                "p99_with_stalled_ms": with.p99.as_secs_f64() * 1000.0,
                "most_bytes_held_for_each_stalled": with.held,
                "last_evicted_after_s": with.evicted_after.as_secs_f64(),
            })
        );
        assert!(with.held <= MIB, "{} bytes are held for each", with.held);
        // Nothing was waiting for 10 s, the outbox's limit, before these had passed.
        assert!(with.evicted_after <= Duration::from_secs(10 + 15));
        // A busy machine may be late, but no client waits for those that do not read.
        assert!(with.p99 <= Duration::from_secs(1), "the others wait");
        assert!(without_p99.is_none_or(|without| with.p99 <= without.mul_f64(1.5)), "the others suffer");
    });
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

async fn serve(load: Load) -> Outcome {
    let server = Server::start(&[]);
    let mut stalled = Vec::new();
    for _ in 0..load.stalled {
        stalled.push(Browser::greeted(narrow(server.browsers).await).await);
    }
    let total = u64::from(load.events_per_second * load.seconds);
    let sent = Arc::new(Mutex::new(vec![clock::now(); total as usize + 1]));
    let ready = Arc::new(Barrier::new(load.healthy + 1));
    let mut healthy = JoinSet::new();
    for _ in 0..load.healthy {
        healthy.spawn(latencies(server.browsers, ready.clone(), sent.clone(), total));
    }
    ready.wait().await;
    let (files, memory, begun) = (server.open_files(), server.rss(), clock::now());
    let (done, watched) = watch::channel(false);
    let (publishing, (held, evicted_after)) = tokio::join!(
        async {
            publish(&server, &load, &sent).await;
            done.send_replace(true);
        },
        watch_stalled(&server, load.stalled, memory, begun, watched),
    );
    let () = publishing;
    let mut all: Vec<Duration> = healthy.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all.len(), load.healthy * total as usize);
    let gone = || async { server.open_files() <= files - load.stalled - load.healthy && server.unsent().len() <= 1 };
    eventually("nothing is left of their connections, nor of the others'", Duration::from_secs(5), gone).await;
    Outcome { p99: all[all.len() * 99 / 100], held, evicted_after }
}

/// A connection of which the client's side holds little.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

async fn latencies(
    address: SocketAddr,
    ready: Arc<Barrier>,
    sent: Arc<Mutex<Vec<Instant>>>,
    total: u64,
) -> Vec<Duration> {
    let mut browser = Browser::connect(address).await;
    ready.wait().await;
    let (mut seen, mut latencies) = (InOrder::default(), Vec::with_capacity(total as usize));
    while seen.last() < total {
        let Incoming::Text(text) = browser.next().await else { panic!("it ended after {seen:?}") };
        let number = events::number(text, "/jobs").unwrap();
        seen.took(number);
        latencies.push(clock::now() - sent.lock().unwrap()[number as usize]);
    }
    latencies
}

async fn publish(server: &Server, load: &Load, sent: &Mutex<Vec<Instant>>) {
    let mut manager = server.manager().await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / load.events_per_second);
    for number in 1..=u64::from(load.events_per_second * load.seconds) {
        ticks.tick().await;
        sent.lock().unwrap()[number as usize] = clock::now();
        manager.publish(&events::padded_job(number, PADDING)).await;
    }
}

/// Watches until all stalled clients are evicted. Returns what was held for each of them at most, and how long it took.
async fn watch_stalled(
    server: &Server,
    stalled: usize,
    memory: u64,
    begun: Instant,
    done: watch::Receiver<bool>,
) -> (u64, Duration) {
    let (mut held, mut evicted_after) = (0, None);
    // To the end, and without stalled clients too: to watch costs the same time then.
    while !*done.borrow() {
        let kernel: u64 = server.unsent().iter().sum();
        held = held.max((server.rss().saturating_sub(memory) + kernel) / stalled.max(1) as u64);
        if server.stats().await["disconnects"]["too-slow"] == stalled {
            evicted_after.get_or_insert_with(|| clock::now() - begun);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (held, evicted_after.expect("all stalled clients are evicted"))
}

/// Each reads 2 KB a second, of about as much that comes: the window is closed nearly all the time.
#[test]
fn healthy_slow_readers_live() {
    let (readers, seconds) = sized((10, 12), (50, 75));
    run_beside_others(Duration::from_secs(150), || async move {
        let server = Server::start(&[]);
        let mut reading = JoinSet::new();
        let ready = Arc::new(Barrier::new(readers + 1));
        let total = 5 * seconds;
        for _ in 0..readers {
            reading.spawn(read_slowly(server.browsers, ready.clone(), total));
        }
        ready.wait().await;
        let mut manager = server.manager().await;
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        for number in 1..=total {
            ticks.tick().await;
            manager.publish(&events::padded_job(number, 120)).await;
        }
        reading.join_all().await;
        let stats = server.stats().await;
        assert_eq!(stats["disconnects"]["too-slow"], 0);
        println!("{readers} browsers that read 2 KB a second got all of {total} events");
    });
}

async fn read_slowly(address: SocketAddr, ready: Arc<Barrier>, total: u64) {
    let mut browser = Browser::greeted(narrow(address).await).await;
    ready.wait().await;
    let mut seen = InOrder::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut buffer = [0; 512];
    while seen.last() < total {
        ticks.tick().await;
        let read = browser.stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the server closed it after {seen:?}");
        browser.feed(&buffer[..read]);
        while let Some(text) = browser.buffered() {
            seen.took(events::number(&text, "/jobs").unwrap());
        }
    }
}

/// One that asks for more and more and takes none of it: the answers wait in the kernel, which takes little of them.
#[test]
fn a_polling_client_that_does_not_read_holds_little() {
    run(Duration::from_secs(60), || async {
        let server = Server::start(&[]);
        let mut manager = server.manager().await;
        let opened = server_session(&server).await;
        let mut stream = narrow(server.browsers).await;
        let poll = format!("GET /socket.io/?EIO=3&transport=polling&sid={opened} HTTP/1.1\r\nhost: farm\r\n\r\n");
        let mut held = 0;
        for number in 1..=100 {
            manager.publish(&events::padded_job(number, 50_000)).await;
            // It is closed at the latest when too much waits for it.
            let _ = stream.write_all(poll.as_bytes()).await;
            held = held.max(server.unsent().iter().sum());
        }
        assert!(held > 0, "something waits");
        assert!(held <= 512 * 1024, "the kernel holds {held} bytes");
    });
}

async fn server_session(server: &Server) -> String {
    let mut connection = Connection::open(server.browsers).await;
    let opened = connection.get("/socket.io/?EIO=3&transport=polling").await;
    opened.body.split_once("\"sid\":\"").unwrap().1.split('"').next().unwrap().to_owned()
}

/// Five talk as much as they may, 400 KB a second in all; some of the others read a sixth of that, some next to nothing.
#[test]
fn no_client_is_evicted_because_others_chat() {
    let (readers, seconds) = sized((10, 8), (100, 30));
    run(Duration::from_secs(90), || async move {
        // Once as it is by default, and once with nothing between the talkers and the outboxes.
        for options in [&[][..], &["--max-chat-bytes-per-second", "0"]] {
            let server = Server::start(&[&["--outbox-age", "4s"], options].concat());
            let mut reading = JoinSet::new();
            for _ in 0..readers {
                reading.spawn(read_at(64 * 1024, server.browsers, seconds));
                reading.spawn(read_at(1024, server.browsers, seconds));
            }
            let mut talking = JoinSet::new();
            for _ in 0..5 {
                talking.spawn(talk(server.browsers, seconds));
            }
            reading.join_all().await;
            talking.join_all().await;
            let stats = server.stats().await;
            assert_eq!(stats["disconnects"]["too-slow"], 0, "{stats}");
            let (refused, left_out) = (&stats["refused"]["too-much-chat"], &stats["chat_left_out"]);
            let is_held_back = if options.is_empty() { refused } else { left_out };
            assert!(is_held_back.as_u64().unwrap() > 0, "{stats}");
        }
    });
}

async fn read_at(bytes_per_second: usize, address: SocketAddr, seconds: u64) {
    let mut browser = Browser::greeted(narrow(address).await).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(125));
    let mut buffer = vec![0; bytes_per_second / 8];
    for _ in 0..8 * seconds {
        ticks.tick().await;
        match tokio::time::timeout(Duration::from_millis(100), browser.stream.read_exact(&mut buffer)).await {
            Ok(read) => drop(read.expect("the server closed it")),
            // Nothing is said for the moment.
            Err(_) => continue,
        }
    }
}

async fn talk(address: SocketAddr, seconds: u64) {
    let browser = Browser::connect(address).await;
    let (mut read, mut write) = browser.stream.into_split();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let text = format!(r#"42["/chat",{{"name":"a","text":"{}"}}]"#, "x".repeat(8000));
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 * seconds {
        ticks.tick().await;
        write.write_all(&frame(0x81, text.as_bytes())).await.unwrap();
    }
    reading.abort();
}
