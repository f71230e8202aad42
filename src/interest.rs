//! The demand for rooms whose updates a source must subscribe to: which rooms have members, in
//! which order they are supplied, and whether they are.
//!
//! Sessions write it, and one source reads it. Servers that share a stream exchange theirs: that of the
//! server that runs the source holds the demand of all.
//!
//! ```text
//! session ── Stays::enter, leave ──▶ Interest ── changes(): room and turn ──▶ source
//!         ◀── Stays::supply ───────   │  ▲     ◀── set_supply(room) ──────────
//!                      own_changes(), │  │ set_elsewhere(), set_supply()
//!                       supplies()    ▼  │
//!                                other servers
//! ```

use std::{
    collections::HashMap,
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use crate::{farm::Room, slots::Shrink, stats::Refused};

/// The number of rooms of a session that count as its first ones. A page needs two, a job's and a
/// task log's.
const FIRST_ROOMS: usize = 4;

/// The maximum number of rooms with members. Beyond it, a session can add only its first rooms.
const MAX_ROOMS: usize = 50_000;

/// A room's place in the order of supply.
///
/// The first rooms of all sessions come before the next ones of any session; each further group is
/// as big as all groups before it. Within a group, the first session of each address comes before
/// the second session of any address. A session with hundreds of rooms, or an address with hundreds
/// of sessions, therefore cannot displace a page that needs two rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u32);

impl Turn {
    /// The turn of a room without members.
    pub const LAST: Self = Self(u32::MAX);

    /// The earliest turn.
    pub const FIRST: Self = Self(0);

    const GROUP: u32 = 24;

    /// Returns the turn of the `rank`th room of a session that is the `ordinal`th of its address, both counted from 0.
    pub fn new(rank: usize, ordinal: u32) -> Self {
        let group = (rank / FIRST_ROOMS).checked_ilog2().map_or(0, |doublings| doublings + 1);
        Self(group << Self::GROUP | ordinal.min((1 << Self::GROUP) - 1))
    }

    /// Returns the turn as a number, for other servers.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Returns the turn that has this number.
    pub fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// Returns whether the room is among the first of some session.
    pub fn is_of_first_rooms(self) -> bool {
        self.0 >> Self::GROUP == 0
    }
}

/// Whether a room's updates arrive from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// The source is working on it, or is disconnected.
    Pending,
    Supplied,
    Missing(Shortage),
}

/// Why a room is not supplied. Browsers receive the text in the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    #[error("the Manager does not know this job or task; updates begin once it does")]
    Unknown,
    #[error("the server follows too many jobs and tasks; updates begin once there is room")]
    Full,
    #[error("the Manager has not accepted the subscription; it is tried again")]
    Failed,
    #[error("too many subscriptions, ignoring request")]
    TooMany,
}

impl Shortage {
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Full, Self::Failed, Self::TooMany];

    /// Returns the name of the shortage, for other servers.
    pub fn name(self) -> &'static str {
        self.refused().as_str()
    }

    /// Returns the refusal that counts it.
    pub fn refused(self) -> Refused {
        match self {
            Self::Unknown => Refused::UnknownEntity,
            Self::Full => Refused::RelayFull,
            Self::Failed => Refused::SubscriptionFailed,
            Self::TooMany => Refused::TooManyRooms,
        }
    }
}

/// The demand for rooms that a source must subscribe to.
#[derive(Debug, Default)]
pub struct Interest {
    demand: Mutex<Demand>,
    changed: Notify,
    /// With other servers: something changed that they must hear of.
    to_share: Option<Notify>,
}

/// What other servers must hear of.
#[derive(Debug, Default)]
pub struct News {
    /// Rooms whose members on this server have changed, with the new turn of these.
    pub demand: Vec<(Room, Option<Turn>)>,
    /// Rooms whose supply has changed, in order.
    pub supplies: Vec<(Room, Supply)>,
}

#[derive(Debug, Default)]
struct Demand {
    rooms: HashMap<Room, Wish>,
    /// The number of sessions with rooms, by address.
    sessions: HashMap<IpAddr, u32>,
    /// Rooms whose turn has changed since the last call of [`Interest::changes`], each at most
    /// once.
    changed: Vec<Room>,
    /// The same for the turn of this server's members, and [`Interest::news`].
    own_changed: Vec<Room>,
    supplies: Vec<(Room, Supply)>,
}

#[derive(Debug)]
struct Wish {
    /// The turn of each member.
    turns: Vec<Turn>,
    /// The turn of the members on other servers.
    elsewhere: Option<Turn>,
    supply: Supply,
    waiting: Vec<oneshot::Sender<Supply>>,
    is_change_noted: bool,
    is_own_change_noted: bool,
}

/// The rooms of one session. Dropping it leaves them.
#[derive(Debug)]
pub struct Stays {
    interest: Arc<Interest>,
    client: IpAddr,
    ordinal: u32,
    rooms: Vec<(Room, Turn)>,
}

impl Interest {
    /// Creates that of a server that shares it with others.
    pub fn shared() -> Self {
        Self { to_share: Some(Notify::new()), ..Self::default() }
    }

    /// Waits until there is something that other servers must hear of. Without others it never is.
    pub async fn news(&self) -> News {
        let Some(to_share) = &self.to_share else { return pending().await };
        loop {
            let news = self.take_news();
            if !news.demand.is_empty() || !news.supplies.is_empty() {
                return news;
            }
            to_share.notified().await;
        }
    }

    fn take_news(&self) -> News {
        let mut demand = self.demand();
        let (own, supplies) = (std::mem::take(&mut demand.own_changed), std::mem::take(&mut demand.supplies));
        let own = own.into_iter().map(|room| {
            let wish = demand.rooms.get_mut(&room);
            let turn = wish.and_then(|wish| {
                wish.is_own_change_noted = false;
                wish.own_turn()
            });
            demand.forget_if_idle(room);
            (room, turn)
        });
        News { demand: own.collect(), supplies }
    }

    /// Returns the rooms that have members on this server, with their turns.
    pub fn own(&self) -> Vec<(Room, Turn)> {
        self.demand().rooms.iter().filter_map(|(&room, wish)| Some((room, wish.own_turn()?))).collect()
    }

    /// Returns the supply of a room.
    pub fn supply_of(&self, room: Room) -> Supply {
        self.demand().rooms.get(&room).map_or(Supply::Pending, |wish| wish.supply)
    }

    /// Records the turn of a room's members on other servers; `None` is a room without any.
    pub fn set_elsewhere(&self, room: Room, turn: Option<Turn>) {
        let mut demand = self.demand();
        let is_new = !demand.rooms.contains_key(&room);
        let may_be_new = turn.is_some_and(|turn| demand.rooms.len() < MAX_ROOMS || turn.is_of_first_rooms());
        if !room.is_of_entity() || is_new && !may_be_new {
            return;
        }
        let wish = demand.rooms.entry(room).or_insert_with(Wish::new);
        let before = wish.turn();
        wish.elsewhere = turn;
        if wish.turn() != before {
            self.note_change(&mut demand, room);
        }
    }

    /// Records the supply that another server reports of a room, if the room has members.
    pub fn learn_supply(&self, room: Room, supply: Supply) {
        if self.demand().rooms.contains_key(&room) {
            self.set_supply(room, supply);
        }
    }

    /// Forgets changes, and rooms without members, whatever their supply. For a server on which the source
    /// does not run, so that nothing reads the changes or withdraws the rooms.
    pub fn forget_unread(&self) {
        let mut demand = self.demand();
        demand.changed = Vec::new();
        demand.rooms.retain(|_, wish| {
            wish.is_change_noted = false;
            wish.turn().is_some() || wish.is_own_change_noted
        });
        demand.rooms.shrink_if_sparse();
    }

    /// Waits until the turns of rooms change, and returns them. `None` is the turn of a room
    /// without members.
    pub async fn changes(&self) -> Vec<(Room, Option<Turn>)> {
        loop {
            let changes = self.take_changes();
            if !changes.is_empty() {
                return changes;
            }
            self.changed.notified().await;
        }
    }

    /// Returns every room that has members now.
    pub fn occupied(&self) -> Vec<(Room, Turn)> {
        self.demand().rooms.iter().filter_map(|(&room, wish)| Some((room, wish.turn()?))).collect()
    }

    /// Records whether the room is supplied, and wakes the sessions that wait for it.
    pub fn set_supply(&self, room: Room, supply: Supply) {
        let mut demand = self.demand();
        if supply != Supply::Pending {
            demand.rooms.entry(room).or_insert_with(Wish::new);
        }
        let Some(wish) = demand.rooms.get_mut(&room) else { return };
        let has_changed = std::mem::replace(&mut wish.supply, supply) != supply;
        if supply != Supply::Pending {
            for waiting in wish.waiting.drain(..) {
                // A session may have ended meanwhile.
                let _ = waiting.send(supply);
            }
        }
        demand.forget_if_idle(room);
        if let Some(to_share) = self.to_share.as_ref().filter(|_| has_changed && demand.supplies.len() < MAX_ROOMS) {
            // Beyond the limit other servers hear of it when they ask again.
            demand.supplies.push((room, supply));
            to_share.notify_one();
        }
    }

    fn take_changes(&self) -> Vec<(Room, Option<Turn>)> {
        let mut demand = self.demand();
        let changed = std::mem::take(&mut demand.changed);
        let mut changes = Vec::with_capacity(changed.len());
        for room in changed {
            if let Some(wish) = demand.rooms.get_mut(&room) {
                wish.is_change_noted = false;
                changes.push((room, wish.turn()));
            }
            demand.forget_if_idle(room);
        }
        changes
    }

    /// Returns whether a room is supplied, or a channel that reports it later.
    fn state(&self, room: Room) -> Result<Supply, oneshot::Receiver<Supply>> {
        let mut demand = self.demand();
        let Some(wish) = demand.rooms.get_mut(&room) else { return Ok(Supply::Pending) };
        if wish.supply != Supply::Pending {
            return Ok(wish.supply);
        }
        if wish.waiting.len() == wish.waiting.capacity() {
            wish.waiting.retain(|waiting| !waiting.is_closed());
        }
        let (sender, receiver) = oneshot::channel();
        wish.waiting.push(sender);
        Err(receiver)
    }

    fn leave(&self, demand: &mut Demand, room: Room, turn: Turn) {
        let Some(wish) = demand.rooms.get_mut(&room) else { return };
        let before = wish.turn();
        if let Some(index) = wish.turns.iter().position(|other| *other == turn) {
            wish.turns.swap_remove(index);
            wish.turns.shrink_if_sparse();
        }
        if wish.turn() != before {
            self.note_change(demand, room);
        }
        self.note_own_change(demand, room);
    }

    fn note_own_change(&self, demand: &mut Demand, room: Room) {
        let (Some(to_share), Some(wish)) = (&self.to_share, demand.rooms.get_mut(&room)) else { return };
        if !std::mem::replace(&mut wish.is_own_change_noted, true) {
            demand.own_changed.push(room);
            to_share.notify_one();
        }
    }

    fn note_change(&self, demand: &mut Demand, room: Room) {
        let Some(wish) = demand.rooms.get_mut(&room) else { return };
        if !std::mem::replace(&mut wish.is_change_noted, true) {
            demand.changed.push(room);
            self.changed.notify_one();
        }
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stays {
    /// Registers a session of this address, without rooms.
    pub fn new(interest: Arc<Interest>, client: IpAddr) -> Self {
        let ordinal = {
            let mut demand = interest.demand();
            let sessions = demand.sessions.entry(client).or_default();
            *sessions += 1;
            *sessions - 1
        };
        Self { interest, client, ordinal, rooms: Vec::new() }
    }

    /// Enters a room. Does nothing for a room that is always supplied, or that the session is in.
    ///
    /// # Errors
    ///
    /// Returns [`Shortage::TooMany`] if there are `MAX_ROOMS` rooms already.
    pub fn enter(&mut self, room: Room) -> Result<(), Shortage> {
        if !room.is_of_entity() || self.is_in(room) {
            return Ok(());
        }
        let turn = Turn::new(self.rooms.len(), self.ordinal);
        let mut demand = self.interest.demand();
        let is_new = !demand.rooms.contains_key(&room);
        if is_new && demand.rooms.len() >= MAX_ROOMS && !turn.is_of_first_rooms() {
            return Err(Shortage::TooMany);
        }
        let wish = demand.rooms.entry(room).or_insert_with(Wish::new);
        let before = wish.turn();
        wish.turns.push(turn);
        if before.is_none_or(|before| turn < before) {
            self.interest.note_change(&mut demand, room);
        }
        self.interest.note_own_change(&mut demand, room);
        drop(demand);
        self.rooms.push((room, turn));
        Ok(())
    }

    pub fn leave(&mut self, room: Room) {
        if let Some(index) = self.rooms.iter().position(|(stay, _)| *stay == room) {
            let (room, turn) = self.rooms.swap_remove(index);
            self.rooms.shrink_if_sparse();
            self.interest.leave(&mut self.interest.demand(), room, turn);
        }
    }

    /// Waits until it is known whether the room is supplied. Returns [`Supply::Pending`] after
    /// `limit`.
    pub fn supply(&self, room: Room, limit: Duration) -> impl Future<Output = Supply> + use<> {
        let state = if self.is_in(room) { self.interest.state(room) } else { Ok(Supply::Supplied) };
        async move {
            match state {
                Ok(supply) => supply,
                Err(receiver) => match tokio::time::timeout(limit, receiver).await {
                    Ok(Ok(supply)) => supply,
                    Ok(Err(_)) | Err(_) => Supply::Pending,
                },
            }
        }
    }

    fn is_in(&self, room: Room) -> bool {
        self.rooms.iter().any(|(stay, _)| *stay == room)
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        let mut demand = self.interest.demand();
        for &(room, turn) in &self.rooms {
            self.interest.leave(&mut demand, room, turn);
        }
        if let Some(sessions) = demand.sessions.get_mut(&self.client) {
            *sessions -= 1;
            if *sessions == 0 {
                demand.sessions.remove(&self.client);
                demand.sessions.shrink_if_sparse();
            }
        }
    }
}

impl Demand {
    /// Removes a room without members that the source has seen and does not supply.
    fn forget_if_idle(&mut self, room: Room) {
        let idle = |wish: &Wish| {
            wish.turn().is_none()
                && !wish.is_change_noted
                && !wish.is_own_change_noted
                && wish.supply == Supply::Pending
        };
        if self.rooms.get(&room).is_some_and(idle) {
            self.rooms.remove(&room);
            self.rooms.shrink_if_sparse();
        }
    }
}

impl Wish {
    fn new() -> Self {
        Self {
            turns: Vec::new(),
            elsewhere: None,
            supply: Supply::Pending,
            waiting: Vec::new(),
            is_change_noted: false,
            is_own_change_noted: false,
        }
    }

    fn turn(&self) -> Option<Turn> {
        self.own_turn().into_iter().chain(self.elsewhere).min()
    }

    /// Returns the turn of the members on this server.
    fn own_turn(&self) -> Option<Turn> {
        self.turns.iter().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn job(number: usize) -> Room {
        Room::Job(format!("00000000-0000-4000-8000-{number:012}").parse().unwrap())
    }

    fn stays(interest: &Arc<Interest>, last: u8) -> Stays {
        Stays::new(interest.clone(), Ipv4Addr::new(10, 0, 0, last).into())
    }

    #[test]
    fn only_a_change_of_turn_makes_a_difference() {
        let interest = Arc::new(Interest::default());
        let (mut first, mut second) = (stays(&interest, 1), stays(&interest, 2));
        first.enter(Room::Jobs).unwrap();
        assert_eq!(interest.take_changes(), []);
        (0..FIRST_ROOMS).for_each(|number| second.enter(job(number)).unwrap());
        second.enter(job(9)).unwrap();
        assert_eq!(interest.take_changes()[FIRST_ROOMS], (job(9), Some(Turn::new(FIRST_ROOMS, 0))));
        first.enter(job(9)).unwrap();
        first.enter(job(9)).unwrap();
        assert_eq!(interest.take_changes(), [(job(9), Some(Turn::new(0, 0)))], "it is among the first of some session");
        first.leave(job(9));
        assert_eq!(interest.take_changes(), [(job(9), Some(Turn::new(FIRST_ROOMS, 0)))]);
        drop(second);
        assert_eq!(interest.take_changes().len(), FIRST_ROOMS + 1);
        drop(first);
        assert!(interest.demand().rooms.is_empty() && interest.demand().sessions.is_empty());
    }

    #[test]
    fn the_first_rooms_of_each_session_and_of_each_address_come_first() {
        let turns: Vec<Turn> = [(0, 0), (3, 0), (0, 1), (0, 4999), (4, 0), (7, 3), (8, 0), (15, 9), (16, 0), (997, 0)]
            .map(|(rank, ordinal)| Turn::new(rank, ordinal))
            .into();
        assert!(turns.is_sorted(), "{turns:?}");
        assert_eq!(turns[0], turns[1]);
        assert_eq!(turns.iter().filter(|turn| turn.is_of_first_rooms()).count(), 4);
        assert!(Turn::new(usize::MAX, u32::MAX) < Turn::LAST);
    }

    #[test]
    fn several_changes_of_a_room_are_reported_as_one() {
        let interest = Arc::new(Interest::default());
        for _ in 0..1000 {
            stays(&interest, 1).enter(job(1)).unwrap();
        }
        assert_eq!(interest.demand().changed.len(), 1);
        assert_eq!(interest.take_changes(), [(job(1), None)]);
    }

    #[test]
    fn demand_is_bounded_but_each_session_gets_its_first_rooms() {
        let interest = Arc::new(Interest::default());
        let mut greedy: Vec<Stays> = (0..=MAX_ROOMS / 1000).map(|_| stays(&interest, 1)).collect();
        let entered = (0..MAX_ROOMS).filter(|&number| greedy[number / 1000].enter(job(number)).is_ok()).count();
        assert_eq!(entered, MAX_ROOMS);
        assert_eq!(greedy[0].enter(job(MAX_ROOMS)), Err(Shortage::TooMany));
        let mut modest = stays(&interest, 1);
        let taken = (0..10).filter(|number| modest.enter(job(MAX_ROOMS + 1 + number)).is_ok()).count();
        assert_eq!(taken, FIRST_ROOMS);
        assert!(modest.enter(job(0)).is_ok(), "another session demands it already");
    }

    #[actix_rt::test]
    async fn a_session_waits_until_its_room_is_supplied() {
        let interest = Arc::new(Interest::default());
        let mut session = stays(&interest, 1);
        session.enter(job(1)).unwrap();
        let mut waiting = Box::pin(session.supply(job(1), LONG));
        assert!((&mut waiting).now_or_never().is_none());
        interest.set_supply(job(1), Supply::Supplied);
        assert_eq!(waiting.await, Supply::Supplied);
        // The source supplies an empty room for a while, for a session that returns.
        drop(session);
        assert_eq!(interest.take_changes(), [(job(1), None)]);
        let mut session = stays(&interest, 1);
        session.enter(job(1)).unwrap();
        assert_eq!(session.supply(job(1), LONG).now_or_never(), Some(Supply::Supplied));
        let missing = Supply::Missing(Shortage::Full);
        interest.set_supply(job(1), missing);
        assert_eq!(session.supply(job(1), LONG).now_or_never(), Some(missing));
        assert_eq!(session.supply(Room::Jobs, LONG).now_or_never(), Some(Supply::Supplied));
    }

    #[actix_rt::test]
    async fn waiting_ends_and_leaves_nothing_behind() {
        let interest = Arc::new(Interest::default());
        let mut session = stays(&interest, 1);
        session.enter(job(1)).unwrap();
        assert_eq!(session.supply(job(1), MOMENT).await, Supply::Pending);
        for _ in 0..1000 {
            drop(session.supply(job(1), LONG));
        }
        assert!(interest.demand().rooms[&job(1)].waiting.len() <= 8);
        drop(session);
        assert_eq!(interest.changes().await, [(job(1), None)]);
        interest.set_supply(job(1), Supply::Pending);
        assert!(interest.demand().rooms.is_empty());
    }

    #[test]
    fn servers_exchange_demand_and_supply() {
        let (leader, follower) = (Arc::new(Interest::shared()), Arc::new(Interest::shared()));
        let mut session = stays(&follower, 1);
        session.enter(job(1)).unwrap();
        let news = follower.take_news();
        assert_eq!(news.demand, [(job(1), Some(Turn::new(0, 0)))]);
        assert_eq!(news.demand, follower.own().into_iter().map(|(room, turn)| (room, Some(turn))).collect::<Vec<_>>());
        leader.set_elsewhere(job(1), news.demand[0].1);
        leader.set_elsewhere(job(1), news.demand[0].1);
        assert_eq!((leader.take_changes(), leader.own()), (news.demand, Vec::new()));
        assert_eq!(leader.occupied(), [(job(1), Turn::new(0, 0))]);
        leader.set_supply(job(1), Supply::Supplied);
        leader.set_supply(job(1), Supply::Supplied);
        assert_eq!(leader.take_news().supplies, [(job(1), Supply::Supplied)]);
        follower.set_supply(job(1), Supply::Supplied);
        assert_eq!(session.supply(job(1), LONG).now_or_never(), Some(Supply::Supplied));
        drop(session);
        assert_eq!(follower.take_news().demand, [(job(1), None)]);
        assert_eq!(follower.supply_of(job(1)), Supply::Supplied);
        follower.forget_unread();
        assert_eq!(follower.supply_of(job(1)), Supply::Pending);
        // The leader's own members count beside them.
        let mut session = stays(&leader, 1);
        session.enter(job(1)).unwrap();
        leader.set_elsewhere(job(1), None);
        assert_eq!(leader.take_changes(), []);
        drop(session);
        assert_eq!(leader.take_changes(), [(job(1), None)]);
        leader.set_supply(job(1), Supply::Pending);
        leader.take_news();
        assert!(leader.demand().rooms.is_empty());
    }
}
