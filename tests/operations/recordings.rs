//! What `record` writes and `replay` posts, and the request behind `record`.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use flamenco_webupdates::clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::server::{BINARY, Connection, DEADLINE, Server};

/// What a real Manager published in four minutes: 446 events.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/farm-3.9.ndjson");
const EVENTS: u64 = 446;

/// A recording under way. Dropping it kills it.
struct Recorder(Child, PathBuf);

impl Recorder {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let path = std::env::temp_dir().join(format!("webupdates-{}-{name}.ndjson", std::process::id()));
        let _ = fs::remove_file(&path);
        let mut command = Command::new(BINARY);
        command.arg("record").args(arguments).arg("--output").arg(&path).stderr(Stdio::piped());
        Self(command.spawn().unwrap(), path)
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.1).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, check: impl Fn(&[String]) -> bool) {
        let checked = timeout(DEADLINE, async {
            while !check(&self.lines()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        checked.await.unwrap_or_else(|_| panic!("waited for {what}: {} lines", self.lines().len()));
    }

    /// Interrupts it, and returns the recording and what it said.
    fn stop(mut self) -> (Vec<String>, String) {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.lines(), said)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

async fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("replay").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn port(server: &Server) -> String {
    format!("http://{}", server.manager)
}

/// The payloads of each type, in order: those of one type have one publisher.
fn by_type<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Vec<&'a str>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for line in lines {
        let (_, payload) = line.split_once(r#","payload":"#).unwrap();
        let kind = serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned();
        all.entry(kind).or_default().push(payload);
    }
    all
}

fn id(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_farm_is_recorded_and_replayed() {
    let (first, second) = (Server::start(&[]), Server::start(&[]));
    let recorder = Recorder::start("farm", &[&port(&first), "--since", "oldest"]);
    let played = replay(&[RECORDING, &port(&first), "--speed", "max"]).await;
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    recorder.until("all events", |lines| lines.len() as u64 == EVENTS).await;
    let path = recorder.1.display().to_string();
    let recorded = recorder.lines();
    let original = fs::read_to_string(RECORDING).unwrap();
    let recorded_texts = recorded.iter().map(String::as_str);
    assert_eq!(by_type(recorded_texts), by_type(original.lines()));

    // Whoever goes on after an event gets the rest.
    let late = Recorder::start("late", &[&port(&first), "--since", &id(&recorded[399])]);
    late.until("the rest", |lines| lines.len() as u64 == EVENTS - 400).await;
    assert_eq!(late.stop().0, recorded[400..]);

    // The second time all events are repetitions, until they get new ids.
    for (options, repeated) in [(&[][..], 0), (&[], EVENTS), (&["--new-ids"], EVENTS)] {
        let played = replay(&[&[&path, &port(&second), "--speed", "max"], options].concat()).await;
        assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
        assert_eq!(second.stats().await["refused"]["repeated"], repeated, "{options:?}");
    }
    let (_, said) = recorder.stop();
    assert_eq!(said, format!("record: {EVENTS} events\n"));
}

#[tokio::test]
async fn a_replay_takes_its_time() {
    let server = Server::start(&[]);
    let path = std::env::temp_dir().join(format!("webupdates-{}-input.ndjson", std::process::id()));
    let line = |ms: u32| format!("{{\"t_ms\":{ms},\"type\":\"farm-status\",\"payload\":{{\"status\":\"idle\"}}}}\n");
    fs::write(&path, [line(5000), line(5000), line(25_000)].concat()).unwrap();
    let recorder = Recorder::start("pace", &[&port(&server), "--since", "oldest"]);
    let began = clock::now();
    let played = replay(&[&path.display().to_string(), &port(&server), "--speed", "10"]).await;
    assert!(played.status.success());
    let took = clock::now() - began;
    assert!((2.0..20.0).contains(&took.as_secs_f64()), "20 s at ten times the speed: {took:?}");
    recorder.until("all events", |lines| lines.len() == 3).await;
    fs::remove_file(path).unwrap();
    let times = recorder.lines().into_iter().map(|line| {
        let time = serde_json::from_str::<Value>(&line).unwrap()["time"].as_str().unwrap().to_owned();
        time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    });
    let times: Vec<_> = times.collect();
    // A busy machine may delay the first two.
    assert!(times[2] - times[1] >= 1000, "{times:?}");
}

#[tokio::test]
async fn a_recording_goes_on_with_the_next_server() {
    let mut server = Server::start(&[]);
    let address = server.manager.to_string();
    server.publish(r#"{"type":"farm-status","payload":{"status":"idle"}}"#).await;
    let recorder = Recorder::start("next", &[&port(&server), "--since", "oldest"]);
    recorder.until("the first event", |lines| lines.len() == 1).await;
    server.signal(Signal::KILL);
    server.ended().await;
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--manager-listen", &address, "--events-from-stdin"]);
    let mut next = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut events = next.stdin.take().unwrap();
    let recorded = timeout(DEADLINE, async {
        while recorder.lines().len() < 2 {
            writeln!(events, r#"{{"type":"farm-status","payload":{{"status":"active"}}}}"#).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let recorded = recorded.await;
    next.kill().unwrap();
    next.wait().unwrap();
    recorded.expect("it records the next server's events");
    let (_, said) = recorder.stop();
    assert!(said.contains("events are missing here: "), "{said}");
    assert!(said.contains("status 410: the server was restarted since that event"), "{said}");
}

#[tokio::test]
async fn what_cannot_work_ends_at_once() {
    let server = Server::start(&[]);
    let path = std::env::temp_dir().join(format!("webupdates-{}-bad.ndjson", std::process::id()));
    fs::write(&path, "{\"type\":\"farm-status\",\"payload\":{\"status\":\"idle\"}}\n{\"type\":\"weather\"}\n").unwrap();
    let path_text = path.display().to_string();
    for (arguments, complaint) in [
        (&["replay", &path_text, &port(&server)][..], "error: line 2: type"),
        (&["replay", "/nowhere", &port(&server)], "error: cannot read /nowhere: No such file"),
        (&["record", "http://127.0.0.1:1"], "error: http://127.0.0.1:1 cannot be reached: "),
        (&["record", &port(&server), "--since", "noon"], "status 400: since is neither the id of an event"),
        (&["record", &port(&server), "--since", "1-1-1"], "status 410: the server was restarted since that event"),
        (&["record", &port(&server), "--token-file", "/nowhere"], "error: cannot read /nowhere: No such file"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = timeout(DEADLINE, output).await.expect("it ends").unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(complaint), "{arguments:?}: {error}");
    }
    fs::remove_file(path).unwrap();
}

/// Sends the request of `record` and returns the connection.
async fn tail(server: &Server, query: &str) -> Connection {
    let mut connection = Connection::open(server.manager).await;
    let request = format!("GET /api/events{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.stream.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// Reads until the server closes the connection.
async fn rest(connection: &mut Connection) -> String {
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, connection.stream.read_to_end(&mut rest)).await.expect("it is closed in time");
    // A connection that is reset has ended too.
    let _ = read;
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_stop_ends_a_reader_that_has_everything() {
    let mut server = Server::start(&[]);
    server.publish(r#"{"type":"farm-status","payload":{"status":"idle"}}"#).await;
    let mut connection = tail(&server, "?since=oldest").await;
    let mut head = [0; 17];
    connection.stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK\r\n");
    server.signal(Signal::TERM);
    let rest = rest(&mut connection).await;
    assert!(rest.contains(r#""type":"farm-status","payload":{"status":"idle"}}"#), "{rest}");
    assert!(rest.ends_with("0\r\n\r\n"), "the body is whole: {rest}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_nothing_and_is_cut_off() {
    let server = Server::start(&["--history", "4000000"]);
    let log = format!(
        r#"{{"type":"task-log-update","payload":{{"task_id":"4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21","log":"{}"}}}}"#,
        "x".repeat(100_000)
    );
    let batch = format!("[{}]", vec![log; 5].join(","));
    server.publish(&batch).await;
    let mut connection = tail(&server, "").await;
    let mut head = [0; 17];
    connection.stream.read_exact(&mut head).await.unwrap();
    let before = server.rss();
    for _ in 0..200 {
        server.publish(&batch).await;
    }
    let after = server.rss();
    assert!(after < before + 30_000_000, "of 100 MB published, {} more are resident", after - before);
    let rest = rest(&mut connection).await;
    assert!(rest.contains("task-log-update"));
    assert!(!rest.ends_with("0\r\n\r\n"), "a body with a gap is not whole");
}
