//! Every state that a session's requests, its publishers, its flushers and a WebSocket can bring about in whatever order, each
//! step as it runs under the locks: nothing is lost, doubled or out of order, nobody waits for ever.

use std::{
    collections::{HashSet, VecDeque},
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
const SILENCE: Duration = Duration::from_secs(90);
const AGE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish,
    /// A request comes; while one waits, that is one too many.
    Get,
    /// A woken request is looked at.
    WakeGet,
    AbandonGet,
    /// The worker of the requests takes its list.
    Flush,
    BeginProbe,
    Release,
    EndProbe,
    Upgrade,
    /// The worker of the WebSocket takes its list.
    FlushSocket,
    Close,
    Evict,
    /// The sweep comes around when this much time has passed since anything happened.
    Sweep(Duration),
}

const STEPS: [Step; 15] = [
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
    Step::Close,
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
    /// Those that are published, and two more.
    events: Arc<[Arc<Frame>]>,
    limits: Limits,
    outbox: Outbox,
    handover: Handover,
    poller: Home,
    websocket: Home,
    /// Times that a slot is on its worker's list.
    poller_marks: u8,
    websocket_marks: u8,
    /// The request that waits, and whether it is woken.
    get: Option<Arc<Flag>>,
    socket: Socket,
    probes: u8,
    /// Broadcasts so far, and how many of them the outbox took.
    published: u64,
    taken: u64,
    received: u64,
    closed: bool,
    evicted: bool,
    /// The sweep ended it.
    swept: bool,
    in_slot: bool,
    /// What the session was told of its end.
    told: Option<Disconnect>,
}

impl World {
    fn new(now: Instant, events: Arc<[Arc<Frame>]>, [poller, websocket]: [Home; 2], limits: Limits) -> Self {
        let outbox = Outbox::new();
        outbox.attach(poller);
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
            probes: 0,
            published: 0,
            taken: 0,
            received: 0,
            closed: false,
            evicted: false,
            swept: false,
            in_slot: true,
            told: None,
        }
    }

    fn after(&self, path: &[Step]) -> Self {
        let mut world = Self::new(self.now, self.events.clone(), [self.poller, self.websocket], self.limits);
        path.iter().for_each(|&step| world.perform(step));
        world
    }

    fn is_possible(&self, step: Step) -> bool {
        match step {
            Step::Publish => self.published + 2 < self.events.len() as u64,
            Step::Get => true,
            Step::WakeGet => self.get.as_ref().is_some_and(|flag| flag.0.load(Ordering::Relaxed)),
            Step::AbandonGet => self.get.is_some(),
            Step::Flush => self.poller_marks > 0,
            Step::BeginProbe => self.socket == Socket::Absent && self.probes < PROBES,
            Step::Release | Step::EndProbe | Step::Upgrade => self.socket == Socket::Probing,
            Step::FlushSocket => self.websocket_marks > 0,
            Step::Close => !self.closed,
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
                    // A second one at the same time is refused.
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
            Step::Close => {
                self.closed = true;
                let home = self.outbox.close(Disconnect::ServerShutdown);
                self.mark(home);
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

    /// As `Poller::decide`.
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
            Push::Coalesced => panic!("these events tell no states"),
            Push::Dropped => assert_ne!(self.outbox.phase(), Phase::Open),
            Push::Evicted(home) => self.mark(home),
        }
    }

    fn get(&mut self) {
        let now = self.now;
        match self.decide(|handover, _| handover.begin_get(now)) {
            Ok(()) => {
                assert!(self.get.is_none());
                self.get = Some(Arc::default());
                self.poll_get();
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
        if self.decide(|handover, outbox| handover.poll_get(outbox, &mut body, &waker, now)).is_pending() {
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

    /// Takes what the client gets, the digit `4` of the engine already gone.
    fn receive(&mut self, text: &[u8]) {
        let expected = &self.events[self.received as usize];
        assert_eq!(text, &expected.websocket()[3..], "lost, doubled or out of order");
        self.received += 1;
    }

    /// As `Slot::flush`.
    fn flush(&mut self) {
        self.poller_marks = 0;
        // Another connection may be there by now: that does not mind.
        if !self.in_slot {
            return;
        }
        self.handover.flush(&self.outbox, self.now);
        let Some(over) = self.handover.over() else { return };
        self.in_slot = false;
        if let Over::Ended(reason) = over {
            self.tell(reason);
        }
    }

    /// As `websocket::take_over`.
    fn upgrade(&mut self) {
        let home = self.websocket;
        if self.decide(|handover, outbox| handover.upgrade(outbox, home)).is_ok() {
            self.socket = Socket::Carrying;
            self.flush_socket();
        } else {
            self.socket = Socket::Ended;
        }
    }

    fn flush_socket(&mut self) {
        self.websocket_marks = 0;
        if self.socket != Socket::Carrying {
            return;
        }
        loop {
            let mut bytes = Vec::new();
            match self.outbox.copy_to(&mut bytes, usize::MAX) {
                Waiting::Nothing => return,
                Waiting::Frames => {
                    let mut rest = &bytes[..];
                    while let [_, length, frame @ ..] = rest {
                        let (packet, after) = frame.split_at(usize::from(*length));
                        self.receive(&packet[1..]);
                        rest = after;
                    }
                    if self.outbox.advance(bytes.len(), self.now) == Next::Done {
                        return;
                    }
                }
                Waiting::Close(reason) | Waiting::Drop(reason) => {
                    self.socket = Socket::Ended;
                    return self.tell(reason);
                }
            }
        }
    }

    fn tell(&mut self, reason: Disconnect) {
        assert_eq!(self.told.replace(reason), None, "the session ends once");
        // What its end does to the outbox.
        let home = self.outbox.drop_all(Disconnect::SessionFailed);
        self.mark(home);
    }

    /// Everybody who has something to do does it.
    fn settle(&mut self) {
        while let Some(step) =
            [Step::Flush, Step::FlushSocket, Step::WakeGet].into_iter().find(|&step| self.is_possible(step))
        {
            self.perform(step);
        }
    }

    fn is_polling(&self) -> bool {
        self.handover.over().is_none()
    }

    /// Whoever probes can have a waiting request answered.
    fn check_release(mut self) {
        if self.socket == Socket::Probing {
            self.perform(Step::Release);
            self.settle();
            assert!(self.get.is_none(), "the client cannot pause its polling");
        }
    }

    /// Of a client that does not come back nothing stays for ever.
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

    /// What must hold wherever it stops, once the client has polled again.
    fn check(mut self) {
        self.settle();
        if self.get.is_some() {
            assert_eq!((self.handover.over(), self.outbox.phase()), (None, Phase::Open), "a request waits for ever");
            assert_eq!(self.outbox.backlog(), 0, "a request waits though something waits for it");
        } else if self.handover.over().is_none() {
            self.get();
            self.settle();
        }
        let ended = match self.handover.over() {
            None => None,
            Some(Over::Upgraded) => {
                assert!(!self.in_slot);
                self.told
            }
            Some(Over::Ended(reason)) => {
                assert!(!self.in_slot);
                assert_eq!(self.told, Some(reason));
                self.told
            }
        };
        match ended {
            None => {
                assert_eq!(self.outbox.phase(), Phase::Open);
                assert_eq!((self.received, self.taken), (self.published, self.published), "something is lost");
            }
            // Who ends politely gets what was published before, if it comes for that.
            Some(Disconnect::ServerShutdown | Disconnect::PollOverlap) if !self.swept => {
                assert_eq!(self.received, self.taken, "something is lost");
            }
            Some(_) => assert!(self.received <= self.taken),
        }
    }

    /// All that what happens next depends on.
    fn fingerprint(&self) -> String {
        let stage = match &self.handover.stage {
            Stage::Polling { get: Get::Absent, probing } => format!("absent {probing}"),
            Stage::Polling { get: Get::Waiting(_), probing } => format!("waiting {probing}"),
            Stage::Polling { get: Get::Released, probing } => format!("released {probing}"),
            Stage::Over(over) => format!("{over:?}"),
        };
        let get = self.get.as_ref().map(|flag| flag.0.load(Ordering::Relaxed));
        format!(
            "{:?} {stage} {get:?} {:?} {:?} {:?} {:?}",
            self.outbox,
            (self.poller_marks > 0, self.websocket_marks > 0, self.socket, self.probes),
            (self.published, self.taken, self.received),
            (self.closed, self.evicted, self.swept, self.in_slot),
            self.told
        )
    }
}

/// Visits every state that can be reached while so many events are published, of which so many may wait for a client that
/// does not poll. Returns how many states there are.
fn explore(events: u64, waiting: usize) -> usize {
    let now = clock::now();
    let workers = Workers::new();
    let homes = [0, 1].map(|slot| Home { worker: workers.claim().unwrap(), slot });
    let frames = (1..=events + 2).map(|number| Frame::text(now, |out| write!(out, "42[\"event\",{number}]").unwrap()));
    let frames: Arc<[_]> = frames.collect();
    // What is made when it is first asked for is made now: it is no part of the state.
    let size = frames.iter().map(|frame| frame.polling().len().min(frame.websocket().len())).max().unwrap();
    let start = World::new(
        now,
        frames,
        homes,
        Limits { bytes: (waiting * size).div_ceil(READER_SHARE), age: AGE, lag: Duration::ZERO },
    );
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut paths = VecDeque::from([Vec::new()]);
    while let Some(path) = paths.pop_front() {
        let here = start.after(&path);
        for step in STEPS.into_iter().filter(|&step| here.is_possible(step)) {
            let path = [&path[..], &[step]].concat();
            if seen.insert(start.after(&path).fingerprint()) {
                paths.push_back(path);
            }
        }
        here.check();
        start.after(&path).check_release();
        start.after(&path).check_absence();
    }
    seen.len()
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    let states = explore(3, 100);
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn nor_where_a_client_that_does_not_come_is_evicted() {
    let states = explore(2, 1);
    assert!(states > 1000, "only {states} states");
}
