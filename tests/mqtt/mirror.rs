//! Events that the server publishes to a broker.

use serde_json::{Value, json};

use super::{
    broker::{Broker, messages},
    server::{Server, run, until},
    topics::{JOB, job, status},
};

/// Posts events of these kinds and payloads to the server.
async fn post(server: &Server, events: &[(&str, &Value)]) {
    let events: Vec<_> = events.iter().map(|(kind, payload)| json!({"type": kind, "payload": payload})).collect();
    let response =
        awc::Client::new().post(format!("{}/api/events", server.manager_url)).send_json(&events).await.unwrap();
    assert!(response.status().is_success());
}

impl Server {
    async fn until_mirror(&self, state: &str) {
        let what = format!("the mirror to be {state}");
        until(&what, async || self.stats().await["mqtt_publish"]["state"] == state).await;
    }
}

#[actix_rt::test]
async fn events_have_the_topics_of_a_manager() {
    let Some(broker) = Broker::start("").await else { return };
    let server = Server::start(&["--mqtt-publish", &broker.url(), "--mqtt-retain"]).await;
    server.until_mirror("connected").await;
    let mut subscriber = broker.subscribe().await;
    let ((_, new), (_, changed), (_, active)) =
        (job("queued", None, "one"), job("active", Some("queued"), "one"), status("active"));
    let image = json!({"job_id": JOB, "thumbnail": {"base": "/x", "suffixes": ["a.jpg"]}});
    let log = json!({"task_id": JOB, "log": "private"});
    post(&server, &[("new-job", &new), ("job-update", &changed), ("task-log-update", &log)]).await;
    post(&server, &[("last-rendered", &image), ("farm-status", &active)]).await;
    let (of_job, images) = (format!("state/jobs/{JOB}"), format!("jobs/{JOB}/last-rendered"));
    let expected = [
        ("jobs", &new),
        (of_job.as_str(), &new),
        ("jobs", &changed),
        (of_job.as_str(), &changed),
        ("last-rendered", &image),
        (images.as_str(), &image),
        ("status", &active),
        ("state/status", &active),
    ];
    let expected = expected.map(|(topic, payload)| (topic.to_owned(), payload.clone()));
    assert_eq!(messages(&mut subscriber, 8).await, expected);

    // A later subscriber gets the states alone.
    drop(subscriber);
    let mut retained = messages(&mut broker.subscribe().await, 2).await;
    retained.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(retained, [(of_job.clone(), changed), ("state/status".to_owned(), active.clone())]);
    let mut deleted = new.clone();
    deleted["was_deleted"] = true.into();
    let mut subscriber = broker.subscribe().await;
    messages(&mut subscriber, 2).await;
    post(&server, &[("job-update", &deleted)]).await;
    assert_eq!(messages(&mut subscriber, 2).await, [("jobs".to_owned(), deleted), (of_job, Value::Null)]);
    drop(subscriber);
    assert_eq!(messages(&mut broker.subscribe().await, 1).await, [("state/status".to_owned(), active)]);

    let stats = server.stats().await;
    assert_eq!(
        (&stats["mqtt_publish"]["events"], &stats["mqtt_publish"]["dropped"]),
        (&json!(5), &json!(0)),
        "{stats}"
    );
    assert!(server.health().await.ends_with("mqtt-publish: connected\n"));
    assert!(server.metrics().await.contains("webupdates_mqtt_publish_events_total 5\n"));
}

#[actix_rt::test]
async fn a_mirror_feeds_another_server() {
    let Some(broker) = Broker::start("").await else { return };
    let first = Server::start(&["--mqtt-publish", &broker.url(), "--mqtt-retain"]).await;
    first.until_mirror("connected").await;
    let second = Server::with_broker(&broker.url(), &[]).await;
    let mut browser = super::browser::Browser::connect(&second.address()).await;
    let jobs: Vec<_> = (0..500).map(|number| job("active", None, &number.to_string()).1).collect();
    post(&first, &jobs.iter().map(|job| ("job-update", job)).collect::<Vec<_>>()).await;
    for job in &jobs {
        assert_eq!(browser.next("/jobs").await, *job);
    }
    let unread = second.stats().await["mqtt"]["unread"].clone();
    assert!(unread.as_object().unwrap().values().all(|count| *count == 0), "{unread}");
}

#[actix_rt::test]
async fn a_broker_that_is_away_slows_nothing() {
    let Some(mut broker) = Broker::start("").await else { return };
    let server = Server::start(&["--mqtt-publish", &broker.url()]).await;
    server.until_mirror("connected").await;
    broker.kill();
    server.until_mirror("away").await;
    let (_, job) = job("active", None, "one");
    let batch: Vec<_> = (0..1000).map(|_| ("job-update", &job)).collect();
    for _ in 0..5 {
        post(&server, &batch).await;
    }
    assert_eq!(server.stats().await["mqtt_publish"]["dropped"], 5000 - 4096);
    broker.restart().await;
    until("the waiting events to be published", async || server.stats().await["mqtt_publish"]["events"] == 4096).await;
}

#[actix_rt::test]
async fn one_broker_for_both_directions_is_refused() {
    let url = "mqtt://127.0.0.1:1";
    let output = run(&["--mqtt", url, "--mqtt-publish", url]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("name the same broker, so every event would come back"), "{error}");
}

#[actix_rt::test]
async fn nothing_comes_back_from_a_broker_with_two_names() {
    let Some(broker) = Broker::start("").await else { return };
    let other_name = broker.url().replace("127.0.0.1", "localhost");
    let server = Server::start(&["--mqtt", &broker.url(), "--mqtt-publish", &other_name]).await;
    server.until_mqtt("connected").await;
    server.until_mirror("connected").await;
    let mut browser = super::browser::Browser::connect(&server.address()).await;
    let (_, job) = job("active", None, "one");
    post(&server, &[("job-update", &job)]).await;
    // What others publish is taken, and goes out again once.
    broker.publish([status("idle")]).await;
    until("both to have come back", async || server.stats().await["sources"]["mqtt"]["dropped"] == 2).await;
    assert_eq!(server.stats().await["mqtt_publish"]["events"], 2);
    let expected = [("/jobs".to_owned(), job), ("/status".to_owned(), status("idle").1)];
    assert_eq!(super::topics::rest(&broker, &mut browser).await, expected);
}
