//! The registry's and a worker's side of the hand-off, reduced to the steps that touch outboxes: `actors/room_registry.rs`,
//! `transport/websocket/socket.rs` and `transport/worker.rs` take the same ones.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    clock,
    disconnect::Disconnect,
    frame::Frame,
    membership::Member,
    outbox::{
        Burst, FromLog, Home, Marks, Next, Outbox, OutboxLimits, Position, Seq, Taker, Waiting, WorkerId, Workers,
    },
    sync::Mutex,
};

/// Nobody is over them.
pub(crate) const LIMITS: OutboxLimits =
    OutboxLimits { bytes: usize::MAX, age: Duration::from_secs(1000), lag: Duration::from_secs(1000) };

pub(crate) fn frame(text: &str) -> Arc<Frame> {
    Frame::text(clock::now(), |out| out.extend_from_slice(text.as_bytes()))
}

/// Runs a future whose waits block the thread.
pub(crate) fn block_on<R>(future: impl Future<Output = R>) -> R {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("a waiting thread blocks"),
    }
}

/// What the registry knows.
pub(crate) struct Registry {
    pub(crate) workers: Arc<Workers>,
    /// By member.
    pub(crate) seats: Vec<Arc<Outbox>>,
    pub(crate) limits: OutboxLimits,
    pub(crate) seq: Seq,
    marks: Marks,
}

impl Registry {
    pub(crate) fn new(workers: &Arc<Workers>, seats: Vec<Arc<Outbox>>) -> Self {
        Self { workers: workers.clone(), seats, limits: LIMITS, seq: 0, marks: Marks::new() }
    }

    /// To the room that has the log.
    pub(crate) fn broadcast(&mut self, text: &str) {
        self.seq += 1;
        self.append_and_push(&frame(text));
        self.mark();
    }

    /// A broadcast, as far as an attempt comes before it marks.
    pub(crate) fn append_and_push(&mut self, frame: &Arc<Frame>) {
        let appended = self.workers.log().append(self.seq, frame);
        appended.detached.into_iter().for_each(|member| self.push(member, frame));
        if appended.attached > 0 {
            self.marks.add_log();
        }
    }

    /// To another room, of which these are the members.
    pub(crate) fn broadcast_to(&mut self, members: &[Member], text: &str) {
        self.seq += 1;
        members.iter().for_each(|&member| self.push(member, &frame(text)));
        self.mark();
    }

    pub(crate) fn push(&mut self, member: Member, frame: &Arc<Frame>) {
        let pushed = self.seats[member as usize].push(self.seq, frame, &self.limits);
        pushed.unmarked().into_iter().for_each(|home| self.marks.add(home));
    }

    fn mark(&mut self) {
        self.workers.mark_all(&mut self.marks, None);
    }

    /// The registry failed, and what it had noted is gone; it begins as its actor does when it is restarted.
    pub(crate) fn restart(&mut self) {
        self.marks = Marks::new();
        self.seats.iter().filter_map(|seat| seat.remark()).for_each(|home| self.marks.add(home));
        self.marks.add_log();
        self.mark();
    }

    pub(crate) fn join(&self, member: Member) {
        self.seats[member as usize].admit(self.workers.log(), member);
    }

    pub(crate) fn leave(&self, member: Member) {
        self.seats[member as usize].dismiss().into_iter().for_each(|home| self.workers.mark(home));
    }
}

/// To one client only, from any thread.
pub(crate) fn send(workers: &Workers, outbox: &Outbox, text: &str) {
    outbox.push_direct(&frame(text), &LIMITS).unmarked().into_iter().for_each(|home| workers.mark(home));
}

/// From any thread, once what waits is sent.
pub(crate) fn close(workers: &Workers, outbox: &Outbox, reason: Disconnect) {
    outbox.close(reason).into_iter().for_each(|home| workers.mark(home));
}

/// A socket's buffer.
pub(crate) struct Pipe {
    state: Mutex<Room>,
}

struct Room {
    bytes: usize,
    /// Somebody wants to know when there is more.
    is_awaited: bool,
}

impl Pipe {
    fn take(&self, bytes: usize) -> usize {
        let mut room = self.state.lock().unwrap();
        let taken = bytes.min(room.bytes);
        room.bytes -= taken;
        room.is_awaited = taken < bytes;
        taken
    }

    /// The peer reads all, and has the slot marked if the socket was full.
    pub(crate) fn drain(&self, workers: &Workers, home: Home) {
        let was_awaited = {
            let mut room = self.state.lock().unwrap();
            room.bytes = usize::MAX;
            std::mem::take(&mut room.is_awaited)
        };
        if was_awaited {
            workers.mark(home);
        }
    }
}

/// A client, as its worker has it.
pub(crate) struct Client {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) pipe: Arc<Pipe>,
    /// `None` for a socket that takes whatever comes, without a lock.
    is_bounded: bool,
    pub(crate) wire: Vec<u8>,
    pub(crate) ended: Option<Disconnect>,
}

impl Client {
    fn new(room: Option<usize>) -> Self {
        let room_bytes = room.unwrap_or(usize::MAX);
        Self {
            outbox: Arc::new(Outbox::new()),
            pipe: Arc::new(Pipe { state: Mutex::new(Room { bytes: room_bytes, is_awaited: false }) }),
            is_bounded: room.is_some(),
            wire: Vec::new(),
            ended: None,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let sent = if self.is_bounded { self.pipe.take(bytes.len()) } else { bytes.len() };
        self.wire.extend_from_slice(&bytes[..sent]);
        sent
    }

    pub(crate) fn write(&mut self) {
        let mut scratch = Vec::new();
        while self.ended.is_none() {
            scratch.clear();
            match self.outbox.copy_to(&mut scratch, usize::MAX) {
                Waiting::Frames => {}
                Waiting::Nothing => return,
                Waiting::Drop(reason) | Waiting::Close(reason) => return self.ended = Some(reason),
            }
            let written = self.send(&scratch);
            let next = self.outbox.advance(written, clock::now());
            if written < scratch.len() {
                return self.outbox.block(clock::now());
            }
            if next == Next::Done {
                return;
            }
        }
    }

    /// Returns where what it then still lacks of the log begins.
    fn write_log(&mut self, round: &mut Round<'_>) -> Option<Position> {
        let (from, to) = match self.outbox.take_log(round.began) {
            FromLog::Detached => return None,
            FromLog::Blocked(at) => return Some(at),
            FromLog::OwnFirst => {
                self.write();
                return None;
            }
            FromLog::Segment { from, to } => (from, to),
        };
        let lacks = round.burst.between(from, to, round.workers.log());
        let lacks = lacks.expect("the log keeps what an attached outbox lacks").to_vec();
        let written = self.send(&lacks);
        let next = self.outbox.advance(written, clock::now());
        if written < lacks.len() {
            self.outbox.block(clock::now());
            return Some(from + written as u64);
        }
        if next == Next::Again {
            self.write();
        }
        None
    }
}

struct Round<'a> {
    workers: &'a Workers,
    began: Position,
    burst: &'a mut Burst,
}

/// A worker and its clients, one in each slot.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) workers: Arc<Workers>,
    pub(crate) clients: Vec<Client>,
}

impl Worker {
    /// With a client for each socket, of which some have room for so many bytes only.
    pub(crate) fn new(workers: &Arc<Workers>, sockets: &[Option<usize>]) -> Self {
        let id = workers.claim().unwrap();
        let clients = sockets.iter().map(|&room| Client::new(room)).collect();
        Self { id, workers: workers.clone(), clients }
    }

    pub(crate) fn home(&self, slot: usize) -> Home {
        Home { worker: self.id, slot: slot as u32 }
    }

    pub(crate) fn attach(&self) {
        for (slot, client) in self.clients.iter().enumerate() {
            client.outbox.set_home(self.home(slot), Taker::Stream);
        }
    }

    pub(crate) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.clients.iter().map(|client| client.outbox.clone()).collect()
    }

    /// Flushes until each client has as many bytes as these frames, or is closed. If a wake-up is lost, that is never.
    pub(crate) fn flush_until(&mut self, delivered: &[&[&[&str]]]) {
        let sizes: Vec<usize> = delivered.iter().map(|sources| size(sources)).collect();
        let mut slots = Vec::new();
        while self.clients.iter().zip(&sizes).any(|(client, size)| client.wire.len() < *size && client.ended.is_none())
        {
            self.flush(&mut slots);
        }
    }

    /// Flushes until the client in this slot is closed.
    pub(crate) fn flush_until_ended(&mut self, slot: usize) {
        let mut slots = Vec::new();
        while self.clients[slot].ended.is_none() {
            self.flush(&mut slots);
        }
    }

    /// Once, when there is something to do.
    fn flush(&mut self, slots: &mut Vec<u32>) {
        let taken = block_on(self.workers.take(self.id, slots));
        if let Some(reason) = taken.close {
            self.clients.iter().for_each(|client| close(&self.workers, &client.outbox, reason));
        }
        slots.iter().for_each(|&slot| self.clients[slot as usize].write());
        if taken.log {
            self.go_around();
        }
        self.workers.flushed(self.id, taken.published);
    }

    fn go_around(&mut self) {
        let workers = self.workers.clone();
        let (log, mut burst) = (workers.log(), Burst::default());
        let began = log.end();
        let mut taken = began;
        for client in &mut self.clients {
            burst.extend(log);
            let mut round = Round { workers: &workers, began, burst: &mut burst };
            taken = taken.min(client.write_log(&mut round).unwrap_or(began));
        }
        log.taken(self.id, taken);
    }

    /// All threads are done: nothing more comes, and each client has what these sources delivered, each in order.
    pub(crate) fn assert_delivered(&mut self, delivered: &[&[&[&str]]]) {
        for (client, sources) in self.clients.iter_mut().zip(delivered) {
            client.write();
            assert_eq!(client.outbox.backlog(), 0);
            let wire = texts(&client.wire);
            assert_eq!(wire.len(), sources.iter().map(|source| source.len()).sum::<usize>(), "{wire:?}");
            for source in *sources {
                assert_eq!(of(source, &wire), *source, "{wire:?}");
            }
        }
    }
}

fn size(sources: &[&[&str]]) -> usize {
    sources.iter().copied().flatten().map(|text| frame(text).websocket().len()).sum()
}

/// The frames of one source.
fn of<'a>(source: &[&str], wire: &[&'a str]) -> Vec<&'a str> {
    wire.iter().copied().filter(|text| source.contains(text)).collect()
}

/// The frames that a client reads.
pub(crate) fn texts(mut wire: &[u8]) -> Vec<&str> {
    let mut texts = Vec::new();
    while let [first, length, rest @ ..] = wire {
        assert_eq!(*first, 0x81, "a frame begins here");
        let (text, rest) = rest.split_at(usize::from(*length));
        texts.push(std::str::from_utf8(text).unwrap());
        wire = rest;
    }
    texts
}
