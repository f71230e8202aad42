//! Where lines are printed.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::value::RawValue;

use super::narrator::Narrator;
use super::paint::{DIM, NEWS, paint};
use super::text::{plain, plain_json};
use client::Address;
use client::clock;

/// Longest notice that is shown, in characters: a server's refusal may be part of it.
const MAX_NOTICE: usize = 300;

/// Prints events as they come, each line with the local time.
pub(super) struct Screen<W> {
    /// Formats events as lines; without it they are printed as JSON.
    narrator: Option<Narrator>,
    out: W,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(json: bool, address: Option<Address>, out: W) -> Self {
        Self { narrator: (!json).then(|| Narrator::new(address)), out }
    }

    pub(super) fn event(&mut self, name: &str, args: &[Box<RawValue>]) -> io::Result<()> {
        let now = now();
        match &mut self.narrator {
            Some(narrator) => {
                for line in narrator.describe(name, args) {
                    write_line(&mut self.out, &now, &line)?;
                }
            }
            None => writeln!(self.out, "{}", json_line(&now, name, args)?)?,
        }
        self.out.flush()
    }

    /// Says something about the connection; where events go out as JSON, on stderr.
    pub(super) fn notice(&mut self, text: &str) -> io::Result<()> {
        let text = plain(text, MAX_NOTICE);
        match self.narrator {
            Some(_) => write_line(&mut self.out, &now(), &paint(NEWS, &format!("── {text}")))?,
            None => eprintln!("{text}"),
        }
        self.out.flush()
    }
}

fn write_line(out: &mut impl Write, now: &Zoned, line: &str) -> io::Result<()> {
    let time = now.strftime("%H:%M:%S").to_string();
    writeln!(out, "{} {line}", paint(DIM, &time))
}

fn json_line(now: &Zoned, name: &str, args: &[Box<RawValue>]) -> io::Result<String> {
    let time = now.timestamp();
    let name = serde_json::to_string(name)?;
    let args: Vec<&str> = args.iter().map(|arg| arg.get()).collect();
    Ok(plain_json(&format!(r#"{{"time":"{time}","event":{name},"args":[{}]}}"#, args.join(","))))
}

fn now() -> Zoned {
    Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::system())
}
