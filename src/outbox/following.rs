//! Outboxes that follow the log, step by step as the registry, the flusher and others take them.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::clock;

const LIMITS: Limits = Limits { bytes: usize::MAX, age: Duration::from_secs(1000), lag: Duration::from_secs(1000) };

fn frame(text: &str) -> Arc<Frame> {
    Frame::text(clock::now(), |out| out.extend_from_slice(text.as_bytes()))
}

/// Writes what waits to `wire`, until that has taken all, or `limit` bytes of what it is offered at once.
fn flush(outbox: &Outbox, wire: &mut Vec<u8>, limit: usize) {
    let mut bytes = Vec::new();
    while outbox.copy_to(&mut bytes, usize::MAX) == Waiting::Frames {
        let written = bytes.len().min(limit);
        wire.extend_from_slice(&bytes[..written]);
        outbox.advance(written, clock::now());
        if written < bytes.len() {
            return outbox.block(clock::now());
        }
        bytes.clear();
    }
}

/// A member of the log that has nothing waiting, and what it would be written: all on one thread.
struct Following {
    log: Arc<Log>,
    outbox: Outbox,
    burst: Burst,
    seq: Seq,
    wire: Vec<u8>,
}

impl Following {
    fn new() -> Self {
        let workers = Workers::new();
        let outbox = Outbox::new();
        outbox.attach(Home { worker: workers.claim().unwrap(), slot: 7 }, Taker::Stream);
        outbox.admit(workers.log(), 3);
        let log = workers.log().clone();
        let mut client = Self { log, outbox, burst: Burst::default(), seq: 0, wire: Vec::new() };
        assert!(client.broadcast("first").is_empty(), "nothing waits for it");
        client.go_around(usize::MAX);
        client.wire.clear();
        client
    }

    /// Returns who must be pushed to.
    fn broadcast(&mut self, text: &str) -> Vec<Member> {
        self.seq += 1;
        self.log.append(self.seq, &frame(text)).apart
    }

    fn flush(&mut self, limit: usize) {
        flush(&self.outbox, &mut self.wire, limit);
    }

    /// The flusher comes around, and the client takes so many bytes.
    fn go_around(&mut self, limit: usize) -> Follower {
        let began = self.log.end();
        let follower = self.outbox.follower(began);
        if let Follower::Lacks { from, to } = follower {
            let lacks = self.burst.between(from, to, &self.log).unwrap();
            let written = lacks.len().min(limit);
            self.wire.extend_from_slice(&lacks[..written]);
            let is_all = written == lacks.len();
            self.outbox.advance(written, clock::now());
            if !is_all {
                self.outbox.block(clock::now());
            }
        }
        self.burst.clear(0);
        follower
    }

    fn assert_wire(&self, texts: &[&str]) {
        let frames = texts.iter().flat_map(|text| frame(text).websocket().to_vec());
        assert_eq!(String::from_utf8_lossy(&self.wire), String::from_utf8_lossy(&frames.collect::<Vec<_>>()));
    }
}

#[test]
fn who_follows_is_given_the_log() {
    let mut client = Following::new();
    assert!(client.broadcast("a").is_empty());
    client.broadcast("b");
    assert_eq!(client.outbox.backlog(), 6);
    client.go_around(usize::MAX);
    client.assert_wire(&["a", "b"]);
    assert_eq!(client.outbox.backlog(), 0);
    let end = client.log.end();
    assert_eq!(client.go_around(usize::MAX), Follower::Lacks { from: end, to: end });
    client.assert_wire(&["a", "b"]);
}

#[test]
fn what_only_one_follower_gets_keeps_its_place_among_the_broadcasts() {
    let mut client = Following::new();
    client.broadcast("a");
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.broadcast("b");
    client.seq += 1;
    client.outbox.push(client.seq, &frame("another room"), &LIMITS);
    client.broadcast("c");
    assert_eq!(client.go_around(usize::MAX), Follower::Own);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine", "b", "another room", "c"]);
    assert!(client.broadcast("d").is_empty(), "it still follows");
}

/// Both come between the flusher's question and its copying from the log.
#[test]
fn what_is_pushed_while_the_flusher_comes_around_is_before_what_is_appended_then() {
    let mut client = Following::new();
    client.broadcast("a");
    let Follower::Lacks { from, to } = client.outbox.follower(client.log.end()) else { panic!("it follows") };
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.broadcast("b");
    let lacks = client.burst.between(from, to, &client.log).unwrap();
    client.wire.extend_from_slice(lacks);
    assert_eq!(client.outbox.advance(lacks.len(), clock::now()), Next::Again);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine", "b"]);
}

#[test]
fn who_is_blocked_in_mid_frame_gets_the_rest_in_order() {
    let mut client = Following::new();
    client.broadcast("a");
    client.broadcast("b");
    client.go_around(4);
    let at = client.log.end() - 2;
    assert_eq!(client.outbox.follower(at), Follower::Blocked(at), "a round that began there is not over");
    client.broadcast("c");
    assert_eq!(client.go_around(usize::MAX), Follower::No);
    assert_eq!(client.broadcast("d"), [3], "it is pushed to now");
    client.outbox.push(client.seq, &frame("d"), &LIMITS);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "b", "c", "d"]);
    assert!(client.broadcast("e").is_empty(), "it follows again");
    client.go_around(usize::MAX);
    client.assert_wire(&["a", "b", "c", "d", "e"]);
}

#[test]
fn who_becomes_writable_within_the_round_goes_on_from_its_own_place() {
    let mut client = Following::new();
    client.broadcast("a");
    client.go_around(1);
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.flush(4);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine"]);
}

#[test]
fn who_follows_while_a_broadcast_is_pushed_gets_it_once() {
    let mut client = Following::new();
    client.broadcast("a");
    client.go_around(0);
    client.broadcast("b");
    client.go_around(0);
    assert_eq!(client.broadcast("c"), [3]);
    client.flush(usize::MAX);
    // It follows now, and is still to be pushed to; even if it falls behind in between.
    client.outbox.block(clock::now());
    client.outbox.dismiss();
    client.outbox.push(client.seq, &frame("c"), &LIMITS);
    client.outbox.push(client.seq, &frame("c"), &LIMITS);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "b", "c"]);
}

#[test]
fn who_leaves_is_marked_for_what_it_lacks() {
    let mut client = Following::new();
    assert_eq!(client.outbox.dismiss(), None, "it lacks nothing");
    client.outbox.admit(&client.log, 3);
    client.broadcast("a");
    assert_eq!(client.outbox.dismiss().map(|home| home.slot), Some(7));
    assert_eq!(client.go_around(usize::MAX), Follower::No);
    client.flush(usize::MAX);
    client.assert_wire(&["a"]);
}

#[test]
fn who_ends_or_leaves_is_nobody_to_the_log() {
    let ends: [fn(&Outbox); 2] = [
        |outbox| {
            outbox.dismiss();
        },
        |outbox| {
            outbox.drop_all(Disconnect::TransportClose);
        },
    ];
    for end in ends {
        let mut client = Following::new();
        client.broadcast("a");
        end(&client.outbox);
        let appended = client.log.append(9, &frame("b"));
        assert_eq!((appended.followers, appended.apart.len()), (0, 0));
        client.outbox.admit(&client.log, 3);
        let open = client.outbox.phase() == Phase::Open;
        assert_eq!(client.log.append(10, &frame("c")).apart.len(), usize::from(open));
    }
}

#[test]
fn what_a_follower_lacks_is_sent_before_it_closes() {
    let mut client = Following::new();
    client.broadcast("a");
    client.outbox.close(Disconnect::ServerShutdown);
    assert_eq!(client.broadcast("b"), [3], "told as ever, and not taken");
    client.flush(usize::MAX);
    client.assert_wire(&["a"]);
    let closes = Waiting::Close(Disconnect::ServerShutdown);
    assert_eq!(client.outbox.copy_to(&mut Vec::new(), 100), closes);
}

/// What may happen next to three clients, of which the first two are members.
#[derive(Debug, Clone)]
enum Step {
    /// A broadcast to the log, and how many of those apart are pushed to before the registry fails, if it does: it tries again,
    /// after the steps in between.
    Publish(Option<usize>, Vec<Step>),
    /// A broadcast to another room, of which these are members.
    PublishElsewhere([bool; 3]),
    Send(usize),
    /// The flusher goes around, and each socket takes so many bytes.
    Round([usize; 3]),
    /// A socket that was blocked or marked takes so many bytes.
    Flush(usize, usize),
    Leave(usize),
    Join(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || prop_oneof![2 => Just(usize::MAX), 1 => 0..12_usize];
    let simple = prop_oneof![
        any::<[bool; 3]>().prop_map(Step::PublishElsewhere),
        (0..3_usize).prop_map(Step::Send),
        [limit(), limit(), limit()].prop_map(Step::Round),
        (0..3_usize, limit()).prop_map(|(client, limit)| Step::Flush(client, limit)),
    ];
    let during = prop_oneof![
        [limit(), limit(), limit()].prop_map(Step::Round),
        (0..3_usize, limit()).prop_map(|(client, limit)| Step::Flush(client, limit)),
        (0..3_usize).prop_map(Step::Send),
    ];
    let publish = (prop::option::of(0..3_usize), prop::collection::vec(during, 0..3));
    prop_oneof![
        4 => simple,
        4 => publish.prop_map(|(fails, during)| Step::Publish(fails, during)),
        1 => (0..3_usize).prop_map(Step::Leave),
        1 => (0..3_usize).prop_map(Step::Join),
    ]
}

struct Model {
    workers: Workers,
    worker: WorkerId,
    clients: Vec<Client>,
    seq: Seq,
}

#[derive(Default)]
struct Client {
    outbox: Outbox,
    is_member: bool,
    wire: Vec<u8>,
    expected: Vec<u8>,
}

impl Model {
    fn new() -> Self {
        let workers = Workers::new();
        let worker = workers.claim().unwrap();
        let mut model = Self { workers, worker, clients: Vec::new(), seq: 0 };
        for slot in 0..3 {
            let client = Client::default();
            client.outbox.attach(Home { worker, slot }, Taker::Stream);
            model.clients.push(client);
        }
        (0..2).for_each(|client| model.take(&Step::Join(client)));
        model
    }

    fn expect(&mut self, frame: &Frame, who: impl Fn(usize, &Client) -> bool) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            if who(number, client) {
                client.expected.extend_from_slice(frame.websocket());
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(fails_after, during) => {
                self.seq += 1;
                let frame = frame(&format!("all {}", self.seq));
                self.expect(&frame, |_, client| client.is_member);
                let appended = self.workers.log().append(self.seq, &frame);
                let push = |member: &Member| {
                    self.clients[*member as usize].outbox.push(self.seq, &frame, &LIMITS);
                };
                match fails_after {
                    None => appended.apart.iter().for_each(push),
                    Some(pushes) => {
                        appended.apart.iter().take(*pushes).for_each(push);
                        // What else is sent meanwhile comes before for those who do not have it yet: not of interest here.
                        during.iter().filter(|step| !matches!(step, Step::Send(_))).for_each(|step| self.take(step));
                        let again = self.workers.log().append(self.seq, &frame);
                        for member in again.apart {
                            self.clients[member as usize].outbox.push(self.seq, &frame, &LIMITS);
                        }
                    }
                }
            }
            Step::PublishElsewhere(members) => {
                self.seq += 1;
                let frame = frame(&format!("elsewhere {}", self.seq));
                self.expect(&frame, |number, _| members[number]);
                for (client, _) in self.clients.iter().zip(members).filter(|(_, is_member)| **is_member) {
                    client.outbox.push(self.seq, &frame, &LIMITS);
                }
            }
            Step::Send(client) => {
                let frame = frame("mine");
                self.expect(&frame, |number, _| number == *client);
                self.clients[*client].outbox.push_direct(&frame, &LIMITS);
            }
            Step::Round(limits) => self.go_around(limits),
            Step::Flush(client, limit) => self.clients[*client].flush(*limit),
            Step::Leave(client) => {
                self.clients[*client].is_member = false;
                self.clients[*client].outbox.dismiss();
            }
            Step::Join(client) => {
                self.clients[*client].is_member = true;
                self.clients[*client].outbox.admit(self.workers.log(), *client as Member);
            }
        }
    }

    fn go_around(&mut self, limits: &[usize; 3]) {
        let log = self.workers.log().clone();
        let (began, mut burst) = (log.end(), Burst::default());
        let mut taken = began;
        for (client, &limit) in self.clients.iter_mut().zip(limits) {
            burst.extend(&log);
            match client.outbox.follower(began) {
                Follower::No => {}
                Follower::Own => client.flush(limit),
                Follower::Blocked(at) => taken = taken.min(at),
                Follower::Lacks { from, to } => {
                    let lacks = burst.between(from, to, &log).expect("the log keeps what a follower lacks");
                    let written = lacks.len().min(limit);
                    client.wire.extend_from_slice(&lacks[..written]);
                    let is_all = written == lacks.len();
                    client.outbox.advance(written, clock::now());
                    if !is_all {
                        client.outbox.block(clock::now());
                        taken = taken.min(from + written as u64);
                    }
                }
            }
        }
        log.taken(self.worker, taken);
    }

    /// Everyone reads everything.
    fn settle(&mut self) {
        self.clients.iter_mut().for_each(|client| client.flush(usize::MAX));
        self.go_around(&[usize::MAX; 3]);
    }
}

impl Client {
    fn flush(&mut self, limit: usize) {
        flush(&self.outbox, &mut self.wire, limit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Each client gets what goes to it once and in order, however its socket, the registry and the others behave.
    #[test]
    fn everyone_gets_everything_once_and_in_order(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        model.settle();
        for client in &model.clients {
            prop_assert_eq!(String::from_utf8_lossy(&client.wire), String::from_utf8_lossy(&client.expected));
            prop_assert_eq!((client.outbox.backlog(), client.outbox.phase()), (0, Phase::Open));
        }
        prop_assert_eq!(model.workers.log().append(model.seq + 1, &frame("")).apart.len(), 0, "whoever reads follows");
    }
}
