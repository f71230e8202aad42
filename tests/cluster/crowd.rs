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
use tokio::sync::{Barrier, Notify};

use super::{
    nodes::event,
    server::{PATIENCE, Server, until},
    wire::{Browser, Incoming, UPGRADE},
};

/// The events of one request.
const BATCH: usize = 10;

/// The pause between requests, at least.
const PACE: Duration = Duration::from_millis(20);

/// The pause for each client, so that many do not get more than this process can check.
const PACE_OF_A_CLIENT: Duration = Duration::from_micros(100);

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Shorter than the heartbeat that the server asks for.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Where a node listens, or did.
struct Place {
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
    clients: Vec<JoinHandle<Seen>>,
    scene: Rc<Scene>,
    publishing: JoinHandle<()>,
}

/// What all clients and the Manager know.
struct Scene {
    nodes: RefCell<Vec<Place>>,
    ready: Barrier,
    /// The number of the event after which a client has seen enough.
    end: Cell<usize>,
    pace: Duration,
    /// Has all clients leave and come back.
    leave: Notify,
    /// The token of each event, as the first client that resumes got it.
    tokens: RefCell<Vec<String>>,
    manager: Manager,
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
struct Seen {
    connections: usize,
    /// The number of the last event.
    last: usize,
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
    pub(super) async fn gather<'a>(
        servers: impl IntoIterator<Item = &'a Server>,
        resumable: usize,
        plain: usize,
        end: usize,
    ) -> Self {
        let scene = Rc::new(Scene {
            nodes: RefCell::new(servers.into_iter().map(Place::from).collect()),
            ready: Barrier::new(resumable + plain + 1),
            end: Cell::new(end),
            pace: PACE.max(PACE_OF_A_CLIENT * (resumable + plain) as u32),
            leave: Notify::new(),
            tokens: RefCell::default(),
            manager: Manager::default(),
        });
        let resuming = (0..resumable).map(|number| actix_rt::spawn(follow(scene.clone(), number, true)));
        let others = (0..plain).map(|number| actix_rt::spawn(follow(scene.clone(), number, false)));
        let clients = resuming.chain(others).collect();
        timeout(PATIENCE, scene.ready.wait()).await.expect("all clients connect");
        let publishing = actix_rt::spawn(publish(scene.clone()));
        Self { clients, scene, publishing }
    }

    /// Returns the number of the last event that was accepted.
    pub(super) fn number(&self) -> usize {
        self.scene.manager.published.get()
    }

    /// Waits until this many events are accepted.
    pub(super) async fn published(&self, number: usize) {
        until("events to be published", async || self.number() >= number).await;
    }

    /// Waits until this many requests of the Manager were not accepted.
    pub(super) async fn refused(&self, number: usize) {
        until("a request to be refused", async || self.scene.manager.refused.get() >= number).await;
    }

    /// Tells clients and Manager where a node is now.
    pub(super) fn moved(&self, node: usize, server: &Server) {
        self.scene.nodes.borrow_mut()[node] = server.into();
    }

    /// Has all clients leave and come back.
    pub(super) fn scatter(&self) {
        self.scene.leave.notify_waiters();
    }

    /// Waits until each client has everything that is published now.
    pub(super) async fn finish(self, limit: Duration) -> Outcome {
        self.scene.end.set(self.number() + 10 * BATCH);
        self.complete(limit).await
    }

    /// Waits until each client got everything.
    pub(super) async fn complete(self, limit: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let all = async {
            for client in self.clients {
                let seen = client.await.unwrap();
                outcome.connections += seen.connections;
                for (end, count) in seen.ends {
                    *outcome.ends.entry(end).or_default() += count;
                }
            }
        };
        timeout(limit, all).await.expect("all get everything");
        self.scene.manager.is_over.set(true);
        self.publishing.await.unwrap();
        outcome.refused = self.scene.manager.refused.get();
        outcome
    }
}

/// Follows the events over as many connections as it takes, and checks them: one that resumes gets each exactly
/// once and in order, over all of its connections; another one misses and repeats none within a connection.
async fn follow(scene: Rc<Scene>, number: usize, resumes: bool) -> Seen {
    let mut seen = Seen::default();
    let mut token = Value::Null;
    let mut turn = number;
    loop {
        let address = {
            let nodes = scene.nodes.borrow();
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
        seen.connections += 1;
        let is_first = seen.connections == 1;
        if resumes {
            let request = json!(["/resume", {"token": token, "rooms": ["Workers"]}]);
            // If it cannot be sent, the connection has ended.
            let _ = browser.try_send(&format!("420{request}")).await;
        } else {
            seen.last = 0;
            if is_first {
                scene.ready.wait().await;
            }
        }
        let close = loop {
            let incoming = tokio::select! {
                incoming = browser.next() => Some(incoming),
                () = sleep(PING_INTERVAL) => None,
                () = scene.leave.notified() => {
                    browser.reset();
                    break None;
                }
            };
            let text = match incoming {
                Some(Incoming::Text(text)) => text,
                Some(Incoming::Pong) => continue,
                Some(Incoming::Close(status)) => break Some(status),
                Some(Incoming::End { .. }) => break None,
                None => {
                    let _ = browser.try_send("2").await;
                    continue;
                }
            };
            if let Some(answer) = text.strip_prefix("430") {
                let [answer]: [Value; 1] = serde_json::from_str(answer).unwrap();
                assert_eq!(answer["recovered"], !is_first, "{answer} to {token}");
                if is_first {
                    token = answer["token"].clone();
                    scene.ready.wait().await;
                }
            } else if let Some(event) = text.strip_prefix("42") {
                let arguments: Vec<Value> = serde_json::from_str(event).unwrap();
                assert_eq!(arguments.len(), if resumes { 3 } else { 2 }, "{event}");
                let number = arguments[1]["n"].as_u64().unwrap() as usize;
                if resumes || seen.last > 0 {
                    assert_eq!(number, seen.last + 1, "each once, and in order");
                }
                seen.last = number;
                if let Some(Value::String(new)) = arguments.get(2) {
                    let mut tokens = scene.tokens.borrow_mut();
                    if tokens.len() < number {
                        tokens.push(new.clone());
                    }
                    assert_eq!(tokens[number - 1], *new, "one token for one event");
                    token = arguments[2].clone();
                }
                if number >= scene.end.get() {
                    return seen;
                }
            }
        };
        *seen.ends.entry(close).or_default() += 1;
    }
}

/// Posts events, each batch to another node, and a batch that is not accepted to the next one.
async fn publish(scene: Rc<Scene>) {
    let client = awc::Client::builder().timeout(Duration::from_secs(30)).finish();
    let manager = &scene.manager;
    let mut turn = 0;
    while !manager.is_over.get() {
        let url = {
            let nodes = scene.nodes.borrow();
            format!("{}/api/events", nodes[turn % nodes.len()].manager_url)
        };
        turn += 1;
        let first = manager.published.get() + 1;
        let events: Vec<_> = (first..first + BATCH).map(event).collect();
        match client.post(&url).send_json(&events).await.map(|answer| answer.status().as_u16()) {
            Ok(200) => {
                manager.published.update(|number| number + BATCH);
                sleep(scene.pace).await;
            }
            Ok(503) | Err(_) => {
                manager.refused.update(|number| number + 1);
                sleep(RETRY_PAUSE).await;
            }
            Ok(status) => panic!("status {status}"),
        }
    }
}
