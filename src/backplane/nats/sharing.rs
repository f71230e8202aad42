//! Exchanges the demand for rooms with the other nodes, so that the node that runs the relay follows the
//! rooms of all.
//!
//! ```text
//! this node's members ──▶ <stream>.interest: rooms and turns ──▶ every node: demand elsewhere
//! every node: supply  ◀── <stream>.supply:   rooms and states ◀── the leader
//! ```
//!
//! These are plain messages of NATS. What is lost is made up for: a node repeats its rooms, the leader
//! answers with their supply, and rooms that are not repeated expire.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_rt::time::{interval, sleep};
use async_nats::{Message, connection::State};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{connection::Connection, leader::Leader};
use crate::{
    actors::{
        Hub,
        messages::{Enqueue, Lapse},
    },
    clock,
    farm::Room,
    interest::{Interest, Shortage, Supply, Turn},
};

/// The interval in which a node repeats its rooms, and the time after which a room expires.
const REPEAT: Duration = Duration::from_secs(3);
const VALID: Duration = Duration::from_secs(10);

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The maximum number of rooms in one message: about 100 kB.
const MAX_ROOMS: usize = 2000;

/// The rooms of one node, or their supply.
#[derive(Debug, Serialize, Deserialize)]
struct Rooms<T> {
    /// The process.
    id: String,
    rooms: Vec<(String, T)>,
}

/// The exchange of one node.
pub(super) struct Sharing {
    pub(super) connection: Arc<Connection>,
    pub(super) hub: Arc<Hub>,
    pub(super) interest: Arc<Interest>,
    pub(super) leader: Arc<Leader>,
    /// The id of this process.
    pub(super) id: String,
}

/// The turns of rooms on other nodes, by process, with the time at which each was heard.
type Elsewhere = HashMap<Room, HashMap<String, (Turn, Instant)>>;

impl Sharing {
    /// Exchanges rooms for as long as the server runs.
    pub(super) async fn run(&self) {
        loop {
            if let Err(error) = self.exchange().await {
                log::warn!("rooms are not exchanged with other nodes: {error}");
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn exchange(&self) -> Result<(), async_nats::SubscribeError> {
        let client = &self.connection.client;
        let mut demands = client.subscribe(self.subject("interest")).await?;
        let mut supplies = client.subscribe(self.subject("supply")).await?;
        let (mut elsewhere, mut repeat) = (Elsewhere::new(), interval(REPEAT));
        loop {
            tokio::select! {
                news = self.interest.news() => {
                    self.tell_demand(news.demand).await;
                    if self.leads() {
                        self.tell_supply(news.supplies).await;
                    }
                }
                message = demands.next() => match message.map(|message| self.read(&message)) {
                    Some(Some(rooms)) => self.take_demand(&mut elsewhere, rooms).await,
                    Some(None) => {}
                    None => return Ok(()),
                },
                message = supplies.next() => match message.map(|message| self.read(&message)) {
                    Some(Some(rooms)) => self.take_supply(rooms),
                    Some(None) => {}
                    None => return Ok(()),
                },
                _ = repeat.tick() => {
                    self.expire(&mut elsewhere);
                    let own = self.interest.own();
                    self.tell_demand(own.into_iter().map(|(room, turn)| (room, Some(turn))).collect()).await;
                    if !self.leads() {
                        self.interest.forget_unread();
                    }
                }
            }
        }
    }

    async fn take_demand(&self, elsewhere: &mut Elsewhere, Rooms { id, rooms }: Rooms<Option<u32>>) {
        let now = clock::now();
        let rooms = rooms.into_iter().filter_map(|(name, turn)| Some((name.parse().ok()?, turn)));
        let mut supplies = Vec::new();
        for (room, turn) in rooms {
            let nodes = elsewhere.entry(room).or_default();
            match turn {
                Some(turn) => drop(nodes.insert(id.clone(), (Turn::of_number(turn), now))),
                None => drop(nodes.remove(&id)),
            }
            self.note(elsewhere, room);
            supplies.extend(turn.map(|_| (room, self.interest.supply_of(room))));
        }
        if self.leads() {
            // What is pending is told once it is not.
            supplies.retain(|(_, supply)| *supply != Supply::Pending);
            self.tell_supply(supplies).await;
        }
    }

    fn take_supply(&self, Rooms { rooms, .. }: Rooms<String>) {
        if self.leads() {
            return;
        }
        for (name, supply) in rooms {
            let supply = match supply.as_str() {
                SUPPLIED => Some(Supply::Supplied),
                PENDING => Some(Supply::Pending),
                other => Shortage::ALL.into_iter().find(|shortage| shortage.name() == other).map(Supply::Missing),
            };
            let Some((room, supply)) = name.parse().ok().zip(supply) else { continue };
            self.interest.learn_supply(room, supply);
            if supply == Supply::Pending {
                self.hub.registry.enqueue(Lapse { room: Some(room) });
            }
        }
    }

    fn expire(&self, elsewhere: &mut Elsewhere) {
        let now = clock::now();
        let is_old = |heard: Instant| now.saturating_duration_since(heard) > VALID;
        let old = elsewhere.iter().filter(|(_, nodes)| nodes.values().any(|(_, heard)| is_old(*heard)));
        for room in old.map(|(room, _)| *room).collect::<Vec<_>>() {
            if let Some(nodes) = elsewhere.get_mut(&room) {
                nodes.retain(|_, (_, heard)| !is_old(*heard));
            }
            self.note(elsewhere, room);
        }
    }

    /// Records the demand for a room on all other nodes together.
    fn note(&self, elsewhere: &mut Elsewhere, room: Room) {
        let turn = elsewhere.get(&room).and_then(|nodes| nodes.values().map(|(turn, _)| *turn).min());
        if turn.is_none() {
            elsewhere.remove(&room);
        }
        self.interest.set_elsewhere(room, turn);
    }

    async fn tell_demand(&self, demand: Vec<(Room, Option<Turn>)>) {
        let rooms = demand.into_iter().map(|(room, turn)| (room.to_string(), turn.map(Turn::number)));
        self.tell("interest", rooms.collect()).await;
    }

    async fn tell_supply(&self, supplies: Vec<(Room, Supply)>) {
        let name = |supply| match supply {
            Supply::Supplied => SUPPLIED,
            Supply::Pending => PENDING,
            Supply::Missing(shortage) => shortage.name(),
        };
        let rooms = supplies.into_iter().map(|(room, supply)| (room.to_string(), name(supply).to_owned()));
        self.tell("supply", rooms.collect()).await;
    }

    async fn tell<T: Serialize>(&self, what: &str, mut rooms: Vec<(String, T)>) {
        let client = &self.connection.client;
        // Without a connection it would be sent much later.
        while !rooms.is_empty() && client.connection_state() == State::Connected {
            let rest = rooms.split_off(rooms.len().min(MAX_ROOMS));
            let message = Rooms { id: self.id.clone(), rooms: std::mem::replace(&mut rooms, rest) };
            let message = serde_json::to_vec(&message).expect("texts and numbers serialize");
            if let Err(error) = client.publish(self.subject(what), message.into()).await {
                log::debug!("rooms are not sent to other nodes: {error}");
            }
        }
    }

    /// Decodes a message of another process.
    fn read<T: DeserializeOwned>(&self, message: &Message) -> Option<Rooms<T>> {
        serde_json::from_slice(&message.payload).ok().filter(|rooms: &Rooms<T>| rooms.id != self.id)
    }

    fn leads(&self) -> bool {
        self.leader.fence().is_some()
    }

    fn subject(&self, what: &str) -> String {
        format!("{}.{what}", self.connection.config.name)
    }
}

const SUPPLIED: &str = "supplied";
const PENDING: &str = "pending";
