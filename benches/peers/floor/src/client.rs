//! A client is a place in the log.

use std::io::{self, Write};

use mio::net::TcpStream;

use crate::Mode;
use crate::frame::{self, Input};
use crate::log::Log;

/// Engine.IO `3` in a text frame.
const PONG: [u8; 3] = [0x81, 1, b'3'];

#[derive(PartialEq, Eq)]
pub enum Flush {
    Done,
    /// The socket takes no more for now.
    Blocked,
    Gone,
}

pub struct Client {
    pub stream: TcpStream,
    /// The first byte of the log it has not got, always the start of a frame when it is not blocked.
    pub cursor: u64,
    frame_end: u64,
    blocked: bool,
    pong_due: bool,
    input: Vec<u8>,
}

impl Client {
    pub fn new(stream: TcpStream, cursor: u64) -> Self {
        Self { stream, cursor, frame_end: cursor, blocked: false, pong_due: false, input: Vec::new() }
    }

    /// Sends what it has not got yet.
    pub fn flush(&mut self, log: &Log, mode: Mode) -> Flush {
        if self.blocked {
            return Flush::Blocked;
        }
        while self.cursor < log.end() {
            if self.cursor == self.frame_end {
                self.frame_end = match mode {
                    Mode::Message => log.frame_end(self.cursor),
                    Mode::Backlog => log.end(),
                };
            }
            let due = &log.since(self.cursor)[..(self.frame_end - self.cursor) as usize];
            match self.send(due) {
                Ok(sent) => self.cursor += sent as u64,
                Err(flush) => return flush,
            }
        }
        if std::mem::take(&mut self.pong_due) {
            return self.send(&PONG).map_or_else(|flush| flush, |_| Flush::Done);
        }
        Flush::Done
    }

    /// The socket takes bytes again, or for the first time.
    pub fn unblock(&mut self, log: &Log, mode: Mode) -> Flush {
        self.blocked = false;
        self.flush(log, mode)
    }

    /// Acts on what the client said. False when it said goodbye or made no sense.
    pub fn received(&mut self, bytes: &[u8], log: &Log, mode: Mode) -> bool {
        self.input.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((length, input)) = frame::decode(&self.input[taken..]) {
            taken += length;
            match input {
                Input::Close => return false,
                Input::Ping => self.pong_due = true,
                Input::Ignored => {}
            }
        }
        // An idle client holds no buffer.
        self.input = self.input.split_off(taken);
        !self.pong_due || self.flush(log, mode) != Flush::Gone
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Flush> {
        loop {
            match self.stream.write(bytes) {
                Ok(sent) => return Ok(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Err(Flush::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Flush::Gone),
            }
        }
    }
}
