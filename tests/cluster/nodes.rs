//! Healthy nodes: one order, each event once, on all of them.

use serde_json::{Value, json};

use super::{
    browser::Browser,
    nats::Nats,
    server::{Server, until},
};

/// Starts a node.
pub(super) async fn node(nats: &Nats, more: &[&str]) -> Server {
    Server::start(&[&["--nats", &nats.url()], more].concat()).await
}

/// Returns the `number`th event, with an id.
pub(super) fn event(number: usize) -> Value {
    // Of different publishers, whose order is the hardest to keep.
    match number % 2 {
        0 => json!({"id": format!("é-{number}"), "type": "farm-status", "payload": {"status": "active", "n": number}}),
        _ => {
            json!({"id": format!("é-{number}"), "type": "life-cycle", "payload": {"type": "manager-startup", "n": number}})
        }
    }
}

/// Posts events in one request. Returns the status.
pub(super) async fn post(server: &Server, events: &[Value]) -> u16 {
    let url = format!("{}/api/events", server.manager_url);
    let client = awc::Client::builder().timeout(std::time::Duration::from_secs(30)).finish();
    client.post(url).send_json(&events).await.unwrap().status().as_u16()
}

/// Posts until the events are accepted.
pub(super) async fn post_patiently(server: &Server, events: &[Value]) {
    until("the events to be accepted", async || match post(server, events).await {
        200 => true,
        503 => false,
        status => panic!("status {status}"),
    })
    .await;
}

/// Returns the numbers of the events that came before the one with the number `end`.
pub(super) async fn numbers_until(browser: &mut Browser, end: usize) -> Vec<u64> {
    let (name, payload) = match end % 2 {
        0 => ("/status", &event(end)["payload"]),
        _ => ("/lifecycle", &event(end)["payload"]),
    };
    let events = browser.all_until(name, payload).await;
    events.into_iter().filter_map(|(_, payload)| payload["n"].as_u64()).collect()
}

#[actix_rt::test]
async fn every_node_delivers_each_event_once_and_in_one_order() {
    let Some(nats) = Nats::start().await else { return };
    let nodes = [node(&nats, &[]).await, node(&nats, &[]).await, node(&nats, &[]).await];
    let mut browsers = Vec::new();
    for node in &nodes {
        browsers.push(Browser::connect(&node.address()).await);
    }
    // A Manager posts everything twice, to different nodes, in overlapping batches.
    let send = async |node: &Server, batch: usize, shift: usize| {
        for first in (0..300).step_by(batch) {
            let from = (first + shift).min(300);
            let events: Vec<_> = (from..(from + batch).min(300)).map(event).collect();
            if !events.is_empty() {
                post_patiently(node, &events).await;
            }
        }
    };
    futures_util::future::join(send(&nodes[0], 30, 0), send(&nodes[1], 7, 0)).await;
    assert_eq!(post(&nodes[2], &[event(1000)]).await, 200);
    let mut orders = Vec::new();
    for browser in &mut browsers {
        orders.push(numbers_until(browser, 1000).await);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
    assert_eq!(orders[0], (0..300).collect::<Vec<_>>());
    let mut repeated = 0;
    for node in &nodes {
        repeated += node.stats().await["refused"]["repeated"].as_u64().unwrap();
    }
    assert_eq!(repeated, 300);
    assert!(nodes[0].health().await.ends_with("nats: connected\n"));
    assert!(nodes[1].metrics().await.contains("webupdates_backplane_offset 301\n"));
}

#[actix_rt::test]
async fn long_requests_and_large_events_arrive_whole() {
    let Some(nats) = Nats::start().await else { return };
    let nodes = [node(&nats, &[]).await, node(&nats, &[]).await];
    let mut browser = Browser::connect(&nodes[1].address()).await;
    let events: Vec<_> = (0..2500).map(event).collect();
    assert_eq!(post(&nodes[0], &events).await, 200);
    let mut large = event(2500);
    large["payload"]["x"] = "x".repeat(900_000).into();
    assert_eq!(post(&nodes[0], &[large.clone()]).await, 200);
    let mut numbers: Vec<_> = Vec::new();
    numbers
        .extend(browser.all_until("/status", &large["payload"]).await.into_iter().filter_map(|(_, p)| p["n"].as_u64()));
    assert_eq!(numbers, (0..2500).collect::<Vec<_>>());
    // More than NATS takes is refused by name, and nothing of the request is published.
    large["payload"]["x"] = "x".repeat(1_100_000).into();
    large["id"] = "larger".into();
    assert_eq!(post(&nodes[0], &[event(3001), large]).await, 413);
    assert_eq!(post(&nodes[0], &[event(3002)]).await, 200);
    assert_eq!(numbers_until(&mut browser, 3002).await, Vec::<u64>::new());
}

#[actix_rt::test]
async fn chat_crosses_nodes() {
    let Some(nats) = Nats::start().await else { return };
    let nodes = [node(&nats, &[]).await, node(&nats, &[]).await];
    let mut one = Browser::connect(&nodes[0].address()).await;
    let mut other = Browser::connect(&nodes[1].address()).await;
    assert_eq!(one.chat("Zoë", "hello 🎬").await, "message sent successfully.");
    for browser in [&mut one, &mut other] {
        assert_eq!(browser.next("/message").await, json!({"name": "Zoë", "text": "hello 🎬"}));
    }
}

#[actix_rt::test]
async fn a_node_that_starts_later_knows_the_state() {
    let Some(nats) = Nats::start().await else { return };
    let first = node(&nats, &[]).await;
    let job = json!({"id": "j", "type": "job-update", "payload": {"id": "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21",
        "name": "one", "priority": 50, "refresh_tasks": false, "status": "active", "type": "t", "updated": "2026-11-23T21:40:01Z"}});
    assert_eq!(post(&first, std::slice::from_ref(&job)).await, 200);
    drop(first);
    let second = node(&nats, &[]).await;
    assert_eq!(second.stats().await["state_entities"], 1);
    // An id is also known to a node that was not there when it was accepted.
    assert_eq!(post(&second, &[job]).await, 200);
    assert_eq!(second.stats().await["refused"]["repeated"], 1);
}
