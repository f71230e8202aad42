//! Whole runs against a small server that makes mistakes on request.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;

use super::options::{Options, Plan};
use super::report::Report;
use super::run::Run;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

/// What these arguments come to, or the text of the error.
pub(super) fn plan(arguments: &[&str]) -> Result<Plan, String> {
    let arguments = [&["simulate-browsers"], arguments].concat();
    let command = Command::try_parse_from(arguments).map_err(|error| error.to_string())?;
    Plan::try_new(command.options).map_err(|error| error.to_string())
}

/// What the server does wrong, with the fifth event and one client: the first, which is in the room, or, to misroute, the
/// second, which is not. It is right with all others.
#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    Drop,
    SendTwice,
    /// Send it after the next one.
    SendLate,
    Misroute,
    /// Close the connection instead.
    Close,
    /// Take it only when it comes again.
    AnswerBusy,
    AnswerBad,
}

/// Clients and the rooms they are in.
type Clients = Arc<Mutex<Vec<(TcpStream, HashSet<String>)>>>;

/// Starts a server and runs the load with these arguments against it. The server reads a room and a packet from a body.
fn run_against(mistake: Mistake, arguments: &[&str]) -> Report {
    let clients = Clients::default();
    let (browsers, for_browsers) = (listen(), clients.clone());
    let (manager, for_manager) = (listen(), clients);
    let urls = [&browsers, &manager].map(|listener| format!("http://{}/events", listener.local_addr().unwrap()));
    thread::spawn(move || {
        for stream in browsers.incoming() {
            let (stream, clients) = (stream.unwrap(), for_browsers.clone());
            thread::spawn(move || serve_browser(&stream, &clients));
        }
    });
    thread::spawn(move || serve_manager(&manager.accept().unwrap().0, &for_manager, mistake));
    let common = [&urls[0], "--publish-url", &urls[1], "--publish-body", "{room}\n42[\"{event}\",{payload}]"];
    let holds = ["--hold", "50ms", "--hold-after", "300ms", "--in-flight", "1"];
    let limits = ["--patience", "300ms", "--timeout", "20s"];
    Run::new(plan(&[&common[..], &holds, &limits, arguments].concat()).unwrap()).unwrap().perform().unwrap()
}

fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Takes subscriptions until the client is gone.
fn serve_browser(mut stream: &TcpStream, clients: &Clients) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let id = stream.peer_addr().ok()?;
    while read_line(&mut reader)? != "\r\n" {}
    let hello = frame(r#"0{"sid":"x","upgrades":[],"pingInterval":20,"pingTimeout":5000}"#);
    {
        let mut clients = clients.lock().unwrap();
        clients.push((stream.try_clone().ok()?, HashSet::from(["Jobs".to_owned()])));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").ok()?;
        stream.write_all(&[hello, frame("40")].concat()).ok()?;
    }
    while let Some(packet) = read_masked(&mut reader) {
        let mut clients = clients.lock().unwrap();
        if packet == "2" {
            stream.write_all(&frame("3")).ok()?;
        } else if let Some((ack, argument)) = packet.strip_prefix("42").and_then(|rest| rest.split_once('[')) {
            let rooms = clients.iter_mut().find(|(stream, _)| stream.peer_addr().is_ok_and(|other| other == id));
            rooms?.1.insert(room(argument));
            if !ack.is_empty() {
                stream.write_all(&frame(&format!("43{ack}[\"ok\"]"))).ok()?;
            }
        }
    }
    clients.lock().unwrap().retain(|(stream, _)| stream.peer_addr().is_ok_and(|other| other != id));
    Some(())
}

fn room(argument: &str) -> String {
    let argument: (String, serde_json::Value) = serde_json::from_str(&format!("[{argument}")).unwrap();
    match (argument.1["type"].as_str().unwrap(), argument.1["uuid"].as_str()) {
        ("allWorkers", None) => "Workers".to_owned(),
        (kind, Some(uuid)) => format!("{kind}-{uuid}"),
        (kind, None) => kind.to_owned(),
    }
}

/// Broadcasts what is posted, one event at a time.
fn serve_manager(mut stream: &TcpStream, clients: &Clients, mistake: Mistake) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut late = Vec::new();
    for number in 0.. {
        let mut body = read_body(&mut reader)?;
        let mistake = if number == 4 { mistake } else { Mistake::None };
        if mistake == Mistake::AnswerBusy {
            stream.write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n").ok()?;
            body = read_body(&mut reader)?;
        }
        if mistake == Mistake::AnswerBad {
            stream.write_all(b"HTTP/1.1 422 Bad\r\nContent-Length: 2\r\n\r\nno").ok()?;
            continue;
        }
        let (room, packet) = body.split_once('\n').unwrap();
        broadcast(&clients.lock().unwrap(), room, &frame(packet), mistake, &mut late);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
    None
}

fn read_body(reader: &mut impl BufRead) -> Option<String> {
    let mut length = 0;
    loop {
        let line = read_line(reader)?;
        if line == "\r\n" {
            break;
        }
        length = line.strip_prefix("Content-Length: ").map_or(length, |length| length.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn broadcast(clients: &[(TcpStream, HashSet<String>)], room: &str, frame: &[u8], mistake: Mistake, late: &mut Vec<u8>) {
    for (index, (stream, rooms)) in clients.iter().enumerate() {
        let mut stream = stream;
        let bytes = match (index, mistake) {
            (0, Mistake::Drop) => continue,
            (0, Mistake::SendTwice) => frame.repeat(2),
            (0, Mistake::SendLate) => {
                *late = frame.to_vec();
                continue;
            }
            (0, Mistake::Close) => {
                stream.shutdown(Shutdown::Both).unwrap();
                continue;
            }
            (1, Mistake::Misroute) => frame.to_vec(),
            _ if !rooms.contains(room) => continue,
            (0, _) => [frame, &std::mem::take(late)].concat(),
            _ => frame.to_vec(),
        };
        // A client that has just left is not an error.
        let _ = stream.write_all(&bytes);
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    Some(line)
}

/// The text of a frame, `None` when the client closes.
fn read_masked(reader: &mut impl Read) -> Option<String> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).ok()?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length).ok()?;
            u16::from_be_bytes(length)
        }
        short => short.into(),
    };
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).ok()?;
    let mut text = vec![0; length.into()];
    reader.read_exact(&mut text).ok()?;
    text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    String::from_utf8(text).ok().filter(|_| head[0] == 0x81)
}

fn frame(packet: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match packet.len() {
        0..126 => frame.push(packet.len() as u8),
        _ => {
            frame.push(126);
            frame.extend_from_slice(&(packet.len() as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(packet.as_bytes());
    frame
}

#[test]
fn every_page_gets_what_it_is_to_get() {
    // Of the mix, five clients get 70 and five get 64.
    for (page, expected) in [("jobs", 1000), ("job", 500), ("mix", 670)] {
        let report = run_against(Mistake::None, &["-n", "10", "--events", "100", "--page", page, "--jobs", "2"]);
        assert_eq!(report.problems, [""; 0], "{page}");
        let delivery = report.delivery.unwrap();
        assert_eq!((delivery.delivered, delivery.expected), (expected, expected), "{page}");
        assert_eq!(report.publish.unwrap().events, 100);
    }
}

#[test]
fn every_mistake_is_found_and_named() {
    let mistakes: [(_, &[_]); 7] = [
        (Mistake::Drop, &["1 deliveries lost"]),
        (Mistake::SendTwice, &["1 deliveries doubled"]),
        (Mistake::SendLate, &["1 deliveries out of order"]),
        (Mistake::Misroute, &["1 deliveries to clients that had not subscribed"]),
        (Mistake::Close, &["1 clients were disconnected", "3 deliveries lost"]),
        (Mistake::AnswerBad, &["publishing stopped: answered with status 422: no"]),
        (Mistake::AnswerBusy, &[]),
    ];
    for (mistake, problems) in mistakes {
        let report = run_against(mistake, &["-n", "3", "--events", "9", "--page", "job", "--jobs", "2"]);
        assert_eq!(report.problems, problems);
        assert_eq!(report.publish.unwrap().turned_away, u64::from(mistake == Mistake::AnswerBusy));
    }
}

#[test]
fn churning_and_storming_clients_are_accounted_for() {
    let load =
        ["-n", "8", "--events", "200", "--rate", "100", "--churn", "0.25", "--churn-stay", "20ms", "--storms", "2"];
    let report = run_against(Mistake::None, &load);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.delivery.unwrap().expected, 200 * 6);
    assert!(report.churn.unwrap().connected >= 2, "each came back at least once");
    let storms = report.storms.iter().map(|storm| (storm.connect.connected, storm.expected, storm.delivered));
    assert_eq!(storms.collect::<Vec<_>>(), [(8, 6, 6), (8, 6, 6)]);
}

#[test]
fn who_could_have_left_before_all_were_connected_leaves_then() {
    let load = ["-n", "8", "--events", "20", "--rate", "100", "--churn", "0.5", "--churn-stay", "1us"];
    let report = run_against(Mistake::None, &load);
    assert_eq!(report.problems, [""; 0]);
    let reconnects = report.churn.unwrap().connected;
    assert!(reconnects >= 4, "{reconnects} reconnects of four clients");
}

#[test]
fn slow_readers_do_not_count_as_losses() {
    for (rate, delivered) in [("0", 0), ("1000000", 20)] {
        let load = ["-n", "3", "--events", "20", "--slow", "1", "--slow-rate", rate];
        let report = run_against(Mistake::None, &load);
        assert_eq!(report.problems, [""; 0]);
        assert_eq!(report.delivery.unwrap().delivered, 20 * 2);
        let slow = report.slow.unwrap();
        assert_eq!((slow.delivered, slow.skipped), (delivered, 0));
    }
}

#[test]
fn a_server_that_is_not_there_is_reported() {
    let address = listen().local_addr().unwrap();
    let url = format!("http://{address}");
    let plan = plan(&[&url, "-n", "2", "--events", "0", "--hold", "0s", "--hold-after", "0s"]).unwrap();
    let report = Run::new(plan).unwrap().perform().unwrap();
    assert_eq!(report.problems, ["2 clients did not connect"]);
    assert_eq!(report.connect.failures.into_iter().collect::<Vec<_>>(), [("connection refused".to_owned(), 2)]);
}

#[test]
fn the_documented_fields_of_the_json_are_there() {
    let pid = std::process::id().to_string();
    let report = run_against(Mistake::None, &["-n", "2", "--events", "2", "--server-pid", &pid]);
    let json = serde_json::to_value(&report).unwrap();
    for pointer in [
        "/connect/per_second",
        "/connect/time/p99_ms",
        "/connect/over_1s",
        "/delivery/per_second",
        "/delivery/lost",
        "/delivery/doubled",
        "/delivery/out_of_order",
        "/latency/p99_ms",
        "/server/cpu_us_per_delivery",
        "/server/rss_bytes_per_client/idle",
    ] {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}");
    }
    assert!(json["generator"]["is_bottleneck"].is_boolean() && json["problems"].is_array());
    assert!(report.to_string().contains("deliver    4 of 4"));
}
