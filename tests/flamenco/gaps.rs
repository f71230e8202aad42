//! The Manager goes away and comes back.

use std::time::Duration;

use actix_codec::Framed;
use actix_http::ws::{Codec, Frame, Message};
use awc::BoxedSocket;
use flamenco_webupdates::client::ConnectionEnd;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};

use super::{
    browser::Browser,
    server::{PATIENCE, Server, until},
    stand_in::{JOB, StandIn, TASK, job},
};

const OTHER: &str = "11111111-7c3f-4f0f-9a53-2f6d1b7f6c21";

fn worker(status: &str) -> Value {
    json!({"id": TASK, "name": "w", "status": status, "version": "3.9", "last_seen": "2026-11-23T21:40:44.013Z"})
}

#[actix_rt::test]
async fn browsers_stay_and_get_only_what_changed() {
    for version in ["3.9-alpha0", "3.0-beta"] {
        let manager = StandIn::start(version).await;
        *manager.state.jobs.borrow_mut() =
            vec![job(JOB, "active", 1), job(OTHER, "queued", 1), job(TASK, "completed", 1)];
        *manager.state.workers.borrow_mut() = vec![worker("awake")];
        let server = Server::before(&manager.url(), &[]).await;
        let mut browser = Browser::connect(&server.address()).await;
        browser.subscribe("allWorkers", None).await;

        manager.stop().await;
        assert_eq!(browser.next("/status").await, json!({"status": "unknown"}));
        *manager.state.jobs.borrow_mut() = vec![job(JOB, "completed", 9), job(TASK, "completed", 1)];
        *manager.state.workers.borrow_mut() = vec![worker("asleep")];
        manager.start_again().await;
        server.until_relay("connected").await;

        let mark = json!({"type": "mark"});
        manager.emit("/lifecycle", &mark).await;
        let received = browser.all_until("/lifecycle", &mark).await;
        let shown: Vec<_> = received
            .iter()
            .map(|(name, payload)| {
                let text = |field: &str| payload[field].as_str().unwrap_or("-").to_owned();
                format!("{name} {} {} {}", text("previous_status"), text("status"), payload["was_deleted"] == true)
            })
            .collect();
        let mut expected = vec![
            "/jobs active completed false",
            "/jobs -  true",
            "/workers awake asleep false",
            "/status - idle false",
        ];
        if version.starts_with("3.0") {
            expected.pop();
        }
        assert_eq!(shown, expected, "{version}");
        assert_eq!(received[0].1["refresh_tasks"], true);
        assert_eq!(received[1].1["id"], OTHER);
        assert_eq!(server.stats().await["sessions"]["total"], 1);
    }
}

#[actix_rt::test]
async fn a_link_that_breaks_is_made_again_with_all_rooms() {
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![job(JOB, "active", 1)];
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("job", Some(JOB)).await;
    manager.break_links();
    browser.next("/status").await;
    // Its tasks went on, and somebody looks at them.
    let job = browser.next("/jobs").await;
    assert_eq!((&job["status"], &job["refresh_tasks"]), (&json!("active"), &json!(true)));
    assert_eq!(manager.was_asked(&format!("subscribe job {JOB}")), 2);
    assert!(browser.subscribe("allWorkerTags", None).await < Duration::from_millis(900));
}

#[actix_rt::test]
async fn browsers_may_connect_without_a_manager_and_notice_its_start() {
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![job(JOB, "active", 1)];
    manager.stop().await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    assert_eq!(server.stats().await["sources"]["relay"]["state"], "away");
    assert_eq!(server.health().await, "ok\nmanager: away\n");
    manager.start_again().await;
    assert_eq!(browser.next("/jobs").await["id"], JOB);
    assert_eq!(browser.next("/status").await["status"], "idle");
}

#[actix_rt::test]
async fn a_manager_that_drops_the_relay_is_asked_less_and_less_often() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.drops.set(true);
    let server = Server::before(&manager.url(), &[]).await;
    let relay = async || server.stats().await["relay"].clone();
    // A wait that is longer than any of a Manager that is away.
    until("a long wait", async || relay().await["next_attempt_s"].as_f64().is_some_and(|wait| wait > 4.0)).await;
    let figures = relay().await;
    let connections = figures["connections"].as_u64().unwrap();
    // 250 ms, 500 ms and so on: the fifth wait is the first that may be that long, the sixth the last.
    assert!((5..=7).contains(&connections) && figures["short_connections"] == connections, "{figures}");
    assert!(server.health().await.contains("manager: away, next attempt in"), "{}", server.health().await);
    assert!(server.metrics().await.contains(&format!("webupdates_relay_short_connections_total {connections}\n")));
    // Once it keeps the relay, everything is as always.
    manager.state.drops.set(false);
    let mut browser = Browser::connect(&server.address()).await;
    server.until_relay("connected").await;
    manager.emit("/jobs", &job(JOB, "active", 1)).await;
    browser.next_where("/jobs", |job| job["id"] == JOB).await;
    let log = server.log();
    assert!(log.lines().filter(|line| line.contains("Manager")).count() < 20, "{log}");
}

#[actix_rt::test]
async fn a_manager_that_cannot_say_what_was_missed_is_asked_less_and_less_often() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.lists.set(false);
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    until("two tries", async || manager.was_asked("GET /api/v3/worker-mgt/workers") == 2).await;
    assert_eq!(server.log().matches("the comparison with the Manager failed").count(), 1, "{}", server.log());
    // Events arrive all the same.
    manager.emit("/jobs", &job(JOB, "active", 1)).await;
    browser.next_where("/jobs", |job| job["id"] == JOB).await;
    manager.state.lists.set(true);
    server.until_relay("connected").await;
}

#[actix_rt::test]
async fn another_version_has_pages_load_themselves_anew() {
    let manager = StandIn::start("3.8").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browsers = Vec::new();
    for _ in 0..10 {
        browsers.push(Browser::connect(&server.address()).await);
    }
    manager.stop().await;
    manager.state.version.replace("3.9".to_owned());
    manager.start_again().await;
    for browser in &mut browsers {
        assert_eq!(
            browser.end().await,
            ConnectionEnd::Closed("1012".to_owned()),
            "a transport that closes, no packet 41"
        );
    }
    until("them to be counted", async || server.stats().await["disconnects"]["manager-changed"] == 10).await;
}

/// A client that asks for `rooms` with `/resume`. Returns what it got until the answer, and the answer.
async fn resume(server: &Server, token: &Value, rooms: &[&str]) -> (Vec<String>, Value, Framed<BoxedSocket, Codec>) {
    let client = awc::Client::builder().max_http_version(awc::http::Version::HTTP_11).finish();
    let url = format!("{}/socket.io/?EIO=3&transport=websocket&resume=1", server.browsers_url);
    let (_, mut socket) = client.ws(url).connect().await.unwrap();
    let request = json!(["/resume", {"token": token, "rooms": rooms, "state": true}]);
    socket.send(Message::Text(format!("420{request}").into())).await.unwrap();
    let mut events = Vec::new();
    loop {
        let frame = actix_rt::time::timeout(PATIENCE, socket.next()).await.expect("something comes").unwrap().unwrap();
        let Frame::Text(text) = frame else { panic!("{frame:?} is no text") };
        let text = String::from_utf8(text.to_vec()).unwrap();
        if let Some(answer) = text.strip_prefix("430") {
            let [answer] = serde_json::from_str(answer).unwrap();
            return (events, answer, socket);
        }
        events.extend(text.starts_with("42").then_some(text));
    }
}

#[actix_rt::test]
async fn a_client_that_was_alone_in_a_room_is_not_said_to_have_missed_nothing() {
    let task = |activity: &str| {
        json!({
            "id": TASK, "job_id": JOB, "name": "t", "status": "active", "activity": activity,
            "updated": "2026-11-23T21:40:44Z",
        })
    };
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![job(JOB, "active", 1)];
    let server = Server::before(&manager.url(), &[]).await;
    let rooms = ["Jobs", &format!("job-{JOB}")];
    let mut watcher = Browser::connect(&server.address()).await;
    let (_, first, connection) = resume(&server, &Value::Null, &rooms).await;
    until("the room to be followed", async || manager.was_asked(&format!("subscribe job {JOB}")) == 1).await;
    manager.emit("/task", &task("before")).await;
    let fence = json!({"type": "fence"});
    manager.emit("/lifecycle", &fence).await;
    watcher.all_until("/lifecycle", &fence).await;
    drop(connection);

    // A short absence misses nothing, because the room is kept for a while.
    let (missed, second, connection) = resume(&server, &first["token"], &rooms).await;
    assert_eq!(second["recovered"], true, "{second}");
    assert!(missed.iter().any(|text| text.contains(r#""activity":"before""#)), "{missed:?}");
    drop(connection);

    // The Manager sends nothing about a room that nobody is in.
    until("the room to be left", async || manager.was_asked(&format!("unsubscribe job {JOB}")) == 1).await;
    let fence = json!({"type": "another"});
    manager.emit("/lifecycle", &fence).await;
    watcher.all_until("/lifecycle", &fence).await;
    let (state, third, _connection) = resume(&server, &second["token"], &rooms).await;
    assert_eq!((&third["recovered"], &third["reason"]), (&json!(false), &json!("not-followed")), "{third}");
    assert!(state.iter().any(|text| text.starts_with(r#"42["/jobs","#)), "the state of the farm: {state:?}");
    assert!(!state.iter().any(|text| text.starts_with(r#"42["/task","#)), "it may be out of date: {state:?}");
    // Other rooms have no gap.
    let (_, jobs, _connection) = resume(&server, &second["token"], &["Jobs"]).await;
    assert_eq!(jobs["recovered"], true, "{jobs}");
}
