//! Visits every state that a session's requests, its publishers, its flushers and a WebSocket can
//! reach in any order, each step as it runs under the locks. Nothing may be lost, duplicated or out
//! of order, and no request may wait forever.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use super::*;
use crate::{
    clock,
    frame::Frame,
    outbox::{Next, Push, READER_SHARE, Workers},
    protocol::{EnginePacket, engine_payload::Payload},
};

const PROBES: u8 = 2;
const HICCUPS: u8 = 2;
const SILENCE: Duration = Duration::from_secs(90);
const ROOM: BodyRoom = BodyRoom { bytes: 1000, packets: 2 };
const AGE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish,
    /// A request arrives. While another one waits, that is an overlap.
    Get,
    /// A woken request is polled.
    WakeGet,
    AbandonGet,
    /// The worker of the requests takes its list, or visits the slot once too often.
    Flush,
    BeginProbe,
    Release,
    EndProbe,
    Upgrade,
    /// The worker of the WebSocket takes its list, or visits the slot once too often.
    FlushSocket,
    /// The socket takes all bytes offered to it, or one byte, or none for now.
    WriteAll,
    WriteByte,
    WriteNothing,
    /// The socket becomes writable.
    Writable,
    Close,
    /// A `POST` is refused, which ends the session.
    Refuse,
    Evict,
    /// The sweep runs this long after the last step.
    Sweep(Duration),
}

const STEPS: [Step; 20] = [
    Step::Publish,
    Step::Get,
    Step::WakeGet,
    Step::AbandonGet,
    Step::Flush,
    Step::BeginProbe,
    Step::Release,
    Step::EndProbe,
    Step::Upgrade,
    Step::FlushSocket,
    Step::WriteAll,
    Step::WriteByte,
    Step::WriteNothing,
    Step::Writable,
    Step::Close,
    Step::Refuse,
    Step::Evict,
    Step::Sweep(Duration::from_secs(2)),
    Step::Sweep(Duration::from_secs(11)),
    Step::Sweep(Duration::from_secs(91)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Socket {
    Absent,
    Probing,
    Carrying,
    Ended,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    now: Instant,
    /// The published frames, and two more.
    events: Arc<[Arc<Frame>]>,
    limits: OutboxLimits,
    outbox: Outbox,
    handover: Handover,
    poller: Home,
    websocket: Home,
    /// How often a slot is on its worker's list.
    poller_marks: u8,
    websocket_marks: u8,
    /// The waiting request, and whether it is woken.
    get: Option<Arc<Flag>>,
    socket: Socket,
    /// The bytes being written to the socket. Other steps may come between the copy and the
    /// removal.
    writing: Option<Vec<u8>>,
    /// Whether the socket is blocked, and will report when it is writable.
    blocked: bool,
    /// The part of an incomplete frame that the client has.
    partial: Vec<u8>,
    /// How often the socket took less than it was offered.
    hiccups: u8,
    probes: u8,
    /// The number of broadcasts, and how many of them the outbox accepted.
    published: u64,
    taken: u64,
    received: u64,
    closed: bool,
    evicted: bool,
    /// Whether the sweep ended it.
    swept: bool,
    in_slot: bool,
    /// The reason that the session was given for its end.
    reported: Option<Disconnect>,
}

impl World {
    fn new(now: Instant, events: Arc<[Arc<Frame>]>, [poller, websocket]: [Home; 2], limits: OutboxLimits) -> Self {
        let outbox = Outbox::new();
        outbox.set_home(poller, Taker::Polls);
        Self {
            now,
            events,
            limits,
            outbox,
            handover: Handover::new(now),
            poller,
            websocket,
            poller_marks: 0,
            websocket_marks: 0,
            get: None,
            socket: Socket::Absent,
            writing: None,
            blocked: false,
            partial: Vec::new(),
            hiccups: 0,
            probes: 0,
            published: 0,
            taken: 0,
            received: 0,
            closed: false,
            evicted: false,
            swept: false,
            in_slot: true,
            reported: None,
        }
    }

    /// Returns an independent copy of the world.
    fn fork(&self) -> Self {
        let get = self.get.as_ref().map(|flag| Arc::new(Flag(flag.0.load(Ordering::Relaxed).into())));
        let stage = match &self.handover.stage {
            Stage::Polling { get: Get::Waiting(_), probing } => {
                let waker = get.clone().expect("a request waits").into();
                Stage::Polling { get: Get::Waiting(waker), probing: *probing }
            }
            Stage::Polling { get: Get::Absent, probing } => Stage::Polling { get: Get::Absent, probing: *probing },
            Stage::Polling { get: Get::Released, probing } => Stage::Polling { get: Get::Released, probing: *probing },
            Stage::Over(over) => Stage::Over(*over),
        };
        Self {
            events: self.events.clone(),
            outbox: self.outbox.fork(),
            handover: Handover { stage, heard: self.handover.heard, requests: self.handover.requests },
            get,
            writing: self.writing.clone(),
            partial: self.partial.clone(),
            ..*self
        }
    }

    fn after(&self, step: Step) -> Self {
        let mut world = self.fork();
        world.perform(step);
        world
    }

    fn is_possible(&self, step: Step) -> bool {
        match step {
            Step::Publish => self.published + 2 < self.events.len() as u64,
            Step::Get => true,
            Step::WakeGet => self.get.as_ref().is_some_and(|flag| flag.0.load(Ordering::Relaxed)),
            Step::AbandonGet => self.get.is_some(),
            Step::Flush => self.in_slot,
            Step::BeginProbe => self.socket == Socket::Absent && self.probes < PROBES,
            Step::Release | Step::EndProbe | Step::Upgrade => self.socket == Socket::Probing,
            Step::FlushSocket => self.socket == Socket::Carrying && self.writing.is_none(),
            Step::WriteAll => self.writing.is_some(),
            Step::WriteByte | Step::WriteNothing => self.writing.is_some() && self.hiccups < HICCUPS,
            Step::Writable => self.blocked,
            Step::Close | Step::Refuse => !self.closed,
            Step::Evict => !self.evicted,
            Step::Sweep(_) => self.in_slot,
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Publish => self.publish(),
            Step::Get => self.get(),
            Step::WakeGet => self.poll_get(),
            Step::AbandonGet => {
                self.get = None;
                self.decide(|handover, _| handover.abandon_get());
            }
            Step::Flush => self.flush(),
            Step::BeginProbe => {
                self.probes += 1;
                if self.decide(|handover, _| handover.begin_probe()).is_ok() {
                    self.socket = Socket::Probing;
                    // A second request at the same time is refused.
                    assert_eq!(self.handover.begin_probe(), Err(ProbeError::Busy));
                }
            }
            Step::Release => self.decide(|handover, _| handover.release_get()),
            Step::EndProbe => {
                self.socket = Socket::Absent;
                self.decide(|handover, _| handover.end_probe());
            }
            Step::Upgrade => self.upgrade(),
            Step::FlushSocket => self.flush_socket(),
            Step::WriteAll => self.write(usize::MAX),
            Step::WriteByte => {
                self.hiccups += 1;
                self.write(1);
            }
            Step::WriteNothing => {
                self.hiccups += 1;
                self.writing = None;
                self.blocked = true;
                self.outbox.block(self.now);
            }
            Step::Writable => {
                self.blocked = false;
                self.mark(Some(self.websocket));
            }
            Step::Close => self.close(Disconnect::ServerShutdown),
            Step::Refuse => {
                let polls = self.get.is_some();
                self.close(Disconnect::ParseError);
                self.decide(|handover, _| handover.end_unless_polled(Disconnect::ParseError));
                assert!(polls || !self.is_polling(), "a session is known after its POST was refused");
            }
            Step::Evict => {
                self.evicted = true;
                let home = self.outbox.drop_all(Disconnect::SessionFailed);
                self.mark(home);
            }
            Step::Sweep(elapsed) => {
                let (now, limits) = (self.now + elapsed, self.limits);
                let before = self.handover.over();
                self.decide(|handover, outbox| handover.sweep(outbox, now, SILENCE, &limits));
                self.swept |= before != self.handover.over();
            }
        }
    }

    /// As `Hub::close`.
    fn close(&mut self, reason: Disconnect) {
        self.closed = true;
        let home = self.outbox.close(reason);
        self.mark(home);
    }

    /// Does the same as `Poller::decide`.
    fn decide<R>(&mut self, decide: impl FnOnce(&mut Handover, &Outbox) -> R) -> R {
        let before = self.handover.over();
        let result = decide(&mut self.handover, &self.outbox);
        if before != self.handover.over() {
            self.mark(Some(self.poller));
        }
        result
    }

    fn mark(&mut self, home: Option<Home>) {
        if home == Some(self.poller) {
            self.poller_marks += 1;
        } else if home == Some(self.websocket) {
            self.websocket_marks += 1;
        }
    }

    fn publish(&mut self) {
        let frame = &self.events[self.published as usize];
        self.published += 1;
        match self.outbox.push(self.published, frame, &self.limits) {
            Push::Queued => self.taken += 1,
            Push::QueuedUnseen(home) => {
                self.taken += 1;
                self.mark(Some(home));
            }
            Push::Coalesced | Push::LeftOut(_) => panic!("these events have no states, and are no chat"),
            Push::Dropped => assert_ne!(self.outbox.phase(), Phase::Open),
            Push::Evicted(home) => self.mark(home),
        }
    }

    fn get(&mut self) {
        let now = self.now;
        match self.decide(|handover, _| handover.begin_get(now)) {
            Ok(()) => {
                assert!(self.get.is_none());
                // The first poll follows soon.
                self.get = Some(Arc::new(Flag(true.into())));
            }
            Err(GetError::Overlap) => {
                assert!(self.get.is_some());
                let home = self.outbox.close(Disconnect::PollOverlap);
                self.mark(home);
            }
            Err(GetError::Over) => assert!(self.handover.over().is_some()),
        }
    }

    fn poll_get(&mut self) {
        let flag = self.get.clone().expect("it was begun");
        flag.0.store(false, Ordering::Relaxed);
        let (waker, now, mut body) = (flag.into(), self.now, Vec::new());
        if self.decide(|handover, outbox| handover.poll_get(outbox, &mut body, ROOM, &waker, now)).is_pending() {
            assert_eq!(body, b"");
            return;
        }
        self.get = None;
        let packets = Payload::decode(&body, 100).expect("an answer is a sound body");
        for packet in packets.packets() {
            match packet {
                EnginePacket::Message(text) => self.receive(text.as_bytes()),
                EnginePacket::Close => assert!(matches!(self.handover.over(), Some(Over::Ended(_)))),
                EnginePacket::Noop => assert_eq!(packets.packets().count(), 1),
                EnginePacket::Open(_)
                | EnginePacket::Ping(_)
                | EnginePacket::Pong(_)
                | EnginePacket::BinaryMessage(_)
                | EnginePacket::Upgrade => panic!("{packet:?} in an answer"),
            }
        }
    }

    /// Checks what the client gets, without the engine's digit `4`.
    fn receive(&mut self, text: &[u8]) {
        let expected = &self.events[self.received as usize];
        assert_eq!(text, &expected.websocket()[3..], "lost, doubled or out of order");
        self.received += 1;
    }

    /// Does the same as `Slot::flush`.
    fn flush(&mut self) {
        self.poller_marks = 0;
        // Another connection may have the slot by now, which is harmless.
        if !self.in_slot {
            return;
        }
        self.handover.flush(&self.outbox, self.now);
        let Some(over) = self.handover.over() else { return };
        self.in_slot = false;
        if let Over::Ended(reason) = over {
            self.notify_closed(reason);
        }
    }

    /// Does the same as `websocket::take_over`.
    fn upgrade(&mut self) {
        let home = self.websocket;
        if self.decide(|handover, outbox| handover.upgrade(outbox, home)).is_ok() {
            self.socket = Socket::Carrying;
            self.flush_socket();
        } else {
            self.socket = Socket::Ended;
        }
    }

    /// Does the same as `websocket::Socket::write`, until it has something to write.
    fn flush_socket(&mut self) {
        self.websocket_marks = 0;
        if self.socket != Socket::Carrying {
            return;
        }
        let mut bytes = Vec::new();
        match self.outbox.copy_to(&mut bytes, usize::MAX) {
            Waiting::Nothing => {}
            Waiting::Frames => self.writing = Some(bytes),
            Waiting::Close(reason) | Waiting::Drop(reason) => {
                self.socket = Socket::Ended;
                self.blocked = false;
                self.notify_closed(reason);
            }
        }
    }

    /// The socket takes this many bytes of what it was offered.
    fn write(&mut self, most: usize) {
        let mut bytes = self.writing.take().expect("something is being written");
        bytes.truncate(most);
        self.partial.extend_from_slice(&bytes);
        while let [_, length, rest @ ..] = &self.partial[..]
            && let Some((packet, rest)) = rest.split_at_checked(usize::from(*length))
        {
            let (packet, rest) = (packet.to_vec(), rest.to_vec());
            self.receive(&packet[1..]);
            self.partial = rest;
        }
        if self.outbox.advance(bytes.len(), self.now) == Next::Again {
            self.flush_socket();
        }
    }

    fn notify_closed(&mut self, reason: Disconnect) {
        assert_eq!(self.reported.replace(reason), None, "the session ends once");
        // The effect of its end on the outbox.
        let home = self.outbox.drop_all(Disconnect::SessionFailed);
        self.mark(home);
    }

    /// Runs every task that has something to do. The point is that no slot is visited without being
    /// marked.
    fn settle(&mut self) {
        loop {
            let step = if self.is_possible(Step::WriteAll) {
                Step::WriteAll
            } else if self.poller_marks > 0 {
                Step::Flush
            } else if self.websocket_marks > 0 {
                Step::FlushSocket
            } else if self.is_possible(Step::WakeGet) {
                Step::WakeGet
            } else if self.is_possible(Step::Writable) {
                Step::Writable
            } else {
                return;
            };
            self.perform(step);
        }
    }

    fn is_polling(&self) -> bool {
        self.handover.over().is_none()
    }

    /// A probing WebSocket can release a waiting request.
    fn check_release(mut self) {
        if self.socket == Socket::Probing {
            self.perform(Step::Release);
            self.settle();
            assert!(self.get.is_none(), "the client cannot pause its polling");
        }
    }

    /// Nothing of a client that does not return stays forever.
    fn check_absence(mut self) {
        self.settle();
        if !self.is_polling() || self.get.is_some() {
            return;
        }
        match self.outbox.phase() {
            Phase::Open => {
                self.limits.bytes = 0;
                for _ in 0..2 {
                    self.publish();
                    self.settle();
                }
                assert_eq!(self.handover.over(), Some(Over::Ended(Disconnect::TooSlow)));
            }
            Phase::Closing(_) => {
                self.perform(Step::Sweep(Duration::from_secs(2)));
                assert!(!self.is_polling());
            }
            Phase::Closed(_) => panic!("a session that was dropped still polls"),
        }
    }

    /// Checks what must hold at any time, once the client has polled again.
    fn check(mut self) {
        self.settle();
        if self.get.is_some() {
            assert_eq!((self.handover.over(), self.outbox.phase()), (None, Phase::Open), "a request waits for ever");
            assert_eq!(self.outbox.backlog(), 0, "a request waits though something waits for it");
        }
        while self.get.is_none() && self.handover.over().is_none() {
            self.get();
            self.settle();
        }
        let ended = match self.handover.over() {
            None => None,
            Some(Over::Upgraded) => {
                assert!(!self.in_slot);
                self.reported
            }
            Some(Over::Ended(reason)) => {
                assert!(!self.in_slot);
                assert_eq!(self.reported, Some(reason));
                self.reported
            }
        };
        match ended {
            None => {
                assert_eq!(self.outbox.phase(), Phase::Open);
                assert_eq!((self.received, self.taken), (self.published, self.published), "something is lost");
            }
            // A session that closes delivers what was published before, if the client fetches it.
            Some(Disconnect::ServerShutdown | Disconnect::PollOverlap) if !self.swept => {
                assert_eq!(self.received, self.taken, "something is lost");
            }
            Some(_) => assert!(self.received <= self.taken),
        }
        if ended.is_some() {
            self.check_silence();
        }
    }

    /// After the end nothing more arrives.
    fn check_silence(mut self) {
        let received = self.received;
        self.publish();
        self.get();
        self.settle();
        assert_eq!((self.received, self.get.is_none()), (received, true), "something comes after the end");
    }

    /// Returns everything that later steps depend on.
    fn fingerprint(&self) -> String {
        let stage = match &self.handover.stage {
            Stage::Polling { get: Get::Absent, probing } => format!("absent {probing}"),
            Stage::Polling { get: Get::Waiting(_), probing } => format!("waiting {probing}"),
            Stage::Polling { get: Get::Released, probing } => format!("released {probing}"),
            Stage::Over(over) => format!("{over:?}"),
        };
        let get = self.get.as_ref().map(|flag| flag.0.load(Ordering::Relaxed));
        format!(
            "{:?} {stage} {} {get:?} {:?} {:?} {:?} {:?} {:?}",
            self.outbox,
            self.handover.requests,
            (&self.writing, self.blocked, &self.partial),
            (self.poller_marks > 0, self.websocket_marks > 0, self.socket, self.probes, self.hiccups),
            (self.published, self.taken, self.received),
            (self.closed, self.evicted, self.swept, self.in_slot),
            self.reported
        )
    }
}

/// The size of the exploration.
#[derive(Debug)]
struct Explored {
    states: usize,
    /// The number of different sequences of [`LENGTH`] steps, all of which pass only through these
    /// states.
    sequences: u128,
}

/// The length of the counted sequences.
const LENGTH: usize = 16;

/// Visits every state that can be reached while so many events are published, of which so many may
/// wait for a client that does not poll. Two sequences of steps that lead to the same state
/// continue alike, so this covers all sequences of any length.
fn explore(events: u64, waiting: usize) -> Explored {
    let now = clock::now();
    let workers = Workers::new();
    let homes = [0, 1].map(|slot| Home { worker: workers.claim().unwrap(), slot });
    let frames = (1..=events + 2).map(|number| Frame::text(now, |out| write!(out, "42[\"event\",{number}]").unwrap()));
    let frames: Arc<[_]> = frames.collect();
    // Lazily created values are created now, so that they are not part of the state.
    let size = frames.iter().map(|frame| frame.polling().len().min(frame.websocket().len())).max().unwrap();
    let start = World::new(
        now,
        frames,
        homes,
        OutboxLimits { bytes: (waiting * size).div_ceil(READER_SHARE), age: AGE, lag: Duration::ZERO },
    );
    let mut seen = HashMap::from([(start.fingerprint(), 0)]);
    let mut leads_to: Vec<Vec<usize>> = vec![Vec::new()];
    let mut unvisited = vec![(0, start)];
    while let Some((number, here)) = unvisited.pop() {
        for step in STEPS.into_iter().filter(|&step| here.is_possible(step)) {
            let next = here.after(step);
            let next_number = *seen.entry(next.fingerprint()).or_insert_with(|| {
                unvisited.push((leads_to.len(), next));
                leads_to.push(Vec::new());
                leads_to.len() - 1
            });
            leads_to[number].push(next_number);
        }
        here.fork().check_release();
        here.fork().check_absence();
        here.check();
    }
    let mut sequences = vec![1; leads_to.len()];
    for _ in 0..LENGTH {
        sequences = leads_to.iter().map(|next| next.iter().map(|&number| sequences[number]).sum()).collect();
    }
    Explored { states: leads_to.len(), sequences: sequences[0] }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    let explored = explore(3, 100);
    assert!(explored.states > 10_000 && explored.sequences > 1_000_000_000, "only {explored:?}");
}

#[test]
fn nor_where_a_client_that_does_not_come_is_evicted() {
    let explored = explore(2, 1);
    assert!(explored.states > 10_000 && explored.sequences > 1_000_000_000, "only {explored:?}");
}
