//! The Manager goes away and comes back.

use std::time::Duration;

use flamenco_webupdates::client::Disconnect;
use serde_json::{Value, json};

use super::{
    browser::Browser,
    server::{Server, until},
    stand_in::{JOB, StandIn, TASK, job},
};

const OTHER: &str = "11111111-7c3f-4f0f-9a53-2f6d1b7f6c21";

fn worker(status: &str) -> Value {
    json!({"id": TASK, "name": "w", "status": status, "version": "3.9", "last_seen": "2026-11-23T21:40:44.013Z"})
}

#[actix_rt::test]
async fn browsers_stay_and_are_told_only_what_changed() {
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
        let told = browser.all_until("/lifecycle", &mark).await;
        let shown: Vec<_> = told
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
        assert_eq!(told[0].1["refresh_tasks"], true);
        assert_eq!(told[1].1["id"], OTHER);
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
async fn without_a_manager_browsers_may_come_and_are_told_when_it_is_there() {
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![job(JOB, "active", 1)];
    manager.stop().await;
    let server = Server::before(&manager.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    assert_eq!(server.stats().await["sources"]["relay"]["state"], "away");
    let health = awc::Client::new().get(format!("{}/healthz", server.browsers)).send().await.unwrap().body().await;
    assert_eq!(health.unwrap(), "ok\nmanager: away\n");
    manager.start_again().await;
    assert_eq!(browser.next("/jobs").await["id"], JOB);
    assert_eq!(browser.next("/status").await["status"], "idle");
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
        assert_eq!(browser.end().await, Disconnect::Closed("1012".to_owned()), "a transport that closes, no packet 41");
    }
    until("them to be counted", async || server.stats().await["disconnects"]["manager-changed"] == 10).await;
}
