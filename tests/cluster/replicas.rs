//! Three NATS servers that store each event three times.

use std::time::Duration;

use actix_rt::time::sleep;

use super::{
    crowd::Crowd,
    line::Way,
    nats::{Cluster, Nats},
    server::{Server, until},
};

const REPLICAS: [&str; 2] = ["--nats-replicas", "3"];

/// The cluster has elected a leader by then, also on a busy machine.
const PATIENT: [&str; 2] = ["--backplane-grace", "60s"];

#[actix_rt::test]
async fn a_killed_leader_costs_no_event_and_no_connection() {
    let Some(mut nats) = Cluster::start().await else { return };
    let urls = nats.urls();
    let start = async || Server::start(&[&["--nats", &urls], &REPLICAS[..], &PATIENT].concat()).await;
    let nodes = [start().await, start().await];
    let crowd = Crowd::gather(&nodes, 10, 10, 200).await;
    crowd.published(50).await;
    let leader = nats.leader(0).await;
    let began = flamenco_webupdates::clock::now();
    nats.servers[leader].kill();
    crowd.published(100).await;
    println!("publishing goes on {:.1} s after the leader was killed", began.elapsed().as_secs_f64());
    nats.servers[leader].restart().await;
    let outcome = crowd.complete(Duration::from_secs(120)).await;
    assert_eq!(outcome.connections, 20, "{outcome:?}");
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn a_node_waits_for_a_cluster_without_a_leader() {
    let Some(mut nats) = Cluster::start().await else { return };
    nats.servers.iter_mut().for_each(Nats::kill);
    nats.servers[0].restart().await;
    let urls = nats.urls();
    let starting = actix_rt::spawn(async move { Server::start(&[&["--nats", &urls], &REPLICAS[..]].concat()).await });
    // Longer than a node waits for a NATS that has no JetStream.
    sleep(Duration::from_secs(12)).await;
    for server in &mut nats.servers[1..] {
        server.restart().await;
    }
    let log = starting.await.unwrap().log();
    assert_eq!(log.matches("waiting for JetStream: it does not answer").count(), 1, "{log}");
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn a_node_beside_the_minority_closes_its_clients_by_name() {
    let Some(nats) = Cluster::start().await else { return };
    let node = async |number: usize, more: &[&str]| {
        let url = nats.servers[number].url();
        Server::start(&[&["--nats", &url], &REPLICAS[..], more].concat()).await
    };
    let first = node(0, &PATIENT).await;
    let cut_off = nats.leader(0).await;
    drop(first);
    let mut nodes = Vec::new();
    for number in 0..3 {
        let more = if number == cut_off { ["--backplane-grace", "6s"] } else { PATIENT };
        nodes.push(node(number, &more).await);
    }
    let crowd = Crowd::gather(&nodes, 9, 9, 300).await;
    crowd.published(50).await;
    let began = flamenco_webupdates::clock::now();
    nats.turn(cut_off, Way::Cut);
    until("the node to be cut off", async || nodes[cut_off].stats().await["disconnects"]["cut-off"] == 6).await;
    println!("it closed its clients {:.1} s after the cut", began.elapsed().as_secs_f64());
    crowd.published(150).await;
    println!("publishing went on {:.1} s after the cut", began.elapsed().as_secs_f64());
    assert!(nodes[cut_off].health().await.ends_with("cut off from the events of the farm\n"));
    nats.turn(cut_off, Way::Open);
    until("the node to be back", async || nodes[cut_off].health().await.ends_with("nats: connected\n")).await;
    let outcome = crowd.complete(Duration::from_secs(120)).await;
    assert_eq!(outcome.connections, 18 + 6, "{outcome:?}");
}
