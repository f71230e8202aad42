//! Publishes events one POST after the other over one kept connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use thiserror::Error;

use super::clock::{Clock, Time};
use super::http::{AnswerError, read_answer};
use super::tally::{Tally, nanoseconds};
use super::template::Template;
use super::traffic::Traffic;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest body of an answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// After how long a refused batch is offered again when the server does not say.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Where and how to publish.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) template: Template,
    /// Events per POST. More than one are put into a JSON array.
    pub(super) batch: u32,
    /// Events per second, 0 for as many as are answered.
    pub(super) rate: f64,
}

#[derive(Debug)]
pub(super) struct Publisher {
    outlet: Outlet,
    token: Token,
    traffic: Traffic,
    clock: Clock,
    stream: Option<TcpStream>,
    state: State,
    /// What is left of the current run: the next event, and the end.
    todo: Range<u32>,
    first: u32,
    began: Time,
    request: Vec<u8>,
    body: Vec<u8>,
    payload: Vec<u8>,
    answer: Vec<u8>,
    pub(super) last_answer: Time,
    pub(super) posts: u64,
    pub(super) turned_away: u64,
    /// From the POST to its answer, in nanoseconds.
    pub(super) answers: Histogram<u64>,
}

#[derive(Debug)]
enum State {
    Idle,
    /// `sent` bytes of the request are sent; it holds the next `events`.
    Sending {
        sent: usize,
        events: u32,
        since: Time,
    },
    Waiting {
        events: u32,
        since: Time,
    },
    /// The server is overloaded; the request is sent again.
    TurnedAway {
        events: u32,
        until: Time,
    },
    Failed(PublishError),
}

/// Why publishing stopped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum PublishError {
    #[error("cannot reach {0}: {1}")]
    Unreachable(SocketAddr, io::ErrorKind),
    #[error("the connection broke: {0}")]
    Socket(io::ErrorKind),
    #[error("the connection ended before the answer was whole")]
    EndOfStream,
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("answered with status {status}: {body}")]
    Refused { status: u16, body: String },
}

impl Publisher {
    /// `token`: under which its socket is registered.
    pub(super) fn new(outlet: Outlet, traffic: Traffic, token: Token, clock: Clock) -> Self {
        Self {
            outlet,
            token,
            traffic,
            clock,
            stream: None,
            state: State::Idle,
            todo: 0..0,
            first: 0,
            began: clock.now(),
            request: Vec::new(),
            body: Vec::new(),
            payload: Vec::new(),
            answer: Vec::new(),
            last_answer: clock.now(),
            posts: 0,
            turned_away: 0,
            answers: nanoseconds(),
        }
    }

    /// Begins to publish these events.
    pub(super) fn publish(&mut self, events: Range<u32>) {
        (self.first, self.todo, self.began) = (events.start, events, self.clock.now());
    }

    /// How many events the server has taken since the program began.
    pub(super) fn published(&self) -> u32 {
        self.todo.start
    }

    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty() || self.error().is_some()
    }

    pub(super) fn error(&self) -> Option<&PublishError> {
        match &self.state {
            State::Failed(error) => Some(error),
            State::Idle | State::Sending { .. } | State::Waiting { .. } | State::TurnedAway { .. } => None,
        }
    }

    /// How long there is nothing to do unless the socket has something.
    pub(super) fn idle_for(&self, now: Time) -> Duration {
        match self.state {
            State::Idle if !self.todo.is_empty() => self.due().since(now),
            State::TurnedAway { until, .. } => until.since(now),
            State::Idle | State::Sending { .. } | State::Waiting { .. } | State::Failed(_) => Duration::MAX,
        }
    }

    /// Goes as far as it can without waiting, but no further than one answer and the next POST.
    pub(super) fn advance(&mut self, registry: &Registry, tally: &mut Tally) {
        if let Err(error) = self.try_advance(registry, tally) {
            self.state = State::Failed(error);
        }
    }

    fn try_advance(&mut self, registry: &Registry, tally: &mut Tally) -> Result<(), PublishError> {
        if let State::Waiting { events, since } = self.state {
            self.receive(events, since)?;
        }
        let now = self.clock.now();
        match self.state {
            State::Idle if !self.todo.is_empty() && self.due() <= now => {
                let events = self.outlet.batch.min(self.todo.end - self.todo.start);
                self.write_request(events);
                self.connect_if_needed(registry)?;
                // Taken after all preparations: what counts is what the server and the way there take.
                let since = self.clock.now();
                (0..events).for_each(|_| tally.publishing(since));
                self.state = State::Sending { sent: 0, events, since };
            }
            State::TurnedAway { events, until } if until <= now => {
                self.connect_if_needed(registry)?;
                self.state = State::Sending { sent: 0, events, since: now };
            }
            State::Idle
            | State::Sending { .. }
            | State::Waiting { .. }
            | State::TurnedAway { .. }
            | State::Failed(_) => {}
        }
        if let State::Sending { sent, events, since } = self.state {
            self.send(sent, events, since)?;
        }
        Ok(())
    }

    /// When the next POST is due.
    fn due(&self) -> Time {
        if self.outlet.rate <= 0.0 {
            return self.began;
        }
        let seconds = f64::from(self.todo.start - self.first) / self.outlet.rate;
        self.began.after(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    fn write_request(&mut self, events: u32) {
        let Outlet { host, path, token, template, batch, .. } = &self.outlet;
        self.body.clear();
        for number in self.todo.start..self.todo.start + events {
            if *batch > 1 {
                self.body.push(if number == self.todo.start { b'[' } else { b',' });
            }
            self.traffic.write(number, template, &mut self.payload, &mut self.body);
        }
        if *batch > 1 {
            self.body.push(b']');
        }
        let authorization =
            token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{authorization}\
             Content-Length: {}\r\n\r\n",
            self.body.len()
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(&self.body);
    }

    /// Servers close a connection they have not heard from for some seconds.
    fn connect_if_needed(&mut self, registry: &Registry) -> Result<(), PublishError> {
        if let Some(stream) = &mut self.stream {
            match stream.read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(_) | Err(_) => self.stream = None,
            }
        }
        let address = self.outlet.address;
        let connect = || {
            let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let stream = connect().map_err(|error: io::Error| PublishError::Unreachable(address, error.kind()))?;
        self.stream = Some(stream);
        Ok(())
    }

    fn send(&mut self, mut sent: usize, events: u32, since: Time) -> Result<(), PublishError> {
        let Some(stream) = &mut self.stream else { return Err(PublishError::EndOfStream) };
        self.state = loop {
            match stream.write(&self.request[sent..]) {
                Ok(more) if sent + more == self.request.len() => break State::Waiting { events, since },
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break State::Sending { sent, events, since };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PublishError::Socket(error.kind())),
            }
        };
        Ok(())
    }

    fn receive(&mut self, events: u32, since: Time) -> Result<(), PublishError> {
        let Some(stream) = &mut self.stream else { return Err(PublishError::EndOfStream) };
        let mut buffer = [0; 4096];
        let (answer, ended) = loop {
            let came = match stream.read(&mut buffer) {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(PublishError::Socket(error.kind())),
            };
            self.answer.extend_from_slice(&buffer[..came]);
            match read_answer(&self.answer, came == 0, MAX_ANSWER)? {
                Some(answer) => break (answer, came == 0),
                None if came == 0 => return Err(PublishError::EndOfStream),
                None => {}
            }
        };
        self.answer.clear();
        if answer.closes || ended {
            self.stream = None;
        }
        let now = self.clock.now();
        match answer.status {
            200..300 => {
                self.answers.saturating_record(now.nanos_since(since));
                self.last_answer = now;
                self.posts += 1;
                self.todo.start += events;
                self.state = State::Idle;
            }
            503 => {
                self.turned_away += 1;
                let wait = answer.retry_after.map_or(RETRY_AFTER, |seconds| Duration::from_secs(seconds.into()));
                self.state = State::TurnedAway { events, until: now.after(wait) };
            }
            status => {
                let body = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
                return Err(PublishError::Refused { status, body });
            }
        }
        Ok(())
    }
}
