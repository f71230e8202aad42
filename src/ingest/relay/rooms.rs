//! Which rooms of jobs and logs browsers want, and where their updates come from.
//!
//! ```text
//!                  Wanted: a place                   Manager: acknowledged, or log read
//!  (no members) ──────────────────▶ subscribing or ───────────────────────────────────▶ Supplied
//!       ▲         demand            following a log ◀──────────────────────────────────    │
//!       │                                 │   the link is lost, or the log cannot be read  │
//!       │                                 │ Manager: refused, or no answer                 │
//!       │                                 ▼                                                │
//!       │                             Missing (retried)                                    │
//!       └──── Withdraw: without members for a while, or its place is needed ◀──────────────┘
//! ```
//!
//! `Wanted` decides which rooms have a place, `Subscriptions` obtains them over the link,
//! `Followers` over HTTP. This module performs what they decide and records it for the sessions.

use std::{collections::HashMap, pin::Pin, rc::Rc, time::Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::value::RawValue;

use super::{
    LOGGED_EVERY, RelayContext, TaskLogs, and_more,
    follow::{Followers, Report, Start},
    known::Known,
    note::Note,
    snapshot::Version,
    subscriptions::{Answered, Subscriptions},
    tail::Position,
    wanted::{Verdict, Wanted},
};
use crate::{
    actors::messages::{Enqueue, Lapse},
    client::{Client, EmitError},
    clock,
    farm::{JobId, Room, RoomEntity, TaskId},
    ingest::allowance::Allowance,
    interest::{Shortage, Supply, Turn},
    stats::RelayedRooms,
};

/// The number of rooms that are not supplied and logged, at once and per interval, by reason. The
/// log has only the number of the others.
const LOGGED_SHORTAGES: u32 = 3;

/// The rooms of one Manager.
pub(super) struct Rooms {
    shared: Rc<RelayContext>,
    known: Known,
    wanted: Wanted,
    subscriptions: Subscriptions,
    followers: Followers,
    lookups: Lookups,
    /// Logs that another server followed until this one took over.
    interrupted: HashMap<TaskId, Position>,
    /// The version of the last Manager, on whichever server it was met.
    version: Option<Version>,
    shortages_log: [Allowance; Shortage::ALL.len()],
}

/// Look-ups of jobs and tasks in flight.
type Lookups = FuturesUnordered<Pin<Box<dyn Future<Output = Found>>>>;

/// The result of a look-up at the Manager.
pub(super) enum Found {
    /// Whether it has the room's job or task.
    Room(Room, bool),
    Tasks(Vec<TaskId>),
}

/// A change that did not come over the link.
pub(super) enum RoomNews {
    Demand(Vec<(Room, Option<Turn>)>),
    Found(Found),
    Log(TaskId, Report),
}

impl Rooms {
    /// `known`, `logs` and `version` are what was published before, on whichever server.
    pub(super) fn new(
        shared: Rc<RelayContext>,
        known: Known,
        logs: HashMap<TaskId, Position>,
        version: Option<Version>,
    ) -> Self {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        // The rooms that every farm has are always relayed.
        let always = Room::FIXED.into_iter().filter(|room| room.subscription().is_some());
        always.for_each(|room| subscriptions.want(room));
        let mut rooms = Self {
            known,
            wanted: Wanted::new(now),
            subscriptions,
            followers: Followers::new(shared.clone()),
            lookups: Lookups::new(),
            interrupted: logs,
            version,
            shortages_log: Shortage::ALL.map(|_| Allowance::new(LOGGED_SHORTAGES, LOGGED_EVERY, now)),
            shared,
        };
        let occupied: HashMap<_, _> = rooms.shared.interest.occupied().into_iter().collect();
        let is_over = |&task: &TaskId| !occupied.contains_key(&Room::TaskLog(task));
        let over: Vec<_> = rooms.interrupted.keys().copied().filter(is_over).collect();
        over.iter().for_each(|task| drop(rooms.interrupted.remove(task)));
        if !over.is_empty() {
            rooms.followers.abandon(over);
        }
        for &room in occupied.keys() {
            rooms.shared.interest.set_supply(room, Supply::Pending);
        }
        rooms.note_demand(occupied.into_iter().map(|(room, turn)| (room, Some(turn))).collect());
        rooms
    }

    /// Waits for the next change. May be cancelled.
    pub(super) async fn next(&mut self) -> RoomNews {
        tokio::select! {
            changes = self.shared.interest.changes() => RoomNews::Demand(changes),
            Some(found) = self.lookups.next() => RoomNews::Found(found),
            (task, report) = self.followers.report() => RoomNews::Log(task, report),
        }
    }

    pub(super) fn take(&mut self, news: RoomNews) {
        match news {
            RoomNews::Demand(changes) => self.note_demand(changes),
            RoomNews::Found(Found::Room(room, is_known)) => {
                if is_known {
                    self.known.add(room);
                }
                self.wanted.looked_up(room, is_known, clock::now());
            }
            RoomNews::Found(Found::Tasks(tasks)) => self.learn(tasks.into_iter().map(Room::TaskLog)),
            RoomNews::Log(task, report) => self.note_log(task, report),
        }
    }

    /// Prepares for a new connection to a Manager of this version. Returns a note of it, unless all
    /// servers know it.
    pub(super) fn meet(&mut self, version: Version) -> Option<Note> {
        let text = version.as_str().to_owned();
        let before = self.version.replace(version);
        let is_news = before != self.version;
        self.perform_verdicts();
        let placed = self.wanted.placed();
        placed.into_iter().for_each(|(room, is_known)| self.supply(room, is_known));
        self.followers.wake_failing();
        self.subscriptions.reset();
        is_news.then_some(Note::Manager { version: text, has_changed: before.is_some() })
    }

    /// Records that the link is down: look-ups in flight are void, and rooms that it supplied wait.
    pub(super) fn lose_touch(&mut self) {
        self.lookups.clear();
        self.wanted.abandon_lookups();
        // Logs that are read over HTTP do not depend on the link.
        let placed = self.wanted.placed().into_iter().map(|(room, _)| room);
        let subscribed = placed.filter(|&room| self.subscriptions.is_wanted(room));
        subscribed.for_each(|room| self.shared.interest.set_supply(room, Supply::Pending));
    }

    /// Subscribes to wanted rooms and unsubscribes from others, as far as the connection accepts
    /// messages, and looks up unknown ones.
    pub(super) fn ask(&mut self, client: &mut Client) {
        self.perform_verdicts();
        self.subscribe(client);
        self.look_up();
        self.count();
    }

    /// Takes the Manager's answer to the request of this number. Returns the job whose pages must
    /// reload their tasks, because they missed updates.
    pub(super) fn answered(&mut self, number: u64, is_ok: bool) -> Option<JobId> {
        let answered = self.subscriptions.answered(number, is_ok, clock::now())?;
        self.take_answer(answered)
    }

    /// Drops rooms that have been empty for a while, and gives up unanswered requests.
    pub(super) fn tidy(&mut self) {
        let now = clock::now();
        self.wanted.tick(now);
        while let Some(answered) = self.subscriptions.overdue(now) {
            self.take_answer(answered);
        }
    }

    /// Returns when [`tidy`](Self::tidy) or [`ask`](Self::ask) has something to do without any
    /// news.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        [self.wanted.deadline(clock::now()), self.subscriptions.deadline()].into_iter().flatten().min()
    }

    /// Returns whether the Manager has answered all requests.
    pub(super) fn is_settled(&self) -> bool {
        self.subscriptions.is_settled()
    }

    /// Returns whether the Manager sends the room's updates.
    pub(super) fn is_in(&self, room: Room) -> bool {
        self.subscriptions.is_in(room)
    }

    /// Returns whether a browser looks at the job.
    pub(super) fn is_watched(&self, job: JobId) -> bool {
        self.wanted.is_watched(Room::Job(job))
    }

    /// Records that rooms' jobs and tasks exist.
    pub(super) fn learn(&mut self, rooms: impl IntoIterator<Item = Room>) {
        for room in rooms {
            if self.known.add(room) {
                self.wanted.learn(room, clock::now());
            }
        }
    }

    /// Records that a job was deleted.
    pub(super) fn forget(&mut self, job: JobId) {
        self.known.remove(Room::Job(job));
    }

    /// Makes the log of a task due soon, because the task was updated.
    pub(super) fn wake_log(&self, task: TaskId) {
        self.followers.wake(task);
    }

    fn subscribe(&mut self, client: &mut Client) {
        while let Some(request) = self.subscriptions.next(clock::now()) {
            let argument = request.to_argument().and_then(|argument| RawValue::from_string(argument).ok());
            let argument = argument.expect("rooms that are subscribed to have an argument, which is JSON");
            match client.emit_with_ack("/subscription", &argument) {
                Ok(number) => self.subscriptions.asked(request, number, clock::now()),
                // The next message from the Manager shows that it reads again.
                Err(EmitError::Backlog | EmitError::NotJson(_)) => return,
            }
        }
    }

    fn look_up(&mut self) {
        while let Some(room) = self.wanted.next_lookup(clock::now()) {
            let shared = self.shared.clone();
            self.lookups.push(Box::pin(async move {
                let has = shared.api.has(room).await;
                if let Err(error) = &has {
                    log::debug!("{room} cannot be looked up: {error}");
                }
                Found::Room(room, has.unwrap_or(false))
            }));
        }
        while let Some(job) = self.wanted.next_listing(clock::now()) {
            let shared = self.shared.clone();
            self.lookups.push(Box::pin(async move { Found::Tasks(shared.api.tasks(job).await.unwrap_or_default()) }));
        }
    }

    fn count(&self) {
        let (placed, waiting, unknown) = self.wanted.counts();
        let rooms = &self.shared.relay_stats().rooms;
        let failed = self.subscriptions.failures() + self.followers.failing();
        rooms[RelayedRooms::Supplied as usize].set(placed.saturating_sub(failed));
        rooms[RelayedRooms::Waiting as usize].set(waiting);
        rooms[RelayedRooms::Unknown as usize].set(unknown);
        rooms[RelayedRooms::Failed as usize].set(failed);
    }

    fn note_demand(&mut self, changes: Vec<(Room, Option<Turn>)>) {
        let now = clock::now();
        for (room, turn) in changes {
            if let (Room::TaskLog(_), Some(TaskLogs::Off)) = (room, self.task_logs()) {
                let supply = if turn.is_some() { Supply::Supplied } else { Supply::Pending };
                self.shared.interest.set_supply(room, supply);
                continue;
            }
            self.wanted.note(room, turn, self.known.has(room), now);
        }
        self.perform_verdicts();
    }

    fn perform_verdicts(&mut self) {
        while let Some(verdict) = self.wanted.verdict() {
            match verdict {
                Verdict::Supply { room, is_known } => self.supply(room, is_known),
                Verdict::Withdraw(room) => {
                    self.shared.interest.set_supply(room, Supply::Pending);
                    self.shared.hub.registry.enqueue(Lapse { room: Some(room) });
                    self.subscriptions.unwant(room);
                    if let Room::TaskLog(task) = room {
                        self.interrupted.remove(&task);
                        self.followers.leave(task);
                    }
                }
                Verdict::Lack(room, shortage) => self.note_lack(room, shortage),
            }
        }
    }

    /// Starts supplying a room's updates. A log waits for the Manager's version, if that decides.
    fn supply(&mut self, room: Room, is_known: bool) {
        match (room.entity(), self.task_logs()) {
            (Some(RoomEntity::TaskLog(task)), Some(TaskLogs::Follow)) => {
                self.subscriptions.unwant(room);
                if is_known {
                    let (is_new, is_urgent) = (self.wanted.take_misses(room), self.wanted.is_first(room));
                    let start = match self.interrupted.remove(&task) {
                        Some(position) => Start::After(position),
                        None if is_new => Start::Beginning,
                        None => Start::End,
                    };
                    self.followers.follow(task, start, is_urgent);
                } else {
                    // There is no log yet. Look-ups will find it.
                    self.shared.interest.set_supply(room, Supply::Supplied);
                }
            }
            (Some(RoomEntity::TaskLog(_)), Some(TaskLogs::Auto | TaskLogs::Off)) => {
                self.shared.interest.set_supply(room, Supply::Supplied);
            }
            (Some(RoomEntity::TaskLog(_)), None) => {}
            (Some(RoomEntity::TaskLog(task)), Some(TaskLogs::Subscribe)) => {
                self.followers.leave(task);
                self.subscriptions.want(room);
            }
            (Some(RoomEntity::Job(_)) | None, _) => self.subscriptions.want(room),
        }
    }

    /// Returns the source of task logs, for the Manager's version.
    fn task_logs(&self) -> Option<TaskLogs> {
        match self.shared.task_logs {
            TaskLogs::Auto => self.version.as_ref().map(|version| match version.sends_task_logs() {
                true => TaskLogs::Subscribe,
                false => TaskLogs::Follow,
            }),
            chosen @ (TaskLogs::Subscribe | TaskLogs::Follow | TaskLogs::Off) => Some(chosen),
        }
    }

    fn take_answer(&mut self, answered: Answered) -> Option<JobId> {
        match answered {
            Answered::Joined(room) => return self.note_supplied(room),
            Answered::Left(_) => {}
            Answered::Failed(room) => {
                self.wanted.missed(room, clock::now());
                self.note_lack(room, Shortage::Failed);
            }
        }
        None
    }

    /// Records that a room's updates arrive from now on. Returns its job if its members missed
    /// some.
    fn note_supplied(&mut self, room: Room) -> Option<JobId> {
        if !room.is_of_entity() {
            return None;
        }
        self.shared.interest.set_supply(room, Supply::Supplied);
        let has_missed = self.wanted.supplied(room, clock::now());
        let Room::Job(job) = room else { return None };
        has_missed.then_some(job)
    }

    fn note_lack(&mut self, room: Room, shortage: Shortage) {
        if room.is_of_entity() {
            self.shared.interest.set_supply(room, Supply::Missing(shortage));
        }
        self.shared.hub.stats.refused(shortage.refused()).add(1);
        if let Some(left_out) = self.shortages_log[shortage as usize].take(clock::now()) {
            log::warn!("{room} is not relayed: {shortage}{}", and_more(left_out));
        }
    }

    fn note_log(&mut self, task: TaskId, report: Report) {
        let room = Room::TaskLog(task);
        match report {
            // The follower publishes what the log's members missed.
            Report::Reading => drop(self.note_supplied(room)),
            Report::Failing => self.note_lack(room, Shortage::Failed),
            Report::Missing => {
                self.known.remove(room);
                self.wanted.unlearn(room, clock::now());
            }
        }
    }
}
