//! What this server has subscribed to at the Manager, and what it still has to.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::farm::{Op, Room, SubscriptionRequest};

/// How long the Manager may take to acknowledge before a request counts as done.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The Manager handles each message in a routine of its own, in whatever order: so of each room there is at most one request
/// under way.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    rooms: HashMap<Room, Subscription>,
    /// Rooms of which something may have to be asked. May hold more.
    due: VecDeque<Room>,
    /// What was asked and not answered, in the order of asking. May hold what was answered.
    asked: VecDeque<(Instant, u64)>,
    answers: HashMap<u64, Room>,
}

#[derive(Debug)]
struct Subscription {
    is_wanted: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Out,
    Joining,
    In,
    Leaving,
}

/// What an answer of the Manager means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Joined(Room),
    Left(Room),
}

impl Subscriptions {
    pub(super) fn want(&mut self, room: Room) {
        let new = Subscription { is_wanted: true, state: State::Out };
        self.rooms.entry(room).or_insert(new).is_wanted = true;
        self.due.push_back(room);
    }

    pub(super) fn unwant(&mut self, room: Room) {
        if let Some(subscription) = self.rooms.get_mut(&room) {
            subscription.is_wanted = false;
            self.due.push_back(room);
        }
    }

    /// A new connection begins with nothing.
    pub(super) fn reset(&mut self) {
        self.rooms.retain(|_, subscription| subscription.is_wanted);
        self.rooms.values_mut().for_each(|subscription| subscription.state = State::Out);
        self.due = self.rooms.keys().copied().collect();
        self.asked.clear();
        self.answers.clear();
    }

    /// What to ask next. Stays the same until it was [`asked`](Self::asked).
    pub(super) fn next(&mut self) -> Option<SubscriptionRequest> {
        while let Some(&room) = self.due.front() {
            let subscription = self.rooms.get(&room).map(|subscription| (subscription.is_wanted, subscription.state));
            match subscription {
                Some((true, State::Out)) => return Some(SubscriptionRequest { op: Op::Subscribe, room }),
                Some((false, State::In)) => return Some(SubscriptionRequest { op: Op::Unsubscribe, room }),
                Some((false, State::Out)) => {
                    self.rooms.remove(&room);
                }
                Some((true, State::In) | (_, State::Joining | State::Leaving)) | None => {}
            }
            self.due.pop_front();
        }
        None
    }

    /// What [`next`](Self::next) returned is on its way; its answer will carry this number.
    pub(super) fn asked(&mut self, request: SubscriptionRequest, number: u64, now: Instant) {
        if let Some(subscription) = self.rooms.get_mut(&request.room) {
            subscription.state = match request.op {
                Op::Subscribe => State::Joining,
                Op::Unsubscribe => State::Leaving,
            };
            self.answers.insert(number, request.room);
            self.asked.push_back((now, number));
        }
    }

    /// The Manager has answered. Whatever it says: one that does not know a room tells nothing of it.
    pub(super) fn answered(&mut self, number: u64) -> Option<Answered> {
        let room = self.answers.remove(&number)?;
        let subscription = self.rooms.get_mut(&room)?;
        self.due.push_back(room);
        match subscription.state {
            State::Joining => {
                subscription.state = State::In;
                subscription.is_wanted.then_some(Answered::Joined(room))
            }
            State::Leaving => {
                subscription.state = State::Out;
                Some(Answered::Left(room))
            }
            State::Out | State::In => None,
        }
    }

    /// The next request that waited too long for its answer.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<u64> {
        while let Some(&(since, number)) = self.asked.front() {
            let is_answered = !self.answers.contains_key(&number);
            if !is_answered && now.saturating_duration_since(since) < ANSWER_TIMEOUT {
                return None;
            }
            self.asked.pop_front();
            if !is_answered {
                return Some(number);
            }
        }
        None
    }

    /// When [`overdue`](Self::overdue) is to be asked at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.front().map(|&(since, _)| since + ANSWER_TIMEOUT)
    }

    /// Whether the Manager has acknowledged the room, and not been asked to leave it.
    pub(super) fn is_in(&self, room: Room) -> bool {
        self.rooms.get(&room).is_some_and(|subscription| subscription.state == State::In)
    }

    /// Whether everything that is wanted is there.
    pub(super) fn is_complete(&self) -> bool {
        self.rooms.values().all(|subscription| !subscription.is_wanted || subscription.state == State::In)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn subscribe(room: Room) -> Option<SubscriptionRequest> {
        Some(SubscriptionRequest { op: Op::Subscribe, room })
    }

    fn unsubscribe(room: Room) -> Option<SubscriptionRequest> {
        Some(SubscriptionRequest { op: Op::Unsubscribe, room })
    }

    fn job() -> Room {
        Room::Job("4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21".parse().unwrap())
    }

    #[test]
    fn asks_once_and_is_complete_when_all_is_answered() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::Jobs);
        subscriptions.want(job());
        subscriptions.want(job());
        assert_eq!(subscriptions.next(), subscribe(Room::Jobs));
        assert_eq!(subscriptions.next(), subscribe(Room::Jobs), "not asked yet");
        subscriptions.asked(subscribe(Room::Jobs).unwrap(), 0, now);
        assert_eq!(subscriptions.next(), subscribe(job()));
        subscriptions.asked(subscribe(job()).unwrap(), 1, now);
        assert_eq!(subscriptions.next(), None);
        assert_eq!(subscriptions.answered(1), Some(Answered::Joined(job())));
        assert_eq!(subscriptions.answered(1), None);
        assert!(subscriptions.is_in(job()) && !subscriptions.is_complete());
        assert_eq!(subscriptions.answered(0), Some(Answered::Joined(Room::Jobs)));
        assert!(subscriptions.is_complete());
        assert_eq!(subscriptions.next(), None);
    }

    #[test]
    fn a_change_of_mind_waits_for_the_answer() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(job());
        let request = subscriptions.next().unwrap();
        subscriptions.asked(request, 0, now);
        subscriptions.unwant(job());
        assert_eq!(subscriptions.next(), None);
        assert_eq!(subscriptions.answered(0), None);
        assert_eq!(subscriptions.next(), unsubscribe(job()));
        subscriptions.asked(unsubscribe(job()).unwrap(), 1, now);
        subscriptions.want(job());
        assert_eq!(subscriptions.next(), None);
        assert_eq!(subscriptions.answered(1), Some(Answered::Left(job())));
        assert_eq!(subscriptions.next(), subscribe(job()));
        subscriptions.unwant(job());
        assert_eq!(subscriptions.next(), None);
        assert!(subscriptions.rooms.is_empty());
    }

    #[test]
    fn a_new_connection_asks_for_all_that_is_wanted() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::Jobs);
        subscriptions.want(job());
        while let Some(request) = subscriptions.next() {
            subscriptions.asked(request, u64::from(request.room != Room::Jobs), now);
        }
        subscriptions.answered(0);
        subscriptions.unwant(job());
        subscriptions.reset();
        assert!(!subscriptions.is_complete());
        assert_eq!(subscriptions.next(), subscribe(Room::Jobs));
        subscriptions.asked(subscribe(Room::Jobs).unwrap(), 0, now);
        assert_eq!(subscriptions.next(), None);
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(Room::Jobs);
        subscriptions.want(job());
        subscriptions.asked(subscribe(Room::Jobs).unwrap(), 0, now);
        subscriptions.asked(subscribe(job()).unwrap(), 1, now);
        subscriptions.answered(0);
        assert_eq!(subscriptions.deadline(), Some(now + ANSWER_TIMEOUT));
        assert_eq!(subscriptions.overdue(now + ANSWER_TIMEOUT / 2), None);
        assert_eq!(subscriptions.overdue(now + ANSWER_TIMEOUT), Some(1));
        assert_eq!(subscriptions.answered(1), Some(Answered::Joined(job())));
        assert_eq!(subscriptions.deadline(), None);
    }
}
