//! The relay and MQTT run on one node at a time.

use async_nats::jetstream::kv::Operation;
use flamenco_webupdates::client::ConnectionEnd;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    broker::Broker,
    browser::Browser,
    nats::Nats,
    nodes::node,
    server::{Server, until},
    stand_in::{JOB, StandIn, TASK, job},
};

const OTHER: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c22";

/// Longer than a test that pauses a node takes on a busy machine.
const GRACE: [&str; 2] = ["--backplane-grace", "120s"];

/// Starts two nodes in front of a Manager. The first one runs the relay.
async fn two_nodes(nats: &Nats, manager: &StandIn) -> [Server; 2] {
    let url = manager.url();
    let options = [&["--manager", &url], &GRACE[..]].concat();
    let first = node(nats, &options).await;
    first.until_relay("connected").await;
    let second = node(nats, &options).await;
    second.until_relay("standby").await;
    [first, second]
}

/// Returns the events that came before one that the Manager sends now.
async fn rest(manager: &StandIn, browser: &mut Browser, mark: &str) -> Vec<(String, Value)> {
    let mark = json!({"type": mark});
    manager.emit("/lifecycle", &mark).await;
    browser.all_until("/lifecycle", &mark).await
}

/// Returns the names of the jobs in these events, which are all updates of jobs.
fn names(events: &[(String, Value)]) -> Vec<&str> {
    assert!(events.iter().all(|(name, _)| name == "/jobs"), "{events:?}");
    events.iter().map(|(_, job)| job["name"].as_str().unwrap_or_default()).collect()
}

fn named(id: &str, name: &str, updated: u32) -> Value {
    let mut job = job(id, "queued", updated);
    job["name"] = name.into();
    job
}

#[actix_rt::test]
async fn a_manager_sees_one_client_of_all_nodes() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(named(JOB, "one", 1));
    let nodes = two_nodes(&nats, &manager).await;
    assert_eq!(manager.was_asked("subscribe allJobs"), 1);
    let mut browsers = [Browser::connect(&nodes[0].address()).await, Browser::connect(&nodes[1].address()).await];
    manager.emit("/jobs", &named(JOB, "two", 2)).await;
    for (number, browser) in browsers.iter_mut().enumerate() {
        let mark = format!("mark-{number}");
        let events = rest(&manager, browser, &mark).await;
        assert_eq!(names(&events.into_iter().filter(|(name, _)| name == "/jobs").collect::<Vec<_>>()), ["two"]);
    }
    assert!(nodes[0].metrics().await.contains("webupdates_backplane_leader{source=\"relay\"} 1\n"));
    assert!(nodes[1].metrics().await.contains("webupdates_backplane_leader{source=\"relay\"} 0\n"));
    assert!(nodes[1].health().await.contains("manager: standby\n"));
    // What the proxy passes on needs no leader.
    let metrics = nodes[0].metrics().await;
    for file in ["alerts.yml", "grafana-dashboard.json"] {
        let text = std::fs::read_to_string(format!("{}/contrib/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let named = text.split(|char| !is_part(char)).filter(|word| word.starts_with("webupdates_backplane_"));
        let missing: Vec<_> = named.filter(|name| !metrics.contains(name)).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
    let url = format!("{}/api/v3/version", nodes[1].browsers_url);
    assert_eq!(awc::Client::new().get(url).send().await.unwrap().status(), 200);
}

#[actix_rt::test]
async fn another_node_takes_over_from_a_killed_one_and_repeats_nothing() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![named(JOB, "one", 1), named(OTHER, "other", 1)];
    let [first, second] = two_nodes(&nats, &manager).await;
    let mut browser = Browser::connect(&second.address()).await;
    manager.emit("/jobs", &named(JOB, "two", 2)).await;
    browser.next_where("/jobs", |job| job["name"] == "two").await;
    drop(first);
    // A change that no node hears of.
    *manager.state.jobs.borrow_mut() = vec![named(JOB, "two", 2), named(OTHER, "changed", 2)];
    second.until_relay("connected").await;
    assert_eq!(names(&rest(&manager, &mut browser, "mark").await), ["changed"]);
    assert_eq!(manager.was_asked("subscribe allJobs"), 2);
}

#[actix_rt::test]
async fn a_node_that_was_paused_beyond_its_lock_repeats_nothing() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(named(JOB, "one", 1));
    let [first, second] = two_nodes(&nats, &manager).await;
    let mut browsers = [Browser::connect(&first.address()).await, Browser::connect(&second.address()).await];
    first.signal(Signal::STOP);
    second.until_relay("connected").await;
    // Both have a connection now; what the paused node gets waits in its socket.
    for number in 2..20 {
        manager.emit("/jobs", &named(JOB, &number.to_string(), number)).await;
    }
    until("the new leader to publish", async || second.stats().await["sources"]["relay"]["events"] == 18).await;
    first.signal(Signal::CONT);
    first.until_relay("standby").await;
    let expected: Vec<_> = (2..20).map(|number| number.to_string()).collect();
    let mark = json!({"type": "mark"});
    manager.emit("/lifecycle", &mark).await;
    for browser in &mut browsers {
        assert_eq!(names(&browser.all_until("/lifecycle", &mark).await), expected);
    }
    assert_eq!(second.stats().await["sources"]["relay"]["state"], "connected");
}

#[actix_rt::test]
async fn what_a_node_publishes_behind_a_newer_fence_is_refused() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    let node = node(&nats, &[&["--manager", &manager.url()], &GRACE[..]].concat()).await;
    node.until_relay("connected").await;
    let mut browser = Browser::connect(&node.address()).await;
    let stream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let fence = "webupdates.events.leader-relay";
    stream.publish(fence, "{}".into()).await.unwrap().await.unwrap();
    manager.emit("/jobs", &named(JOB, "refused", 1)).await;
    manager.state.jobs.borrow_mut().push(named(JOB, "listed", 2));
    // It gives up, leads anew, and publishes what it lacks.
    browser.next_where("/jobs", |job| job["name"] == "listed").await;
    node.logged("another node took over", 1).await;
    assert!(node.metrics().await.contains("webupdates_backplane_fenced_total 1\n"));
    node.until_relay("connected").await;
    // A fence that the stream removed is raised again, and the event is not lost.
    let info = stream.get_stream("webupdates").await.unwrap();
    info.purge().await.unwrap();
    manager.emit("/jobs", &named(JOB, "after", 3)).await;
    browser.next_where("/jobs", |job| job["name"] == "after").await;
    assert_eq!(names(&rest(&manager, &mut browser, "mark").await), Vec::<&str>::new());
    assert!(node.metrics().await.contains("webupdates_backplane_fenced_total 2\n"));
    assert_eq!(manager.was_asked("subscribe allJobs"), 2);
}

#[actix_rt::test]
async fn a_node_that_stops_hands_over_at_once() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(named(JOB, "one", 1));
    let [mut first, second] = two_nodes(&nats, &manager).await;
    let mut browser = Browser::connect(&second.address()).await;
    first.signal(Signal::TERM);
    assert!(first.ended().await.success());
    first.logged("this node gives up the source relay", 1).await;
    second.until_relay("connected").await;
    assert_eq!(names(&rest(&manager, &mut browser, "mark").await), Vec::<&str>::new());
    // The last one releases the lock too.
    let mut second = second;
    second.signal(Signal::TERM);
    assert!(second.ended().await.success());
    let stream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let bucket = stream.get_key_value("webupdates-cluster").await.unwrap();
    let lock = bucket.entry("lock.relay").await.unwrap();
    assert!(lock.is_none_or(|lock| lock.operation == Operation::Delete));
}

#[actix_rt::test]
async fn events_of_mqtt_come_once_from_all_nodes() {
    const MESSAGES: u32 = 3000;
    let Some(nats) = Nats::start().await else { return };
    let Some(broker) = Broker::start("").await else { return };
    let url = broker.url();
    let options = [&["--mqtt", &url], &GRACE[..]].concat();
    let state = async |node: &Server| node.stats().await["sources"]["mqtt"]["state"].clone();
    let first = node(&nats, &options).await;
    until("the first node to be connected", async || state(&first).await == "connected").await;
    let second = node(&nats, &options).await;
    assert_eq!(state(&second).await, "standby");
    let mut browser = Browser::connect(&second.address()).await;
    let messages =
        |from: u32, to: u32| (from..to).map(|number| ("jobs".to_owned(), named(JOB, &number.to_string(), 1)));
    broker.publish(messages(0, MESSAGES)).await;
    // The connection is killed while messages are on their way.
    browser.next_where("/jobs", |job| job["name"] == "0").await;
    drop(first);
    broker.publish(messages(MESSAGES, MESSAGES + 1)).await;
    let expected: Vec<_> = (1..MESSAGES).map(|number| number.to_string()).collect();
    let end = named(JOB, &MESSAGES.to_string(), 1);
    let seen = browser.all_until("/jobs", &end).await;
    let seen: Vec<_> = names(&seen).into_iter().map(str::to_owned).collect();
    assert_eq!(seen, expected);
    assert_eq!(state(&second).await, "connected");
    assert_eq!(second.stats().await["mqtt"]["connections"], 1);
}

/// Subscribes until the Manager has confirmed it, which a busy machine may not do in time.
async fn subscribe(browser: &mut Browser, kind: &str, uuid: &str) {
    while browser.try_subscribe(kind, Some(uuid)).await.0 != "ok" {}
}

/// Returns how often the Manager was asked for a room.
fn asked_for(manager: &StandIn, op: &str) -> usize {
    manager.was_asked(&format!("{op} job {JOB}"))
}

#[actix_rt::test]
async fn rooms_of_all_nodes_are_followed() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    *manager.state.jobs.borrow_mut() = vec![named(JOB, "one", 1), named(OTHER, "other", 1)];
    let [first, second] = two_nodes(&nats, &manager).await;
    let mut browsers = [Browser::connect(&first.address()).await, Browser::connect(&second.address()).await];
    let task = |name: &str| json!({"activity": "", "id": JOB, "job_id": JOB, "name": name, "status": "active", "updated": "2026-11-23T21:40:01Z"});
    // Only a browser of the other node is in the room: its answer waits for the Manager's.
    subscribe(&mut browsers[1], "job", JOB).await;
    assert_eq!(asked_for(&manager, "subscribe"), 1);
    manager.emit("/task", &task("a")).await;
    assert_eq!(browsers[1].next("/task").await["name"], "a");
    // The leader follows it already.
    subscribe(&mut browsers[0], "job", JOB).await;
    browsers[1].unsubscribe("job", Some(JOB)).await;
    subscribe(&mut browsers[1], "job", JOB).await;
    assert_eq!(asked_for(&manager, "subscribe"), 1);
    // A room that nobody of any node is in any more is left.
    browsers[0].unsubscribe("job", Some(JOB)).await;
    drop(browsers);
    until("the room to be left", async || asked_for(&manager, "unsubscribe") == 1).await;
    // What a killed leader followed is followed by the next one.
    let mut browser = Browser::connect(&second.address()).await;
    subscribe(&mut browser, "job", JOB).await;
    assert_eq!(asked_for(&manager, "subscribe"), 2);
    drop(first);
    second.until_relay("connected").await;
    until("the room to be followed again", async || asked_for(&manager, "subscribe") == 3).await;
    manager.emit("/task", &task("b")).await;
    assert_eq!(browser.next("/task").await["name"], "b");
}

#[actix_rt::test]
async fn a_room_of_a_node_that_is_gone_is_left() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    manager.state.jobs.borrow_mut().push(named(JOB, "one", 1));
    let [_first, second] = two_nodes(&nats, &manager).await;
    let mut browser = Browser::connect(&second.address()).await;
    subscribe(&mut browser, "job", JOB).await;
    drop(second);
    until("the room to be left", async || asked_for(&manager, "unsubscribe") == 1).await;
}

/// Adds to a task's log.
fn write(manager: &StandIn, task: &str, text: &str) {
    manager.state.logs.borrow_mut().entry(task.to_owned()).or_default().extend_from_slice(text.as_bytes());
}

/// Returns what comes of a task's log until a chunk ends like this.
async fn log_until(browser: &mut Browser, task: &str, end: &str) -> String {
    let mut log = String::new();
    while !log.ends_with(end) {
        log += browser.next_where("/tasklog", |chunk| chunk["task_id"] == task).await["log"].as_str().unwrap();
    }
    log
}

#[actix_rt::test]
async fn no_line_of_a_log_is_lost_or_repeated_when_another_node_takes_over() {
    const QUIET: &str = "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c01";
    const REPLACED: &str = "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c02";
    const LEFT: &str = "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c03";
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.9-alpha0").await;
    let [first, second] = two_nodes(&nats, &manager).await;
    let mut browser = Browser::connect(&second.address()).await;
    for task in [TASK, QUIET, REPLACED, LEFT] {
        write(&manager, task, "before\n");
        subscribe(&mut browser, "tasklog", task).await;
    }
    for (task, text) in [(LEFT, "a line\n"), (REPLACED, "a line\n"), (TASK, "a line\nhalf")] {
        write(&manager, task, text);
        assert_eq!(log_until(&mut browser, task, "\n").await, "a line\n");
    }
    browser.unsubscribe("tasklog", Some(LEFT)).await;
    drop(first);
    write(&manager, TASK, " of a line\nanother one\n");
    write(&manager, QUIET, "the first line\n");
    manager.state.logs.borrow_mut().insert(REPLACED.to_owned(), b"a log that is longer than the one before\n".to_vec());
    write(&manager, LEFT, " that nobody gets\n");
    second.until_relay("connected").await;
    for (task, expected) in [
        (TASK, "half of a line\nanother one\nend\n"),
        (QUIET, "the first line\nend\n"),
        (REPLACED, "a log that is longer than the one before\nend\n"),
        (LEFT, "end\n"),
    ] {
        // A page that comes fetches the log so far by itself.
        subscribe(&mut browser, "tasklog", task).await;
        write(&manager, task, "end\n");
        assert_eq!(log_until(&mut browser, task, "end\n").await, expected);
    }
    let events = rest(&manager, &mut browser, "mark").await;
    assert!(events.iter().all(|(name, _)| name != "/tasklog"), "{events:?}");
}

#[actix_rt::test]
async fn another_version_of_the_manager_has_the_pages_of_all_nodes_load_themselves_anew() {
    let Some(nats) = Nats::start().await else { return };
    let manager = StandIn::start("3.8").await;
    let [mut first, second] = two_nodes(&nats, &manager).await;
    let mut browsers = [Browser::connect(&first.address()).await, Browser::connect(&second.address()).await];
    manager.state.version.replace("3.9".to_owned());
    manager.break_links();
    for browser in &mut browsers {
        assert_eq!(browser.end().await, ConnectionEnd::Closed("1012".to_owned()));
    }
    // Another node leads when it is updated again.
    let mut browser = Browser::connect(&second.address()).await;
    manager.state.version.replace("3.10".to_owned());
    first.signal(Signal::TERM);
    assert_eq!(browser.end().await, ConnectionEnd::Closed("1012".to_owned()));
    assert!(first.ended().await.success());
    // Neither a node that starts now nor one that takes over closes anybody.
    let third = node(&nats, &[&["--manager", &manager.url()], &GRACE[..]].concat()).await;
    let mut browser = Browser::connect(&third.address()).await;
    let mut second = second;
    second.signal(Signal::TERM);
    assert!(second.ended().await.success());
    third.until_relay("connected").await;
    rest(&manager, &mut browser, "mark").await;
}

#[actix_rt::test]
async fn a_name_belongs_to_one_node() {
    let Some(nats) = Nats::start().await else { return };
    let mut first = node(&nats, &["--node-name", "farm-1"]).await;
    let second = node(&nats, &["--node-name", "farm-2"]).await;
    let mut browser = Browser::connect(&second.address()).await;
    assert_eq!(browser.chat("a", "b").await, "message sent successfully.");
    assert_eq!(second.health().await, "ok\nnode: farm-2\nnats: connected\n");
    let output = super::server::run(&["--nats", &nats.url(), "--node-name", "farm-1"]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("error: another node is named farm-1: give each node a --node-name of its own\n"), "{said}");
    let cluster = async || {
        let url = format!("{}/api/stats?cluster=true", second.manager_url);
        let body = awc::Client::new().get(url).send().await.unwrap().body().await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["cluster"].clone()
    };
    until("both nodes to be listed", async || {
        let cluster = cluster().await;
        let names: Vec<_> = cluster["nodes"].as_array().unwrap().iter().map(|node| node["name"].clone()).collect();
        names == ["farm-1", "farm-2"]
            && cluster["sessions"] == json!({"total": 1, "websocket": 1, "polling": 0})
            && cluster["nodes"][1]["offset"] == 1
    })
    .await;
    // One that stops gives its name up; one that is killed loses it.
    first.signal(Signal::TERM);
    assert!(first.ended().await.success());
    until("the node to be gone", async || cluster().await["nodes"].as_array().unwrap().len() == 1).await;
    drop(node(&nats, &["--node-name", "farm-1"]).await);
    let again = node(&nats, &["--node-name", "farm-1"]).await;
    assert!(again.health().await.contains("node: farm-1\n"));
}
