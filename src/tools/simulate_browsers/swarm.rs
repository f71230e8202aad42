//! All simulated browsers: their connects, their timers, and what each of them still waits for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::clock::{Clock, Time};
use super::dial::Dialer;
use super::live::{Amount, BUFFER, Ended, Left, Live};
use super::protocol::Manners;
use super::tally::{Connects, Role, Tally, Watch};
use super::timers::{Task, Timer, Timers};
use super::tracker::Tracker;

/// A connect that takes longer, until `40`, has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A churning client that was thrown out or not let in tries again after this time, as Flamenco's page does.
const COME_BACK_AFTER: Duration = Duration::from_millis(250);
/// How often a slow reader reads.
const SLOW_READ_EVERY: Duration = Duration::from_millis(100);
/// The bit of a token that distinguishes the socket of a client's POST from its other socket.
const POSTS: usize = 1 << 31;
/// Connects begun between two looks at the sockets, so that answers are not left waiting for a thousand connects.
const DIALS_AT_A_TIME: usize = 32;

/// How the clients of a run behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    /// Bytes per second that a slow reader reads, 0 for none.
    pub(super) slow_bytes_per_second: u32,
    /// How long a churning client stays.
    pub(super) stay: Duration,
    /// Connects under way at a time.
    pub(super) in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Swarm {
    clients: Vec<Client>,
    manners: Manners,
    behaviour: Behaviour,
    sockets: Sockets,
    clock: Clock,
    buffer: Box<[u8]>,
    timers: Timers,
    progress: Progress,
    /// Clients whose socket may hold more than was read.
    unread: Vec<u32>,
    /// Whether churning clients leave.
    churns: bool,
    outcome: Outcome,
}

/// The means to open a socket.
#[derive(Debug)]
struct Sockets {
    dialer: Dialer,
    registry: Registry,
}

/// How far the clients have come.
#[derive(Debug)]
struct Progress {
    waiting: VecDeque<(u32, Round)>,
    in_flight: usize,
    in_flight_limit: usize,
    connected: usize,
    /// Clients with an answer to each of their subscriptions, which are connected too.
    ready: usize,
}

/// What has happened to the clients' connections so far.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The connects of all clients, in the current round.
    pub(super) connects: Connects,
    /// The reconnects of churning clients.
    pub(super) reconnects: Connects,
    /// Ends of connections that were not ours, by reason: of steady and of churning clients.
    pub(super) disconnects: BTreeMap<String, u64>,
    /// The same of slow readers.
    pub(super) slow_disconnects: BTreeMap<String, u64>,
    /// Losses of connections that are over.
    lost_before: u64,
}

#[derive(Debug)]
struct Client {
    watch: Watch,
    live: Option<Live>,
    epoch: u32,
    round: Round,
}

/// On whose account a connect goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Everybody,
    Churn,
}

impl Swarm {
    /// `watches`: one for each client.
    pub(super) fn new(
        watches: impl Iterator<Item = Watch>,
        manners: Manners,
        behaviour: Behaviour,
        dialer: Dialer,
        registry: Registry,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        Self {
            clients: watches.map(|watch| Client { watch, live: None, epoch: 0, round: Round::Everybody }).collect(),
            manners,
            behaviour,
            sockets: Sockets { dialer, registry },
            clock,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            timers: Timers::default(),
            progress: Progress::none(behaviour.in_flight),
            unread: Vec::new(),
            churns: false,
            outcome: Outcome::beginning(now),
        }
    }

    /// Begins a round of connects of all clients, at most `in_flight` at a time.
    pub(super) fn connect_all(&mut self, in_flight: usize) {
        self.outcome.connects = Connects::beginning(self.clock.now());
        let all = 0..self.clients.len() as u32;
        self.progress.waiting = all.map(|client| (client, Round::Everybody)).collect();
        self.progress.in_flight_limit = in_flight;
    }

    /// Drops all connections at once, without a word. `published`: how many events an audience was to get so far.
    pub(super) fn drop_all(&mut self, published: impl Fn(u32) -> u32) {
        for client in &mut self.clients {
            client.live = None;
            self.outcome.lost_before += client.take_lost(&published);
        }
        self.timers.clear();
        self.unread.clear();
        self.progress = Progress::none(self.progress.in_flight_limit);
    }

    /// From now on, steady clients that are ready are to get every event. Gives the audience of each of them.
    pub(super) fn expect_all(&mut self, published: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut audiences = Vec::new();
        for Client { watch, live, .. } in &mut self.clients {
            watch.counted = watch.role == Role::Steady && live.as_ref().is_some_and(Live::is_ready);
            if watch.counted {
                watch.tracker = Tracker::expecting(published(watch.audience));
                audiences.push(watch.audience);
            }
        }
        audiences
    }

    /// From now on a churning client leaves when it has stayed its time.
    pub(super) fn begin_churn(&mut self) {
        self.churns = true;
        let due = self.clock.now().after(self.behaviour.stay);
        for index in 0..self.clients.len() {
            let Client { watch, live, .. } = &self.clients[index];
            if watch.role == Role::Churning && live.as_ref().is_some_and(Live::is_ready) {
                self.set_timer(index as u32, Task::Leave, due);
            }
        }
    }

    /// From now on a churning client stays.
    pub(super) fn end_churn(&mut self) {
        self.churns = false;
    }

    /// Whether every connect of the round has succeeded or failed and all subscriptions are answered.
    pub(super) fn is_settled(&self) -> bool {
        self.progress.is_settled()
    }

    /// The number of clients with an answer to each of their subscriptions.
    pub(super) fn ready(&self) -> usize {
        self.progress.ready
    }

    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// How many events connected clients are still waiting for.
    pub(super) fn outstanding(&self, published: impl Fn(u32) -> u32) -> u64 {
        let waiting = self.clients.iter().filter(|client| client.live.is_some());
        waiting.map(|client| client.lost(&published)).sum()
    }

    /// How many events clients have not got that were to get them, in all connections so far.
    pub(super) fn lost(&self, published: impl Fn(u32) -> u32) -> u64 {
        self.outcome.lost_before + self.clients.iter().map(|client| client.lost(&published)).sum::<u64>()
    }

    /// How many events slow readers did not get although they got later ones.
    pub(super) fn skipped_by_slow(&self) -> u64 {
        let slow = self.clients.iter().filter(|client| client.watch.role == Role::Slow);
        slow.map(|client| client.watch.tracker.skipped()).sum()
    }

    /// How long there is nothing to do unless a socket has something.
    pub(super) fn idle_for(&self, now: Time) -> Duration {
        if !self.unread.is_empty() || self.progress.may_dial() {
            return Duration::ZERO;
        }
        self.timers.idle_for(now)
    }

    /// Does what is due: connects, timers, and what an earlier turn left.
    pub(super) fn advance(&mut self, tally: &mut Tally) {
        for _ in 0..DIALS_AT_A_TIME {
            let Some((client, round)) = self.progress.next_to_dial() else { break };
            self.dial(client, round);
        }
        for client in std::mem::take(&mut self.unread) {
            self.read(client, Amount::Event, tally);
        }
        let now = self.clock.now();
        while let Some(timer) = self.timers.pop_due(now) {
            if self.clients[timer.client as usize].epoch == timer.epoch {
                self.perform(timer.task, timer.client, now, tally);
            }
        }
    }

    /// Handles an event of a client's socket.
    pub(super) fn on_event(&mut self, event: &Event, tally: &mut Tally) {
        let index = (event.token().0 & !POSTS) as u32;
        let Some(Client { watch, live: Some(live), .. }) = self.clients.get_mut(index as usize) else { return };
        if event.token().0 & POSTS != 0 {
            let result = live.on_post_event(event, &mut self.buffer);
            return match result {
                Ok(()) => self.post_if_wanted(index),
                Err(ended) => self.ended(index, ended),
            };
        }
        let reads_slowly = watch.role == Role::Slow && live.is_ready();
        if event.is_error()
            && let Some(ended) = live.socket_error()
        {
            self.ended(index, ended);
        } else if event.is_writable()
            && let Err(ended) = live.flush()
        {
            self.ended(index, ended);
        } else if reads_slowly && event.is_read_closed() {
            self.ended(index, Ended::EndOfStream);
        } else if event.is_readable() && !reads_slowly {
            self.read(index, if event.is_read_closed() { Amount::ToTheEnd } else { Amount::Event }, tally);
        }
    }

    fn dial(&mut self, index: u32, round: Round) {
        let now = self.clock.now();
        let dialled = self.sockets.open(index, Token(index as usize));
        let client = &mut self.clients[index as usize];
        client.epoch += 1;
        client.round = round;
        let connects = self.outcome.connects_of(round);
        connects.attempted += 1;
        match dialled {
            Ok(stream) => {
                client.live = Some(Live::opening(stream, client.watch.audience, &self.manners, now));
                self.progress.in_flight += 1;
                self.set_timer(index, Task::GiveUp, now.after(CONNECT_TIMEOUT));
            }
            Err(error) => connects.failed(error.kind().to_string()),
        }
    }

    /// Opens a second socket for what a client that polls wants to say.
    fn post_if_wanted(&mut self, index: u32) {
        if !self.clients[index as usize].live.as_ref().is_some_and(Live::wants_to_post) {
            return;
        }
        match (self.sockets.open(index, Token(index as usize | POSTS)), &mut self.clients[index as usize].live) {
            (Ok(stream), Some(live)) => live.post(stream),
            (Err(error), _) => self.ended(index, Ended::Socket(error.kind())),
            (Ok(_), None) => {}
        }
    }

    fn set_timer(&mut self, client: u32, task: Task, due: Time) {
        self.timers.set(Timer { due, client, epoch: self.clients[client as usize].epoch, task });
    }

    fn perform(&mut self, task: Task, index: u32, now: Time, tally: &mut Tally) {
        let client = &mut self.clients[index as usize];
        let Some(live) = &mut client.live else {
            if task == Task::ComeBack {
                self.progress.waiting.push_back((index, Round::Churn));
            }
            return;
        };
        match task {
            Task::GiveUp if live.is_ready() => {}
            Task::GiveUp => self.ended(index, Ended::TimedOut),
            // A slow reader may not have come to the answer yet.
            Task::Ping if live.is_silent(now) && client.watch.role != Role::Slow => self.ended(index, Ended::Silent),
            Task::Ping => {
                let next = now.after(live.ping_interval());
                match live.ping(&self.manners) {
                    Ok(()) => {
                        self.set_timer(index, Task::Ping, next);
                        self.post_if_wanted(index);
                    }
                    Err(ended) => self.ended(index, ended),
                }
            }
            Task::ReadSlowly => {
                let bytes = u128::from(self.behaviour.slow_bytes_per_second) * SLOW_READ_EVERY.as_millis() / 1000;
                self.set_timer(index, Task::ReadSlowly, now.after(SLOW_READ_EVERY));
                self.read(index, Amount::Bytes((bytes as usize).clamp(1, BUFFER)), tally);
            }
            Task::Leave if self.churns => self.leave(index),
            Task::Leave | Task::ComeBack => {}
        }
    }

    /// A churning client closes its page and opens it again.
    fn leave(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if let Some(live) = client.live.take() {
            live.leave();
        }
        self.progress.connected -= 1;
        self.progress.ready -= 1;
        self.outcome.lost_before += client.take_lost(|_| 0);
        self.progress.waiting.push_back((index, Round::Churn));
    }

    fn read(&mut self, index: u32, amount: Amount, tally: &mut Tally) {
        let Client { watch, live: Some(live), .. } = &mut self.clients[index as usize] else { return };
        let (was_connected, was_ready) = (live.is_connected(), live.is_ready());
        let received = |packet: &[u8], now| tally.received(packet, watch, now);
        let result = live.read(amount, &mut self.buffer, &self.manners, self.clock, received);
        let (is_connected, is_ready) = (live.is_connected(), live.is_ready());
        if is_connected && !was_connected {
            self.connected(index);
        }
        if is_ready && !was_ready {
            self.is_ready(index);
        }
        match result {
            Ok(Left::Maybe) if amount == Amount::Event || amount == Amount::ToTheEnd => self.unread.push(index),
            Ok(Left::Maybe | Left::Nothing) => {}
            Err(ended) => return self.ended(index, ended),
        }
        self.post_if_wanted(index);
    }

    fn connected(&mut self, index: u32) {
        let client = &self.clients[index as usize];
        let Some(live) = &client.live else { return };
        let now = self.clock.now();
        let next_ping = now.after(live.ping_interval());
        self.outcome.connects_of(client.round).connected(live.since, now);
        self.progress.in_flight -= 1;
        self.progress.connected += 1;
        self.set_timer(index, Task::Ping, next_ping);
    }

    fn is_ready(&mut self, index: u32) {
        self.progress.ready += 1;
        let now = self.clock.now();
        match self.clients[index as usize].watch.role {
            Role::Steady => {}
            Role::Slow if self.behaviour.slow_bytes_per_second == 0 => {}
            Role::Slow => self.set_timer(index, Task::ReadSlowly, now.after(SLOW_READ_EVERY)),
            Role::Churning if self.churns => self.set_timer(index, Task::Leave, now.after(self.behaviour.stay)),
            Role::Churning => {}
        }
    }

    /// A connection ended, or never was, and not because we left.
    fn ended(&mut self, index: u32, why: Ended) {
        let client = &mut self.clients[index as usize];
        let Some(live) = client.live.take() else { return };
        let (role, round) = (client.watch.role, client.round);
        if live.is_connected() {
            self.progress.connected -= 1;
            self.progress.ready -= usize::from(live.is_ready());
            self.outcome.ended(role, why.to_string());
        } else {
            self.progress.in_flight -= 1;
            self.outcome.connects_of(round).failed(why.to_string());
        }
        if role == Role::Churning && self.churns {
            self.outcome.lost_before += client.take_lost(|_| 0);
            self.set_timer(index, Task::ComeBack, self.clock.now().after(COME_BACK_AFTER));
        }
    }
}

impl Sockets {
    fn open(&mut self, client: u32, token: Token) -> io::Result<TcpStream> {
        let mut stream = self.dialer.dial(client)?;
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }
}

impl Progress {
    fn none(in_flight_limit: usize) -> Self {
        Self { waiting: VecDeque::new(), in_flight: 0, in_flight_limit, connected: 0, ready: 0 }
    }

    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0 && self.ready == self.connected
    }

    fn may_dial(&self) -> bool {
        !self.waiting.is_empty() && self.in_flight < self.in_flight_limit
    }

    fn next_to_dial(&mut self) -> Option<(u32, Round)> {
        if self.may_dial() { self.waiting.pop_front() } else { None }
    }
}

impl Outcome {
    fn beginning(now: Time) -> Self {
        Self {
            connects: Connects::beginning(now),
            reconnects: Connects::beginning(now),
            disconnects: BTreeMap::new(),
            slow_disconnects: BTreeMap::new(),
            lost_before: 0,
        }
    }

    fn connects_of(&mut self, round: Round) -> &mut Connects {
        match round {
            Round::Everybody => &mut self.connects,
            Round::Churn => &mut self.reconnects,
        }
    }

    fn ended(&mut self, role: Role, reason: String) {
        let reasons = match role {
            Role::Steady | Role::Churning => &mut self.disconnects,
            Role::Slow => &mut self.slow_disconnects,
        };
        *reasons.entry(reason).or_default() += 1;
    }
}

impl Client {
    fn lost(&self, published: impl Fn(u32) -> u32) -> u64 {
        match self.watch.role {
            Role::Steady if self.watch.counted => self.watch.tracker.missing(published(self.watch.audience)),
            Role::Churning => self.watch.tracker.skipped(),
            Role::Steady | Role::Slow => 0,
        }
    }

    /// Closes the account of a connection.
    fn take_lost(&mut self, published: impl Fn(u32) -> u32) -> u64 {
        let lost = self.lost(published);
        self.watch.counted = false;
        self.watch.tracker = Tracker::joining();
        lost
    }
}
