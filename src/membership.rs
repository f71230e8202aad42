//! Membership of rooms: each session's own list, and an index of all lists in both directions.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    farm::Room,
    slots::{Shrink, Slots},
};

/// A session's index in the registry's roster.
pub type Member = u32;

/// The rooms of one session, the only record of them: the session changes it, and the registry
/// builds its index from it.
///
/// The session is ahead of the registry by the commands in the registry's mailbox. A room that it
/// adds is therefore pending until the registry has joined it: if the registry joined it earlier,
/// with the session's other rooms, updates could overtake the state that the client asked for.
#[derive(Debug, Default)]
pub struct SessionRooms(Mutex<Vec<Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    room: Room,
    is_pending: bool,
}

impl SessionRooms {
    /// Returns the rooms that are not pending.
    pub fn joined(&self) -> Vec<Room> {
        self.lock().iter().filter(|entry| !entry.is_pending).map(|entry| entry.room).collect()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub fn contains(&self, room: Room) -> bool {
        self.lock().iter().any(|entry| entry.room == room)
    }

    /// Replaces all rooms by those that the registry enters together. None of them is pending.
    pub fn set(&self, rooms: &[Room]) {
        *self.lock() = rooms.iter().map(|&room| Entry { room, is_pending: false }).collect();
    }

    /// Adds a room, which is pending until [`join`](Self::join).
    pub fn add(&self, room: Room) {
        let mut rooms = self.lock();
        if !rooms.iter().any(|entry| entry.room == room) {
            rooms.reserve_exact(1);
            rooms.push(Entry { room, is_pending: true });
        }
    }

    /// Records that the registry has joined the room. A room that was removed meanwhile stays
    /// removed.
    pub fn join(&self, room: Room) {
        self.lock().iter_mut().filter(|entry| entry.room == room).for_each(|entry| entry.is_pending = false);
    }

    pub fn remove(&self, room: Room) {
        let mut rooms = self.lock();
        rooms.retain(|entry| entry.room != room);
        rooms.shrink_if_sparse();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rooms with their members, and the rooms of each session.
///
/// INVARIANT: `seats[m]` holds `(room, position)` exactly when `rooms[room].members[position] ==
/// m`. A broadcast therefore walks one dense list of numbers, and leaving costs the same however
/// many members the room has.
#[derive(Debug, Default)]
pub struct Membership {
    numbers: HashMap<Room, RoomNumber>,
    rooms: Slots<RoomList>,
    seats: HashMap<Member, Vec<Seat>>,
}

type RoomNumber = u32;

#[derive(Debug)]
struct RoomList {
    room: Room,
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    room: RoomNumber,
    position: u32,
}

impl Membership {
    /// Adds the member to the room. Returns whether it was not in the room before.
    pub fn join(&mut self, member: Member, room: Room) -> bool {
        let number = self.number(room);
        let seats = self.seats.entry(member).or_default();
        if seats.iter().any(|seat| seat.room == number) {
            return false;
        }
        let members = &mut self.rooms.get_mut(number).expect("its number was just given").members;
        // Most sessions stay in the two or three rooms that they start in.
        seats.reserve_exact(1);
        seats.push(Seat { room: number, position: members.len() as u32 });
        members.push(member);
        true
    }

    /// Removes the member from the room. Returns whether it was in the room.
    pub fn leave(&mut self, member: Member, room: Room) -> bool {
        let Some(&number) = self.numbers.get(&room) else { return false };
        let Some(seats) = self.seats.get_mut(&member) else { return false };
        let Some(index) = seats.iter().position(|seat| seat.room == number) else { return false };
        let seat = seats.swap_remove(index);
        seats.shrink_if_sparse();
        self.vacate(seat);
        true
    }

    /// Removes the member from all its rooms.
    pub fn leave_all(&mut self, member: Member) {
        for seat in self.seats.remove(&member).unwrap_or_default() {
            self.vacate(seat);
        }
        self.seats.shrink_if_sparse();
    }

    /// Returns all members of the room, in no particular order.
    pub fn members(&self, room: Room) -> &[Member] {
        self.numbers.get(&room).and_then(|&number| self.rooms.get(number)).map_or(&[], |list| &list.members)
    }

    /// Returns those of the members that are in the room.
    pub fn those_in(&self, room: Room, members: &[Member]) -> Vec<Member> {
        members.iter().copied().filter(|&member| self.contains(member, room)).collect()
    }

    /// Returns whether the member is in the room.
    pub fn contains(&self, member: Member, room: Room) -> bool {
        let Some(&number) = self.numbers.get(&room) else { return false };
        self.seats.get(&member).is_some_and(|seats| seats.iter().any(|seat| seat.room == number))
    }

    /// Returns every room that has members, with their number.
    pub fn sizes(&self) -> impl Iterator<Item = (Room, usize)> {
        self.rooms.iter().map(|(_, list)| (list.room, list.members.len()))
    }

    fn number(&mut self, room: Room) -> RoomNumber {
        *self.numbers.entry(room).or_insert_with(|| self.rooms.insert(RoomList { room, members: Vec::new() }))
    }

    /// Removes a member's seat; the room's last member moves into it. An empty room is removed.
    fn vacate(&mut self, seat: Seat) {
        let list = self.rooms.get_mut(seat.room).expect("a room with a member exists");
        list.members.swap_remove(seat.position as usize);
        if let Some(&moved) = list.members.get(seat.position as usize) {
            let theirs = self.seats.get_mut(&moved).into_iter().flatten().find(|theirs| theirs.room == seat.room);
            theirs.expect("a member of a room has a seat in it").position = seat.position;
        }
        if list.members.is_empty() {
            self.numbers.remove(&list.room);
            self.rooms.remove(seat.room);
            self.numbers.shrink_if_sparse();
        } else {
            list.members.shrink_if_sparse();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const ROOMS: [Room; 4] = [Room::Jobs, Room::Chat, Room::Workers, Room::LastRendered];

    #[derive(Debug, Clone)]
    enum Step {
        Join(Member, usize),
        Leave(Member, usize),
        LeaveAll(Member),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_u32, 0..ROOMS.len()).prop_map(|(member, room)| Step::Join(member, room)),
            3 => (0..12_u32, 0..ROOMS.len()).prop_map(|(member, room)| Step::Leave(member, room)),
            1 => (0..12_u32).prop_map(Step::LeaveAll),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_sets(steps in prop::collection::vec(step(), 0..200)) {
            let mut membership = Membership::default();
            let mut model: BTreeMap<Room, BTreeSet<Member>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Join(member, room) => {
                        let new = model.entry(ROOMS[room]).or_default().insert(member);
                        prop_assert_eq!(membership.join(member, ROOMS[room]), new);
                    }
                    Step::Leave(member, room) => {
                        let was_in = model.entry(ROOMS[room]).or_default().remove(&member);
                        prop_assert_eq!(membership.leave(member, ROOMS[room]), was_in);
                    }
                    Step::LeaveAll(member) => {
                        model.values_mut().for_each(|members| { members.remove(&member); });
                        membership.leave_all(member);
                    }
                }
                for room in ROOMS {
                    let members: BTreeSet<_> = membership.members(room).iter().copied().collect();
                    prop_assert_eq!(members.len(), membership.members(room).len(), "nobody twice");
                    prop_assert_eq!(&members, &model.get(&room).cloned().unwrap_or_default());
                    for member in 0..12 {
                        prop_assert_eq!(membership.contains(member, room), members.contains(&member));
                    }
                }
                let sizes: BTreeMap<_, _> = membership.sizes().collect();
                let expected: BTreeMap<_, _> =
                    model.iter().filter(|(_, members)| !members.is_empty()).map(|(&room, members)| (room, members.len())).collect();
                prop_assert_eq!(sizes, expected);
            }
        }
    }
}
