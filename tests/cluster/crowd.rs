//! Clients that record what they get over all their connections, and what must be true of it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use actix_rt::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{
    nodes::event,
    server::{PATIENCE, Server},
    wire::{Browser, Incoming, UPGRADE},
};

/// The events of one request.
const BATCH: usize = 10;

/// The pause between requests.
const PACE: Duration = Duration::from_millis(20);

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Shorter than the heartbeat that the server asks for.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// What a client got: the token, if it resumes, and the number in the payload.
type Got = (String, usize);

/// How the clients come to the nodes: their addresses, also of those that do not run.
pub(super) type Nodes = Rc<RefCell<Vec<Place>>>;

/// Where a node listens.
#[derive(Clone)]
pub(super) struct Place {
    browsers: SocketAddr,
    manager_url: String,
}

impl From<&Server> for Place {
    fn from(server: &Server) -> Self {
        Self { browsers: server.browsers, manager_url: server.manager_url.clone() }
    }
}

/// Clients of several nodes, and a Manager that posts numbered events to all of them in turn.
pub(super) struct Crowd {
    resumable: Vec<JoinHandle<Seen>>,
    plain: Vec<JoinHandle<Seen>>,
    end: usize,
    manager: Rc<Manager>,
    publishing: JoinHandle<()>,
}

/// A Manager, seen from outside.
#[derive(Debug, Default)]
struct Manager {
    /// The number of the last event that was accepted.
    published: Cell<usize>,
    /// The number of requests that were not accepted.
    refused: Cell<usize>,
    is_over: Cell<bool>,
}

/// What a client saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The events of each connection.
    connections: Vec<Vec<Got>>,
    /// How often the server said that it cannot say what was missed, by reason.
    lost: Vec<String>,
    /// How connections ended, by the status of the close frame.
    ends: BTreeMap<Option<u16>, usize>,
}

/// What all clients saw together.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The connections of all clients.
    pub(super) connections: usize,
    /// How they ended, by the status of the close frame.
    pub(super) ends: BTreeMap<Option<u16>, usize>,
    /// The requests of the Manager that were not accepted.
    pub(super) refused: usize,
}

impl Crowd {
    /// Connects the clients, then posts events until each client got those with the numbers from 1 to `end`.
    pub(super) async fn gather(servers: &[Server], resumable: usize, plain: usize, end: usize) -> Self {
        let nodes: Nodes = Rc::new(RefCell::new(servers.iter().map(Place::from).collect()));
        let ready = Rc::new(Barrier::new(resumable + plain + 1));
        let spawn = |number, resumes| actix_rt::spawn(follow(nodes.clone(), number, resumes, ready.clone(), end));
        let resumable: Vec<_> = (0..resumable).map(|number| spawn(number, true)).collect();
        let plain: Vec<_> = (0..plain).map(|number| spawn(number, false)).collect();
        timeout(PATIENCE, ready.wait()).await.expect("all clients connect");
        let manager = Rc::new(Manager::default());
        let publishing = actix_rt::spawn(publish(nodes, manager.clone()));
        Self { resumable, plain, end, manager, publishing }
    }

    /// Waits until this many events are accepted.
    pub(super) async fn published(&self, number: usize) {
        super::server::until("events to be published", async || self.manager.published.get() >= number).await;
    }

    /// Waits until this many requests of the Manager were not accepted.
    pub(super) async fn refused(&self, number: usize) {
        super::server::until("a request to be refused", async || self.manager.refused.get() >= number).await;
    }

    /// Waits until each client got everything, and checks what all of them saw.
    pub(super) async fn complete(self, limit: Duration) -> Outcome {
        let all = async |clients: Vec<JoinHandle<Seen>>| {
            let mut seen = Vec::new();
            for client in clients {
                seen.push(client.await.unwrap());
            }
            seen
        };
        let (resumable, plain) = timeout(limit, async { (all(self.resumable).await, all(self.plain).await) })
            .await
            .expect("all get everything");
        self.manager.is_over.set(true);
        self.publishing.await.unwrap();
        let mut outcome = Outcome { refused: self.manager.refused.get(), ..Outcome::default() };
        let first = resumable.first().map(|seen| seen.connections.concat()).unwrap_or_default();
        for seen in &resumable {
            assert_eq!(seen.lost, [""; 0], "nothing is lost");
            let all = seen.connections.concat();
            let numbers: Vec<_> = all.iter().map(|(_, number)| *number).collect();
            assert_eq!(numbers, (1..=self.end).collect::<Vec<_>>(), "exactly once, in order");
            assert_eq!(all, first, "one token for one event");
        }
        for seen in &plain {
            for connection in &seen.connections {
                for pair in connection.windows(2) {
                    assert_eq!(pair[0].1 + 1, pair[1].1, "in order, without a gap");
                }
            }
        }
        for seen in resumable.iter().chain(&plain) {
            outcome.connections += seen.connections.len();
            for (end, count) in &seen.ends {
                *outcome.ends.entry(*end).or_default() += count;
            }
        }
        outcome
    }
}

/// Follows the events over as many connections as it takes.
async fn follow(nodes: Nodes, number: usize, resumes: bool, ready: Rc<Barrier>, end: usize) -> Seen {
    let mut seen = Seen::default();
    let mut token = Value::Null;
    let mut turn = number;
    loop {
        let address = {
            let nodes = nodes.borrow();
            nodes[turn % nodes.len()].browsers
        };
        turn += 1;
        let connected = match resumes {
            true => Browser::try_resuming(address).await,
            false => Browser::try_connect(address, UPGRADE).await,
        };
        let Ok(mut browser) = connected else {
            sleep(RETRY_PAUSE).await;
            continue;
        };
        seen.connections.push(Vec::new());
        let is_first = seen.connections.len() == 1;
        if resumes {
            let request = json!(["/resume", {"token": token, "rooms": ["Jobs"]}]);
            // If it cannot be sent, the connection has ended.
            let _ = browser.try_send(&format!("420{request}")).await;
        } else if is_first {
            ready.wait().await;
        }
        let close = loop {
            let Ok(incoming) = timeout(PING_INTERVAL, browser.next()).await else {
                let _ = browser.try_send("2").await;
                continue;
            };
            let text = match incoming {
                Incoming::Text(text) => text,
                Incoming::Pong => continue,
                Incoming::Close(status) => break Some(status),
                Incoming::End { .. } => break None,
            };
            if let Some(answer) = text.strip_prefix("430") {
                let [answer]: [Value; 1] = serde_json::from_str(answer).unwrap();
                token = answer["token"].clone();
                match answer["reason"].as_str() {
                    Some(reason) => seen.lost.push(reason.to_owned()),
                    None => assert_eq!(answer["recovered"], !is_first, "{answer}"),
                }
                if is_first {
                    ready.wait().await;
                }
            } else if let Some(event) = text.strip_prefix("42") {
                let arguments: Vec<Value> = serde_json::from_str(event).unwrap();
                assert_eq!(arguments.len(), if resumes { 3 } else { 2 }, "{event}");
                if resumes {
                    token = arguments[2].clone();
                }
                let number = arguments[1]["n"].as_u64().unwrap() as usize;
                let got = (token.as_str().unwrap_or_default().to_owned(), number);
                seen.connections.last_mut().unwrap().push(got);
                if number >= end {
                    return seen;
                }
            }
        };
        *seen.ends.entry(close).or_default() += 1;
    }
}

/// Posts events, each batch to another node, and a batch that is not accepted to the next one.
async fn publish(nodes: Nodes, manager: Rc<Manager>) {
    let client = awc::Client::builder().timeout(Duration::from_secs(30)).finish();
    let mut turn = 0;
    while !manager.is_over.get() {
        let url = {
            let nodes = nodes.borrow();
            format!("{}/api/events", nodes[turn % nodes.len()].manager_url)
        };
        turn += 1;
        let first = manager.published.get() + 1;
        let events: Vec<_> = (first..first + BATCH).map(event).collect();
        match client.post(&url).send_json(&events).await.map(|answer| answer.status().as_u16()) {
            Ok(200) => {
                manager.published.update(|number| number + BATCH);
                sleep(PACE).await;
            }
            Ok(503) | Err(_) => {
                manager.refused.update(|number| number + 1);
                sleep(RETRY_PAUSE).await;
            }
            Ok(status) => panic!("status {status}"),
        }
    }
}
