//! NATS, or the line to it, fails for a while, with many clients at several nodes.

use std::time::Duration;

use actix_rt::time::sleep;
use rustix::process::Signal;

use super::{
    browser::Browser,
    crowd::{Crowd, Outcome},
    line::{Line, Way},
    nats::{Nats, url},
    nodes::{event, node, post},
    server::{Server, until},
};

/// No outage of these tests is longer, also on a busy machine.
const PATIENT: [&str; 2] = ["--backplane-grace", "60s"];

const LIMIT: Duration = Duration::from_secs(120);

#[actix_rt::test]
async fn no_client_is_disconnected_while_nats_restarts_or_stops() {
    restarts_and_stops(&PATIENT, 3).await;
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn no_client_is_disconnected_while_nats_stops_for_8_seconds() {
    restarts_and_stops(&[], 8).await;
}

async fn restarts_and_stops(options: &[&str], seconds: u64) {
    let Some(mut nats) = Nats::start().await else { return };
    let nodes = [node(&nats, options).await, node(&nats, options).await];
    let crowd = Crowd::gather(&nodes, 20, 20, 400).await;
    crowd.published(100).await;
    nats.kill();
    crowd.refused(1).await;
    nats.restart().await;
    crowd.published(200).await;
    nats.end().await;
    crowd.refused(2).await;
    nats.restart().await;
    crowd.published(300).await;
    nats.signal(Signal::STOP);
    sleep(Duration::from_secs(seconds)).await;
    nats.signal(Signal::CONT);
    let outcome = crowd.complete(LIMIT).await;
    assert_eq!(outcome.connections, 40, "{outcome:?}");
    assert!(outcome.refused >= 3, "{outcome:?}");
}

/// Has the line of one of two nodes fail in some way, with 10 clients at each node.
async fn with_line(grace: &[&str], fail: impl AsyncFnOnce(&Line, &Server, &Crowd)) -> Option<Outcome> {
    let nats = Nats::start().await?;
    let line = Line::to(nats.address()).await;
    let nodes = [Server::start(&[&["--nats", &url(line.address)], grace].concat()).await, node(&nats, &[]).await];
    let crowd = Crowd::gather(&nodes, 10, 10, 400).await;
    crowd.published(100).await;
    fail(&line, &nodes[0], &crowd).await;
    line.turn(Way::Open);
    until("the node to be back", async || nodes[0].health().await.ends_with("nats: connected\n")).await;
    Some(crowd.complete(LIMIT).await)
}

#[actix_rt::test]
async fn a_line_that_is_cut_within_the_grace_time_costs_nothing() {
    let fail = async |line: &Line, _: &Server, crowd: &Crowd| {
        line.turn(Way::Cut);
        crowd.refused(1).await;
        // The other node goes on.
        crowd.published(150).await;
    };
    let Some(outcome) = with_line(&PATIENT, fail).await else { return };
    assert_eq!(outcome.connections, 20, "{outcome:?}");
}

#[actix_rt::test]
async fn a_line_that_is_cut_for_longer_costs_the_connections() {
    let fail = async |line: &Line, node: &Server, crowd: &Crowd| {
        line.turn(Way::Cut);
        until("the node to be cut off", async || node.stats().await["disconnects"]["cut-off"] == 10).await;
        assert_eq!(node.health().await, "nats: away\ncut off from the events of the farm\n");
        crowd.published(200).await;
    };
    let Some(outcome) = with_line(&["--backplane-grace", "4s"], fail).await else { return };
    assert_eq!((outcome.connections, outcome.ends[&Some(1001)]), (30, 10), "{outcome:?}");
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn within_the_default_grace_time_events_are_late_and_complete() {
    for (way, seconds) in [(Way::Cut, 5), (Way::Late(Duration::from_secs(12)), 12)] {
        let fail = async |line: &Line, _: &Server, _: &Crowd| {
            line.turn(way);
            sleep(Duration::from_secs(seconds)).await;
        };
        let Some(outcome) = with_line(&[], fail).await else { return };
        assert_eq!(outcome.connections, 20, "{way:?}: {outcome:?}");
    }
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn beyond_the_default_grace_time_clients_go_to_the_other_node() {
    let fail = async |line: &Line, _: &Server, _: &Crowd| {
        line.turn(Way::Cut);
        sleep(Duration::from_secs(60)).await;
    };
    let Some(outcome) = with_line(&[], fail).await else { return };
    assert_eq!((outcome.connections, outcome.ends[&Some(1001)]), (30, 10), "{outcome:?}");
}

#[actix_rt::test]
async fn nothing_is_accepted_that_a_full_disk_cannot_take() {
    let Some(nats) = Nats::start_on_disk(3_000_000).await else { return };
    let node = node(&nats, &PATIENT).await;
    let mut browser = Browser::connect(&node.address()).await;
    let mut accepted = 0;
    loop {
        let mut large = event(2 * accepted);
        large["payload"]["x"] = "x".repeat(100_000).into();
        match post(&node, &[large]).await {
            200 => assert_eq!(browser.next("/status").await["n"], 2 * accepted),
            503 => break,
            status => panic!("status {status}"),
        }
        accepted += 1;
        assert!(accepted < 100, "the disk is full by now");
    }
    assert!(accepted > 0);
    node.logged("events are not stored in NATS: ", 1).await;
}
