//! Which rooms are to be supplied: those with members, and for a while those that had some.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::farm::Room;

/// How long a room is supplied after its last member left: a page that is reloaded finds it as it was.
const LINGER: Duration = Duration::from_secs(5);

/// Rooms that are supplied at once. Browsers may ask for any room, the Manager shall not have to carry them all.
const MAX_ROOMS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Wanted {
    rooms: HashMap<Room, Occupancy>,
    /// In the order of their time. May hold a room that has members again.
    leaving: VecDeque<(Instant, Room)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupancy {
    Somebody,
    NobodyAfter(Instant),
}

impl Wanted {
    /// Takes note that a room has members or has none any more; returns whether it is to be supplied from now on.
    pub(super) fn note(&mut self, room: Room, is_occupied: bool, now: Instant) -> bool {
        if is_occupied {
            let is_full = self.rooms.len() >= MAX_ROOMS && !self.rooms.contains_key(&room);
            return !is_full && self.rooms.insert(room, Occupancy::Somebody).is_none();
        }
        if let Some(occupancy) = self.rooms.get_mut(&room) {
            *occupancy = Occupancy::NobodyAfter(now);
            self.leaving.push_back((now, room));
        }
        false
    }

    /// The next room that is no longer to be supplied.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Room> {
        while let Some(&(since, room)) = self.leaving.front() {
            if now.saturating_duration_since(since) < LINGER {
                return None;
            }
            self.leaving.pop_front();
            if self.rooms.get(&room) == Some(&Occupancy::NobodyAfter(since)) {
                self.rooms.remove(&room);
                return Some(room);
            }
        }
        None
    }

    /// When [`expire`](Self::expire) is to be called next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.leaving.front().map(|&(since, _)| since + LINGER)
    }

    pub(super) fn rooms(&self) -> impl Iterator<Item = Room> {
        self.rooms.keys().copied()
    }

    /// Whether the room is supplied and has members.
    pub(super) fn is_watched(&self, room: Room) -> bool {
        self.rooms.get(&room) == Some(&Occupancy::Somebody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn job(number: u32) -> Room {
        Room::Job(format!("00000000-0000-4000-8000-{number:012}").parse().unwrap())
    }

    #[test]
    fn a_room_is_supplied_a_while_longer_than_somebody_is_in_it() {
        let start = clock::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut wanted = Wanted::default();
        assert!(wanted.note(job(1), true, after(0)));
        assert!(!wanted.note(job(1), true, after(0)));
        assert!(!wanted.note(job(1), false, after(10)));
        assert!(!wanted.is_watched(job(1)));
        assert_eq!(wanted.deadline(), Some(after(15)));
        assert_eq!(wanted.expire(after(14)), None);
        // Somebody came back, and left again.
        assert!(!wanted.note(job(1), true, after(14)));
        assert_eq!(wanted.expire(after(15)), None);
        wanted.note(job(1), false, after(16));
        assert_eq!(wanted.expire(after(20)), None);
        assert_eq!(wanted.expire(after(21)), Some(job(1)));
        assert_eq!(wanted.expire(after(21)), None);
        assert!(wanted.note(job(1), true, after(22)));
    }

    #[test]
    fn there_is_a_limit() {
        let now = clock::now();
        let mut wanted = Wanted::default();
        for number in 0..MAX_ROOMS as u32 {
            assert!(wanted.note(job(number), true, now));
        }
        assert!(!wanted.note(job(MAX_ROOMS as u32), true, now));
        assert!(!wanted.note(job(MAX_ROOMS as u32), false, now));
        assert_eq!(wanted.rooms().count(), MAX_ROOMS);
    }
}
