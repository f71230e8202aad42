//! What the Manager sends arrives, in order, at those it is for.

use std::time::Duration;

use actix_http::ws::Message;
use serde_json::{Value, json};

use super::{
    browser::Browser,
    server::{Server, until},
    stand_in::{JOB, StandIn, job},
};

fn task(status: &str, previous: Option<&str>, updated: u32) -> Value {
    let mut task = json!({
        "activity": "", "id": JOB, "job_id": JOB, "name": "t", "status": status,
        "updated": format!("2026-11-23T21:40:{updated:02}Z"),
    });
    if let Some(previous) = previous {
        task["previous_status"] = previous.into();
    }
    task
}

/// No more events arrive: an event that is published now comes next.
async fn rest(manager: &StandIn, browser: &mut Browser) -> Vec<(String, Value)> {
    let mark = json!({"type": "mark"});
    manager.emit("/lifecycle", &mark).await;
    browser.all_until("/lifecycle", &mark).await
}

#[actix_rt::test]
async fn rooms_are_subscribed_to_while_they_have_members() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    for always in ["allJobs", "allWorkers", "allLastRendered", "allWorkerTags"] {
        assert_eq!(manager.was_asked(&format!("subscribe {always}")), 1);
    }
    let (subscribe, unsubscribe) = (format!("subscribe job {JOB}"), format!("unsubscribe job {JOB}"));
    assert_eq!(manager.was_asked(&subscribe), 0);

    let mut first = Browser::connect(&server.address()).await;
    let mut second = Browser::connect(&server.address()).await;
    first.subscribe("job", Some(JOB)).await;
    assert_eq!(manager.was_asked(&subscribe), 1, "before the browser was answered");
    second.subscribe("job", Some(JOB)).await;
    manager.emit("/task", &task("active", Some("queued"), 1)).await;
    for browser in [&mut first, &mut second] {
        assert_eq!(browser.next("/task").await["status"], "active");
    }
    // One leaves by itself, one disappears.
    first.unsubscribe("job", Some(JOB)).await;
    drop(second);
    until("the Manager to be notified", async || manager.was_asked(&unsubscribe) == 1).await;
    assert_eq!(manager.was_asked(&subscribe), 1);
    first.subscribe("job", Some(JOB)).await;
    assert_eq!(manager.was_asked(&subscribe), 2);
}

#[actix_rt::test]
async fn an_acknowledgement_waits_for_the_managers_but_not_for_ever() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    assert!(browser.subscribe("allWorkers", None).await < Duration::from_millis(900), "nobody is asked for this one");
    manager.state.acknowledges.set(false);
    let (answer, waited) = browser.try_subscribe("job", Some(JOB)).await;
    assert!(waited >= Duration::from_millis(990) && answer.contains("not confirmed"), "{answer:?} after {waited:?}");
    assert_eq!(manager.was_asked(&format!("subscribe job {JOB}")), 1);
}

#[actix_rt::test]
async fn updates_in_the_wrong_order_are_put_right() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("job", Some(JOB)).await;
    for update in [
        task("queued", None, 1),
        task("failed", Some("active"), 3),
        task("active", Some("queued"), 2),
        task("queued", Some("failed"), 4),
    ] {
        manager.emit("/task", &update).await;
    }
    let image = json!({"job_id": JOB, "thumbnail": {"base": "/x", "suffixes": ["a.jpg"]}});
    for _ in 0..2 {
        manager.emit("/last-rendered", &image).await;
    }
    let received: Vec<_> = rest(&manager, &mut browser).await;
    let shown: Vec<_> = received
        .iter()
        .map(|(name, payload)| format!("{name} {}", payload["status"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(shown, ["/task queued", "/task failed", "/task queued", "/last-rendered -"]);
    assert_eq!(server.stats().await["sources"]["relay"]["dropped"], 2);
}

#[actix_rt::test]
async fn what_is_not_known_goes_on_as_it_is() {
    let manager = StandIn::start("4.0").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("allWorkers", None).await;
    manager.emit("/weather", &json!({"rain": [1, 2]})).await;
    manager.emit("/workers", &json!({"id": 1, "secret": "swordfish"})).await;
    manager.emit("/weather", &json!("again")).await;
    let received = rest(&manager, &mut browser).await;
    assert_eq!(
        received,
        [
            ("/weather".to_owned(), json!({"rain": [1, 2]})),
            ("/workers".to_owned(), json!({"id": 1, "secret": "swordfish"})),
            ("/weather".to_owned(), json!("again")),
        ]
    );
    until("the log", async || server.log().matches("cannot be decoded").count() == 2).await;
    let log = server.log();
    assert!(!log.contains("swordfish"), "{log}");
}

#[actix_rt::test]
async fn chat_reaches_browsers_of_both_servers() {
    let manager = StandIn::start("3.0-beta").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut first = Browser::connect(&server.address()).await;
    let mut second = Browser::connect(&server.address()).await;
    first.chat("Ann", "hello 🎬").await;
    for browser in [&mut first, &mut second] {
        assert_eq!(browser.next("/message").await, json!({"name": "Ann", "text": "hello 🎬"}));
    }
    manager.emit("/message", &json!({"name": "Bob", "text": "from the Manager's page"})).await;
    for browser in [&mut first, &mut second] {
        assert_eq!(browser.next("/message").await["name"], "Bob");
    }
}

#[actix_rt::test]
async fn garbage_from_the_manager_ends_only_its_link() {
    let deep = format!("42[\"/jobs\",{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    let texts = ["", "x", "42", "42[", "42[1]", "42{}", "43", "0", "451-[\"x\"]", &deep];
    let texts = texts.into_iter().map(|text| Message::Text(text.to_owned().into()));
    for garbage in texts.chain([Message::Binary(vec![0xff; 100].into())]) {
        let manager = StandIn::start("3.9-alpha0").await;
        let server = Server::before(&manager.url(), &[]).await;
        let mut browser = Browser::connect(&server.address()).await;
        server.until_relay("connected").await;
        manager.send(garbage).await;
        // What is no packet ends the link, what says nothing is passed over: either way the next update arrives.
        let is_relayed = async || {
            manager.emit("/jobs", &job(JOB, "active", 1)).await;
            server.stats().await["events"]["job-update"] != 0
        };
        until("an update to be relayed", is_relayed).await;
        browser.next_where("/jobs", |job| job["id"] == JOB).await;
        assert_eq!(server.stats().await["restarts"], 0);
    }
}

#[actix_rt::test]
async fn a_flood_is_bounded_and_arrives() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &["--outbox-bytes", "100000000", "--outbox-age", "60s"]).await;
    let mut browser = Browser::connect(&server.address()).await;
    let text = "x".repeat(2000);
    for number in 0..5000 {
        manager.emit("/message", &json!({"name": number.to_string(), "text": text})).await;
        // Reads meanwhile, as a browser does.
        if number % 100 == 99 {
            let name = (number - 50).to_string();
            browser.next_where("/message", |message| message["name"] == name).await;
        }
    }
    browser.next_where("/message", |message| message["name"] == "4999").await;
    assert!(server.rss() < 150 << 20, "{} MB", server.rss() >> 20);
}

#[actix_rt::test]
async fn megabytes_of_log_at_once_reach_clients_that_read() {
    let manager = StandIn::start("3.0-beta").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("tasklog", Some(JOB)).await;
    let log: String = (0..200_000).map(|number| format!("line {number} of a long log 🎬\n")).collect();
    assert!(log.len() > 5 << 20);
    manager.emit("/tasklog", &json!({"task_id": JOB, "log": log})).await;
    let mut received = String::new();
    while received.len() < log.len() {
        received.push_str(browser.next("/tasklog").await["log"].as_str().unwrap());
    }
    assert!(received == log);
    let more = json!({"task_id": JOB, "log": "and more\n"});
    manager.emit("/tasklog", &more).await;
    assert_eq!(browser.next("/tasklog").await, more);
}

#[actix_rt::test]
async fn a_manager_that_does_not_read_is_left_and_found_again() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.ping_timeout.set(1000);
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    manager.state.reads.set(false);
    browser.next_where("/status", |status| status["status"] == "unknown").await;
    let (answer, waited) = browser.try_subscribe("job", Some(JOB)).await;
    assert!(waited >= Duration::from_millis(990) && answer.contains("not confirmed"), "{answer:?} after {waited:?}");
    assert!(server.log().contains("no sign of life within the ping timeout"), "{}", server.log());
    manager.state.reads.set(true);
    server.until_relay("connected").await;
    until("its room to be asked for", async || manager.was_asked(&format!("subscribe job {JOB}")) > 0).await;
    assert_eq!(server.stats().await["sessions"]["total"], 1, "nobody was sent away");
}
