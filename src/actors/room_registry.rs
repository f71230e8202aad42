//! The room registry: the one actor that knows the members of each room and orders all broadcasts.
//!
//! ```text
//!           a command arrives                    done
//! Ready ──────────────────────▶ InHand(1) ─────────────────▶ Ready
//!                                │ panic: Supervised::restarting
//!                                ▼
//!                              started: rebuild membership from the roster, mark again
//!                                │ attempt
//!                                ▼       done
//!                              InHand(2) ────────────────▶ Ready
//!                                │ panic again
//!                                ▼
//!                              give_up: drop the command, count it as poisoned ──▶ Ready
//! ```
//!
//! A session: `Enter` or `Resume` ▶ seated ▶ `Join`, `Leave` ▶ `Exit`, or evicted during a broadcast ▶ no seat.

use std::{collections::HashMap, sync::Arc};

use actix::{Actor, AsyncContext, Context, Handler, Supervised, WrapFuture};
use serde::Serialize;
use tokio::sync::oneshot;

use super::messages::{
    BeginHistory, Census, Enter, Exit, Join, Lapse, Leave, ListSessions, Publish, Read, ReadHistory, Refuse, Resume,
    SeatedSession, SessionKey, Sessions, Since, TakeCensus,
};
use crate::{
    clock,
    disconnect::Disconnect,
    farm::{Audience, Room},
    faults,
    frame::Frame,
    history::{History, InvalidToken, Lost, Token},
    membership::{Member, Membership},
    outbox::{self, Home, Log, Marks, Outbox, Phase, Push, Seq, Workers},
    protocol::write_ack_value,
    slots::{Shrink, Slots},
    stats::{Resumed, Stats},
};

/// The actor's name in logs.
const ACTOR: &str = "room-registry";

/// The maximum size of a replay or of a state, in units of `OutboxLimits::bytes`. It exceeds that
/// limit because a client that has just connected is assumed to read.
const REPLAY_SHARE: usize = 8;

/// How often a command is tried before it is dropped.
const MAX_ATTEMPTS: u8 = 2;

/// Membership of rooms, and the order of broadcasts.
///
/// The registry recovers exactly from its own panics. The supervisor keeps the mailbox. The command
/// in hand is kept here and retried first. The membership, which a panic may have left
/// inconsistent, is rebuilt from the sessions' own lists. A retried broadcast
/// carries the number of its first attempt, so outboxes that already have it drop it.
pub struct RoomRegistry {
    roster: Roster,
    membership: Membership,
    history: History,
    /// Readers of the history that wait for the next event.
    tails: Vec<oneshot::Sender<()>>,
    in_hand: Option<InHand>,
    last_seq: Seq,
    marks: Marks,
    workers: Arc<Workers>,
    limits: outbox::OutboxLimits,
    stats: &'static Stats,
    restarted: bool,
    /// Why each session is closed, while this server is cut off from its source.
    refusing: Option<Disconnect>,
}

struct InHand {
    command: Command,
    attempts: u8,
}

enum Command {
    Enter(Enter),
    Resume(Resume),
    Exit(Exit),
    Join(Join),
    Leave(Leave),
    Publish(Seq, Publish),
}

impl RoomRegistry {
    /// Creates the registry. `common` is the room that nearly every session is in: its broadcasts
    /// go to the log, once for all outboxes attached to it.
    pub fn new(
        workers: Arc<Workers>,
        common: Option<Room>,
        limits: outbox::OutboxLimits,
        history: History,
        stats: &'static Stats,
    ) -> Self {
        Self {
            roster: Roster {
                seats: Slots::new(),
                members: HashMap::new(),
                resumable: Vec::new(),
                common: common.map(|room| Common { room, log: workers.log().clone() }),
            },
            membership: Membership::default(),
            history,
            tails: Vec::new(),
            in_hand: None,
            last_seq: 0,
            marks: Marks::new(),
            workers,
            limits,
            stats,
            restarted: false,
            refusing: None,
        }
    }

    fn perform(&mut self, command: Command, ctx: &mut Context<Self>) {
        self.in_hand = Some(InHand { command, attempts: 0 });
        self.attempt(ctx);
    }

    fn attempt(&mut self, ctx: &mut Context<Self>) {
        let Some(in_hand) = &mut self.in_hand else { return };
        in_hand.attempts += 1;
        match &mut in_hand.command {
            Command::Enter(enter) => {
                self.roster.enter(enter, &mut self.membership);
            }
            Command::Resume(_) => self.resume(),
            Command::Exit(exit) => {
                let home = self.roster.exit(exit.session, &mut self.membership);
                home.into_iter().for_each(|home| self.workers.mark(home));
            }
            Command::Join(join) => {
                self.roster.join(join.session, join.room, &mut self.membership);
                if join.state.is_some() {
                    if let Some(outbox) = self.roster.outbox(join.session) {
                        let with_farm = join.room == Room::Jobs;
                        send_state(&mut self.history, outbox, &[join.room], with_farm, &self.limits, &mut self.marks);
                    }
                    self.workers.mark_all(&mut self.marks, None);
                    if let Some(sent) = join.state.take() {
                        // Last, so that a retry sends the state. The session may have ended.
                        let _ = sent.send(());
                    }
                }
            }
            Command::Leave(leave) => {
                let home = self.roster.leave(leave.session, leave.room, &mut self.membership);
                home.into_iter().for_each(|home| self.workers.mark(home));
            }
            Command::Publish(seq, publish) => {
                let seq = *seq;
                faults::publishing(ACTOR, publish.id.as_ref());
                if !publish.is_rest {
                    self.history.record(seq, publish.place, &publish.event, publish.frame.published());
                    self.tails.drain(..).for_each(|tail| _ = tail.send(()));
                    self.stats.history_bytes.set(self.history.bytes());
                    self.stats.state_entities.set(self.history.entities());
                }
                let ahead = self.workers.published(publish.frame.websocket().len());
                self.fan_out(seq);
                if ahead {
                    let workers = self.workers.clone();
                    ctx.wait(async move { workers.caught_up().await }.into_actor(self));
                }
            }
        }
        self.in_hand = None;
    }

    /// Delivers the broadcast in hand to its audience. Outboxes drop a broadcast that they already
    /// have, so a session in several of its rooms gets it once.
    fn fan_out(&mut self, seq: Seq) {
        let Some(InHand { command: Command::Publish(_, publish), .. }) = &self.in_hand else { return };
        let limits = &self.limits;
        let mut fan_out = FanOut {
            seq,
            publish,
            with_token: None,
            history: &self.history,
            limits,
            marks: &mut self.marks,
            deliveries: 0,
            coalesced: 0,
            left_out: 0,
            evicted: Vec::new(),
        };
        let Roster { seats, common, resumable, .. } = &self.roster;
        match (&publish.audience, common) {
            (Audience::Room(room), Some(common)) if common.room == *room && publish.seen.is_none() => {
                let appended = common.log.append(seq, &publish.frame);
                fan_out.deliveries += appended.attached as u64;
                faults::fanning_out(publish.event.kind(), fan_out.deliveries);
                fan_out.push_to(seats, &appended.detached);
                fan_out.push_to(seats, &self.membership.those_in(*room, resumable));
                if appended.attached > 0 {
                    fan_out.marks.add_log();
                }
            }
            (Audience::Everyone, _) => seats.iter().for_each(|(member, seat)| fan_out.push(member, seat)),
            (Audience::Room(room), _) => fan_out.push_to(seats, self.membership.members(*room)),
            (Audience::Rooms(rooms), _) => {
                rooms.iter().for_each(|&room| fan_out.push_to(seats, self.membership.members(room)));
            }
        }
        // Nothing is throttled for those that can resume: they get the event with its first part.
        if publish.seen.is_some()
            && !publish.is_rest
            && let Audience::Rooms(rooms) = publish.event.audience()
        {
            rooms.iter().for_each(|&room| fan_out.push_to(seats, &self.membership.those_in(room, resumable)));
        }
        let FanOut { deliveries, coalesced, left_out, evicted, .. } = fan_out;
        self.workers.mark_all(&mut self.marks, Some(publish.frame.published()));
        self.stats.deliveries.add(deliveries);
        self.stats.coalesced.add(coalesced);
        self.stats.chat_left_out.add(left_out);
        for member in evicted {
            self.roster.remove(member, &mut self.membership);
        }
    }

    /// Seats the session in hand and sends it what it missed, then the acknowledgement, in one turn:
    /// what is published later comes after. A retry sends nothing of what was missed twice, because
    /// each event has the number of its broadcast.
    fn resume(&mut self) {
        let Some(InHand { command: Command::Resume(resume), .. }) = &self.in_hand else { return };
        let now = clock::now();
        let Resume { enter, request, ack } = resume;
        let is_seated = self.roster.enter(enter, &mut self.membership);
        let token: Option<Result<Token, InvalidToken>> = request.token.as_deref().map(str::parse);
        let max_bytes = self.limits.bytes.saturating_mul(REPLAY_SHARE);
        let missed = match &token {
            None => Err(Resumed::New),
            Some(Err(InvalidToken)) => Err(Resumed::Invalid),
            Some(Ok(token)) => self.history.missed(token, &request.rooms, max_bytes, now).map_err(|lost| match lost {
                Lost::Epoch => Resumed::Epoch,
                Lost::TooOld => Resumed::TooOld,
                Lost::TooMany => Resumed::TooMany,
                Lost::NotFollowed => Resumed::NotFollowed,
            }),
        };
        let (outcome, events) = match missed {
            Ok(missed) => {
                for (seq, frame) in &missed {
                    add(enter.0.outbox.push(*seq, frame, &self.limits), &mut self.marks);
                }
                self.stats.replayed_events.add(missed.len() as u64);
                (Resumed::Recovered, missed.len())
            }
            Err(outcome) => (outcome, 0),
        };
        let mut left_out = 0;
        if is_seated && request.state && outcome != Resumed::Recovered {
            left_out =
                send_state(&mut self.history, &enter.0.outbox, &request.rooms, true, &self.limits, &mut self.marks);
        }
        if let (true, Some(ack)) = (is_seated, ack) {
            let answer = Answer {
                recovered: outcome == Resumed::Recovered,
                reason: (!matches!(outcome, Resumed::Recovered | Resumed::New)).then(|| outcome.as_str()),
                message: outcome.message(),
                token: self.history.token().to_string(),
                events,
                left_out,
            };
            let answer = serde_json::to_string(&answer).expect("texts and numbers serialize");
            let frame = Frame::text(now, |out| write_ack_value(out, *ack, &answer));
            add(enter.0.outbox.push_direct(&frame, &self.limits), &mut self.marks);
        }
        self.stats.resumed(outcome).add(1);
        self.workers.mark_all(&mut self.marks, None);
    }

    /// Closes every session.
    fn close_all(&mut self, reason: Disconnect) {
        let homes = self.roster.seats.iter().filter_map(|(_, seat)| seat.outbox.close(reason));
        homes.for_each(|home| self.marks.add(home));
        self.workers.mark_all(&mut self.marks, None);
    }

    fn refuse(&self, seat: &SeatedSession) {
        let home = self.refusing.and_then(|reason| seat.outbox.close(reason));
        home.into_iter().for_each(|home| self.workers.mark(home));
    }

    /// Drops a command that made the registry panic repeatedly. A session that could not be seated
    /// must not miss anything silently, so it is closed and reconnects.
    fn give_up(&mut self, command: &Command) {
        self.stats.poisoned.add(1);
        let (what, session) = match command {
            Command::Enter(enter) | Command::Resume(Resume { enter, .. }) => {
                if let Some(home) = enter.0.outbox.drop_all(Disconnect::SessionFailed) {
                    self.workers.mark(home);
                }
                ("enter", Some(enter.0.session))
            }
            Command::Exit(exit) => ("exit", Some(exit.session)),
            Command::Join(join) => ("join", Some(join.session)),
            Command::Leave(leave) => ("leave", Some(leave.session)),
            Command::Publish(seq, publish) => {
                let (kind, id) = (publish.event.kind(), publish.id.as_ref().map_or("none", |id| id.as_str()));
                log::error!("broadcast {seq}, a {kind} event (id {id:?}), is dropped: it makes the {ACTOR} fail");
                return;
            }
        };
        log::error!("a command ({what}) is dropped: it makes the {ACTOR} fail");
        let outbox = session.and_then(|session| self.roster.outbox(session));
        if let Some(home) = outbox.and_then(|outbox| outbox.drop_all(Disconnect::SessionFailed)) {
            self.workers.mark(home);
        }
    }
}

/// The acknowledgement of a `/resume`.
#[derive(Serialize)]
struct Answer<'a> {
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    token: String,
    events: usize,
    /// Entities whose state is not sent because it is too much.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Sends the last known state of the rooms, and with `with_farm` the farm's status. Returns how many
/// updates were left out because they are too much for one client.
fn send_state(
    history: &mut History,
    outbox: &Outbox,
    rooms: &[Room],
    with_farm: bool,
    limits: &outbox::OutboxLimits,
    marks: &mut Marks,
) -> usize {
    let max_bytes = limits.bytes.saturating_mul(REPLAY_SHARE);
    let (frames, left_out) = history.state(rooms, with_farm, max_bytes, clock::now());
    for frame in &frames {
        add(outbox.push_direct(frame, limits), marks);
    }
    left_out
}

/// Adds the slot that must be marked after a push to one client.
fn add(pushed: Push, marks: &mut Marks) {
    pushed.unmarked().into_iter().for_each(|home| marks.add(home));
}

/// A broadcast during its fan-out.
struct FanOut<'a> {
    seq: Seq,
    publish: &'a Publish,
    /// The frame for sessions that can resume, once there is one.
    with_token: Option<Arc<Frame>>,
    history: &'a History,
    limits: &'a outbox::OutboxLimits,
    marks: &'a mut Marks,
    deliveries: u64,
    coalesced: u64,
    left_out: u64,
    evicted: Vec<Member>,
}

impl FanOut<'_> {
    fn push_to(&mut self, seats: &Slots<SeatedSession>, members: &[Member]) {
        // A session that left since the first attempt has no seat.
        let seated = members.iter().filter_map(|&member| Some((member, seats.get(member)?)));
        seated.for_each(|(member, seat)| self.push(member, seat));
    }

    fn push(&mut self, member: Member, seat: &SeatedSession) {
        let SeatedSession { session, outbox, can_resume, .. } = seat;
        if *can_resume && self.publish.is_rest {
            // It got the event with its first part.
            return;
        }
        let seen = &self.publish.seen;
        if seen.as_ref().is_some_and(|seen| seen.contains(*session)) {
            return;
        }
        let frame = if *can_resume {
            self.with_token.get_or_insert_with(|| {
                let token = self.history.token().to_string();
                Frame::with_token(self.publish.frame.published(), &self.publish.event, &token)
            })
        } else {
            &self.publish.frame
        };
        let pushed = outbox.push(self.seq, frame, self.limits);
        // A session is added only once it has the frame: if the push fails, it is retried.
        seen.iter().for_each(|seen| seen.insert(*session));
        faults::fanning_out(self.publish.event.kind(), self.deliveries);
        match pushed {
            Push::Queued => self.deliveries += 1,
            Push::QueuedUnseen(home) => {
                self.deliveries += 1;
                self.marks.add(home);
            }
            Push::Coalesced => self.coalesced += 1,
            Push::LeftOut(messages) => {
                self.left_out += messages;
                self.deliveries += u64::from(!self.publish.frame.is_chat());
            }
            Push::Dropped => {}
            Push::Evicted(home) => {
                home.into_iter().for_each(|home| self.marks.add(home));
                self.evicted.push(member);
            }
        }
    }
}

impl Actor for RoomRegistry {
    type Context = Context<Self>;

    /// Runs at the start, and again after each panic, before the next message.
    fn started(&mut self, ctx: &mut Self::Context) {
        if !std::mem::take(&mut self.restarted) {
            return;
        }
        self.membership = self.roster.membership();
        // The failed attempt may have pushed without marking.
        self.roster.seats.iter().filter_map(|(_, seat)| seat.outbox.remark()).for_each(|home| self.marks.add(home));
        self.marks.add_log();
        self.workers.mark_all(&mut self.marks, None);
        match self.in_hand.take() {
            Some(InHand { command, attempts: MAX_ATTEMPTS.. }) => self.give_up(&command),
            in_hand => {
                self.in_hand = in_hand;
                self.attempt(ctx);
            }
        }
    }
}

impl Supervised for RoomRegistry {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.restarted = true;
    }
}

impl Handler<Enter> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, enter: Enter, ctx: &mut Self::Context) {
        self.refuse(&enter.0);
        self.perform(Command::Enter(enter), ctx);
    }
}

impl Handler<Resume> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, resume: Resume, ctx: &mut Self::Context) {
        self.refuse(&resume.enter.0);
        self.perform(Command::Resume(resume), ctx);
    }
}

impl Handler<Lapse> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, Lapse { room }: Lapse, _: &mut Self::Context) {
        match room {
            Some(room) => self.history.lapse(room),
            None => self.history.lapse_all(),
        }
    }
}

impl Handler<BeginHistory> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, begin: BeginHistory, _: &mut Self::Context) {
        self.history.begin(begin.epoch, begin.offset, begin.began);
        begin.close.into_iter().for_each(|reason| self.close_all(reason));
    }
}

impl Handler<Refuse> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, Refuse(reason): Refuse, _: &mut Self::Context) {
        self.refusing = reason;
        reason.into_iter().for_each(|reason| self.close_all(reason));
    }
}

impl Handler<Exit> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, exit: Exit, ctx: &mut Self::Context) {
        self.perform(Command::Exit(exit), ctx);
    }
}

impl Handler<Join> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, join: Join, ctx: &mut Self::Context) {
        self.perform(Command::Join(join), ctx);
    }
}

impl Handler<Leave> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, leave: Leave, ctx: &mut Self::Context) {
        self.perform(Command::Leave(leave), ctx);
    }
}

impl Handler<Publish> for RoomRegistry {
    type Result = ();

    fn handle(&mut self, publish: Publish, ctx: &mut Self::Context) {
        self.last_seq += 1;
        self.perform(Command::Publish(self.last_seq, publish), ctx);
    }
}

impl Handler<ReadHistory> for RoomRegistry {
    type Result = Result<Read, Lost>;

    fn handle(&mut self, ReadHistory { since, max_bytes }: ReadHistory, _: &mut Self::Context) -> Self::Result {
        let newest = self.history.token();
        let events = match since {
            Since::Oldest => self.history.read(None, max_bytes)?,
            Since::Now => Vec::new(),
            Since::Token(token) => self.history.read(Some(&token), max_bytes)?,
        };
        let next = events.last().map_or(newest, |last| last.token);
        let more = events.is_empty().then(|| {
            let (tail, more) = oneshot::channel();
            self.tails.retain(|tail| !tail.is_closed());
            self.tails.push(tail);
            more
        });
        Ok(Read { events, next, more })
    }
}

impl Handler<TakeCensus> for RoomRegistry {
    type Result = Census;

    fn handle(&mut self, take: TakeCensus, _: &mut Self::Context) -> Census {
        Census { rooms: if take.rooms { self.membership.sizes().collect() } else { Vec::new() } }
    }
}

impl Handler<ListSessions> for RoomRegistry {
    type Result = Sessions;

    fn handle(&mut self, _: ListSessions, _: &mut Self::Context) -> Sessions {
        Sessions(self.roster.seats.iter().map(|(_, seat)| seat.clone()).collect())
    }
}

/// Every seated session with its rooms, from which the membership can be rebuilt.
struct Roster {
    seats: Slots<SeatedSession>,
    members: HashMap<SessionKey, Member>,
    /// Those that can resume, which never follow the log.
    resumable: Vec<Member>,
    common: Option<Common>,
}

/// The room whose members may attach to the log.
struct Common {
    room: Room,
    log: Arc<Log>,
}

impl Roster {
    /// Seats the session in its rooms. Returns whether its outbox still accepts frames.
    fn enter(&mut self, enter: &Enter, membership: &mut Membership) -> bool {
        let Enter(seat) = enter;
        let is_new = !self.members.contains_key(&seat.session);
        let member = *self.members.entry(seat.session).or_insert_with(|| self.seats.insert(seat.clone()));
        if is_new && seat.can_resume {
            self.resumable.push(member);
        }
        for room in seat.rooms.joined() {
            self.seat(member, room, membership);
        }
        seat.outbox.phase() == Phase::Open
    }

    /// Unseats the session. Returns the slot to mark.
    fn exit(&mut self, session: SessionKey, membership: &mut Membership) -> Option<Home> {
        let member = *self.members.get(&session)?;
        self.remove(member, membership)
    }

    fn join(&mut self, session: SessionKey, room: Room, membership: &mut Membership) {
        // A session that was evicted or left meanwhile joins nothing.
        let Some(&member) = self.members.get(&session) else { return };
        self.seat(member, room, membership);
        self.seats.get(member).into_iter().for_each(|seat| seat.rooms.join(room));
    }

    /// Removes the session from the room. Returns the slot to mark.
    fn leave(&mut self, session: SessionKey, room: Room, membership: &mut Membership) -> Option<Home> {
        let member = *self.members.get(&session)?;
        let seat = self.seats.get(member)?;
        membership.leave(member, room);
        let is_common = self.common.as_ref().is_some_and(|common| common.room == room);
        if is_common { seat.outbox.dismiss() } else { None }
    }

    /// Removes the member from all rooms. Returns the slot to mark.
    fn remove(&mut self, member: Member, membership: &mut Membership) -> Option<Home> {
        membership.leave_all(member);
        let seat = self.seats.remove(member)?;
        self.members.remove(&seat.session);
        self.members.shrink_if_sparse();
        if seat.can_resume {
            self.resumable.retain(|other| *other != member);
            self.resumable.shrink_if_sparse();
        }
        seat.outbox.dismiss()
    }

    fn outbox(&self, session: SessionKey) -> Option<&Outbox> {
        let member = *self.members.get(&session)?;
        Some(&self.seats.get(member)?.outbox)
    }

    fn seat(&mut self, member: Member, room: Room, membership: &mut Membership) {
        let Some(seat) = self.seats.get(member) else { return };
        if let Some(common) = self.common.as_ref().filter(|common| common.room == room && !seat.can_resume) {
            seat.outbox.admit(&common.log, member);
        }
        membership.join(member, room);
    }

    fn membership(&self) -> Membership {
        let mut membership = Membership::default();
        for (member, seat) in self.seats.iter() {
            for room in seat.rooms.joined() {
                membership.join(member, room);
            }
        }
        membership
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::membership::SessionRooms;

    /// The session adds a room while its `Enter` still waits in the registry's mailbox.
    #[test]
    fn a_room_is_joined_in_its_turn() {
        let mut roster = Roster { seats: Slots::new(), members: HashMap::new(), resumable: Vec::new(), common: None };
        let mut membership = Membership::default();
        let (session, rooms) = (SessionKey(1), Arc::new(SessionRooms::default()));
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let outbox = Arc::new(Outbox::new());
        let enter =
            Enter(SeatedSession { session, outbox, rooms: rooms.clone(), client, opened: 0, can_resume: false });
        rooms.set(&[Room::Chat]);
        rooms.add(Room::Jobs);
        roster.enter(&enter, &mut membership);
        for membership in [&membership, &roster.membership()] {
            assert_eq!((membership.members(Room::Chat), membership.members(Room::Jobs)), (&[0][..], &[][..]));
        }
        roster.join(session, Room::Jobs, &mut membership);
        for membership in [&membership, &roster.membership()] {
            assert_eq!(membership.members(Room::Jobs), [0], "also after a panic");
        }
    }
}
