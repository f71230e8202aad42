//! Decides which rooms the relay supplies: rooms with members, as far as there are places.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::ingest::allowance::Allowance;
use crate::{
    farm::{JobId, Room},
    interest::{Shortage, Turn},
    slots::Shrink,
};

/// How long a room stays supplied after its last member left, so that a page that reloads finds it
/// unchanged.
const LINGER: Duration = Duration::from_secs(5);

/// Places for rooms of jobs. Each is a subscription at the Manager.
const MAX_JOBS: usize = 10_000;

/// Places for task logs. Each is a file that the relay polls, or a subscription.
const MAX_LOGS: usize = 3000;

/// Places for rooms of jobs and tasks that the Manager does not know. A job that is just being
/// created thus works from the start.
const MAX_UNKNOWN: usize = 200;

/// The maximum number of look-ups in flight.
const MAX_LOOKUPS: usize = 4;

/// The budget of look-ups without a result: a burst, and the interval between later ones. The first
/// rooms of each session have their own budget, so that hundreds of random rooms do not delay a page.
const FIRST_MISSES: (u32, Duration) = (100, Duration::from_secs(4));
const OTHER_MISSES: (u32, Duration) = (50, Duration::from_secs(20));

/// The budget of jobs whose tasks are listed while the first budget is used up: a burst, and the
/// interval between later ones.
const LISTINGS: (u32, Duration) = (5, Duration::from_secs(1));

/// The wait before the next look-up of a job or task that the Manager does not know; it doubles
/// each time.
const FIRST_REST: Duration = Duration::from_secs(5);
const MAX_REST: Duration = Duration::from_secs(600);

/// A room that is supplied later than this after its first member joined may have missed updates.
const LATE: Duration = Duration::from_millis(500);

/// The rooms that have members, or had some within [`LINGER`], and their places.
///
/// ```text
///               miss                      after 2 s, 4 s … 10 min
///          ┌─────┐ ─────────────────────────────────────▶ ┌─────────┐
///  new ──▶ │ Due │ ◀───────────────────────────────────── │ Unknown │ has a place among MAX_UNKNOWN, or waits
///          └─────┘                                        └─────────┘
///             │ hit, or seen in an event or a list          │     ▲
///             ▼                                             ▼     │ the Manager does not have it any more
///          ┌───────────────────────────────────────────────────────┐
///  new ──▶ │ Known: has a place among MAX_JOBS or MAX_LOGS, or waits │
///          └───────────────────────────────────────────────────────┘
/// ```
///
/// The rooms with the earliest [`Turn`]s have the places. A room with an earlier turn displaces the
/// room with the latest one; a freed place goes to the waiting room with the earliest turn.
#[derive(Debug)]
pub(super) struct Wanted {
    rooms: HashMap<Room, Wish>,
    /// Rooms in the order in which their last members left. Some may have members again.
    leaving: VecDeque<(Instant, Room)>,
    jobs: Places,
    logs: Places,
    unknown: Places,
    due: BTreeSet<Due>,
    resting: BTreeSet<(Instant, Room)>,
    lookups: usize,
    first_misses: Allowance,
    other_misses: Allowance,
    listings: Allowance,
    verdicts: VecDeque<Verdict>,
}

/// What the relay has to do about a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Supply {
        room: Room,
        is_known: bool,
    },
    /// Stop supplying it.
    Withdraw(Room),
    /// Report why it is not supplied.
    Lack(Room, Shortage),
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    turn: Turn,
    left_at: Option<Instant>,
    misses: u32,
    stage: Stage,
    /// If the room is supplied after this time, its members may have missed updates that no
    /// comparison finds.
    late_from: Option<Instant>,
    /// Whether the tasks of its job were listed.
    is_listed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Due { is_asked: bool },
    Unknown { until: Instant },
    Known,
}

/// A room to look up. Those that were not looked up before come first, and among them the first rooms of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    budget: Budget,
    misses: u32,
    turn: Turn,
    room: Room,
}

/// Which misses count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Budget {
    /// Of the first look-ups of sessions' first rooms.
    First,
    Other,
}

/// Places of one kind, assigned by turn.
///
/// INVARIANT: if a room waits, all places are taken, and none of them by a room with a later turn.
#[derive(Debug)]
struct Places {
    limit: usize,
    holding: BTreeSet<(Turn, Room)>,
    waiting: BTreeSet<(Turn, Room)>,
}

/// A change in the assignment of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shift {
    In(Room),
    Out(Room),
    Waits(Room),
}

impl Wanted {
    pub(super) fn new(now: Instant) -> Self {
        let allowance = |(burst, every)| Allowance::new(burst, every, now);
        Self {
            rooms: HashMap::new(),
            leaving: VecDeque::new(),
            jobs: Places::new(MAX_JOBS),
            logs: Places::new(MAX_LOGS),
            unknown: Places::new(MAX_UNKNOWN),
            due: BTreeSet::new(),
            resting: BTreeSet::new(),
            lookups: 0,
            first_misses: allowance(FIRST_MISSES),
            other_misses: allowance(OTHER_MISSES),
            listings: allowance(LISTINGS),
            verdicts: VecDeque::new(),
        }
    }

    /// Records the turn of a room, `None` for one without members, and whether its job or task is
    /// known.
    pub(super) fn note(&mut self, room: Room, turn: Option<Turn>, is_known: bool, now: Instant) {
        let Some(wish) = self.rooms.get_mut(&room) else {
            if let Some(turn) = turn {
                self.begin(room, turn, is_known, now);
            }
            return;
        };
        match turn {
            Some(turn) => {
                wish.left_at = None;
                self.set_turn(room, turn, now);
            }
            None => {
                wish.left_at = Some(now);
                self.leaving.push_back((now, room));
                self.set_turn(room, Turn::LAST, now);
            }
        }
    }

    /// Returns the next thing to do.
    pub(super) fn verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    /// Drops rooms that have been empty for [`LINGER`], and makes rooms due again whose wait is
    /// over.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(since, room)) = self.leaving.front()
            && now.saturating_duration_since(since) >= LINGER
        {
            self.leaving.pop_front();
            self.leaving.shrink_if_sparse();
            if self.rooms.get(&room).is_some_and(|wish| wish.left_at == Some(since)) {
                self.end(room, now);
            }
        }
        while let Some(&(until, room)) = self.resting.first()
            && until <= now
        {
            self.resting.pop_first();
            if let Some(wish) = self.rooms.get_mut(&room) {
                wish.stage = Stage::Due { is_asked: false };
                self.due.insert(Due::new(room, wish));
            }
        }
    }

    /// Returns when [`tick`](Self::tick) and [`next_lookup`](Self::next_lookup) must be called
    /// again at the latest.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let leaving = self.leaving.front().map(|&(since, _)| since + LINGER);
        let resting = self.resting.first().map(|&(until, _)| until);
        let is_busy = self.lookups >= MAX_LOOKUPS;
        let (first, other) = (self.next_due(Budget::First), self.next_due(Budget::Other));
        let lookup = |due: Option<Due>, misses: &mut Allowance| {
            due.filter(|_| !is_busy && !misses.has(now)).map(|_| misses.next())
        };
        let first = lookup(first, &mut self.first_misses);
        let other = lookup(other, &mut self.other_misses);
        let listing = first.filter(|_| !self.listings.has(now)).map(|_| self.listings.next());
        [leaving, resting, first, other, listing].into_iter().flatten().min()
    }

    /// Returns a room whose job or task must be looked up now. [`looked_up`](Self::looked_up) must
    /// be called with the result.
    pub(super) fn next_lookup(&mut self, now: Instant) -> Option<Room> {
        if self.lookups >= MAX_LOOKUPS {
            return None;
        }
        let first = self.next_due(Budget::First).filter(|_| self.first_misses.has(now));
        let due = match first {
            Some(first) => first,
            None => self.next_due(Budget::Other).filter(|_| self.other_misses.has(now))?,
        };
        self.due.remove(&due);
        let room = due.room;
        self.rooms.get_mut(&room)?.stage = Stage::Due { is_asked: true };
        self.lookups += 1;
        Some(room)
    }

    /// Returns a job whose tasks have to be listed now. The page of a job needs no look-up of its tasks then, and is not delayed by
    /// pages of others that use up the budget for misses.
    pub(super) fn next_listing(&mut self, now: Instant) -> Option<JobId> {
        let is_blocked = self.next_due(Budget::First).is_some() && !self.first_misses.has(now);
        if !is_blocked || !self.listings.has(now) {
            return None;
        }
        let is_unlisted = |room: &Room| self.rooms.get(room).is_some_and(|wish| !wish.is_listed);
        let room = self.jobs.holders().find(is_unlisted)?;
        let _ = self.listings.take(now);
        self.rooms.get_mut(&room)?.is_listed = true;
        if let Room::Job(job) = room { Some(job) } else { None }
    }

    /// Records the result of a look-up.
    pub(super) fn looked_up(&mut self, room: Room, is_known: bool, now: Instant) {
        self.lookups -= 1;
        if is_known {
            return self.learn(room, now);
        }
        let Some(wish) = self.rooms.get_mut(&room).filter(|wish| wish.stage == Stage::Due { is_asked: true }) else {
            return;
        };
        let misses = match Due::new(room, wish).budget {
            Budget::First => &mut self.first_misses,
            Budget::Other => &mut self.other_misses,
        };
        // Look-ups in flight may exceed the budget by a few.
        let _ = misses.take(now);
        let (turn, is_new) = (wish.turn, wish.misses == 0);
        wish.misses += 1;
        self.rest(room, now);
        if is_new {
            let shifts = self.unknown.enter(turn, room);
            self.judge(shifts, Shortage::Unknown, now);
        }
    }

    /// Makes the rooms due again whose look-ups are in flight, because they will have no result.
    pub(super) fn abandon_lookups(&mut self) {
        self.lookups = 0;
        for (&room, wish) in &mut self.rooms {
            if wish.stage == (Stage::Due { is_asked: true }) {
                wish.stage = Stage::Due { is_asked: false };
                self.due.insert(Due::new(room, wish));
            }
        }
    }

    /// Records that the room's job or task exists.
    pub(super) fn learn(&mut self, room: Room, now: Instant) {
        let Some(wish) = self.rooms.get(&room).copied() else { return };
        match wish.stage {
            Stage::Known => return,
            Stage::Due { .. } => drop(self.due.remove(&Due::new(room, &wish))),
            Stage::Unknown { until } => drop(self.resting.remove(&(until, room))),
        }
        let shifts = self.unknown.leave(wish.turn, room);
        self.judge(shifts, Shortage::Unknown, now);
        if let Some(wish) = self.rooms.get_mut(&room) {
            wish.stage = Stage::Known;
        }
        self.place(room, wish.turn, now);
    }

    /// Records that the room's job or task no longer exists.
    pub(super) fn unlearn(&mut self, room: Room, now: Instant) {
        let Some(wish) = self.rooms.get_mut(&room).filter(|wish| wish.stage == Stage::Known) else { return };
        let turn = wish.turn;
        wish.misses = 1;
        self.rest(room, now);
        let places = self.places(room);
        let was_supplied = places.holds(turn, room);
        let shifts = places.leave(turn, room);
        if was_supplied {
            self.verdicts.push_back(Verdict::Withdraw(room));
        }
        self.judge(shifts, Shortage::Full, now);
        let shifts = self.unknown.enter(turn, room);
        self.judge(shifts, Shortage::Unknown, now);
    }

    /// Records that the room's updates arrive from now on. Returns whether its members may have
    /// missed some. The comparison finds what a broken link misses later.
    pub(super) fn supplied(&mut self, room: Room, now: Instant) -> bool {
        let Some(wish) = self.rooms.get_mut(&room) else { return false };
        wish.late_from.take().is_some_and(|late_from| late_from <= now)
    }

    /// Records that the room's updates do not arrive.
    pub(super) fn missed(&mut self, room: Room, now: Instant) {
        if let Some(wish) = self.rooms.get_mut(&room) {
            wish.late_from = Some(now);
        }
    }

    /// Returns whether the room was looked up in vain before it was found, once.
    pub(super) fn take_misses(&mut self, room: Room) -> bool {
        self.rooms.get_mut(&room).is_some_and(|wish| std::mem::take(&mut wish.misses) > 0)
    }

    /// Returns whether the room is among the first of some session.
    pub(super) fn is_first(&self, room: Room) -> bool {
        self.rooms.get(&room).is_some_and(|wish| wish.turn.is_of_first_rooms())
    }

    /// Returns the rooms that have a place, and whether their jobs and tasks are known.
    pub(super) fn placed(&self) -> Vec<(Room, bool)> {
        let known = self.jobs.holders().chain(self.logs.holders()).map(|room| (room, true));
        known.chain(self.unknown.holders().map(|room| (room, false))).collect()
    }

    /// Returns whether the room has a place and members.
    pub(super) fn is_watched(&self, room: Room) -> bool {
        self.rooms.get(&room).is_some_and(|wish| {
            wish.left_at.is_none() && wish.stage == Stage::Known && self.places_of(room).holds(wish.turn, room)
        })
    }

    /// Returns how many rooms of known jobs and tasks have a place, how many wait, and how many
    /// belong to unknown ones.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let known = [&self.jobs, &self.logs];
        let placed = known.iter().map(|places| places.holding.len()).sum();
        let waiting = known.iter().map(|places| places.waiting.len()).sum();
        (placed, waiting, self.rooms.len() - placed - waiting)
    }

    fn next_due(&self, budget: Budget) -> Option<Due> {
        let due = match budget {
            Budget::First => self.due.first(),
            Budget::Other => self.due.range(Due::FIRST_OTHER..).next(),
        };
        due.copied().filter(|due| due.budget == budget)
    }

    fn begin(&mut self, room: Room, turn: Turn, is_known: bool, now: Instant) {
        let stage = if is_known { Stage::Known } else { Stage::Due { is_asked: false } };
        let wish = Wish { turn, left_at: None, misses: 0, stage, late_from: Some(now + LATE), is_listed: false };
        self.rooms.insert(room, wish);
        if is_known {
            self.place(room, turn, now);
        } else {
            self.due.insert(Due::new(room, &wish));
        }
    }

    fn end(&mut self, room: Room, now: Instant) {
        let Some(wish) = self.rooms.remove(&room) else { return };
        self.verdicts.push_back(Verdict::Withdraw(room));
        match wish.stage {
            Stage::Known => {
                let shifts = self.places(room).leave(wish.turn, room);
                self.judge(shifts, Shortage::Full, now);
            }
            Stage::Due { .. } => drop(self.due.remove(&Due::new(room, &wish))),
            Stage::Unknown { until } => drop(self.resting.remove(&(until, room))),
        }
        let shifts = self.unknown.leave(wish.turn, room);
        self.judge(shifts, Shortage::Unknown, now);
        self.rooms.shrink_if_sparse();
    }

    fn set_turn(&mut self, room: Room, turn: Turn, now: Instant) {
        let Some(wish) = self.rooms.get_mut(&room) else { return };
        let before = std::mem::replace(wish, Wish { turn, ..*wish });
        if before.turn == turn {
            return;
        }
        if self.due.remove(&Due::new(room, &before)) {
            self.due.insert(Due::new(room, wish));
        }
        let before = before.turn;
        let shifts = self.unknown.change(before, turn, room);
        self.judge(shifts, Shortage::Unknown, now);
        let shifts = self.places(room).change(before, turn, room);
        self.judge(shifts, Shortage::Full, now);
    }

    fn place(&mut self, room: Room, turn: Turn, now: Instant) {
        let shifts = self.places(room).enter(turn, room);
        self.judge(shifts, Shortage::Full, now);
    }

    fn rest(&mut self, room: Room, now: Instant) {
        let Some(wish) = self.rooms.get_mut(&room) else { return };
        let rest = FIRST_REST.saturating_mul(1 << (wish.misses - 1).min(16)).min(MAX_REST);
        let until = now + rest;
        wish.stage = Stage::Unknown { until };
        self.resting.insert((until, room));
    }

    fn judge(&mut self, shifts: Vec<Shift>, shortage: Shortage, now: Instant) {
        for shift in shifts {
            match shift {
                Shift::In(room) => {
                    let is_known = shortage == Shortage::Full;
                    self.verdicts.push_back(Verdict::Supply { room, is_known });
                }
                Shift::Out(room) => {
                    self.missed(room, now);
                    self.verdicts.extend([Verdict::Withdraw(room), Verdict::Lack(room, shortage)]);
                }
                Shift::Waits(room) => self.verdicts.push_back(Verdict::Lack(room, shortage)),
            }
        }
    }

    fn places(&mut self, room: Room) -> &mut Places {
        if let Room::TaskLog(_) = room { &mut self.logs } else { &mut self.jobs }
    }

    fn places_of(&self, room: Room) -> &Places {
        if let Room::TaskLog(_) = room { &self.logs } else { &self.jobs }
    }
}

impl Due {
    /// Not later than any of the other budget.
    const FIRST_OTHER: Self = Self { budget: Budget::Other, misses: 0, turn: Turn::FIRST, room: Room::Jobs };

    fn new(room: Room, wish: &Wish) -> Self {
        let is_first = wish.misses == 0 && wish.turn.is_of_first_rooms();
        let budget = if is_first { Budget::First } else { Budget::Other };
        Self { budget, misses: wish.misses, turn: wish.turn, room }
    }
}

impl Places {
    fn new(limit: usize) -> Self {
        Self { limit, holding: BTreeSet::new(), waiting: BTreeSet::new() }
    }

    fn enter(&mut self, turn: Turn, room: Room) -> Vec<Shift> {
        let mut shifts = Vec::new();
        if self.holding.len() >= self.limit {
            match self.holding.last() {
                Some(&last) if last.0 > turn => {
                    self.holding.remove(&last);
                    self.waiting.insert(last);
                    shifts.push(Shift::Out(last.1));
                }
                Some(_) | None => {
                    self.waiting.insert((turn, room));
                    return vec![Shift::Waits(room)];
                }
            }
        }
        self.holding.insert((turn, room));
        shifts.push(Shift::In(room));
        shifts
    }

    fn leave(&mut self, turn: Turn, room: Room) -> Vec<Shift> {
        if self.holding.remove(&(turn, room)) {
            let next = self.waiting.pop_first();
            self.holding.extend(next);
            return next.into_iter().map(|(_, room)| Shift::In(room)).collect();
        }
        self.waiting.remove(&(turn, room));
        Vec::new()
    }

    /// Changes the turn of a room, if the room is here.
    fn change(&mut self, before: Turn, after: Turn, room: Room) -> Vec<Shift> {
        if self.holding.remove(&(before, room)) {
            match self.waiting.first() {
                Some(&next) if next.0 < after => {
                    self.waiting.remove(&next);
                    self.waiting.insert((after, room));
                    self.holding.insert(next);
                    return vec![Shift::Out(room), Shift::In(next.1)];
                }
                Some(_) | None => drop(self.holding.insert((after, room))),
            }
        } else if self.waiting.remove(&(before, room)) {
            let mut shifts = self.enter(after, room);
            shifts.retain(|shift| *shift != Shift::Waits(room));
            return shifts;
        }
        Vec::new()
    }

    fn holds(&self, turn: Turn, room: Room) -> bool {
        self.holding.contains(&(turn, room))
    }

    fn holders(&self) -> impl Iterator<Item = Room> {
        self.holding.iter().map(|&(_, room)| room)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn job_id(number: usize) -> JobId {
        format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
    }

    fn job(number: usize) -> Room {
        Room::Job(job_id(number))
    }

    fn log(number: usize) -> Room {
        Room::TaskLog(format!("00000000-0000-4000-8000-{number:012}").parse().unwrap())
    }

    fn turn(rank: usize) -> Turn {
        Turn::new(rank, 0)
    }

    fn verdicts(wanted: &mut Wanted) -> Vec<Verdict> {
        std::iter::from_fn(|| wanted.verdict()).collect()
    }

    fn supply(room: Room, is_known: bool) -> Verdict {
        Verdict::Supply { room, is_known }
    }

    #[test]
    fn a_room_is_supplied_a_while_longer_than_it_has_members() {
        let start = clock::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut wanted = Wanted::new(start);
        wanted.note(job(1), Some(turn(0)), true, after(0));
        wanted.note(job(1), Some(turn(0)), true, after(0));
        assert_eq!(verdicts(&mut wanted), [supply(job(1), true)]);
        assert!(wanted.is_watched(job(1)));
        wanted.note(job(1), None, true, after(10));
        assert!(!wanted.is_watched(job(1)));
        assert_eq!(wanted.deadline(after(10)), Some(after(15)));
        // A member returns, and leaves again.
        wanted.note(job(1), Some(turn(5)), true, after(14));
        wanted.tick(after(15));
        wanted.note(job(1), None, true, after(16));
        wanted.tick(after(20));
        assert_eq!(verdicts(&mut wanted), []);
        wanted.tick(after(21));
        assert_eq!(verdicts(&mut wanted), [Verdict::Withdraw(job(1))]);
        assert!(wanted.rooms.is_empty() && wanted.deadline(after(21)).is_none());
        wanted.note(job(1), Some(turn(0)), true, after(22));
        assert_eq!(verdicts(&mut wanted), [supply(job(1), true)]);
    }

    #[test]
    fn places_go_to_the_earliest_turns() {
        let now = clock::now();
        let mut wanted = Wanted::new(now);
        for number in 0..=MAX_LOGS {
            wanted.note(log(number), Some(turn(number)), true, now);
        }
        let refused = Verdict::Lack(log(MAX_LOGS), Shortage::Full);
        assert_eq!(verdicts(&mut wanted).split_off(MAX_LOGS), [refused]);
        assert_eq!(wanted.counts(), (MAX_LOGS, 1, 0));
        // Jobs have places of their own, and a page takes the place of one room among hundreds.
        wanted.note(job(1), Some(turn(0)), true, now);
        let displaced = wanted.logs.holding.last().unwrap().1;
        wanted.note(log(5000), Some(turn(1)), true, now);
        let expected = [
            supply(job(1), true),
            Verdict::Withdraw(displaced),
            Verdict::Lack(displaced, Shortage::Full),
            supply(log(5000), true),
        ];
        assert_eq!(verdicts(&mut wanted), expected);
        assert!(wanted.is_watched(log(5000)) && !wanted.is_watched(displaced));
        // The last member of a room left: the next room is supplied at once.
        wanted.note(log(0), None, true, now);
        let given: Vec<_> = verdicts(&mut wanted);
        assert_eq!(given[..2], [Verdict::Withdraw(log(0)), Verdict::Lack(log(0), Shortage::Full)]);
        assert!(matches!(given[2], Verdict::Supply { .. }) && given.len() == 3);
    }

    #[test]
    fn an_unknown_room_is_looked_up_less_and_less_often() {
        let mut now = clock::now();
        let mut wanted = Wanted::new(now);
        wanted.note(job(1), Some(turn(0)), false, now);
        for rest in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            assert_eq!((wanted.next_lookup(now), wanted.next_lookup(now)), (Some(job(1)), None));
            wanted.looked_up(job(1), false, now);
            assert_eq!(wanted.next_lookup(now), None);
            assert_eq!(wanted.deadline(now), Some(now + Duration::from_secs(rest)));
            now += Duration::from_secs(rest);
            wanted.tick(now);
        }
        assert_eq!(verdicts(&mut wanted), [supply(job(1), false)], "there is still a place for it");
        wanted.learn(job(1), now);
        wanted.learn(job(1), now);
        assert_eq!(verdicts(&mut wanted), [supply(job(1), true)]);
        assert_eq!((wanted.next_lookup(now), wanted.deadline(now)), (None, None));
        wanted.unlearn(job(1), now);
        assert_eq!(verdicts(&mut wanted), [Verdict::Withdraw(job(1)), supply(job(1), false)]);
        assert_eq!(wanted.deadline(now), Some(now + FIRST_REST));
    }

    /// Returns the number of look-ups per second, in `seconds` seconds, at a Manager without any of
    /// these rooms.
    fn misses(wanted: &mut Wanted, start: Instant, seconds: u64) -> Vec<usize> {
        let mut asked = vec![0; seconds as usize];
        for tenth in 0..10 * seconds {
            let now = start + Duration::from_millis(100 * tenth);
            wanted.tick(now);
            while let Some(room) = wanted.next_lookup(now) {
                asked[tenth as usize / 10] += 1;
                wanted.looked_up(room, false, now);
            }
        }
        asked
    }

    #[test]
    fn thousands_of_unknown_rooms_cost_next_to_nothing_after_a_minute() {
        let start = clock::now();
        let mut wanted = Wanted::new(start);
        for number in 0..11 * 998 {
            let turn = Turn::new(number % 998, (number / 998) as u32);
            wanted.note(log(number), Some(turn), false, start);
        }
        let asked = misses(&mut wanted, start, 600);
        assert!(asked[0] <= 44 + 50, "{asked:?}");
        assert!(asked[60..].iter().sum::<usize>() < 540 / 2, "less than one in two seconds: {asked:?}");
        assert_eq!(wanted.counts(), (0, 0, 11 * 998));
        assert!(wanted.unknown.holding.len() <= MAX_UNKNOWN);
        // A page that comes now is looked up at once.
        let now = start + Duration::from_secs(600);
        verdicts(&mut wanted);
        wanted.note(log(20_000), Some(Turn::new(1, 11)), false, now);
        assert_eq!(wanted.next_lookup(now), Some(log(20_000)));
        wanted.looked_up(log(20_000), true, now);
        assert_eq!(verdicts(&mut wanted), [supply(log(20_000), true)]);
    }

    #[test]
    fn a_page_is_not_delayed_by_sessions_that_come_and_go() {
        let mut now = clock::now();
        let mut wanted = Wanted::new(now);
        wanted.note(job(1), Some(turn(0)), true, now);
        let mut asked = 0;
        for round in 0..60 {
            let rooms = (0..20).map(|number| log(1000 * round + number));
            rooms.clone().for_each(|room| wanted.note(room, Some(Turn::new(0, 0)), false, now));
            for _ in 0..100 {
                now += Duration::from_millis(100);
                wanted.tick(now);
                while let Some(room) = wanted.next_lookup(now) {
                    asked += 1;
                    wanted.looked_up(room, false, now);
                }
            }
            rooms.for_each(|room| wanted.note(room, None, false, now));
        }
        assert!(asked < 100 + 600 / 4 + 50 + 600 / 20 + 10, "{asked} look-ups in ten minutes");
        assert!(asked > 100 + 600 / 4, "{asked}");
        // The budget is used up. The page's job is known, and so are its tasks once they are listed.
        wanted.note(log(70_000), Some(turn(1)), false, now);
        assert_eq!((wanted.next_listing(now), wanted.next_listing(now)), (Some(job_id(1)), None));
        verdicts(&mut wanted);
        wanted.learn(log(70_000), now);
        assert_eq!(verdicts(&mut wanted), [supply(log(70_000), true)]);
    }

    #[test]
    fn look_ups_that_find_something_are_limited_by_nothing_but_their_answers() {
        let now = clock::now();
        let mut wanted = Wanted::new(now);
        (0..2000).for_each(|number| wanted.note(job(number), Some(Turn::new(0, number as u32)), false, now));
        let mut found = 0;
        while let Some(room) = wanted.next_lookup(now) {
            let others: Vec<_> = std::iter::from_fn(|| wanted.next_lookup(now)).collect();
            assert!(others.len() < MAX_LOOKUPS);
            for room in others.into_iter().chain([room]) {
                wanted.looked_up(room, true, now);
                found += 1;
            }
        }
        assert_eq!((found, wanted.counts()), (2000, (2000, 0, 0)));
    }

    #[test]
    fn look_ups_of_a_broken_link_are_made_again() {
        let now = clock::now();
        let mut wanted = Wanted::new(now);
        wanted.note(job(1), Some(turn(0)), false, now);
        assert_eq!(wanted.next_lookup(now), Some(job(1)));
        wanted.abandon_lookups();
        assert_eq!(wanted.next_lookup(now), Some(job(1)));
        // Its last member has left before the answer arrived.
        wanted.note(job(1), None, false, now);
        wanted.tick(now + LINGER);
        wanted.looked_up(job(1), true, now + LINGER);
        assert!(wanted.rooms.is_empty() && wanted.due.is_empty() && wanted.lookups == 0);
    }

    #[test]
    fn only_late_rooms_have_missed_updates() {
        let start = clock::now();
        let mut wanted = Wanted::new(start);
        for number in 1..=2 {
            wanted.note(job(number), Some(turn(0)), true, start);
        }
        assert!(!wanted.supplied(job(1), start + LATE / 2));
        assert!(wanted.supplied(job(2), start + LATE));
        // After a broken link the comparison finds what was missed, but not for a subscription that
        // failed.
        let later = start + Duration::from_secs(60);
        assert!(!wanted.supplied(job(1), later));
        wanted.missed(job(1), later);
        assert!(wanted.supplied(job(1), later + Duration::from_secs(2)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(usize, usize),
        Leave(usize),
        Change(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_usize, 0..40_usize).prop_map(|(room, rank)| Step::Enter(room, rank)),
            2 => (0..20_usize).prop_map(Step::Leave),
            2 => (0..20_usize, 0..40_usize).prop_map(|(room, rank)| Step::Change(room, rank)),
        ]
    }

    proptest! {
        #[test]
        fn no_room_waits_while_one_with_a_later_turn_has_a_place(steps in prop::collection::vec(step(), 0..100)) {
            let mut places = Places::new(5);
            let (mut turns, mut supplied) = (HashMap::new(), HashSet::new());
            for step in steps {
                let shifts = match step {
                    Step::Enter(room, _) if turns.contains_key(&room) => continue,
                    Step::Enter(room, rank) => {
                        turns.insert(room, turn(rank));
                        places.enter(turn(rank), job(room))
                    }
                    Step::Leave(room) => {
                        let Some(turn) = turns.remove(&room) else { continue };
                        supplied.remove(&job(room));
                        places.leave(turn, job(room))
                    }
                    Step::Change(room, rank) => {
                        let Some(before) = turns.insert(room, turn(rank)) else {
                            turns.remove(&room);
                            continue;
                        };
                        places.change(before, turn(rank), job(room))
                    }
                };
                for shift in shifts {
                    match shift {
                        Shift::In(room) => prop_assert!(supplied.insert(room)),
                        Shift::Out(room) => prop_assert!(supplied.remove(&room)),
                        Shift::Waits(room) => prop_assert!(!supplied.contains(&room)),
                    }
                }
                prop_assert_eq!(&supplied, &places.holders().collect());
                prop_assert_eq!(places.holding.len() + places.waiting.len(), turns.len());
                prop_assert_eq!(places.holding.len(), turns.len().min(5));
                if let (Some(last), Some(next)) = (places.holding.last(), places.waiting.first()) {
                    prop_assert!(last.0 <= next.0);
                }
            }
        }
    }
}
