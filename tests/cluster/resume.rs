//! Clients that go on at another node.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    crowd::Crowd,
    line::{Line, Way},
    nats::{Nats, url},
    nodes::{event, node, post},
    server::Server,
    wire::{Browser, Incoming},
};

/// Resumes after a token. Returns the answer, and the events before it as number and token.
pub(super) async fn resume(server: &Server, token: &Value) -> (Browser, Value, Vec<(u64, Value)>) {
    let mut browser = Browser::resuming(server.browsers).await;
    browser.send(&format!("420{}", json!(["/resume", {"token": token, "rooms": ["Jobs"]}]))).await;
    let mut events = Vec::new();
    loop {
        let Incoming::Text(text) = browser.next().await else { panic!("the connection ended") };
        if let Some(answer) = text.strip_prefix("430") {
            let [answer]: [Value; 1] = serde_json::from_str(answer).unwrap();
            return (browser, answer, events);
        }
        events.push(number_and_token(text));
    }
}

async fn next(browser: &mut Browser) -> (u64, Value) {
    let Incoming::Text(text) = browser.next().await else { panic!("the connection ended") };
    number_and_token(text)
}

fn number_and_token(text: &str) -> (u64, Value) {
    let [_, payload, token]: [Value; 3] = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
    (payload["n"].as_u64().unwrap(), token)
}

#[actix_rt::test]
async fn a_client_goes_on_at_another_node_where_it_ended() {
    let Some(nats) = Nats::start().await else { return };
    let nodes = [node(&nats, &[]).await, node(&nats, &[]).await];
    let (mut stays, answer, _) = resume(&nodes[0], &Value::Null).await;
    assert_eq!((&answer["recovered"], &answer["events"]), (&json!(false), &json!(0)));
    let (mut moves, _, _) = resume(&nodes[0], &Value::Null).await;
    assert_eq!(post(&nodes[1], &[event(1), event(2)]).await, 200);
    let (mut all, mut over_connections) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        all.push(next(&mut stays).await);
        over_connections.push(next(&mut moves).await);
    }
    moves.reset();
    assert_eq!(post(&nodes[0], &[event(3), event(4), event(5)]).await, 200);
    for _ in 0..3 {
        all.push(next(&mut stays).await);
    }
    let token = &over_connections[1].1;
    // On a node that was there, and on one that starts later.
    let late = node(&nats, &[]).await;
    for server in [&nodes[1], &late] {
        // The node that accepted them has answered; the others have them a little later.
        super::server::until("the node to have all events", async || {
            server.metrics().await.contains("webupdates_backplane_offset 5\n")
        })
        .await;
        let (_, answer, missed) = resume(server, token).await;
        assert_eq!((&answer["recovered"], &answer["events"]), (&json!(true), &json!(3)));
        assert_eq!(missed, all[2..], "the same tokens on every node");
        assert_eq!(answer["token"], all[4].1);
    }
    assert_eq!(over_connections, all[..2]);
}

#[actix_rt::test]
async fn a_client_waits_for_a_node_that_is_behind() {
    let Some(nats) = Nats::start().await else { return };
    let line = Line::to(nats.address()).await;
    let behind = Server::start(&["--nats", &url(line.address), "--backplane-grace", "60s"]).await;
    let ahead = node(&nats, &[]).await;
    let (mut browser, _, _) = resume(&ahead, &Value::Null).await;
    line.turn(Way::Broken);
    assert_eq!(post(&ahead, &[event(1), event(2), event(3)]).await, 200);
    let (_, _) = (next(&mut browser).await, next(&mut browser).await);
    let (_, token) = next(&mut browser).await;
    browser.reset();
    let mut browser = Browser::resuming(behind.browsers).await;
    browser.send(&format!("420{}", json!(["/resume", {"token": token, "rooms": ["Jobs"]}]))).await;
    assert_eq!(post(&ahead, &[event(4)]).await, 200);
    // The server has the request before it answers the ping.
    browser.send("2").await;
    assert_eq!(browser.next().await, Incoming::Text("3"));
    line.turn(Way::Open);
    let (mut answer, mut events) = (Value::Null, Vec::new());
    // The event may come before the answer, or after it.
    while events.is_empty() || answer.is_null() {
        let Incoming::Text(text) = browser.next().await else { panic!("the connection ended") };
        match text.strip_prefix("430") {
            Some(json) => answer = serde_json::from_str(json).unwrap(),
            None => events.push(number_and_token(text).0),
        }
    }
    assert_eq!((&answer[0]["recovered"], events), (&json!(true), vec![4]));
}

#[actix_rt::test]
async fn clients_of_a_killed_node_go_on_at_the_others() {
    let Some(nats) = Nats::start().await else { return };
    let mut nodes = vec![node(&nats, &[]).await, node(&nats, &[]).await, node(&nats, &[]).await];
    let crowd = Crowd::gather(&nodes, 150, 150, 600).await;
    crowd.published(200).await;
    drop(nodes.remove(1));
    let outcome = crowd.complete(Duration::from_secs(60)).await;
    assert_eq!(outcome.connections, 400, "only those of the killed node connect again: {outcome:?}");
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn thousands_of_clients_of_a_killed_node_go_on_at_the_other() {
    let Some(nats) = Nats::start().await else { return };
    let mut nodes = vec![node(&nats, &[]).await, node(&nats, &[]).await];
    let crowd = Crowd::gather(&nodes, 5000, 0, usize::MAX).await;
    crowd.published(50).await;
    let began = flamenco_webupdates::clock::now();
    drop(nodes.remove(1));
    let outcome = crowd.finish(Duration::from_secs(120)).await;
    println!("all have everything {:.1} s after the node was killed", began.elapsed().as_secs_f64());
    assert_eq!(outcome.connections, 7500, "{outcome:?}");
}

#[actix_rt::test]
async fn nodes_are_replaced_without_losing_an_event() {
    let Some(nats) = Nats::start().await else { return };
    let mut nodes = [node(&nats, &[]).await, node(&nats, &[]).await];
    let crowd = Crowd::gather(&nodes, 20, 20, usize::MAX).await;
    for (number, place) in nodes.iter_mut().enumerate() {
        crowd.published(100 * (number + 1)).await;
        // It is ready once it has read the stream.
        let mut old = std::mem::replace(place, node(&nats, &[]).await);
        crowd.moved(number, place);
        old.signal(Signal::TERM);
        assert!(old.ended().await.success());
    }
    let outcome = crowd.finish(Duration::from_secs(60)).await;
    assert!(outcome.ends[&Some(1001)] >= 40, "all were told to go elsewhere: {outcome:?}");
}
