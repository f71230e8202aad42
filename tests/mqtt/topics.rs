//! Messages become events, each once and in order.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use super::{
    broker::Broker,
    browser::Browser,
    program,
    server::{Server, until},
};

pub(super) const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

pub(super) fn job(status: &str, previous: Option<&str>, name: &str) -> (String, Value) {
    let mut job = json!({
        "id": JOB, "name": name, "priority": 50, "refresh_tasks": false, "status": status, "type": "t",
        "updated": "2026-11-23T21:40:01Z",
    });
    if let Some(previous) = previous {
        job["previous_status"] = previous.into();
    }
    ("jobs".to_owned(), job)
}

pub(super) fn status(status: &str) -> (String, Value) {
    ("status".to_owned(), json!({"status": status}))
}

fn task(status: &str, activity: &str) -> (String, Value) {
    let task = json!({
        "id": JOB, "job_id": JOB, "name": "t", "status": status, "activity": activity,
        "updated": "2026-11-23T21:40:01Z",
    });
    (format!("jobs/{JOB}"), task)
}

/// Publishes a mark; the names and payloads of all events before it.
pub(super) async fn rest(broker: &Broker, browser: &mut Browser) -> Vec<(String, Value)> {
    let mark = json!({"type": "mark"});
    broker.publish([("lifecycle".to_owned(), mark.clone())]).await;
    browser.all_until("/lifecycle", &mark).await
}

impl Server {
    /// Starts a server that takes events from the broker, and waits until it does.
    pub(super) async fn with_broker(url: &str, more: &[&str]) -> Self {
        let server = Self::start(&[&["--mqtt", url], more].concat()).await;
        server.until_mqtt("connected").await;
        server
    }

    pub(super) async fn until_mqtt(&self, state: &str) {
        until(&format!("the MQTT link to be {state}"), async || {
            self.stats().await["sources"]["mqtt"]["state"] == state
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_job_arrives_once_and_in_order_in_every_room() {
    let Some(broker) = Broker::start("").await else { return };
    let server = Server::with_broker(&broker.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    for room in ["allWorkers", "allLastRendered", "allWorkerTags"] {
        browser.subscribe(room, None).await;
    }
    browser.subscribe("job", Some(JOB)).await;
    let image = json!({"job_id": JOB, "thumbnail": {"base": "/x", "suffixes": ["a.jpg"]}});
    let worker =
        json!({"id": JOB, "name": "w", "status": "awake", "updated": "0001-01-01T00:00:00Z", "version": "3.9"});
    let messages = [
        status("active"),
        job("queued", None, "one"),
        job("active", Some("queued"), "one"),
        task("active", "first"),
        ("last-rendered".to_owned(), image.clone()),
        (format!("jobs/{JOB}/last-rendered"), image),
        ("workers".to_owned(), worker),
        ("workertags".to_owned(), json!({"tag": {"id": JOB, "name": "GPU"}, "was_deleted": false})),
        ("weather".to_owned(), json!({"rain": true})),
        ("jobs".to_owned(), json!({"rain": true})),
        task("completed", ""),
        job("completed", Some("active"), "one"),
        status("idle"),
        status("idle"),
    ];
    broker.publish(messages.clone()).await;
    let wire = |(topic, payload): &(String, Value)| {
        let name = match topic.as_str() {
            topic if topic.ends_with("/last-rendered") => return None,
            topic if topic.starts_with("jobs/") => "/task".to_owned(),
            topic => format!("/{topic}"),
        };
        (*payload != json!({"rain": true})).then(|| (name, payload.clone()))
    };
    let expected: Vec<_> = messages.iter().filter_map(wire).collect();
    assert_eq!(rest(&broker, &mut browser).await, expected);

    let stats = server.stats().await;
    assert_eq!(stats["sources"]["mqtt"]["events"], 12);
    assert_eq!((&stats["events"]["new-job"], &stats["events"]["job-update"]), (&json!(1), &json!(2)));
    assert_eq!((&stats["events"]["new-worker"], &stats["events"]["worker-update"]), (&json!(1), &json!(0)));
    assert_eq!((&stats["mqtt"]["unread"]["other"], &stats["mqtt"]["unread"]["jobs"]), (&json!(1), &json!(1)));
    assert!(server.health().await.ends_with("mqtt: connected\n"));
    let metrics = server.metrics().await;
    assert!(metrics.contains("webupdates_mqtt_unread_total{topic=\"other\"} 1\n"), "{metrics}");
    let log = server.log();
    assert_eq!(log.matches("cannot be decoded").count(), 2, "{log}");
    assert!(!log.contains("rain"), "{log}");
}

#[actix_rt::test]
async fn large_payloads_arrive() {
    let Some(broker) = Broker::start("").await else { return };
    let server = Server::with_broker(&broker.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    let messages = [12_000, 900_000].map(|size| job("active", None, &"x".repeat(size)));
    broker.publish(messages.clone()).await;
    for (_, payload) in messages {
        assert_eq!(browser.next("/jobs").await, payload);
    }
    assert_eq!(server.stats().await["mqtt"]["connections"], 1);
}

#[actix_rt::test]
async fn events_arrive_over_a_websocket() {
    let Some(broker) = Broker::start("listener ANOTHER 127.0.0.1\nprotocol websockets\n").await else { return };
    let server = Server::with_broker(&broker.websocket_url(), &["--outbox-bytes", "10000000"]).await;
    let mut browser = Browser::connect(&server.address()).await;
    let messages: Vec<_> =
        [12_000, 900_000].into_iter().chain(0..300).map(|size| job("active", None, &"x".repeat(size))).collect();
    broker.publish(messages.clone()).await;
    let expected: Vec<_> = messages.into_iter().map(|(_, job)| ("/jobs".to_owned(), job)).collect();
    assert_eq!(rest(&broker, &mut browser).await, expected);
    assert_eq!(server.stats().await["mqtt"]["connections"], 1);
}

#[actix_rt::test]
async fn what_is_no_websocket_is_named() {
    let Some(broker) = Broker::start("").await else { return };
    let web = Server::start(&[]).await;
    for (url, complaint) in [
        (broker.url().replace("mqtt://", "ws://"), "the MQTT broker at ws://127.0.0.1"),
        (
            web.browsers_url.replace("http://", "ws://"),
            "the broker offers no MQTT over WebSocket at this address: it answers with status",
        ),
    ] {
        let server = Server::start(&["--mqtt", &url]).await;
        until("the complaint", async || server.log().contains(complaint) && server.log().contains("next attempt"))
            .await;
    }
}

#[actix_rt::test]
async fn a_full_backlog_loses_nothing() {
    let Some(broker) = Broker::start("").await else { return };
    let server = Server::with_broker(&broker.url(), &["--backlog", "1"]).await;
    let mut browser = Browser::connect(&server.address()).await;
    let messages: Vec<_> = (0..500).map(|number| job("active", None, &number.to_string())).collect();
    broker.publish(messages.clone()).await;
    let names: Vec<_> = rest(&broker, &mut browser).await.into_iter().map(|(_, job)| job["name"].clone()).collect();
    assert_eq!(names, (0..500).map(|number| json!(number.to_string())).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn watch_prints_the_events_of_a_broker() {
    let Some(broker) = Broker::start("").await else { return };
    let mut command = program::command(&["watch", &broker.url(), "--json"]);
    command.stderr(Stdio::null());
    let mut watch = command.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // The broker says nothing about its subscribers, so the first messages may come too early.
    let reader = actix_rt::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    let (_, expected) = job("active", None, "one");
    until("the event to be printed", async || {
        broker.publish([job("active", None, "one")]).await;
        reader.is_finished()
    })
    .await;
    let line: Value = serde_json::from_str(&reader.await.unwrap()).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!((&line["event"], &line["args"]), (&json!("/jobs"), &json!([expected])));
}
