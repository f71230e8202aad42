//! The stream loses events before a node or a client has them.

use serde_json::{Value, json};

use super::{
    browser::Browser,
    line::{Line, Way},
    nats::{Nats, url},
    nodes::{event, node, numbers_until, post, post_patiently},
    resume::resume,
    server::{Server, until},
};

/// Longer than these tests.
const PATIENT: [&str; 2] = ["--backplane-grace", "10min"];

async fn count(server: &Server, metric: &str) -> u64 {
    let metrics = server.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric}")).parse().unwrap()
}

#[actix_rt::test]
async fn a_client_of_a_lost_stream_learns_that_it_missed_events() {
    let Some(mut nats) = Nats::start().await else { return };
    let node = node(&nats, &PATIENT).await;
    assert_eq!(post(&node, &[event(1), event(2)]).await, 200);
    let (mut browser, before, _) = resume(&node, &Value::Null).await;
    nats.kill();
    nats.lose_everything();
    nats.restart().await;
    assert_eq!(browser.end().await, Some(1012));
    post_patiently(&node, &[event(3)]).await;
    let (_, answer, missed) = resume(&node, &before["token"]).await;
    assert_eq!((&answer["recovered"], &answer["reason"], missed), (&json!(false), &json!("epoch"), vec![]));
    // It goes on from there.
    post_patiently(&node, &[event(4)]).await;
    let (_, answer, missed) = resume(&node, &answer["token"]).await;
    assert_eq!((&answer["recovered"], missed.len(), missed[0].0), (&json!(true), 1, 4));
}

#[actix_rt::test]
async fn a_node_that_the_retention_of_the_stream_overtakes_closes_its_clients() {
    let Some(nats) = Nats::start().await else { return };
    let line = Line::to(nats.address()).await;
    let small = [&PATIENT[..], &["--nats-max-bytes", "100000"]].concat();
    let late = Server::start(&[&["--nats", &url(line.address)], &small[..]].concat()).await;
    let other = node(&nats, &small).await;
    assert_eq!(post(&other, &[event(0), event(1)]).await, 200);
    until("all nodes to have them", async || count(&late, "webupdates_backplane_offset").await == 2).await;
    let mut stays = Browser::connect(&other.address()).await;
    let (mut browser, before, _) = resume(&late, &Value::Null).await;
    line.turn(Way::Broken);
    // An answer means that this node has them, so only the other one is overtaken.
    for first in (2..2002).step_by(40) {
        assert_eq!(post(&other, &(first..first + 40).map(event).collect::<Vec<_>>()).await, 200);
    }
    line.turn(Way::Open);
    assert_eq!(browser.end().await, Some(1012));
    until("the node to be back", async || late.health().await.ends_with("nats: connected\n")).await;
    assert_eq!(count(&late, "webupdates_backplane_lost_total").await, 1);
    // The node itself does not have what was missed; the other one does.
    let (_, answer, missed) = resume(&late, &before["token"]).await;
    assert_eq!((&answer["recovered"], &answer["reason"], missed), (&json!(false), &json!("too-old"), vec![]));
    let (_, answer, missed) = resume(&other, &before["token"]).await;
    assert_eq!((&answer["recovered"], missed.len(), missed[0].0), (&json!(true), 2000, 2));
    assert_eq!(post(&late, &[event(2002)]).await, 200);
    assert_eq!(numbers_until(&mut stays, 2002).await, (2..2002).collect::<Vec<_>>());
    assert_eq!(other.stats().await["disconnects"]["history-lost"], 0);
}

/// Consumers of the library would begin at 1 again.
#[actix_rt::test]
async fn a_node_that_loses_nats_before_the_first_message_repeats_nothing() {
    let Some(mut nats) = Nats::start().await else { return };
    let line = Line::to(nats.address()).await;
    let node = Server::start(&[&["--nats", &url(line.address)], &PATIENT[..]].concat()).await;
    let mut browser = Browser::connect(&node.address()).await;
    assert_eq!(post(&node, &(0..100).map(event).collect::<Vec<_>>()).await, 200);
    for _ in 0..3 {
        let before = count(&node, "webupdates_backplane_connections_total").await;
        nats.kill();
        nats.restart().await;
        until("the node to read again", async || count(&node, "webupdates_backplane_connections_total").await > before)
            .await;
    }
    // At once after it has asked to begin at 101.
    nats.kill();
    nats.restart().await;
    post_patiently(&node, &(100..201).map(event).collect::<Vec<_>>()).await;
    assert_eq!(numbers_until(&mut browser, 200).await, (0..200).collect::<Vec<_>>());
    assert_eq!(count(&node, "webupdates_backplane_lost_total").await, 0);
}
