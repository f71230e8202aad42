//! What somebody is interested in, for a source that tells only what it is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::farm::Room;

/// Rooms with members whose events have to be asked for, and whether they are supplied with them.
///
/// Sessions write it, one source reads it.
#[derive(Debug, Default)]
pub struct Interest {
    rooms: Mutex<Rooms>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Rooms {
    known: HashMap<Room, Supply>,
    /// Rooms that became occupied or empty since the source looked, each at most once.
    changed: Vec<Room>,
}

#[derive(Debug)]
struct Supply {
    members: usize,
    is_supplied: watch::Sender<bool>,
    is_change_noted: bool,
}

/// A session's stay in a room: ends when it is dropped.
#[derive(Debug)]
pub struct Stay {
    interest: Arc<Interest>,
    room: Room,
}

impl Interest {
    /// `None` for a room that is always supplied.
    pub fn enter(self: &Arc<Self>, room: Room) -> Option<Stay> {
        if !is_on_demand(room) {
            return None;
        }
        let mut rooms = self.rooms();
        let supply = rooms.known.entry(room).or_insert_with(Supply::new);
        supply.members += 1;
        if supply.members == 1 {
            self.note_change(&mut rooms, room);
        }
        Some(Stay { interest: self.clone(), room })
    }

    /// The rooms that became occupied (`true`) or empty since the last call, as they are now. Waits for one.
    pub async fn changes(&self) -> Vec<(Room, bool)> {
        loop {
            let changes = self.take_changes();
            if !changes.is_empty() {
                return changes;
            }
            self.changed.notified().await;
        }
    }

    /// Every room that is occupied now.
    pub fn occupied(&self) -> Vec<Room> {
        self.rooms().known.iter().filter(|(_, supply)| supply.members > 0).map(|(&room, _)| room).collect()
    }

    /// Tells those who wait for it whether what happens from now on reaches the room.
    pub fn set_supplied(&self, room: Room, is_supplied: bool) {
        let mut rooms = self.rooms();
        match rooms.known.get_mut(&room) {
            Some(supply) => {
                supply.is_supplied.send_replace(is_supplied);
            }
            None if is_supplied => {
                let supply = Supply::new();
                supply.is_supplied.send_replace(true);
                rooms.known.insert(room, supply);
            }
            None => {}
        }
        rooms.forget_if_idle(room);
    }

    fn take_changes(&self) -> Vec<(Room, bool)> {
        let mut rooms = self.rooms();
        let changed = std::mem::take(&mut rooms.changed);
        let mut changes = Vec::with_capacity(changed.len());
        for room in changed {
            if let Some(supply) = rooms.known.get_mut(&room) {
                supply.is_change_noted = false;
                changes.push((room, supply.members > 0));
            }
            rooms.forget_if_idle(room);
        }
        changes
    }

    fn note_change(&self, rooms: &mut Rooms, room: Room) {
        let Some(supply) = rooms.known.get_mut(&room) else { return };
        if !std::mem::replace(&mut supply.is_change_noted, true) {
            rooms.changed.push(room);
            self.changed.notify_one();
        }
    }

    fn leave(&self, room: Room) {
        let mut rooms = self.rooms();
        let Some(supply) = rooms.known.get_mut(&room) else { return };
        supply.members -= 1;
        if supply.members == 0 {
            self.note_change(&mut rooms, room);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    pub fn room(&self) -> Room {
        self.room
    }

    /// Waits until what happens from now on reaches the room, but no longer than `limit`.
    pub fn supplied(&self, limit: Duration) -> impl Future<Output = ()> + use<> {
        let is_supplied = self.interest.rooms().known.get(&self.room).map(|supply| supply.is_supplied.subscribe());
        async move {
            if let Some(mut is_supplied) = is_supplied {
                // Late or never, the room is joined all the same.
                let _ = tokio::time::timeout(limit, is_supplied.wait_for(|&is_supplied| is_supplied)).await;
            }
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.interest.leave(self.room);
    }
}

impl Rooms {
    /// Keeps only what says something: a room with members, one that is supplied, one that the source has yet to look at.
    fn forget_if_idle(&mut self, room: Room) {
        let idle = |supply: &Supply| supply.members == 0 && !supply.is_change_noted && !*supply.is_supplied.borrow();
        if self.known.get(&room).is_some_and(idle) {
            self.known.remove(&room);
        }
    }
}

impl Supply {
    fn new() -> Self {
        Self { members: 0, is_supplied: watch::Sender::new(false), is_change_noted: false }
    }
}

fn is_on_demand(room: Room) -> bool {
    match room {
        Room::Job(_) | Room::TaskLog(_) => true,
        Room::Jobs | Room::Workers | Room::LastRendered | Room::WorkerTags | Room::Chat => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    fn job() -> Room {
        Room::Job("4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21".parse().unwrap())
    }

    #[test]
    fn only_the_first_and_the_last_member_make_a_difference() {
        let interest = Arc::new(Interest::default());
        assert!(interest.enter(Room::Jobs).is_none());
        let (first, second) = (interest.enter(job()), interest.enter(job()));
        assert_eq!(interest.take_changes(), [(job(), true)]);
        drop(first);
        assert_eq!(interest.take_changes(), []);
        assert_eq!(interest.occupied(), [job()]);
        drop(second);
        assert_eq!(interest.take_changes(), [(job(), false)]);
        assert!(interest.rooms().known.is_empty());
    }

    #[test]
    fn a_room_that_changes_before_anybody_looks_is_told_once_as_it_is() {
        let interest = Arc::new(Interest::default());
        for _ in 0..1000 {
            drop(interest.enter(job()));
        }
        assert_eq!(interest.rooms().changed.len(), 1);
        assert_eq!(interest.take_changes(), [(job(), false)]);
    }

    #[actix_rt::test]
    async fn a_member_waits_until_the_room_is_supplied() {
        let interest = Arc::new(Interest::default());
        let stay = interest.enter(job()).unwrap();
        let mut waiting = Box::pin(stay.supplied(Duration::from_secs(60)));
        assert!((&mut waiting).now_or_never().is_none());
        interest.set_supplied(job(), true);
        waiting.await;
        // Also who comes while nobody else is left: the source stays for a while.
        drop(stay);
        assert_eq!(interest.take_changes(), [(job(), false)]);
        let stay = interest.enter(job()).unwrap();
        assert!(stay.supplied(Duration::from_secs(60)).now_or_never().is_some());
    }

    #[actix_rt::test]
    async fn nobody_waits_for_ever() {
        let interest = Arc::new(Interest::default());
        interest.enter(job()).unwrap().supplied(MOMENT).await;
        let changes = interest.changes().await;
        assert_eq!(changes, [(job(), false)]);
        interest.set_supplied(job(), false);
        assert!(interest.rooms().known.is_empty());
    }
}
