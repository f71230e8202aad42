//! A Manager that a test controls: API, files and live connection, as far as the server uses them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
};

use actix_codec::Framed;
use actix_http::ws::{self, Codec, Frame, Message};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

pub(super) const JOB: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
pub(super) const TASK: &str = "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c99";

/// A Manager. Dropping it stops it.
pub(super) struct StandIn {
    pub(super) state: Rc<State>,
    address: SocketAddr,
    serving: RefCell<Option<JoinHandle<()>>>,
}

pub(super) struct State {
    pub(super) version: RefCell<String>,
    pub(super) jobs: RefCell<Vec<Value>>,
    pub(super) workers: RefCell<Vec<Value>>,
    pub(super) farm: RefCell<Option<&'static str>>,
    /// Logs of tasks, under the task's id.
    pub(super) logs: RefCell<HashMap<String, Vec<u8>>>,
    /// Whether subscriptions are acknowledged.
    pub(super) acknowledges: Cell<bool>,
    /// What subscriptions to jobs and logs are answered.
    pub(super) answer: Cell<&'static str>,
    /// Whether what comes over live connections is read.
    pub(super) reads: Cell<bool>,
    /// Whether workers can be listed.
    pub(super) lists: Cell<bool>,
    /// Whether live connections end as soon as they are made.
    pub(super) drops: Cell<bool>,
    /// How long nothing may come over a live connection, in milliseconds.
    pub(super) ping_timeout: Cell<u32>,
    /// What was asked, method and path, and what was subscribed to.
    pub(super) asked: RefCell<Vec<String>>,
    links: RefCell<Vec<mpsc::Sender<Message>>>,
    connections: RefCell<Vec<JoinHandle<()>>>,
}

/// A request, as far as it matters.
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Reads one; `None` at the end of the connection.
    pub(super) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut request = Self { head, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body).await.ok()?;
        Some(request)
    }

    /// Method and path.
    pub(super) fn target(&self) -> (&str, &str) {
        let mut words = self.head.split(' ');
        (words.next().unwrap(), words.next().unwrap())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl StandIn {
    pub(super) async fn start(version: &str) -> Self {
        let state = State {
            version: RefCell::new(version.to_owned()),
            jobs: RefCell::default(),
            workers: RefCell::default(),
            farm: RefCell::new(Some("idle")),
            logs: RefCell::default(),
            acknowledges: Cell::new(true),
            answer: Cell::new("ok"),
            reads: Cell::new(true),
            drops: Cell::new(false),
            lists: Cell::new(true),
            ping_timeout: Cell::new(60_000),
            asked: RefCell::default(),
            links: RefCell::default(),
            connections: RefCell::default(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut manager = Self { state: Rc::new(state), address, serving: RefCell::new(None) };
        manager.address = manager.listen().await;
        manager
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As if it was killed.
    pub(super) async fn stop(&self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        self.break_links();
    }

    /// Only the connections end.
    pub(super) fn break_links(&self) {
        self.state.links.borrow_mut().clear();
        self.state.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// On the same address as before.
    pub(super) async fn start_again(&self) {
        self.listen().await;
    }

    /// Sends an event to all connected clients.
    pub(super) async fn emit(&self, name: &str, payload: &Value) {
        self.send(Message::Text(format!("42{}", json!([name, payload])).into())).await;
    }

    pub(super) async fn send(&self, message: Message) {
        let links = self.state.links.borrow().clone();
        for link in links {
            let copy = match &message {
                Message::Text(text) => Message::Text(text.clone()),
                Message::Binary(data) => Message::Binary(data.clone()),
                other => panic!("{other:?} is not sent"),
            };
            let _ = link.send(copy).await;
        }
    }

    pub(super) fn was_asked(&self, what: &str) -> usize {
        self.state.asked.borrow().iter().filter(|asked| asked.as_str() == what).count()
    }

    /// How often anything that begins like this was asked.
    pub(super) fn was_asked_like(&self, beginning: &str) -> usize {
        self.state.asked.borrow().iter().filter(|asked| asked.starts_with(beginning)).count()
    }

    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = self.state.clone();
        let serving = actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = actix_rt::spawn(serve(state.clone(), stream));
                state.connections.borrow_mut().push(connection);
            }
        });
        self.serving.replace(Some(serving));
        address
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        self.break_links();
    }
}

async fn serve(state: Rc<State>, mut stream: TcpStream) {
    while let Some(request) = Request::read(&mut stream).await {
        let (method, path) = request.target();
        state.asked.borrow_mut().push(format!("{method} {path}"));
        if path.starts_with("/socket.io/") {
            return talk(&state, stream, &request).await;
        }
        let answer = state.answer(&request);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The live connection.
async fn talk(state: &State, mut stream: TcpStream, request: &Request) {
    let accept = ws::hash_key(request.header("sec-websocket-key").unwrap().as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
        String::from_utf8_lossy(&accept)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut link = Framed::new(stream, Codec::new());
    let timeout = state.ping_timeout.get();
    let open = format!(r#"0{{"sid":"x","upgrades":[],"pingInterval":{},"pingTimeout":{timeout}}}"#, timeout / 2);
    for text in [&open, "40"] {
        link.send(Message::Text(text.to_owned().into())).await.unwrap();
    }
    if state.drops.get() {
        return;
    }
    let (sender, mut outgoing) = mpsc::channel(10_000);
    state.links.borrow_mut().push(sender);
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => { if link.send(message).await.is_err() { return } }
                None => return,
            },
            frame = link.next(), if state.reads.get() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    if let Some(answer) = state.receive(std::str::from_utf8(&text).unwrap())
                        && link.send(Message::Text(answer.into())).await.is_err()
                    {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

impl State {
    /// Takes a packet of the server's; what it is answered.
    fn receive(&self, packet: &str) -> Option<String> {
        if packet == "2" {
            return Some("3".to_owned());
        }
        let event = packet.strip_prefix("42").unwrap();
        let digits = event.len() - event.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        let (ack, event) = event.split_at(digits);
        let event: Value = serde_json::from_str(event).unwrap();
        let request = &event[1];
        let what = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
        let line = format!("{} {} {}", what("op"), what("type"), what("uuid"));
        self.asked.borrow_mut().push(line.trim_end().to_owned());
        let answer = if what("uuid").is_empty() { "ok" } else { self.answer.get() };
        self.acknowledges.get().then(|| format!("43{ack}{}", json!([answer])))
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let json = |value: Value| response("200 OK", "", value.to_string().as_bytes());
        let is_old = self.version.borrow().starts_with("3.0");
        match request.target() {
            ("GET", "/api/v3/version") => json(json!({"name": "Stand-in", "version": *self.version.borrow()})),
            ("GET", "/api/v3/jobs") if is_old => response("400 Bad Request", "", b"{}"),
            ("GET", "/api/v3/jobs") | ("POST", "/api/v3/jobs/query") => json(json!({"jobs": *self.jobs.borrow()})),
            ("GET", "/api/v3/worker-mgt/workers") if !self.lists.get() => {
                response("500 Internal Server Error", "", b"{}")
            }
            ("GET", "/api/v3/worker-mgt/workers") => json(json!({"workers": *self.workers.borrow()})),
            ("GET", "/api/v3/worker-mgt/tags") if !is_old => json(json!({"tags": []})),
            ("GET", "/api/v3/status") if !is_old => json(json!({"status": *self.farm.borrow()})),
            ("GET", path) if let Some(id) = path.strip_prefix("/api/v3/jobs/") => {
                match self.jobs.borrow().iter().find(|job| job["id"] == id) {
                    Some(job) => json(job.clone()),
                    None => response("404 Not Found", "", b"no such job"),
                }
            }
            ("GET", path) => match path.strip_prefix("/api/v3/tasks/").and_then(|path| path.strip_suffix("/log")) {
                Some(task) => match self.logs.borrow().get(task) {
                    Some(log) => json(json!({"task_id": task, "size": log.len(), "url": format!("/logs/{task}")})),
                    None => response("404 Not Found", "", b""),
                },
                None => self.file(path, request),
            },
            _ => response("404 Not Found", "", b"not found"),
        }
    }

    fn file(&self, path: &str, request: &Request) -> Vec<u8> {
        let logs = self.logs.borrow();
        let Some(file) = path.strip_prefix("/logs/").and_then(|task| logs.get(task)) else {
            return response("404 Not Found", "", b"not found");
        };
        let range = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        match file.get(from..file.len().min(to + 1)) {
            Some(part) if !part.is_empty() => response("206 Partial Content", "", part),
            _ => response("416 Requested Range Not Satisfiable", "", b""),
        }
    }
}

pub(super) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(super) fn job(id: &str, status: &str, updated: u32) -> Value {
    json!({
        "id": id, "name": "one", "priority": 50, "type": "t", "status": status, "refresh_tasks": false,
        "updated": format!("2026-11-23T21:40:{updated:02}Z"),
    })
}
