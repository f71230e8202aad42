//! Outboxes that are attached to the log, driven step by step as the registry, the flusher and others drive
//! them.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::clock;

const LIMITS: OutboxLimits =
    OutboxLimits { bytes: usize::MAX, age: Duration::from_secs(1000), lag: Duration::from_secs(1000) };

fn frame(text: &str) -> Arc<Frame> {
    Frame::text(clock::now(), |out| out.extend_from_slice(text.as_bytes()))
}

/// Writes the waiting frames to `wire`, until the outbox is empty or the socket has taken `limit`
/// bytes of one write.
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

/// A member of the log with an empty outbox, and the bytes written to it, on one thread.
struct AttachedClient {
    log: Arc<Log>,
    outbox: Outbox,
    burst: Burst,
    seq: Seq,
    wire: Vec<u8>,
}

impl AttachedClient {
    fn new() -> Self {
        let workers = Workers::new();
        let outbox = Outbox::new();
        outbox.set_home(Home { worker: workers.claim().unwrap(), slot: 7 }, Taker::Stream);
        outbox.admit(workers.log(), 3);
        let log = workers.log().clone();
        let mut client = Self { log, outbox, burst: Burst::default(), seq: 0, wire: Vec::new() };
        assert!(client.broadcast("first").is_empty(), "its outbox is empty");
        client.go_around(usize::MAX);
        client.wire.clear();
        client
    }

    /// Returns the members that the broadcast must be pushed to.
    fn broadcast(&mut self, text: &str) -> Vec<Member> {
        self.seq += 1;
        self.log.append(self.seq, &frame(text)).detached
    }

    fn flush(&mut self, limit: usize) {
        flush(&self.outbox, &mut self.wire, limit);
    }

    /// Flushes as the flusher does; the client takes up to `limit` bytes.
    fn go_around(&mut self, limit: usize) -> FromLog {
        let began = self.log.end();
        let lack = self.outbox.take_log(began);
        if let FromLog::Segment { from, to } = lack {
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
        lack
    }

    fn assert_wire(&self, texts: &[&str]) {
        let frames = texts.iter().flat_map(|text| frame(text).websocket().to_vec());
        assert_eq!(String::from_utf8_lossy(&self.wire), String::from_utf8_lossy(&frames.collect::<Vec<_>>()));
    }
}

#[test]
fn an_attached_outbox_is_written_the_log() {
    let mut client = AttachedClient::new();
    assert!(client.broadcast("a").is_empty());
    client.broadcast("b");
    assert_eq!(client.outbox.backlog(), 6);
    client.go_around(usize::MAX);
    client.assert_wire(&["a", "b"]);
    assert_eq!(client.outbox.backlog(), 0);
    let end = client.log.end();
    assert_eq!(client.go_around(usize::MAX), FromLog::Segment { from: end, to: end });
    client.assert_wire(&["a", "b"]);
}

#[test]
fn a_frame_for_one_attached_outbox_keeps_its_place_among_the_broadcasts() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.broadcast("b");
    client.seq += 1;
    client.outbox.push(client.seq, &frame("another room"), &LIMITS);
    client.broadcast("c");
    assert_eq!(client.go_around(usize::MAX), FromLog::OwnFirst);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine", "b", "another room", "c"]);
    assert!(client.broadcast("d").is_empty(), "it is still attached");
}

/// Both happen between the flusher's query and its copy from the log.
#[test]
fn a_push_during_a_flush_precedes_a_later_append() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    let FromLog::Segment { from, to } = client.outbox.take_log(client.log.end()) else { panic!("it is attached") };
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.broadcast("b");
    let lacks = client.burst.between(from, to, &client.log).unwrap();
    client.wire.extend_from_slice(lacks);
    assert_eq!(client.outbox.advance(lacks.len(), clock::now()), Next::Again);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine", "b"]);
}

#[test]
fn an_attached_outbox_blocked_in_mid_frame_gets_the_rest_in_order() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    client.broadcast("b");
    client.go_around(4);
    let at = client.log.end() - 2;
    assert_eq!(client.outbox.take_log(at), FromLog::Blocked(at), "a round that began there is not over");
    client.broadcast("c");
    assert_eq!(client.go_around(usize::MAX), FromLog::Detached);
    assert_eq!(client.broadcast("d"), [3], "broadcasts are now pushed to it");
    client.outbox.push(client.seq, &frame("d"), &LIMITS);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "b", "c", "d"]);
    assert!(client.broadcast("e").is_empty(), "it is attached again");
    client.go_around(usize::MAX);
    client.assert_wire(&["a", "b", "c", "d", "e"]);
}

#[test]
fn an_attached_outbox_that_becomes_writable_continues_from_its_own_position() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    client.go_around(1);
    client.outbox.push_direct(&frame("mine"), &LIMITS);
    client.flush(4);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "mine"]);
}

#[test]
fn a_member_that_attaches_during_a_push_gets_the_broadcast_once() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    client.go_around(0);
    client.broadcast("b");
    client.go_around(0);
    assert_eq!(client.broadcast("c"), [3]);
    client.flush(usize::MAX);
    // It is attached now, and the broadcast is still to be pushed to it, even if it falls behind in
    // between.
    client.outbox.block(clock::now());
    client.outbox.dismiss();
    client.outbox.push(client.seq, &frame("c"), &LIMITS);
    client.outbox.push(client.seq, &frame("c"), &LIMITS);
    client.flush(usize::MAX);
    client.assert_wire(&["a", "b", "c"]);
}

#[test]
fn a_member_that_leaves_is_marked_for_what_it_lacks() {
    let mut client = AttachedClient::new();
    assert_eq!(client.outbox.dismiss(), None, "it lacks nothing");
    client.outbox.admit(&client.log, 3);
    client.broadcast("a");
    assert_eq!(client.outbox.dismiss().map(|home| home.slot), Some(7));
    assert_eq!(client.go_around(usize::MAX), FromLog::Detached);
    client.flush(usize::MAX);
    client.assert_wire(&["a"]);
}

#[test]
fn a_member_that_ends_or_leaves_is_unknown_to_the_log() {
    let ends: [fn(&Outbox); 2] = [
        |outbox| {
            outbox.dismiss();
        },
        |outbox| {
            outbox.drop_all(Disconnect::TransportClose);
        },
    ];
    for end in ends {
        let mut client = AttachedClient::new();
        client.broadcast("a");
        end(&client.outbox);
        let appended = client.log.append(9, &frame("b"));
        assert_eq!((appended.attached, appended.detached.len()), (0, 0));
        client.outbox.admit(&client.log, 3);
        let open = client.outbox.phase() == Phase::Open;
        assert_eq!(client.log.append(10, &frame("c")).detached.len(), usize::from(open));
    }
}

#[test]
fn what_an_attached_outbox_lacks_is_sent_before_it_closes() {
    let mut client = AttachedClient::new();
    client.broadcast("a");
    client.outbox.close(Disconnect::ServerShutdown);
    assert_eq!(client.broadcast("b"), [3], "pushed as before, and dropped");
    client.flush(usize::MAX);
    client.assert_wire(&["a"]);
    let closes = Waiting::Close(Disconnect::ServerShutdown);
    assert_eq!(client.outbox.copy_to(&mut Vec::new(), 100), closes);
}

/// The possible next steps of three clients, the first two of which are members.
#[derive(Debug, Clone)]
enum Step {
    /// A broadcast to the log, and the number of detached members it is pushed to before the
    /// registry fails, if it does. The registry then retries, after the steps in between.
    Publish(Option<usize>, Vec<Step>),
    /// A broadcast to another room with these members.
    PublishElsewhere([bool; 3]),
    Send(usize),
    /// The flusher makes a round, and each socket takes so many bytes.
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
            client.outbox.set_home(Home { worker, slot }, Taker::Stream);
            model.clients.push(client);
        }
        (0..2).for_each(|client| model.take(&Step::Join(client)));
        model
    }

    fn expect(&mut self, frame: &Frame, is_member: impl Fn(usize, &Client) -> bool) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            if is_member(number, client) {
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
                    None => appended.detached.iter().for_each(push),
                    Some(pushes) => {
                        appended.detached.iter().take(*pushes).for_each(push);
                        // Frames sent meanwhile precede it for outboxes that lack it; they do not
                        // matter here.
                        during.iter().filter(|step| !matches!(step, Step::Send(_))).for_each(|step| self.take(step));
                        let again = self.workers.log().append(self.seq, &frame);
                        for member in again.detached {
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
            match client.outbox.take_log(began) {
                FromLog::Detached => {}
                FromLog::OwnFirst => client.flush(limit),
                FromLog::Blocked(at) => taken = taken.min(at),
                FromLog::Segment { from, to } => {
                    let lacks = burst.between(from, to, &log).expect("the log keeps what an attached outbox lacks");
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

    /// All clients read everything.
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

    /// Each client gets its frames once and in order, however its socket, the registry and the
    /// others behave.
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
        prop_assert_eq!(model.workers.log().append(model.seq + 1, &frame("")).detached.len(), 0, "every client that reads is attached to the log");
    }
}
