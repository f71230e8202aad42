//! Clients that go on where they ended, and clients that begin with the state, while events are published.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    browser::{Browser, Incoming},
    events::{self, InOrder},
    eventually, run,
    server::Server,
    sized,
};

const BATCH: u64 = 10;

/// Nobody is too slow on a busy machine, and nothing takes the place of anything else.
const PATIENT: [&str; 6] = ["--outbox-lag", "60s", "--outbox-age", "60s", "--outbox-bytes", "100000000"];

#[test]
fn clients_that_resume_miss_and_repeat_nothing_even_if_the_registry_fails() {
    let (clients, plain, total, panics) = sized((30, 30, 3000, 5), (300, 300, 10_000, 9));
    run(Duration::from_secs(300), || async move {
        let server = Server::start(&PATIENT);
        let ready = Arc::new(Barrier::new(clients + plain + 1));
        let mut all = JoinSet::new();
        for seed in 0..clients {
            all.spawn(come_and_go(server.browsers, ready.clone(), Rng::with_seed(seed as u64), total));
        }
        for _ in 0..plain {
            all.spawn(stay(server.browsers, ready.clone(), total));
        }
        ready.wait().await;
        let (manager, published) = (server.manager().await, Arc::new(AtomicU64::new(0)));
        let publishing = tokio::spawn(publish(manager, published.clone(), total));
        for failure in 1..=panics {
            let from = total * failure / (panics + 2);
            eventually("it to go on", Duration::from_secs(60), || async { published.load(Ordering::Acquire) >= from })
                .await;
            let after = failure * 7;
            // On a busy machine more than the idle time of a connection may have passed.
            let mut faults = server.manager().await;
            faults
                .arm(&format!(
                    r#"{{"actor":"room-registry","when":"mid-fan-out","kind":"job-update","after":{after}}}"#
                ))
                .await;
            let failed = || async { server.stats().await["restarts"] == failure };
            eventually("the registry fails", Duration::from_secs(20), failed).await;
        }
        publishing.await.unwrap();
        let connections: u64 = all.join_all().await.into_iter().sum();
        let stats = server.stats().await;
        println!("{clients} clients got {total} events over {connections} connections; {}", stats["resumes"]);
        assert!(connections > 4 * clients as u64, "they came and went {connections} times");
        assert_eq!(stats["poisoned"], 0);
        assert!(stats["replayed_events"].as_u64().unwrap() > total, "{}", stats["replayed_events"]);
        for reason in ["epoch", "too-old", "too-many", "not-followed", "invalid"] {
            assert_eq!(stats["resumes"][reason], 0, "{reason}");
        }
    });
}

async fn publish(mut manager: crate::support::http::Connection, published: Arc<AtomicU64>, total: u64) {
    for first in (1..=total).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(total + 1);
        published.store(numbers.end, Ordering::Release);
        manager.publish(&events::batch(numbers, events::job)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes all numbered events over many connections, each of which it cuts at any point: before it asks, before
/// the answer, or later. Returns the number of connections.
async fn come_and_go(address: SocketAddr, ready: Arc<Barrier>, mut rng: Rng, total: u64) -> u64 {
    let (mut seen, mut token, mut connections) = (InOrder::default(), Value::Null, 0);
    while seen.last() < total {
        connections += 1;
        let mut browser = Browser::resuming(address).await;
        if connections > 1 && rng.u8(..10) == 0 {
            browser.reset();
            continue;
        }
        let request = json!(["/resume", {"token": token, "rooms": ["Jobs"]}]);
        browser.send(&format!("420{request}")).await;
        // The first connection lasts until its answer, where it begins.
        let mut left = if connections == 1 { 1 } else { rng.u64(0..200) };
        while left > 0 && seen.last() < total {
            left -= 1;
            let Incoming::Text(text) = browser.next().await else { panic!("it ended after {seen:?}") };
            if let Some(answer) = text.strip_prefix("430") {
                let [answer]: [Value; 1] = serde_json::from_str(answer).unwrap();
                assert_eq!(answer["recovered"], connections > 1, "{answer}");
                token = answer["token"].clone();
            } else {
                let [_, _, new]: [Value; 3] = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
                seen.took(events::number(text, "/jobs").unwrap());
                assert_ne!(new, token);
                token = new;
            }
        }
        if rng.bool() {
            browser.reset();
        }
        if connections == 1 {
            ready.wait().await;
        }
    }
    assert_eq!(seen.first(), Some(1));
    connections
}

/// A client that does not resume gets what it always got.
async fn stay(address: SocketAddr, ready: Arc<Barrier>, total: u64) -> u64 {
    let mut browser = Browser::connect(address).await;
    ready.wait().await;
    let mut seen = InOrder::default();
    while seen.last() < total {
        let Incoming::Text(text) = browser.next().await else { panic!("it ended after {seen:?}") };
        seen.took(events::number(text, "/jobs").unwrap());
        assert!(text.ends_with("}]"), "no further argument: {text}");
    }
    1
}

const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

fn task(number: u64) -> String {
    let payload = json!({
        "id": "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c99", "job_id": JOB, "name": "t", "status": "active",
        "activity": number.to_string(), "updated": "2026-11-23T21:40:44Z",
    });
    json!({"type": "task-update", "payload": payload}).to_string()
}

#[test]
fn live_events_follow_the_state_without_a_gap() {
    let rounds = sized(60, 1000);
    run(Duration::from_secs(120), || async move {
        let server = Server::start(&PATIENT);
        let mut manager = server.manager().await;
        manager.publish(&task(1)).await;
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let publishing = tokio::spawn(async move {
            let mut number = 2;
            while !is_done.load(Ordering::Acquire) {
                manager.publish(&events::batch(number..number + BATCH, task)).await;
                number += BATCH;
            }
            number
        });
        let room = json!({"op": "subscribe", "type": "job", "uuid": JOB, "state": true});
        let mut states = Vec::new();
        for round in 0..rounds {
            let mut browser = if round % 2 == 0 {
                let mut browser = Browser::connect(server.browsers).await;
                browser.send(&format!("420{}", json!(["/subscription", room]))).await;
                browser
            } else {
                let mut browser = Browser::resuming(server.browsers).await;
                let request = json!({"token": null, "rooms": [format!("job-{JOB}")], "state": true});
                browser.send(&format!("420{}", json!(["/resume", request]))).await;
                browser
            };
            let (mut seen, mut is_answered) = (InOrder::default(), false);
            while !is_answered || seen.first().is_none_or(|first| seen.last() < first + 3 * BATCH) {
                let Incoming::Text(text) = browser.next().await else { panic!("it ended after {seen:?}") };
                if text.starts_with("430") {
                    is_answered = true;
                    assert!(seen.first().is_some(), "the state comes before the answer");
                    continue;
                }
                let arguments: Vec<Value> = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
                let is_state = arguments.last() == Some(&json!({"state": true}));
                assert_eq!(is_state, seen.first().is_none(), "one state, and it comes first: {text}");
                seen.took(arguments[1]["activity"].as_str().unwrap().parse().unwrap());
            }
            states.extend(seen.first());
        }
        done.store(true, Ordering::Release);
        let last = publishing.await.unwrap();
        states.dedup();
        println!("{rounds} clients joined at {} states, among {last} events", states.len());
        assert!(states.len() > 10, "events are published meanwhile: {states:?}");
    });
}
