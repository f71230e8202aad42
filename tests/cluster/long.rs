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
    server::Server,
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
pub(super) fn setting(name: &str, default: u64) -> u64 {
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
