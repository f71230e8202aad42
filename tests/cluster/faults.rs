//! NATS and nodes fail.

use rustix::process::Signal;
use serde_json::json;

use super::{
    browser::Browser,
    nats::Nats,
    nodes::{event, node, numbers_until, post, post_patiently},
    server::until,
};

#[actix_rt::test]
async fn a_killed_nats_costs_no_event_and_no_connection() {
    let Some(mut nats) = Nats::start().await else { return };
    let nodes = [node(&nats, &[]).await, node(&nats, &[]).await];
    let mut browsers = [Browser::connect(&nodes[0].address()).await, Browser::connect(&nodes[1].address()).await];
    for round in 0..3 {
        let first = round * 20;
        assert_eq!(post(&nodes[0], &(first..first + 10).map(event).collect::<Vec<_>>()).await, 200);
        nats.kill();
        let events: Vec<_> = (first + 10..first + 20).map(event).collect();
        assert_eq!(post(&nodes[1], &events).await, 503);
        nats.restart().await;
        // A retry that goes to another node.
        post_patiently(&nodes[0], &events).await;
    }
    post_patiently(&nodes[0], &[event(1000)]).await;
    for browser in &mut browsers {
        assert_eq!(numbers_until(browser, 1000).await, (0..60).collect::<Vec<_>>());
    }
    assert_eq!(nodes[0].stats().await["refused"]["not-stored"], 0);
    assert!(nodes[1].stats().await["refused"]["not-stored"].as_u64().unwrap() >= 3);
}

#[actix_rt::test]
async fn a_frozen_nats_delivers_a_retry_once() {
    let Some(nats) = Nats::start().await else { return };
    let node = node(&nats, &[]).await;
    let mut browser = Browser::connect(&node.address()).await;
    nats.signal(Signal::STOP);
    // What is sent now is in the buffers of the kernel, and stored later.
    assert_eq!(post(&node, &[event(0), event(1)]).await, 503);
    assert_eq!(post(&node, &[event(0), event(1)]).await, 503);
    nats.signal(Signal::CONT);
    post_patiently(&node, &[event(0), event(1)]).await;
    post_patiently(&node, &[event(2)]).await;
    assert_eq!(numbers_until(&mut browser, 2).await, [0, 1]);
}

#[actix_rt::test]
async fn a_node_that_is_cut_off_closes_its_clients_by_name() {
    let Some(mut nats) = Nats::start().await else { return };
    let node = node(&nats, &["--backplane-grace", "4s"]).await;
    let mut browser = Browser::connect(&node.address()).await;
    assert_eq!(post(&node, &[event(0)]).await, 200);
    nats.kill();
    let end = browser.end().await;
    assert!(format!("{end:?}").contains("1001"), "{end:?}");
    until("it to be counted", async || node.stats().await["disconnects"]["cut-off"] == 1).await;
    assert_eq!(node.health().await, "nats: away\ncut off from the events of the farm\n");
    nats.restart().await;
    until("the node to be back", async || node.health().await.ends_with("nats: connected\n")).await;
    let mut browser = Browser::connect(&node.address()).await;
    post_patiently(&node, &[event(1), event(2)]).await;
    assert_eq!(numbers_until(&mut browser, 2).await, [1]);
}

#[actix_rt::test]
async fn a_lost_stream_is_never_a_silent_gap() {
    let Some(mut nats) = Nats::start().await else { return };
    let node = node(&nats, &[]).await;
    let mut browser = Browser::connect(&node.address()).await;
    assert_eq!(post(&node, &(0..5).map(event).collect::<Vec<_>>()).await, 200);
    nats.kill();
    nats.lose_everything();
    nats.restart().await;
    let end = browser.end().await;
    assert!(format!("{end:?}").contains("1012"), "{end:?}");
    until("it to be counted", async || node.stats().await["disconnects"]["history-lost"] == 1).await;
    let mut browser = Browser::connect(&node.address()).await;
    post_patiently(&node, &[event(6), event(7)]).await;
    assert_eq!(numbers_until(&mut browser, 7).await, [6]);
    assert!(node.metrics().await.contains("webupdates_backplane_lost_total 1\n"));
}

#[actix_rt::test]
async fn chat_is_refused_while_it_cannot_be_stored() {
    let Some(mut nats) = Nats::start().await else { return };
    let node = node(&nats, &[]).await;
    let mut browser = Browser::connect(&node.address()).await;
    nats.kill();
    assert_eq!(browser.chat("a", "lost").await, "chat is not available");
    nats.restart().await;
    until("chat to be stored", async || browser.chat("a", "kept").await == "message sent successfully.").await;
    browser.chat("a", "end").await;
    assert_eq!(
        browser.next_where("/message", |message| message["text"] == "end").await,
        json!({"name": "a", "text": "end"})
    );
}
