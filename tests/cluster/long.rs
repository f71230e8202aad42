//! Faults at random, for as long as it takes.

use std::time::Duration;

use actix_rt::time::sleep;
use fastrand::Rng;
use flamenco_webupdates::clock;
use rustix::process::Signal;

use super::{
    crowd::Crowd,
    line::{Line, Way},
    nats::{Cluster, Nats, url},
    nodes::node,
    program,
    server::{Server, until},
};

/// A node, with a line to each NATS server.
struct Node {
    server: Server,
    lines: Vec<Line>,
}

impl Node {
    async fn start(nats: &Cluster) -> Self {
        let mut lines = Vec::new();
        for server in &nats.servers {
            lines.push(Line::to(server.address()).await);
        }
        let urls: Vec<_> = lines.iter().map(|line| url(line.address)).collect();
        let server = Server::start(&["--nats", &urls.join(","), "--nats-replicas", "3"]).await;
        Self { server, lines }
    }

    fn turn(&self, way: Way) {
        self.lines.iter().for_each(|line| line.turn(way));
    }
}

/// Reads a number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[actix_rt::test]
#[ignore = "takes minutes: tests/long/cluster runs it"]
async fn nothing_is_lost_by_faults_at_random() {
    let Some(mut nats) = Cluster::start().await else { return };
    let seconds = setting("WEBUPDATES_FAULTS_SECONDS", 600);
    let seed = setting("WEBUPDATES_FAULTS_SEED", fastrand::u64(..1_000_000));
    println!("WEBUPDATES_FAULTS_SEED={seed} WEBUPDATES_FAULTS_SECONDS={seconds}");
    let mut rng = Rng::with_seed(seed);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(&nats).await);
    }
    let crowd = Crowd::gather(nodes.iter().map(|node| &node.server), 40, 40, usize::MAX).await;
    let began = clock::now();
    let mut faults = 0;
    while began.elapsed().as_secs() < seconds {
        let (node, server) = (rng.usize(..3), rng.usize(..3));
        let pause = Duration::from_millis(rng.u64(200..6000));
        let fault = rng.u8(..11);
        faults += 1;
        let (at, published) = (began.elapsed().as_secs(), crowd.number());
        println!(
            "{at} s, {published} events: fault {fault} of node {node} or NATS {server}, for {} ms",
            pause.as_millis()
        );
        match fault {
            0 => {
                nodes[node].server.signal(Signal::KILL);
                nodes[node] = Node::start(&nats).await;
                crowd.moved(node, &nodes[node].server);
            }
            1 => {
                nodes[node].server.signal(Signal::TERM);
                nodes[node].server.ended().await;
                nodes[node] = Node::start(&nats).await;
                crowd.moved(node, &nodes[node].server);
            }
            2 => {
                nodes[node].server.signal(Signal::STOP);
                sleep(pause).await;
                nodes[node].server.signal(Signal::CONT);
            }
            3 => {
                nats.servers[server].kill();
                sleep(pause).await;
                nats.servers[server].restart().await;
            }
            4 => {
                nats.servers[server].signal(Signal::STOP);
                sleep(pause).await;
                nats.servers[server].signal(Signal::CONT);
            }
            5 => {
                nats.turn(server, Way::Cut);
                // Now and then for longer than the grace time.
                sleep(pause * rng.u32(1..=4)).await;
                nats.turn(server, Way::Open);
            }
            6 => {
                nodes[node].turn(Way::Cut);
                sleep(pause * rng.u32(1..=4)).await;
                nodes[node].turn(Way::Open);
            }
            7 => {
                nodes[node].turn(Way::Late(Duration::from_millis(rng.u64(1..1500))));
                sleep(pause).await;
                nodes[node].turn(Way::Open);
            }
            8 => {
                nodes[node].turn(Way::Broken);
                nodes[node].turn(Way::Open);
            }
            9 => {
                nats.servers.iter_mut().for_each(Nats::kill);
                for server in &mut nats.servers {
                    server.restart().await;
                }
            }
            _ => crowd.scatter(),
        }
        sleep(pause / 4).await;
    }
    let outcome = crowd.finish(Duration::from_secs(180)).await;
    println!("{faults} faults, {} connections of 80 clients, {outcome:?}", outcome.connections);
}

#[actix_rt::test]
#[ignore = "takes minutes: tests/long/cluster runs it"]
async fn five_thousand_clients_go_on_at_the_node_that_is_left() {
    let Some(nats) = Nats::start().await else { return };
    let mut nodes = vec![node(&nats, &[]).await, node(&nats, &[]).await];
    // Others at the node that is left, in a process of their own: 50 events per second for 40 s.
    let load = |events: &str| {
        let (url, publish) = (&nodes[0].browsers_url, format!("{}/api/events", nodes[0].manager_url));
        let command = program::command(&[
            "simulate-browsers",
            url,
            "--publish-url",
            &publish,
            "-n",
            "1000",
            "--events",
            events,
            "--rate",
            "50",
            "--json",
        ]);
        actix_rt::spawn(program::run(command))
    };
    let p99 = |output: std::process::Output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["problems"], serde_json::json!([]));
        report["latency"]["p99_ms"].as_f64().unwrap()
    };
    let crowd = Crowd::gather_at(Duration::from_secs(1), &nodes, 5000, 0, usize::MAX).await;
    let quiet = p99(load("1000").await.unwrap());
    let before = nodes[0].rss();
    let loaded = load("1000");
    sleep(Duration::from_secs(8)).await;
    drop(nodes.pop());
    let began = clock::now();
    until("all clients to resume", async || nodes[0].stats().await["resumes"]["recovered"] == 2500).await;
    let took = began.elapsed();
    let during = p99(loaded.await.unwrap());
    let after = nodes[0].rss();
    let outcome = crowd.finish(Duration::from_secs(120)).await;
    println!(
        "2500 of 5000 clients resumed within {:.1} s; p99 of 1000 others {quiet:.1} ms before and {during:.1} ms meanwhile; \
         {:.0} MB before and {:.0} MB after; {outcome:?}",
        took.as_secs_f64(),
        before as f64 / 1e6,
        after as f64 / 1e6,
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(after < 3 * before, "{after} after {before} bytes");
    assert!(during < 1.5 * quiet, "{during} ms after {quiet} ms");
}
