//! Who is in which room: a plain index, both ways.

use std::collections::HashMap;

use crate::farm::Room;

/// A session's place in the registry's roster.
pub type Member = u32;

/// Rooms and their members, and for each session its rooms.
///
/// INVARIANT: `seats[m]` holds `(room, position)` exactly when `rooms[room].members[position] == m`. So a broadcast walks one
/// dense list of numbers, and leaving costs the same however many are in the room.
#[derive(Debug, Default)]
pub struct Membership {
    numbers: HashMap<Room, RoomNumber>,
    rooms: Vec<RoomList>,
    free: Vec<RoomNumber>,
    seats: Vec<Vec<Seat>>,
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
    /// Returns whether it was not in the room before.
    pub fn join(&mut self, member: Member, room: Room) -> bool {
        let number = self.number(room);
        let place = member as usize;
        if self.seats.len() <= place {
            self.seats.resize_with(place + 1, Vec::new);
        }
        let seats = &mut self.seats[place];
        if seats.iter().any(|seat| seat.room == number) {
            return false;
        }
        let members = &mut self.rooms[number as usize].members;
        // Most sessions stay in the two or three rooms they begin with.
        seats.reserve_exact(1);
        seats.push(Seat { room: number, position: members.len() as u32 });
        members.push(member);
        true
    }

    /// Returns whether it was in the room.
    pub fn leave(&mut self, member: Member, room: Room) -> bool {
        let Some(&number) = self.numbers.get(&room) else { return false };
        let Some(seats) = self.seats.get_mut(member as usize) else { return false };
        let Some(index) = seats.iter().position(|seat| seat.room == number) else { return false };
        let seat = seats.swap_remove(index);
        self.vacate(seat);
        true
    }

    /// Takes it out of all its rooms.
    pub fn leave_all(&mut self, member: Member) {
        let Some(seats) = self.seats.get_mut(member as usize) else { return };
        for seat in std::mem::take(seats) {
            self.vacate(seat);
        }
    }

    /// Everyone in the room, in no particular order.
    pub fn members(&self, room: Room) -> &[Member] {
        self.numbers.get(&room).map_or(&[], |&number| &self.rooms[number as usize].members)
    }

    /// Whether it is in the room.
    pub fn contains(&self, member: Member, room: Room) -> bool {
        let Some(&number) = self.numbers.get(&room) else { return false };
        self.seats.get(member as usize).is_some_and(|seats| seats.iter().any(|seat| seat.room == number))
    }

    /// Every room that has members, with their number.
    pub fn sizes(&self) -> impl Iterator<Item = (Room, usize)> {
        self.numbers.iter().map(|(&room, &number)| (room, self.rooms[number as usize].members.len()))
    }

    fn number(&mut self, room: Room) -> RoomNumber {
        *self.numbers.entry(room).or_insert_with(|| {
            let list = RoomList { room, members: Vec::new() };
            match self.free.pop() {
                Some(number) => {
                    self.rooms[number as usize] = list;
                    number
                }
                None => {
                    self.rooms.push(list);
                    self.rooms.len() as RoomNumber - 1
                }
            }
        })
    }

    /// Takes a member out of its seat; the room's last member moves into it. An empty room is forgotten.
    fn vacate(&mut self, seat: Seat) {
        let list = &mut self.rooms[seat.room as usize];
        list.members.swap_remove(seat.position as usize);
        if let Some(&moved) = list.members.get(seat.position as usize) {
            let theirs = self.seats[moved as usize].iter_mut().find(|theirs| theirs.room == seat.room);
            theirs.expect("a member of a room has a seat in it").position = seat.position;
        }
        if list.members.is_empty() {
            self.numbers.remove(&list.room);
            list.members = Vec::new();
            self.free.push(seat.room);
        } else if list.members.len() * 4 < list.members.capacity() {
            list.members.shrink_to(list.members.len() * 2);
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
