//! The relay's subscriptions at the Manager: which exist, which are in flight, and which failed.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    farm::{Op, Room, SubscriptionRequest},
    slots::Shrink,
};

/// The maximum number of requests in flight. The Manager's server has a queue for each connection,
/// and closes a connection that overflows it.
const MAX_IN_FLIGHT: usize = 100;

/// How long the Manager may take to answer before a request counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait before a failed subscription is retried; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// All subscriptions of one connection, and the set of wanted rooms, which outlives the connection.
///
/// ```text
///         asked               ok               asked
///   Out ────────▶ Joining ──────────▶ In ───────────────▶ Leaving
///    ▲              │ refused, or no answer within 5 s      │ answered, or not within 5 s
///    │              ▼                                       │
///    ├─────────── Failed                                    │
///    │ after 2 s, 4 s … 60 s                                │
///    └──────────────────────────────────────────────────────┘
/// ```
///
/// The Manager handles each message in a goroutine of its own, in any order. Therefore each room
/// has at most one request in flight.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    rooms: HashMap<Room, Subscription>,
    /// Rooms that may need a request. May contain others.
    due: VecDeque<Room>,
    retries: BTreeSet<(Instant, Room)>,
    in_flight: usize,
    /// Requests in the order in which they were sent. May contain answered ones.
    asked: VecDeque<(Instant, u64)>,
    /// The rooms of requests. A late request stays until its room has a newer one.
    answers: HashMap<u64, Room>,
}

#[derive(Debug)]
struct Subscription {
    is_wanted: bool,
    state: RoomState,
    /// The number of the last request.
    number: Option<u64>,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomState {
    Out,
    Joining,
    In,
    Leaving,
    Failed { until: Instant },
}

/// The meaning of an answer of the Manager, or of its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Joined(Room),
    Left(Room),
    /// The subscription was refused, or not answered. It is retried.
    Failed(Room),
}

impl Subscriptions {
    pub(super) fn want(&mut self, room: Room) {
        let new = Subscription { is_wanted: true, state: RoomState::Out, number: None, failures: 0 };
        self.rooms.entry(room).or_insert(new).is_wanted = true;
        self.due.push_back(room);
    }

    pub(super) fn unwant(&mut self, room: Room) {
        if let Some(subscription) = self.rooms.get_mut(&room) {
            subscription.is_wanted = false;
            self.due.push_back(room);
        }
    }

    /// Resets all states: a new connection has no subscriptions.
    pub(super) fn reset(&mut self) {
        self.rooms.retain(|_, subscription| subscription.is_wanted);
        for subscription in self.rooms.values_mut() {
            *subscription = Subscription { is_wanted: true, state: RoomState::Out, number: None, failures: 0 };
        }
        self.rooms.shrink_if_sparse();
        self.due = self.rooms.keys().copied().collect();
        (self.asked, self.answers, self.retries) = Default::default();
        self.in_flight = 0;
    }

    /// Returns the next request, the same one until [`asked`](Self::asked) is called. `None` while
    /// the maximum is in flight.
    pub(super) fn next(&mut self, now: Instant) -> Option<SubscriptionRequest> {
        if self.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        self.take_retries(now);
        while let Some(&room) = self.due.front() {
            let subscription = self.rooms.get(&room).map(|subscription| (subscription.is_wanted, subscription.state));
            match subscription {
                Some((true, RoomState::Out)) => {
                    return Some(SubscriptionRequest { op: Op::Subscribe, room, state: false });
                }
                // The Manager may have accepted a subscription that it did not answer.
                Some((false, RoomState::In | RoomState::Failed { .. })) => {
                    return Some(SubscriptionRequest { op: Op::Unsubscribe, room, state: false });
                }
                Some((false, RoomState::Out)) => self.forget(room),
                Some(
                    (true, RoomState::In | RoomState::Failed { .. }) | (_, RoomState::Joining | RoomState::Leaving),
                )
                | None => {}
            }
            self.due.pop_front();
            self.due.shrink_if_sparse();
        }
        None
    }

    /// Records that the request that [`next`](Self::next) returned was sent, with the number that
    /// its answer will carry.
    pub(super) fn asked(&mut self, request: SubscriptionRequest, number: u64, now: Instant) {
        let Some(subscription) = self.rooms.get_mut(&request.room) else { return };
        if let RoomState::Failed { until } = subscription.state {
            self.retries.remove(&(until, request.room));
        }
        subscription.state = match request.op {
            Op::Subscribe => RoomState::Joining,
            Op::Unsubscribe => RoomState::Leaving,
        };
        if let Some(earlier) = subscription.number.replace(number) {
            self.answers.remove(&earlier);
        }
        self.in_flight += 1;
        self.answers.insert(number, request.room);
        self.asked.push_back((now, number));
    }

    /// Handles the Manager's answer to a request.
    pub(super) fn answered(&mut self, number: u64, is_ok: bool, now: Instant) -> Option<Answered> {
        let room = self.answers.remove(&number)?;
        self.answers.shrink_if_sparse();
        let subscription = self.rooms.get_mut(&room)?;
        match subscription.state {
            RoomState::Joining => self.in_flight -= 1,
            RoomState::Leaving => {
                self.in_flight -= 1;
                return self.left(room);
            }
            // Late, but still valid.
            RoomState::Failed { until } if is_ok => drop(self.retries.remove(&(until, room))),
            RoomState::Out | RoomState::In | RoomState::Failed { .. } => return None,
        }
        // Older Managers do not have all of the rooms that every farm has now.
        if !is_ok && room.is_of_entity() {
            return self.failed(room, now);
        }
        (subscription.state, subscription.failures) = (RoomState::In, 0);
        self.due.push_back(room);
        subscription.is_wanted.then_some(Answered::Joined(room))
    }

    /// Gives up the next request that was not answered in time.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Answered> {
        while let Some(&(since, number)) = self.asked.front() {
            let room = self.answers.get(&number).copied();
            let state = room.and_then(|room| self.rooms.get(&room)).map(|subscription| subscription.state);
            let is_open = matches!(state, Some(RoomState::Joining | RoomState::Leaving));
            if is_open && now.saturating_duration_since(since) < ANSWER_TIMEOUT {
                return None;
            }
            self.asked.pop_front();
            self.asked.shrink_if_sparse();
            let Some(room) = room.filter(|_| is_open) else { continue };
            self.in_flight -= 1;
            let answered = if state == Some(RoomState::Joining) { self.failed(room, now) } else { self.left(room) };
            if answered.is_some() {
                return answered;
            }
        }
        None
    }

    /// Returns when [`overdue`](Self::overdue) and [`next`](Self::next) must be called again at the
    /// latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let overdue = self.asked.front().map(|&(since, _)| since + ANSWER_TIMEOUT);
        let retry = self.retries.first().filter(|_| self.in_flight < MAX_IN_FLIGHT).map(|&(until, _)| until);
        overdue.into_iter().chain(retry).min()
    }

    /// Returns whether the Manager has accepted the subscription, and was not asked to end it.
    pub(super) fn is_in(&self, room: Room) -> bool {
        self.rooms.get(&room).is_some_and(|subscription| subscription.state == RoomState::In)
    }

    pub(super) fn is_wanted(&self, room: Room) -> bool {
        self.rooms.get(&room).is_some_and(|subscription| subscription.is_wanted)
    }

    /// Returns whether no request must be sent and none is in flight.
    pub(super) fn is_settled(&self) -> bool {
        self.due.is_empty() && self.in_flight == 0
    }

    /// Returns how many subscriptions wait for their next attempt.
    pub(super) fn failures(&self) -> usize {
        self.retries.len()
    }

    fn left(&mut self, room: Room) -> Option<Answered> {
        self.rooms.get_mut(&room)?.state = RoomState::Out;
        self.due.push_back(room);
        Some(Answered::Left(room))
    }

    fn failed(&mut self, room: Room, now: Instant) -> Option<Answered> {
        let subscription = self.rooms.get_mut(&room)?;
        let wait = FIRST_RETRY.saturating_mul(1 << subscription.failures.min(16)).min(MAX_RETRY);
        let until = now + wait;
        subscription.failures += 1;
        subscription.state = RoomState::Failed { until };
        self.retries.insert((until, room));
        self.due.push_back(room);
        subscription.is_wanted.then_some(Answered::Failed(room))
    }

    fn take_retries(&mut self, now: Instant) {
        while let Some(&(until, room)) = self.retries.first()
            && until <= now
        {
            self.retries.pop_first();
            if let Some(subscription) = self.rooms.get_mut(&room) {
                subscription.state = RoomState::Out;
                self.due.push_back(room);
            }
        }
    }

    fn forget(&mut self, room: Room) {
        if let Some(number) = self.rooms.remove(&room).and_then(|subscription| subscription.number) {
            self.answers.remove(&number);
        }
        self.rooms.shrink_if_sparse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn subscribe(room: Room) -> Option<SubscriptionRequest> {
        Some(SubscriptionRequest { op: Op::Subscribe, room, state: false })
    }

    fn unsubscribe(room: Room) -> Option<SubscriptionRequest> {
        Some(SubscriptionRequest { op: Op::Unsubscribe, room, state: false })
    }

    fn job() -> Room {
        numbered(1)
    }

    fn numbered(number: u64) -> Room {
        Room::Job(format!("00000000-0000-4000-8000-{number:012}").parse().unwrap())
    }

    #[test]
    fn asks_once_and_is_settled_when_all_is_answered() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::Jobs);
        subscriptions.want(job());
        subscriptions.want(job());
        assert_eq!(subscriptions.next(now), subscribe(Room::Jobs));
        assert_eq!(subscriptions.next(now), subscribe(Room::Jobs), "not sent yet");
        subscriptions.asked(subscribe(Room::Jobs).unwrap(), 0, now);
        assert_eq!(subscriptions.next(now), subscribe(job()));
        subscriptions.asked(subscribe(job()).unwrap(), 1, now);
        assert_eq!(subscriptions.next(now), None);
        assert_eq!(subscriptions.answered(1, true, now), Some(Answered::Joined(job())));
        assert_eq!(subscriptions.answered(1, true, now), None);
        assert!(subscriptions.is_in(job()) && !subscriptions.is_settled());
        assert_eq!(subscriptions.answered(0, true, now), Some(Answered::Joined(Room::Jobs)));
        assert_eq!(subscriptions.next(now), None);
        assert!(subscriptions.is_settled());
    }

    #[test]
    fn a_change_of_mind_waits_for_the_answer() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(job());
        let request = subscriptions.next(now).unwrap();
        subscriptions.asked(request, 0, now);
        subscriptions.unwant(job());
        assert_eq!(subscriptions.next(now), None);
        assert_eq!(subscriptions.answered(0, true, now), None);
        assert_eq!(subscriptions.next(now), unsubscribe(job()));
        subscriptions.asked(unsubscribe(job()).unwrap(), 1, now);
        subscriptions.want(job());
        assert_eq!(subscriptions.next(now), None);
        assert_eq!(subscriptions.answered(1, true, now), Some(Answered::Left(job())));
        assert_eq!(subscriptions.next(now), subscribe(job()));
        subscriptions.unwant(job());
        assert_eq!(subscriptions.next(now), None);
        assert!(subscriptions.rooms.is_empty());
    }

    #[test]
    fn a_new_connection_asks_for_all_that_is_wanted() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::Jobs);
        subscriptions.want(job());
        while let Some(request) = subscriptions.next(now) {
            subscriptions.asked(request, u64::from(request.room != Room::Jobs), now);
        }
        subscriptions.answered(0, true, now);
        subscriptions.unwant(job());
        subscriptions.reset();
        assert!(!subscriptions.is_settled());
        assert_eq!(subscriptions.next(now), subscribe(Room::Jobs));
        subscriptions.asked(subscribe(Room::Jobs).unwrap(), 0, now);
        assert_eq!(subscriptions.next(now), None);
    }

    #[test]
    fn few_are_in_flight_and_the_next_follow_at_once() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        (0..2000).for_each(|number| subscriptions.want(numbered(number)));
        let (mut sent, mut answered) = (0, 0);
        while answered < 2000 {
            while let Some(request) = subscriptions.next(now) {
                subscriptions.asked(request, sent, now);
                sent += 1;
            }
            assert_eq!(sent, (answered + MAX_IN_FLIGHT as u64).min(2000));
            assert!(subscriptions.answered(answered, true, now).is_some());
            answered += 1;
        }
        assert_eq!(subscriptions.next(now), None);
        assert!(subscriptions.is_settled());
    }

    #[test]
    fn refused_subscriptions_are_retried_after_growing_waits() {
        let mut now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(job());
        for (number, wait) in [2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            let request = subscriptions.next(now).unwrap();
            subscriptions.asked(request, number as u64, now);
            assert_eq!(subscriptions.answered(number as u64, false, now), Some(Answered::Failed(job())));
            assert_eq!((subscriptions.next(now), subscriptions.failures()), (None, 1));
            assert!(subscriptions.is_settled(), "the comparison does not wait for it");
            subscriptions.overdue(now);
            assert_eq!(subscriptions.deadline(), Some(now + Duration::from_secs(wait)));
            now += Duration::from_secs(wait);
        }
        let request = subscriptions.next(now).unwrap();
        subscriptions.asked(request, 7, now);
        assert_eq!(subscriptions.answered(7, true, now), Some(Answered::Joined(job())));
        assert_eq!((subscriptions.failures(), subscriptions.rooms[&job()].failures), (0, 0));
    }

    #[test]
    fn a_room_that_an_older_manager_does_not_have_is_asked_for_once() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::WorkerTags);
        subscriptions.asked(subscribe(Room::WorkerTags).unwrap(), 0, now);
        assert_eq!(subscriptions.answered(0, false, now), Some(Answered::Joined(Room::WorkerTags)));
        assert_eq!((subscriptions.next(now), subscriptions.failures()), (None, 0));
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for_but_taken_when_it_does() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        for (number, room) in [(0, Room::Jobs), (1, job()), (2, numbered(2))] {
            subscriptions.want(room);
            subscriptions.asked(subscribe(room).unwrap(), number, now);
        }
        subscriptions.answered(0, true, now);
        assert_eq!(subscriptions.deadline(), Some(now + ANSWER_TIMEOUT));
        assert_eq!(subscriptions.overdue(now + ANSWER_TIMEOUT / 2), None);
        let late = now + ANSWER_TIMEOUT;
        assert_eq!(subscriptions.overdue(late), Some(Answered::Failed(job())));
        assert_eq!(subscriptions.overdue(late), Some(Answered::Failed(numbered(2))));
        assert_eq!((subscriptions.overdue(late), subscriptions.in_flight), (None, 0));
        assert_eq!(subscriptions.answered(1, true, late), Some(Answered::Joined(job())));
        // The other one is not wanted any more, but the Manager may have it.
        subscriptions.unwant(numbered(2));
        assert_eq!(subscriptions.next(late), unsubscribe(numbered(2)));
        subscriptions.asked(unsubscribe(numbered(2)).unwrap(), 3, late);
        assert_eq!(subscriptions.answered(2, true, late), None, "it answers the earlier request");
        assert_eq!(subscriptions.overdue(late + ANSWER_TIMEOUT), Some(Answered::Left(numbered(2))));
        assert_eq!(subscriptions.next(late + ANSWER_TIMEOUT), None);
        assert!(subscriptions.retries.is_empty() && subscriptions.rooms.len() == 2);
    }
}
