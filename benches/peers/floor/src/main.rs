//! How fast could it be? One thread, one epoll, frames encoded once, and no more system calls than the mode needs:
//!
//! * `message`: one `send` for each client and message, what a server does that writes each message as it comes;
//! * `backlog`: one `send` for each client and everything it has not got yet, while publishes overtake the sends: after
//!   each slice of clients the program looks for new publishes first.
//!
//! No rooms, no checks, no heartbeat of its own: a floor for the time that fan-out takes, not a server.

mod client;
mod frame;
mod http;
mod log;

use std::error::Error;
use std::io::{self, Read, Write};

use client::{Client, Flush};
use log::Log;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
/// Clients served between two looks for new publishes.
const SLICE: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Message,
    Backlog,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = match arguments.next().as_deref() {
        Some("message") => Mode::Message,
        Some("backlog") => Mode::Backlog,
        _ => return Err("usage: floor message|backlog [PORT]".into()),
    };
    let port: u16 = arguments.next().as_deref().unwrap_or("0").parse()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    let url = format!("http://{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening browsers={url} manager={url}");
    Floor { mode, poll, listener, slots: vec![], free: vec![], log: Log::default(), next: 0, unserved: 0 }.run()
}

enum Connection {
    Http(TcpStream, Vec<u8>),
    WebSocket(Client),
}

struct Floor {
    mode: Mode,
    poll: Poll,
    listener: TcpListener,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    log: Log,
    /// The slot that is served next, and how many from there on have not been served since the last publish.
    next: usize,
    unserved: usize,
}

impl Floor {
    fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let wait = (self.unserved > 0).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(slot) => self.ready(slot, event.is_writable(), &mut buffer),
                }
            }
            self.serve(SLICE);
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut stream, Token(slot), interest);
            if registered.and_then(|()| stream.set_nodelay(true)).is_ok() {
                self.slots[slot] = Some(Connection::Http(stream, Vec::new()));
            } else {
                self.free.push(slot);
            }
        }
    }

    fn ready(&mut self, slot: usize, writable: bool, buffer: &mut [u8]) {
        let Some(mut connection) = self.slots[slot].take() else { return };
        if let Connection::WebSocket(client) = &mut connection
            && writable
            && client.unblock(&self.log, self.mode) == Flush::Gone
        {
            return self.free.push(slot);
        }
        match self.read(connection, buffer) {
            Some(connection) => self.slots[slot] = Some(connection),
            None => self.free.push(slot),
        }
    }

    /// Reads all there is and acts on it. `None` when the connection is over.
    fn read(&mut self, mut connection: Connection, buffer: &mut [u8]) -> Option<Connection> {
        loop {
            let stream = match &mut connection {
                Connection::Http(stream, _) => stream,
                Connection::WebSocket(client) => &mut client.stream,
            };
            match stream.read(buffer) {
                Ok(0) => return None,
                Ok(read) => connection = self.received(connection, &buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(connection),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<Connection> {
        let (mut stream, mut input) = match connection {
            Connection::Http(stream, input) => (stream, input),
            Connection::WebSocket(mut client) => {
                return client.received(bytes, &self.log, self.mode).then_some(Connection::WebSocket(client));
            }
        };
        input.extend_from_slice(bytes);
        loop {
            let (answer, taken) = match http::decode(&input) {
                Ok(None) => return Some(Connection::Http(stream, input)),
                Ok(Some((_, http::Request::Handshake(answer)))) => {
                    stream.write_all(&answer).ok()?;
                    return Some(Connection::WebSocket(Client::new(stream, self.log.end())));
                }
                Ok(Some((taken, http::Request::Publish { frames, count }))) => {
                    self.publish(&frames);
                    (http::answer("200 OK", &format!(r#"{{"accepted":{count}}}"#)), taken)
                }
                Ok(Some((taken, http::Request::Other))) => (http::answer("404 Not Found", "{}"), taken),
                Err(error) => (http::answer("400 Bad Request", &format!(r#"{{"error":{error:?}}}"#)), input.len()),
            };
            stream.write_all(&answer).ok()?;
            input.drain(..taken);
        }
    }

    fn publish(&mut self, frames: &[u8]) {
        self.log.append(frames);
        self.unserved = self.slots.len();
        if self.mode == Mode::Message {
            self.serve(usize::MAX);
        }
    }

    /// Serves up to `slice` clients that have not been served since the last publish.
    fn serve(&mut self, slice: usize) {
        if self.unserved == 0 {
            return;
        }
        for _ in 0..slice.min(self.unserved) {
            self.unserved -= 1;
            self.next = (self.next + 1) % self.slots.len();
            if let Some(Connection::WebSocket(client)) = &mut self.slots[self.next]
                && client.flush(&self.log, self.mode) == Flush::Gone
            {
                self.slots[self.next] = None;
                self.free.push(self.next);
            }
        }
        if self.unserved == 0 {
            self.trim();
        }
    }

    /// Empties the log unless a client whose socket takes no more still needs it.
    fn trim(&mut self) {
        let end = self.log.end();
        let lags =
            |slot: &Option<Connection>| matches!(slot, Some(Connection::WebSocket(client)) if client.cursor < end);
        if !self.slots.iter().any(lags) {
            self.log.clear();
        }
    }
}
