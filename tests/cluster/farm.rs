//! Two nodes and three NATS servers, in front of a real Manager.

use std::{collections::HashMap, time::Duration};

use actix_rt::time::{sleep, timeout};
use serde_json::Value;

use super::{
    browser::Browser,
    nats::Cluster,
    real::{Farm, program, tasks, text},
    server::{PATIENCE, Server, until},
};

/// Between two looks at what has arrived.
const PAUSE: Duration = Duration::from_millis(50);

/// What a page shows of a job and its tasks.
struct Page {
    browser: Browser,
    statuses: HashMap<String, Value>,
    /// All updates of jobs and tasks but those after which the tasks are loaded again.
    seen: Vec<(String, Value)>,
}

impl Page {
    async fn open(server: &Server) -> Self {
        let browser = Browser::connect(&server.address()).await;
        Self { browser, statuses: HashMap::new(), seen: Vec::new() }
    }

    /// Follows the tasks of a job.
    async fn show(&mut self, server: &Server, job: &str) {
        // The Manager's confirmation may take longer than the server waits for it.
        while self.browser.try_subscribe("job", Some(job)).await.0 != "ok" {}
        self.load_tasks(server, job).await;
    }

    async fn load_tasks(&mut self, server: &Server, job: &str) {
        for task in tasks(server, job).await {
            self.statuses.insert(text(&task["id"]).to_owned(), task["status"].clone());
        }
    }

    async fn take(&mut self, server: &Server) {
        for update in self.browser.take_all() {
            let (name, payload) = &update;
            if !["/jobs", "/task"].contains(&name.as_str()) {
                continue;
            }
            let id = text(&payload["id"]).to_owned();
            self.statuses.insert(id.clone(), payload["status"].clone());
            // A relay that has connected anew has pages load the tasks again; otherwise nothing is repeated.
            if payload["refresh_tasks"] == true {
                self.load_tasks(server, &id).await;
            } else {
                assert!(!self.seen.contains(&update), "{update:?} came again");
                self.seen.push(update);
            }
        }
    }

    /// Waits until the page shows the job and all its tasks as completed, as it does without loading it again.
    async fn until_completed(&mut self, server: &Server, job: &str, tasks: &[Value]) {
        let all = async {
            while self.statuses.get(job).is_none_or(|status| status != "completed")
                || tasks.iter().any(|task| self.statuses[text(&task["id"])] != "completed")
            {
                // Whatever was published before the acknowledgement has arrived.
                self.browser.subscribe("allWorkers", None).await;
                self.take(server).await;
                sleep(PAUSE).await;
            }
        };
        let is_completed = timeout(2 * PATIENCE, all).await;
        assert!(is_completed.is_ok(), "{job} with {tasks:?} is {:?}", self.statuses);
    }
}

#[actix_rt::test]
#[ignore = "takes long: tests/long/cluster runs it"]
async fn a_farm_goes_on_without_the_leaders_of_nats_and_of_the_relay() {
    let (Some(program), Some(mut nats)) = (program(), Cluster::start().await) else { return };
    let farm = Farm::start(&program, "3.9", 1, &[]).await;
    let urls = nats.urls();
    let node = async || {
        let options = ["--nats", &urls, "--nats-replicas", "3", "--backplane-grace", "120s"];
        Server::before(&farm.url, &options).await
    };
    let mut nodes = vec![node().await];
    nodes[0].until_relay("connected").await;
    nodes.push(node().await);
    nodes[1].until_relay("standby").await;
    let mut pages = vec![Page::open(&nodes[0]).await, Page::open(&nodes[1]).await];

    let (job, tasks) = submit(&farm, &nodes[1], &mut pages, "without the leader of NATS").await;
    let leader = nats.leader(0).await;
    nats.servers[leader].kill();
    for page in &mut pages {
        page.until_completed(&nodes[1], &job, &tasks).await;
    }
    nats.servers[leader].restart().await;

    // It may have held the lock of the relay, so another node may lead now.
    let mut leading = Vec::new();
    until("one node to lead", async || {
        leading = leaders(&nodes).await;
        leading.len() == 1
    })
    .await;
    let (killed, kept) = (leading[0], 1 - leading[0]);
    let connections = relay_connections(&nodes[kept]).await;
    let (job, tasks) = submit(&farm, &nodes[kept], &mut pages, "without the leader of the relay").await;
    drop((nodes.remove(killed), pages.remove(killed)));
    pages[0].until_completed(&nodes[0], &job, &tasks).await;
    assert_eq!(leaders(&nodes).await, [0]);
    assert_eq!(relay_connections(&nodes[0]).await, connections + 1, "the Manager has one client again");
}

/// Submits a job, which takes several seconds, and has the pages follow it.
async fn submit(farm: &Farm, server: &Server, pages: &mut [Page], name: &str) -> (String, Vec<Value>) {
    let job = farm.submit(server, &["sleep", "--tasks", "4", "--seconds", "2", "--name", name]).await;
    for page in pages {
        page.show(server, &job).await;
    }
    let tasks = tasks(server, &job).await;
    (job, tasks)
}

/// Returns which nodes are clients of the Manager.
async fn leaders(nodes: &[Server]) -> Vec<usize> {
    let mut leaders = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        if node.stats().await["sources"]["relay"]["state"] == "connected" {
            leaders.push(number);
        }
    }
    leaders
}

/// Returns how often a node has connected to the Manager.
async fn relay_connections(node: &Server) -> u64 {
    node.stats().await["relay"]["connections"].as_u64().unwrap()
}
