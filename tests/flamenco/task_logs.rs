//! Live task logs, from Managers that send them and from those that do not.

use std::time::Duration;

use serde_json::json;

use super::{
    browser::Browser,
    server::{Server, until},
    stand_in::{StandIn, TASK},
};

fn write(manager: &StandIn, text: &str) {
    manager.state.logs.borrow_mut().entry(TASK.to_owned()).or_default().extend_from_slice(text.as_bytes());
}

/// Returns the text of all events of the log until it ends with this.
async fn log_until(browser: &mut Browser, end: &str) -> String {
    let mut log = String::new();
    while !log.ends_with(end) {
        let chunk = browser.next("/tasklog").await;
        assert_eq!(chunk["task_id"], TASK);
        let chunk = chunk["log"].as_str().unwrap();
        assert!(chunk.len() <= 64 * 1024);
        log.push_str(chunk);
    }
    log
}

#[actix_rt::test]
async fn a_log_is_followed_from_its_end_at_the_subscription() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    write(&manager, "old 1\nold 2\n");
    let mut browser = Browser::connect(&server.address()).await;
    let waited = browser.subscribe("tasklog", Some(TASK)).await;
    assert!(waited < Duration::from_millis(900), "{waited:?}");
    assert_eq!(manager.was_asked(&format!("subscribe tasklog {TASK}")), 0);
    write(&manager, "new 1\nnew ");
    assert_eq!(log_until(&mut browser, "new 1\n").await, "new 1\n");
    let long: String = (0..50_000).map(|number| format!("{number} 🎬\n")).collect();
    write(&manager, &format!("2\n{long}end\n"));
    assert_eq!(log_until(&mut browser, "end\n").await, format!("new 2\n{long}end\n"));
    // The task is done again.
    manager.state.logs.borrow_mut().insert(TASK.to_owned(), b"another log\n".to_vec());
    assert_eq!(log_until(&mut browser, "log\n").await, "another log\n");
    manager.stop().await;
    write(&manager, "while it was away\n");
    manager.start_again().await;
    assert_eq!(log_until(&mut browser, "away\n").await, "while it was away\n");
}

#[actix_rt::test]
async fn a_log_that_does_not_exist_yet_is_published_whole() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("tasklog", Some(TASK)).await;
    write(&manager, "first\n");
    assert_eq!(log_until(&mut browser, "first\n").await, "first\n");
}

#[actix_rt::test]
async fn a_task_that_goes_on_has_its_log_looked_at_at_once() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("tasklog", Some(TASK)).await;
    let looks = || manager.was_asked(&format!("GET /api/v3/tasks/{TASK}/log"));
    let (before, mut updates) = (looks(), 0);
    let task = |second: u32| json!({"activity": "", "id": TASK, "job_id": TASK, "name": "t", "status": "active", "updated": format!("2026-11-23T21:40:{second:02}Z")});
    until("more looks than one a second", async || {
        updates += 1;
        manager.emit("/task", &task(updates % 60)).await;
        looks() >= before + 3
    })
    .await;
    assert!(updates < 100, "{updates}");
}

#[actix_rt::test]
async fn a_log_without_subscribers_is_not_read() {
    let manager = StandIn::start("3.9-alpha0").await;
    let server = Server::before(&manager.url(), &[]).await;
    write(&manager, "old\n");
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("tasklog", Some(TASK)).await;
    browser.unsubscribe("tasklog", Some(TASK)).await;
    let looks = || manager.was_asked(&format!("GET /logs/{TASK}"));
    until("the last look", async || {
        let before = looks();
        actix_rt::time::sleep(Duration::from_millis(2500)).await;
        looks() == before
    })
    .await;
}

#[actix_rt::test]
async fn an_older_manager_sends_them() {
    let manager = StandIn::start("3.4").await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    browser.subscribe("tasklog", Some(TASK)).await;
    assert_eq!(manager.was_asked(&format!("subscribe tasklog {TASK}")), 1);
    manager.emit("/tasklog", &json!({"task_id": TASK, "log": "sent\n"})).await;
    assert_eq!(log_until(&mut browser, "sent\n").await, "sent\n");
}

#[actix_rt::test]
async fn how_can_be_chosen() {
    let manager = StandIn::start("3.9-alpha0").await;
    for (how, subscriptions) in [("subscribe", 1), ("off", 1), ("follow", 1)] {
        let server = Server::before(&manager.url(), &["--task-logs", how]).await;
        let mut browser = Browser::connect(&server.address()).await;
        assert!(browser.subscribe("tasklog", Some(TASK)).await < Duration::from_millis(900), "{how}");
        assert_eq!(manager.was_asked(&format!("subscribe tasklog {TASK}")), subscriptions, "{how}");
    }
    assert!(manager.was_asked(&format!("GET /api/v3/tasks/{TASK}/log")) > 0);
}
