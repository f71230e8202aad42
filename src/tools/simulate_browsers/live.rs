//! One connection that is open or being opened: the protocol's state and its sockets.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use thiserror::Error;

use super::clock::{Clock, Time};
use super::connection::{Connection, Out};
use super::frame::MAX_MESSAGE;
use super::http::read_answer;
use super::protocol::{Broken, Manners, Phase};

/// Bytes of the one buffer everything is read into. With twice the largest message there is always room behind the
/// beginning of one.
pub(super) const BUFFER: usize = 2 * MAX_MESSAGE;

#[derive(Debug)]
pub(super) struct Live {
    stream: TcpStream,
    connection: Connection,
    /// When the connect began.
    pub(super) since: Time,
    /// When something last came.
    heard: Time,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    out: Out,
    /// The POST under way, of a client that polls.
    post: Option<Post>,
}

/// A request on a connection of its own, which ends with the answer. Only the answer's status matters.
#[derive(Debug)]
struct Post {
    stream: TcpStream,
    unsent: Vec<u8>,
    answer: Vec<u8>,
}

/// Why a connection ended. The text is a key of the report.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Socket(io::ErrorKind),
    #[error("end of stream")]
    EndOfStream,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("no sign of life from the server")]
    Silent,
    #[error("timed out")]
    TimedOut,
}

/// Whether the socket may hold more than was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Maybe,
}

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// Until a read comes back short. Data that comes later raises a new event.
    Event,
    /// Until a read gives nothing: the end of the stream raises no further event.
    ToTheEnd,
    /// At most so many bytes.
    Bytes(usize),
}

impl Live {
    /// `stream`: is connecting. The first request is sent as soon as it has connected.
    pub(super) fn opening(stream: TcpStream, audience: u32, manners: &Manners, now: Time) -> Self {
        let (connection, out) = Connection::open(audience, manners);
        Self { stream, connection, since: now, heard: now, partial: Vec::new(), out, post: None }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.connection.protocol.phase == Phase::Ready
    }

    pub(super) fn is_connected(&self) -> bool {
        match self.connection.protocol.phase {
            Phase::Opening => false,
            Phase::Subscribing { .. } | Phase::Ready => true,
        }
    }

    pub(super) fn ping_interval(&self) -> Duration {
        self.connection.protocol.ping_interval
    }

    /// Whether nothing came for longer than a real client puts up with.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        now.since(self.heard) > self.connection.protocol.silence_allowed
    }

    /// Returns the socket's error, unless it belongs to an earlier socket.
    pub(super) fn socket_error(&self) -> Option<Ended> {
        self.stream.take_error().ok().flatten().map(|error| Ended::Socket(error.kind()))
    }

    pub(super) fn ping(&mut self, manners: &Manners) -> Result<(), Ended> {
        self.connection.ping(manners, &mut self.out);
        self.flush()
    }

    /// Leaves as a page does that is closed. Whether the server learns it from a frame or from the end of the stream is
    /// not our concern any more.
    pub(super) fn leave(mut self) {
        self.connection.close(&mut self.out);
        let _ = self.flush();
    }

    /// Whether a POST waits for a connection to be sent on.
    pub(super) fn wants_to_post(&self) -> bool {
        self.post.is_none() && !self.out.posts.is_empty()
    }

    /// Sends the next POST as soon as `stream` has connected.
    pub(super) fn post(&mut self, stream: TcpStream) {
        if !self.out.posts.is_empty() {
            self.post = Some(Post { stream, unsent: self.out.posts.remove(0), answer: Vec::new() });
        }
    }

    /// Handles an event of the POST's socket.
    pub(super) fn on_post_event(&mut self, event: &Event, buffer: &mut [u8]) -> Result<(), Ended> {
        let Some(post) = &mut self.post else { return Ok(()) };
        if event.is_writable() {
            send(&mut post.stream, &mut post.unsent)?;
        }
        if event.is_readable() && post.is_answered(buffer)? {
            self.post = None;
        }
        Ok(())
    }

    /// Sends as much as the socket takes; the rest waits for it to become writable.
    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        send(&mut self.stream, &mut self.out.main)
    }

    /// Reads and answers. `buffer` has `BUFFER` bytes and is shared by all; `on_event` gets each event packet and when it
    /// was read.
    pub(super) fn read(
        &mut self,
        amount: Amount,
        buffer: &mut [u8],
        manners: &Manners,
        clock: Clock,
        mut on_event: impl FnMut(&[u8], Time),
    ) -> Result<Left, Ended> {
        let mut budget = match amount {
            Amount::Bytes(bytes) => bytes,
            Amount::Event | Amount::ToTheEnd => BUFFER,
        };
        while budget > 0 {
            let kept = self.partial.len();
            buffer[..kept].copy_from_slice(&self.partial);
            let end = buffer.len().min(kept + budget);
            let room = end - kept;
            let came = match self.stream.read(&mut buffer[kept..end]) {
                Ok(0) => return Err(Ended::EndOfStream),
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Left::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ended::Socket(error.kind())),
            };
            let now = clock.now();
            self.heard = now;
            let input = &buffer[..kept + came];
            let mut on_event = |packet: &[u8]| on_event(packet, now);
            let used = self.connection.receive(input, manners, &mut self.out, &mut on_event)?;
            self.partial.clear();
            self.partial.extend_from_slice(&input[used..]);
            self.flush()?;
            // Windows reports more only after a read that would block.
            if amount == Amount::Event && came < room && !cfg!(windows) {
                return Ok(Left::Nothing);
            }
            budget -= came;
        }
        Ok(Left::Maybe)
    }
}

impl Post {
    /// Reads until the server closes, which it was asked to do.
    fn is_answered(&mut self, buffer: &mut [u8]) -> Result<bool, Ended> {
        loop {
            let came = match self.stream.read(buffer) {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ended::Socket(error.kind())),
            };
            self.answer.extend_from_slice(&buffer[..came]);
            match read_answer(&self.answer, came == 0, BUFFER).map_err(Broken::from)? {
                Some(answer) if answer.status == 200 => return Ok(true),
                Some(answer) => return Err(Broken::Refused(answer.status).into()),
                None if came == 0 => return Err(Ended::EndOfStream),
                None => {}
            }
        }
    }
}

fn send(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> Result<(), Ended> {
    while !unsent.is_empty() {
        match stream.write(unsent) {
            Ok(sent) if sent == unsent.len() => *unsent = Vec::new(),
            Ok(sent) => drop(unsent.drain(..sent)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Ended::Socket(error.kind())),
        }
    }
    Ok(())
}
