//! The one actor that knows who is in which room, and that gives all broadcasts their one order.

use std::{collections::HashMap, sync::Arc};

use actix::{Actor, AsyncContext, Context, Handler, Supervised, WrapFuture};
use slab::Slab;

use super::messages::{Census, Enter, Exit, Join, Leave, ListOutboxes, Outboxes, Publish, SessionKey, TakeCensus};
use crate::{
    disconnect::Disconnect,
    farm::{Audience, Room},
    faults,
    membership::{Member, Membership},
    outbox::{self, Home, Log, Marks, Outbox, Push, Seq, Workers},
    stats::Stats,
};

/// Its name in logs.
const ACTOR: &str = "room-registry";

/// How often a command is tried before it is dropped: once more after it made the registry panic.
const MAX_ATTEMPTS: u8 = 2;

/// Membership of rooms, and the order of broadcasts.
///
/// It survives its own panics exactly. The mailbox is kept by the supervisor; the command in hand is kept here and tried again
/// first; the membership, which a panic may have left half changed, is built anew from the roster's record of what was
/// applied; and a broadcast that is tried again carries the number of its first attempt, so whoever has it drops it.
pub struct RoomRegistry {
    roster: Roster,
    membership: Membership,
    in_hand: Option<InHand>,
    last_seq: Seq,
    marks: Marks,
    workers: Arc<Workers>,
    limits: outbox::Limits,
    stats: &'static Stats,
    restarted: bool,
}

struct InHand {
    command: Command,
    attempts: u8,
}

enum Command {
    Enter(Enter),
    Exit(Exit),
    Join(Join),
    Leave(Leave),
    Publish(Seq, Publish),
}

impl RoomRegistry {
    /// `common` is the room that nearly everyone is in: its broadcasts go to the log, once for all who follow that.
    pub fn new(workers: Arc<Workers>, common: Option<Room>, limits: outbox::Limits, stats: &'static Stats) -> Self {
        Self {
            roster: Roster {
                seats: Slab::new(),
                members: HashMap::new(),
                common: common.map(|room| Common { room, log: workers.log().clone() }),
            },
            membership: Membership::default(),
            in_hand: None,
            last_seq: 0,
            marks: Marks::new(),
            workers,
            limits,
            stats,
            restarted: false,
        }
    }

    fn perform(&mut self, command: Command, ctx: &mut Context<Self>) {
        self.in_hand = Some(InHand { command, attempts: 0 });
        self.attempt(ctx);
    }

    fn attempt(&mut self, ctx: &mut Context<Self>) {
        let Some(in_hand) = &mut self.in_hand else { return };
        in_hand.attempts += 1;
        match &in_hand.command {
            Command::Enter(enter) => self.roster.enter(enter, &mut self.membership),
            Command::Exit(exit) => {
                let home = self.roster.exit(exit.session, &mut self.membership);
                home.into_iter().for_each(|home| self.workers.mark(home));
            }
            Command::Join(join) => self.roster.join(join.session, join.room, &mut self.membership),
            Command::Leave(leave) => {
                let home = self.roster.leave(leave.session, leave.room, &mut self.membership);
                home.into_iter().for_each(|home| self.workers.mark(home));
            }
            Command::Publish(seq, publish) => {
                let seq = *seq;
                faults::publishing(ACTOR, publish.id.as_ref());
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

    /// Gives the broadcast in hand to everyone it is for. Outboxes drop what they have already, so who is in several of its
    /// rooms gets it once.
    fn fan_out(&mut self, seq: Seq) {
        let Some(InHand { command: Command::Publish(_, publish), .. }) = &self.in_hand else { return };
        let limits = &self.limits;
        let mut fan_out =
            FanOut { seq, publish, limits, marks: &mut self.marks, deliveries: 0, coalesced: 0, evicted: Vec::new() };
        let Roster { seats, common, .. } = &self.roster;
        match (&publish.audience, common) {
            (Audience::Room(room), Some(common)) if common.room == *room && publish.seen.is_none() => {
                let appended = common.log.append(seq, &publish.frame);
                fan_out.deliveries += appended.followers as u64;
                faults::fanning_out(publish.event.kind(), fan_out.deliveries);
                fan_out.push_to(seats, &appended.apart);
                if appended.followers > 0 {
                    fan_out.marks.add_log();
                }
            }
            (Audience::Everyone, _) => seats.iter().for_each(|(member, seat)| fan_out.push(member as Member, seat)),
            (Audience::Room(room), _) => fan_out.push_to(seats, self.membership.members(*room)),
            (Audience::Rooms(rooms), _) => {
                rooms.iter().for_each(|&room| fan_out.push_to(seats, self.membership.members(room)));
            }
        }
        let FanOut { deliveries, coalesced, evicted, .. } = fan_out;
        self.workers.mark_all(&mut self.marks, Some(publish.frame.published()));
        self.stats.deliveries.add(deliveries);
        self.stats.coalesced.add(coalesced);
        for member in evicted {
            self.roster.remove(member, &mut self.membership);
        }
    }

    /// Drops a command that made the registry panic again and again. A session that could not be seated must not miss
    /// anything silently: it is closed, and comes back.
    fn give_up(&mut self, command: &Command) {
        self.stats.poisoned.add(1);
        let (what, session) = match command {
            Command::Enter(enter) => {
                if let Some(home) = enter.outbox.drop_all(Disconnect::SessionFailed) {
                    self.workers.mark(home);
                }
                ("enter", Some(enter.session))
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

/// A broadcast on its way.
struct FanOut<'a> {
    seq: Seq,
    publish: &'a Publish,
    limits: &'a outbox::Limits,
    marks: &'a mut Marks,
    deliveries: u64,
    coalesced: u64,
    evicted: Vec<Member>,
}

impl FanOut<'_> {
    fn push_to(&mut self, seats: &Slab<Seat>, members: &[Member]) {
        // Whoever left since the first attempt has no seat.
        let seated = members.iter().filter_map(|&member| Some((member, seats.get(member as usize)?)));
        seated.for_each(|(member, seat)| self.push(member, seat));
    }

    fn push(&mut self, member: Member, seat: &Seat) {
        let Seat { session, outbox, .. } = seat;
        let seen = &self.publish.seen;
        if seen.as_ref().is_some_and(|seen| seen.contains(*session)) {
            return;
        }
        let pushed = outbox.push(self.seq, &self.publish.frame, self.limits);
        // Only who has it is noted: what fails in between is tried again.
        seen.iter().for_each(|seen| seen.insert(*session));
        faults::fanning_out(self.publish.event.kind(), self.deliveries);
        match pushed {
            Push::Queued => self.deliveries += 1,
            Push::QueuedUnseen(home) => {
                self.deliveries += 1;
                self.marks.add(home);
            }
            Push::Coalesced => self.coalesced += 1,
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
        // The attempt that failed may have pushed and not come to mark.
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
        self.perform(Command::Enter(enter), ctx);
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

impl Handler<TakeCensus> for RoomRegistry {
    type Result = Census;

    fn handle(&mut self, take: TakeCensus, _: &mut Self::Context) -> Census {
        Census { rooms: if take.rooms { self.membership.sizes().collect() } else { Vec::new() } }
    }
}

impl Handler<ListOutboxes> for RoomRegistry {
    type Result = Outboxes;

    fn handle(&mut self, _: ListOutboxes, _: &mut Self::Context) -> Outboxes {
        Outboxes(self.roster.seats.iter().map(|(_, seat)| seat.outbox.clone()).collect())
    }
}

/// Every session that is told anything, and the rooms that it is in: the record from which membership can be built anew.
struct Roster {
    seats: Slab<Seat>,
    members: HashMap<SessionKey, Member>,
    common: Option<Common>,
}

/// The room whose members may follow the log.
struct Common {
    room: Room,
    log: Arc<Log>,
}

struct Seat {
    session: SessionKey,
    outbox: Arc<Outbox>,
    rooms: Vec<Room>,
}

impl Roster {
    fn enter(&mut self, enter: &Enter, membership: &mut Membership) {
        let &Enter { session, ref outbox, ref rooms } = enter;
        let member = *self.members.entry(session).or_insert_with(|| {
            self.seats.insert(Seat { session, outbox: outbox.clone(), rooms: Vec::new() }) as Member
        });
        for &room in rooms {
            self.seat(member, room, membership);
        }
    }

    /// Returns the slot to mark.
    fn exit(&mut self, session: SessionKey, membership: &mut Membership) -> Option<Home> {
        let member = *self.members.get(&session)?;
        self.remove(member, membership)
    }

    fn join(&mut self, session: SessionKey, room: Room, membership: &mut Membership) {
        // A session that was evicted or left meanwhile joins nothing.
        if let Some(&member) = self.members.get(&session) {
            self.seat(member, room, membership);
        }
    }

    /// Returns the slot to mark.
    fn leave(&mut self, session: SessionKey, room: Room, membership: &mut Membership) -> Option<Home> {
        let member = *self.members.get(&session)?;
        let seat = &mut self.seats[member as usize];
        seat.rooms.retain(|&joined| joined != room);
        membership.leave(member, room);
        let is_common = self.common.as_ref().is_some_and(|common| common.room == room);
        if is_common { seat.outbox.dismiss() } else { None }
    }

    /// Returns the slot to mark.
    fn remove(&mut self, member: Member, membership: &mut Membership) -> Option<Home> {
        membership.leave_all(member);
        let seat = self.seats.try_remove(member as usize)?;
        self.members.remove(&seat.session);
        seat.outbox.dismiss()
    }

    fn outbox(&self, session: SessionKey) -> Option<&Outbox> {
        let member = *self.members.get(&session)?;
        Some(&self.seats.get(member as usize)?.outbox)
    }

    fn seat(&mut self, member: Member, room: Room, membership: &mut Membership) {
        let seat = &mut self.seats[member as usize];
        if !seat.rooms.contains(&room) {
            seat.rooms.reserve_exact(1);
            seat.rooms.push(room);
        }
        if let Some(common) = self.common.as_ref().filter(|common| common.room == room) {
            seat.outbox.admit(&common.log, member);
        }
        membership.join(member, room);
    }

    fn membership(&self) -> Membership {
        let mut membership = Membership::default();
        for (member, seat) in &self.seats {
            for &room in &seat.rooms {
                membership.join(member as Member, room);
            }
        }
        membership
    }
}
