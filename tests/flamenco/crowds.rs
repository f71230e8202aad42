//! Browsers that ask for many rooms, while others want their own.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    browser::Browser,
    server::{Server, until},
    stand_in::{JOB, StandIn, TASK, job},
};

/// Subscriptions that the server has in flight at most.
const IN_FLIGHT: usize = 100;

/// Rooms of unknown jobs and tasks that are supplied in case they come into being.
const UNKNOWN: usize = 200;

/// Rooms of one browser, beside its default rooms.
pub(super) const ROOMS: usize = 998;

pub(super) fn uuid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Connects browsers and has each subscribe to as many rooms of its own, which do not exist. Returns them with their
/// acknowledgements.
pub(super) async fn crowd(server: &Server, browsers: usize, kind: &str) -> Vec<(Browser, Vec<String>)> {
    let attack = async |number: usize| {
        let mut browser = Browser::connect(&server.address()).await;
        let rooms = (0..ROOMS).map(|room| uuid(1_000_000 + number * ROOMS + room));
        let answers = browser.subscribe_all(kind, rooms).await;
        (browser, answers)
    };
    join_all((0..browsers).map(attack)).await
}

fn relayed(stats: &Value, state: &str) -> u64 {
    stats["relay"]["rooms"][state].as_u64().unwrap()
}

#[actix_rt::test]
async fn few_subscriptions_are_in_flight_and_those_that_fail_are_made_again() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().extend((0..500).map(|number| job(&uuid(number), "completed", 1)));
    let server = Server::before(&manager.url(), &[]).await;
    server.until_relay("connected").await;
    manager.state.acknowledges.set(false);
    let mut browser = Browser::connect(&server.address()).await;
    let answers = browser.subscribe_all("job", (0..500).map(uuid)).await;
    assert!(answers.iter().all(|answer| answer.contains("has not confirmed")), "{answers:?}");
    assert_eq!(manager.was_asked_like("subscribe job "), IN_FLIGHT);
    manager.state.acknowledges.set(true);
    // Those in flight fail after five seconds, the others follow, and then those again.
    let is_supplied = async || (0..500).all(|number| manager.was_asked(&format!("subscribe job {}", uuid(number))) > 0);
    until("all to be subscribed to", is_supplied).await;
    until("the failed ones to be repeated", async || manager.was_asked_like("subscribe job ") == 500 + IN_FLIGHT).await;
    until("all to be supplied", async || {
        browser.subscribe_all("job", (0..500).map(uuid)).await.iter().all(|answer| answer == "ok")
    })
    .await;
    let stats = server.stats().await;
    assert_eq!((relayed(&stats, "supplied"), relayed(&stats, "failed")), (500, 0), "{stats}");
    assert_eq!(server.stats().await["refused"]["subscription-failed"], IN_FLIGHT);
    assert!(server.log().matches("is not relayed: the Manager has not accepted").count() <= 3, "{}", server.log());
}

#[actix_rt::test]
async fn a_refused_subscription_is_said_and_its_page_loads_again_once_it_is_accepted() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(job(JOB, "active", 1));
    let server = Server::before(&manager.url(), &[]).await;
    server.until_relay("connected").await;
    manager.state.answer.set("no");
    let mut browser = Browser::connect(&server.address()).await;
    let mut other = Browser::connect(&server.address()).await;
    let (answer, _) = browser.try_subscribe("job", Some(JOB)).await;
    assert_eq!(answer, "the Manager has not accepted the subscription; it is tried again");
    until("it to be counted", async || relayed(&server.stats().await, "failed") == 1).await;
    assert_eq!(server.stats().await["refused"]["subscription-failed"], 1);
    assert!(server.metrics().await.contains("webupdates_relay_rooms{state=\"failed\"} 1\n"));
    assert!(server.log().contains(&format!("job-{JOB} is not relayed")), "{}", server.log());
    manager.state.answer.set("ok");
    let refresh = browser.next_where("/jobs", |job| job["refresh_tasks"] == true).await;
    assert_eq!((&refresh["id"], &refresh["status"]), (&json!(JOB), &json!("active")));
    browser.subscribe("job", Some(JOB)).await;
    // The pages of other jobs have nothing to load.
    let mark = json!({"type": "mark"});
    manager.emit("/lifecycle", &mark).await;
    let seen = other.all_until("/lifecycle", &mark).await;
    assert!(seen.iter().all(|(_, payload)| payload["refresh_tasks"] != true), "{seen:?}");
}

#[actix_rt::test]
async fn unknown_jobs_have_few_places_and_a_page_among_them_its_own() {
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(job(JOB, "active", 1));
    let server = Server::before(&manager.url(), &[]).await;
    server.until_relay("connected").await;
    let mut crowd = crowd(&server, 3, "job").await;
    let answers: Vec<_> = crowd.iter().flat_map(|(_, answers)| answers).collect();
    let accepted = answers.iter().filter(|answer| answer.as_str() == "ok").count();
    assert!(accepted <= UNKNOWN, "{accepted} are accepted");
    assert!(manager.was_asked_like("subscribe job ") <= UNKNOWN);
    let known = server.stats().await;
    assert_eq!(relayed(&known, "unknown"), 3 * ROOMS as u64, "{known}");
    // A known job does not compete with them, and an unknown one of a page takes the place of one of hundreds.
    let mut page = Browser::connect(&server.address()).await;
    assert!(page.subscribe("job", Some(JOB)).await < Duration::from_millis(900));
    assert!(page.subscribe("job", Some(TASK)).await < Duration::from_millis(900));
    // It comes into being: from the list of all jobs it is known.
    manager.emit("/jobs", &job(TASK, "queued", 1)).await;
    page.next_where("/jobs", |job| job["id"] == TASK).await;
    until("it to be known", async || relayed(&server.stats().await, "supplied") == 2).await;
    // So it is for one that had no place: its page loads what it missed.
    let (browser, answers) = &mut crowd[2];
    let refused = answers.iter().rposition(|answer| answer != "ok").unwrap();
    let id = uuid(1_000_000 + 2 * ROOMS + refused);
    manager.emit("/jobs", &job(&id, "queued", 1)).await;
    browser.next_where("/jobs", |job| job["id"] == *id && job["refresh_tasks"] == true).await;
    browser.subscribe("job", Some(&id)).await;
}

#[actix_rt::test]
async fn a_page_stays_live_among_thousands_of_logs_that_do_not_exist() {
    for version in ["3.9-alpha0", "3.0-beta"] {
        let manager = StandIn::start(version).await;
        manager.state.jobs.borrow_mut().push(job(JOB, "active", 1));
        manager.state.logs.borrow_mut().insert(TASK.to_owned(), b"before\n".to_vec());
        let server = Server::before(&manager.url(), &[]).await;
        server.until_relay("connected").await;
        let mut early = page(&server).await;
        let crowd = crowd(&server, 11, "tasklog").await;
        let mut during = page(&server).await;
        is_live(&manager, [&mut early, &mut during], 1).await;
        let answers: Vec<_> = crowd.iter().flat_map(|(_, answers)| answers).collect();
        assert!(answers.iter().filter(|answer| answer.as_str() == "ok").count() <= UNKNOWN);
        let lookups = manager.was_asked_like("GET /api/v3/tasks/00000000-");
        assert!(lookups <= 500, "{lookups} of {} rooms are looked up", answers.len());
        assert!(server.rss() < 100 << 20, "{} MB", server.rss() >> 20);
        drop(crowd);
        let mut after = page(&server).await;
        is_live(&manager, [&mut early, &mut after], 2).await;
        until("the rooms to be forgotten", async || relayed(&server.stats().await, "unknown") == 0).await;
    }
}

/// Opens the page of a job and of a task's log.
async fn page(server: &Server) -> Browser {
    let mut browser = Browser::connect(&server.address()).await;
    assert!(browser.subscribe("job", Some(JOB)).await < Duration::from_millis(900));
    assert!(browser.subscribe("tasklog", Some(TASK)).await < Duration::from_millis(900));
    browser
}

/// Has a task go on, and waits until the pages show it.
async fn is_live(manager: &StandIn, pages: [&mut Browser; 2], second: u32) {
    let line = format!("line {second}\n");
    if manager.state.version.borrow().starts_with("3.0") {
        manager.emit("/tasklog", &json!({"task_id": TASK, "log": line})).await;
    } else {
        manager.state.logs.borrow_mut().get_mut(TASK).unwrap().extend_from_slice(line.as_bytes());
    }
    let task = json!({
        "activity": line, "id": TASK, "job_id": JOB, "name": "t", "status": "active",
        "updated": format!("2026-11-23T21:40:{second:02}Z"),
    });
    manager.emit("/task", &task).await;
    for page in pages {
        assert_eq!(page.next_where("/task", |task| task["activity"] == line).await, task);
        page.next_where("/tasklog", |log| log["log"] == line).await;
    }
}
