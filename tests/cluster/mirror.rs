//! Several nodes publish to one broker.

use flamenco_webupdates::client::mqtt::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    broker::{Broker, messages},
    nats::Nats,
    nodes::{node, post_patiently},
    server::{Server, until},
};

fn status(number: u64) -> Value {
    json!({"status": "active", "n": number})
}

/// Posts statuses with these numbers, to the nodes in turn.
async fn post(nodes: &[&Server], numbers: std::ops::Range<u64>) {
    for (number, node) in numbers.zip(nodes.iter().cycle()) {
        let event = json!({"type": "farm-status", "id": number.to_string(), "payload": status(number)});
        post_patiently(node, &[event]).await;
    }
}

/// Returns the numbers that are published up to this one.
async fn numbers_until(subscriber: &mut Connection, end: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&end) {
        let (topic, payload) = messages(subscriber, 1).await.remove(0);
        if topic == "status" {
            numbers.push(payload["n"].as_u64().unwrap());
        }
    }
    numbers
}

async fn until_mirror(node: &Server, state: &str) {
    let what = format!("the mirror to be {state}");
    until(&what, async || node.stats().await["mqtt_publish"]["state"] == state).await;
}

#[actix_rt::test]
async fn one_node_publishes_in_the_order_of_the_stream_and_another_goes_on() {
    let Some(nats) = Nats::start().await else { return };
    let Some(broker) = Broker::start("").await else { return };
    let url = broker.url();
    let options = ["--mqtt-publish", &url, "--mqtt-retain", "--backplane-grace", "120s"];
    let first = node(&nats, &options).await;
    until_mirror(&first, "connected").await;
    let mut second = node(&nats, &options).await;
    until_mirror(&second, "standby").await;
    let mut subscriber = broker.subscribe().await;
    post(&[&first, &second], 0..50).await;
    assert_eq!(numbers_until(&mut subscriber, 49).await, (0..50).collect::<Vec<_>>());
    assert!(second.health().await.contains("mqtt-publish: standby\n"));
    assert!(first.metrics().await.contains("webupdates_mqtt_publish_events_total 50\n"));

    // Nobody publishes for a while; then the other node goes on, and may repeat the last ones.
    drop(first);
    post(&[&second], 50..100).await;
    let mut numbers = numbers_until(&mut subscriber, 99).await;
    numbers.dedup_by_key(|number| *number);
    let repeated = numbers.iter().take_while(|number| **number < 50).count() as u64;
    assert_eq!(numbers, (50 - repeated..100).collect::<Vec<_>>());
    // One that stops publishes what it has before it hands over.
    let third = node(&nats, &options).await;
    post(&[&second, &third], 100..150).await;
    second.signal(Signal::TERM);
    assert!(second.ended().await.success());
    post(&[&third], 150..200).await;
    until_mirror(&third, "connected").await;
    let mut missing = 100..200;
    for number in numbers_until(&mut subscriber, 199).await {
        assert!(number <= missing.start, "{missing:?} before {number}");
        missing.start = missing.start.max(number + 1);
    }
    // What the broker keeps is the last one.
    drop(subscriber);
    assert_eq!(messages(&mut broker.subscribe().await, 1).await, [("state/status".to_owned(), status(199))]);
    let log = std::fs::read_to_string(broker.folder.join("log")).unwrap();
    assert_eq!(log.matches("already connected").count(), 0, "two nodes have one name at the broker: {log}");
}
