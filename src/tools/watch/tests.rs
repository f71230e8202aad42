use std::io::Write;
use std::sync::{Arc, Mutex};

use actix_http::ws::Frame;
use futures_util::{SinkExt, StreamExt};

use super::narrator::Narrator;
use super::*;
use client::peer::{OPEN, Peer, listener, text, welcome};

const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
const TASK: &str = "abb5f5a7-ceab-47c8-8885-cbc1fcf81ed5";
const TIME: &str = "2026-11-23T17:19:56.591264427Z";

/// Returns the lines that a narrator prints for these events, without colours.
fn printed(events: &[(&str, String)]) -> Vec<String> {
    let mut narrator = Narrator::new(Some("http://farm:8081".parse().unwrap()));
    let lines = events
        .iter()
        .flat_map(|(name, payload)| narrator.describe(name, &[RawValue::from_string(payload.clone()).unwrap()]));
    lines.map(|line| anstream::adapter::strip_str(&line).to_string()).collect()
}

fn job(status: &str, more: &str) -> (&'static str, String) {
    let payload = format!(
        r#"{{"id":"{JOB}","priority":50,"refresh_tasks":false,"status":"{status}","type":"t","updated":"{TIME}"{more}}}"#
    );
    ("/jobs", payload)
}

fn task(status: &str, more: &str) -> (&'static str, String) {
    let payload = format!(
        r#"{{"id":"{TASK}","job_id":"{JOB}","name":"render-1-3","status":"{status}","updated":"{TIME}"{more}}}"#
    );
    ("/task", payload)
}

fn worker(status: &str, more: &str) -> (&'static str, String) {
    let payload = format!(
        r#"{{"id":"{JOB}","name":"render-node-01","status":"{status}","updated":"{TIME}","version":"3.9"{more}}}"#
    );
    ("/workers", payload)
}

fn event(name: &'static str, payload: &str) -> (&'static str, String) {
    (name, payload.to_owned())
}

#[test]
fn jobs_and_tasks_are_told_by_name_once_it_is_known() {
    let log = format!(r#"{{"task_id":"{TASK}","log":"pid=1 > Blender 4.5\r\npid=1 > frame 1\rframe 2   \n\n"}}"#);
    let image =
        format!(r#"{{"job_id":"{JOB}","thumbnail":{{"base":"/job-files/x","suffixes":["last.jpg","tiny.jpg"]}}}}"#);
    let events = [
        task("active", r#","activity":"","previous_status":"queued","steps_completed":0,"steps_total":3"#),
        job("active", r#","name":"shot_010 🎬","steps_completed":12,"steps_total":25"#),
        job("completed", r#","name":"shot_010 🎬","steps_completed":25,"steps_total":25,"previous_status":"active""#),
        job("requeueing", r#","previous_status":"completed""#),
        task(
            "active",
            r#","activity":"Progress","previous_status":"active","steps_completed":1,"steps_total":3,"worker":{"name":"node-1"}"#,
        ),
        ("/tasklog", log),
        ("/last-rendered", image),
        job("completed", &format!(r#","delete_requested_at":"{TIME}""#)),
        job("", r#","was_deleted":true"#),
        job("paused", ""),
    ];
    assert_eq!(
        printed(&events),
        [
            "task   active       ▱▱▱▱▱▱▱▱▱▱       0/3  4b2c1f0e… › render-1-3  was queued",
            "job    active       ▰▰▰▰▱▱▱▱▱▱     12/25  shot_010 🎬  priority 50",
            "job    completed    ▰▰▰▰▰▰▰▰▰▰     25/25  shot_010 🎬  was active · priority 50",
            "job    requeueing                         shot_010 🎬  was completed · priority 50",
            "task   active       ▰▰▰▱▱▱▱▱▱▱       1/3  shot_010 🎬 › render-1-3  on node-1 · Progress",
            "log    render-1-3 │  pid=1 > Blender 4.5",
            "log    render-1-3 │  pid=1 > frame 1",
            "log    render-1-3 │  frame 2",
            "image  shot_010 🎬  http://farm:8081/job-files/x/last.jpg",
            "job    completed                          shot_010 🎬  is to be deleted · priority 50",
            "job    deleted                            shot_010 🎬",
            "job    paused                             4b2c1f0e…  priority 50",
        ]
    );
}

#[test]
fn workers_tags_farm_and_chat_are_told() {
    let tag = |more: &str| event("/workertags", &format!(r#"{{"tag":{{"id":"{JOB}",{more}}}"#));
    let events = [
        worker("awake", r#","previous_status":"asleep""#),
        worker("awake", r#","status_change":{"status":"asleep","is_lazy":true}"#),
        worker("asleep", r#","status_change":{"status":"awake","is_lazy":false}"#),
        worker("offline", &format!(r#","deleted_at":"{TIME}""#)),
        tag(r#""name":"GPU","description":"Nodes with a GPU"}"#),
        tag(r#""name":""},"was_deleted":true"#),
        event("/lifecycle", r#"{"type":"manager-startup"}"#),
        event("/lifecycle", r#"{"type":"manager-nap"}"#),
        event("/status", r#"{"status":"inoperative"}"#),
        event("/message", r#"{"name":"Ana","text":"dobro jutro\nsvima"}"#),
    ];
    assert_eq!(
        printed(&events),
        [
            "worker awake        render-node-01  was asleep",
            "worker awake        render-node-01  asked to be asleep after its task",
            "worker asleep       render-node-01  asked to be awake at once",
            "worker offline      render-node-01  was deleted",
            "tag    GPU  Nodes with a GPU",
            "tag    deleted      GPU",
            "farm   the Manager has started",
            "farm   manager-nap",
            "farm   inoperative",
            "chat   Ana:  dobro jutro",
            "chat   Ana:  svima",
        ]
    );
}

#[test]
fn what_is_unknown_is_shown_raw_but_cut() {
    let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(500));
    let events = [
        event("/new-thing", r#"{"id": 1}"#),
        event("/jobs", r#"{"id":"not a uuid"}"#),
        event("/status", "null"),
        ("/long", long),
        job("brand-new-status", r#","name":"n""#),
    ];
    let printed = printed(&events);
    assert_eq!(printed[0], r#"?      /new-thing  {"id": 1}"#);
    assert_eq!(printed[1], r#"?      /jobs  {"id":"not a uuid"}"#);
    assert_eq!(printed[2], "?      /status  null");
    assert!(printed[3].ends_with("yyy…") && printed[3].chars().count() < 250, "{}", printed[3]);
    assert!(printed[4].starts_with("job    brand-new-status "), "{}", printed[4]);
}

#[test]
fn no_field_can_command_the_terminal() {
    let evil = r"\u001b]0;owned\u0007\u009b2J\u202e";
    let escaped = |payload: &str| payload.replace("EVIL", evil);
    let events = [
        job("EVIL", r#","name":"EVIL","previous_status":"EVIL""#),
        task("EVIL", r#","activity":"EVIL","previous_status":"EVIL","worker":{"name":"EVIL"}"#),
        worker("EVIL", r#","previous_status":"EVIL","status_change":{"status":"EVIL","is_lazy":true}"#),
        event("/tasklog", &format!(r#"{{"task_id":"{TASK}","log":"EVIL"}}"#)),
        event("/last-rendered", &format!(r#"{{"job_id":"{JOB}","thumbnail":{{"base":"EVIL","suffixes":["EVIL"]}}}}"#)),
        event("/workertags", &format!(r#"{{"tag":{{"id":"{JOB}","name":"EVIL","description":"EVIL"}}}}"#)),
        event("/lifecycle", r#"{"type":"EVIL"}"#),
        event("/status", r#"{"status":"EVIL"}"#),
        event("/message", r#"{"name":"EVIL","text":"EVIL"}"#),
        event("/\u{1b}[2J\u{9b}", "\"\u{9b}\u{202e}\""),
    ];
    let events = events.map(|(name, payload)| (name, escaped(&payload).replace("render-1-3", evil)));
    for line in printed(&events) {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn every_recorded_event_is_told() {
    let recording = include_str!("../../../tests/data/farm-3.9.ndjson");
    let events = recording.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let kind: farm::EventKind = value["type"].as_str().unwrap().parse().unwrap();
        (kind.wire_name(), value["payload"].to_string())
    });
    let lines = printed(&events.collect::<Vec<_>>());
    assert!(lines.len() > 446);
    assert_eq!(lines.iter().find(|line| line.starts_with('?')), None);
}

/// Somewhere to print to and look at later.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        anstream::adapter::strip_str(&text).to_string().lines().map(str::to_owned).collect()
    }
}

async fn heard(peer: &mut Peer) -> String {
    let Frame::Text(text) = peer.next().await.unwrap().unwrap() else { panic!("no text") };
    String::from_utf8(text.to_vec()).unwrap()
}

#[actix_rt::test]
async fn it_subscribes_chats_shows_and_comes_back() {
    let (listener, url) = listener().await;
    let rooms = vec![Room::Jobs, Room::Job(JOB.parse().unwrap()), Room::Chat];
    let options = Options {
        url: Place::Server(url.clone()),
        mqtt_prefix: String::new(),
        headers: vec![],
        trust: TrustOptions::default(),
        rooms,
        json: true,
        chat: true,
        name: "Ana".to_owned(),
    };
    let paper = Paper::default();
    let screen = Screen::new(true, Some(url.clone()), None, paper.clone());
    let (say, typed) = mpsc::channel(1);
    let mut watch = Watch { options: &options, screen, typed, client: None, said: String::new() };
    say.send("hello".to_owned()).await.unwrap();

    let serve = async {
        let subscriptions = [
            r#"{"op":"subscribe","type":"allJobs"}"#.to_owned(),
            format!(r#"{{"op":"subscribe","type":"job","uuid":"{JOB}"}}"#),
        ];
        for visit in 0..2 {
            let mut peer = welcome(&listener, OPEN).await;
            for (ack, argument) in subscriptions.iter().enumerate() {
                assert_eq!(heard(&mut peer).await, format!(r#"42{ack}["/subscription",{argument}]"#));
            }
            if visit == 0 {
                assert_eq!(heard(&mut peer).await, r#"422["/chat",{"name":"Ana","text":"hello"}]"#);
                peer.send(text(r#"430["ok"]"#)).await.unwrap();
                peer.send(text(r#"42["/status",{"status":"idle"}]"#)).await.unwrap();
            }
        }
    };
    tokio::select! {
        result = watch.run() => panic!("it ended: {result:?}"),
        () = serve => {}
    }
    let lines = paper.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with(r#","event":"/status","args":[{"status":"idle"}]}"#), "{lines:?}");
}

#[actix_rt::test]
async fn it_says_what_happens_to_the_connection_once() {
    let (listener, url) = listener().await;
    let options = Options {
        url: Place::Server(url.clone()),
        mqtt_prefix: String::new(),
        headers: vec![],
        trust: TrustOptions::default(),
        rooms: vec![],
        json: false,
        chat: false,
        name: String::new(),
    };
    let paper = Paper::default();
    let screen = Screen::new(false, Some(url.clone()), None, paper.clone());
    let mut watch = Watch { options: &options, screen, typed: chat_input::none(), client: None, said: String::new() };

    let serve = async {
        let mut peer = welcome(&listener, OPEN).await;
        for _ in Room::FIXED.into_iter().filter(|room| room.subscription().is_some()) {
            heard(&mut peer).await;
        }
        peer.send(text(r#"430["unknown subscription type, ignoring request"]"#)).await.unwrap();
        peer.send(text(r#"42["/status",{"status":"idle"}]"#)).await.unwrap();
        drop(peer);
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        welcome(&listener, OPEN).await
    };
    tokio::select! {
        result = watch.run() => panic!("it ended: {result:?}"),
        mut peer = serve => { peer.next().await; }
    }
    let lines: Vec<String> = paper.lines().iter().map(|line| line["12:34:56 ".len()..].to_owned()).collect();
    assert_eq!(lines[0], format!("── connected to {url}"));
    assert_eq!(lines[1], "── Jobs: the server answers \"unknown subscription type, ignoring request\"");
    assert_eq!(lines[2], "farm   idle");
    assert!(lines[3].starts_with("── ") && lines[3].ends_with("; connecting again"), "{lines:?}");
    assert!(lines[4].starts_with("── ") && lines[4].ends_with("; trying again"), "{lines:?}");
}
