//! A browser, as the server sees it.

use std::{collections::HashMap, time::Duration};

use flamenco_webupdates::{
    client::{Address, Client, ConnectionEnd, Incoming, Limits},
    clock,
};
use serde_json::{Value, json};

use super::server::PATIENCE;

pub(super) struct Browser {
    client: Client,
    /// The events that were received and not taken yet.
    events: Vec<(String, Value)>,
}

impl Browser {
    pub(super) async fn connect(address: &Address) -> Self {
        Self { client: Client::connect(address, Limits::default()).await.unwrap(), events: Vec::new() }
    }

    /// Subscribes; how long the acknowledgement took.
    pub(super) async fn subscribe(&mut self, kind: &str, uuid: Option<&str>) -> Duration {
        let start = clock::now();
        assert_eq!(self.ask("subscribe", kind, uuid).await, "ok");
        start.elapsed()
    }

    pub(super) async fn unsubscribe(&mut self, kind: &str, uuid: Option<&str>) {
        assert_eq!(self.ask("unsubscribe", kind, uuid).await, "ok");
    }

    /// Subscribes; the acknowledgement, and how long it took.
    pub(super) async fn try_subscribe(&mut self, kind: &str, uuid: Option<&str>) -> (String, Duration) {
        let start = clock::now();
        let answer = self.ask("subscribe", kind, uuid).await;
        (answer, start.elapsed())
    }

    /// Subscribes to many rooms at once; the acknowledgements, in their order.
    pub(super) async fn subscribe_all(&mut self, kind: &str, uuids: impl IntoIterator<Item = String>) -> Vec<String> {
        let ask =
            |uuid| self.client.emit_with_ack("/subscription", &json!({"op": "subscribe", "type": kind, "uuid": uuid}));
        let mut asked: HashMap<u64, usize> = HashMap::new();
        for (index, id) in uuids.into_iter().map(ask).enumerate() {
            asked.insert(id.unwrap(), index);
        }
        let mut answers = vec![String::new(); asked.len()];
        while !asked.is_empty() {
            match self.incoming().await.unwrap() {
                Incoming::Ack { id, args } => {
                    if let Some(index) = asked.remove(&id) {
                        answers[index] = serde_json::from_str(args[0].get()).unwrap();
                    }
                }
                Incoming::Event { name, args } => self.keep(name, &args),
            }
        }
        answers
    }

    async fn ask(&mut self, op: &str, kind: &str, uuid: Option<&str>) -> String {
        let mut argument = json!({"op": op, "type": kind});
        if let Some(uuid) = uuid {
            argument["uuid"] = uuid.into();
        }
        self.answer("/subscription", &argument).await
    }

    /// Emits an event and returns the acknowledgement.
    async fn answer(&mut self, name: &str, argument: &Value) -> String {
        let asked = self.client.emit_with_ack(name, argument).unwrap();
        loop {
            match self.incoming().await.unwrap() {
                Incoming::Ack { id, args } if id == asked => return serde_json::from_str(args[0].get()).unwrap(),
                Incoming::Ack { .. } => {}
                Incoming::Event { name, args } => self.keep(name, &args),
            }
        }
    }

    /// Sends a chat message and returns the acknowledgement.
    pub(super) async fn chat(&mut self, name: &str, text: &str) -> String {
        self.answer("/chat", &json!({"name": name, "text": text})).await
    }

    /// The next event under this name; others are kept.
    pub(super) async fn next(&mut self, name: &str) -> Value {
        self.next_where(name, |_| true).await
    }

    /// The next event under this name that is the one; others are kept.
    pub(super) async fn next_where(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut looked_at = 0;
        loop {
            let new = &self.events[looked_at..];
            if let Some(index) = new.iter().position(|(known, value)| known == name && is_it(value)) {
                return self.events.remove(looked_at + index).1;
            }
            looked_at = self.events.len();
            self.take_one(name).await;
        }
    }

    /// All events up to the one with this name and payload, which is left out, in their order.
    pub(super) async fn all_until(&mut self, name: &str, payload: &Value) -> Vec<(String, Value)> {
        loop {
            if let Some(index) = self.events.iter().position(|(known, value)| known == name && value == payload) {
                let rest = self.events.split_off(index + 1);
                self.events.pop();
                return std::mem::replace(&mut self.events, rest);
            }
            self.take_one(name).await;
        }
    }

    /// Returns the events that were received and not taken yet, in order.
    pub(super) fn take_all(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.events)
    }

    /// Why the server ended the connection.
    pub(super) async fn end(&mut self) -> ConnectionEnd {
        loop {
            match self.incoming().await {
                Ok(_) => {}
                Err(disconnect) => return disconnect,
            }
        }
    }

    async fn take_one(&mut self, what: &str) {
        let incoming = actix_rt::time::timeout(PATIENCE, self.client.next()).await;
        match incoming.unwrap_or_else(|_| panic!("waited in vain for {what}, having seen {:?}", self.events)).unwrap() {
            Incoming::Event { name, args } => self.keep(name, &args),
            Incoming::Ack { .. } => {}
        }
    }

    async fn incoming(&mut self) -> Result<Incoming, ConnectionEnd> {
        actix_rt::time::timeout(PATIENCE, self.client.next()).await.expect("something comes")
    }

    fn keep(&mut self, name: String, args: &[Box<serde_json::value::RawValue>]) {
        let payload = args.first().map_or(Value::Null, |json| serde_json::from_str(json.get()).unwrap());
        self.events.push((name, payload));
    }
}
