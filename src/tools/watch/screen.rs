//! Where lines are printed.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::value::RawValue;

use super::fit::fit;
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
    /// Returns the width of the terminal; without it lines may have any.
    columns: Option<fn() -> usize>,
    out: W,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(json: bool, address: Option<Address>, columns: Option<fn() -> usize>, out: W) -> Self {
        Self { narrator: (!json).then(|| Narrator::new(address)), columns, out }
    }

    pub(super) fn event(&mut self, name: &str, args: &[Box<RawValue>]) -> io::Result<()> {
        let now = now();
        match &mut self.narrator {
            Some(narrator) => {
                for line in narrator.describe(name, args) {
                    write_line(&mut self.out, &now, &line, self.columns)?;
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
            Some(_) => write_line(&mut self.out, &now(), &paint(NEWS, &format!("── {text}")), self.columns)?,
            None => eprintln!("{text}"),
        }
        self.out.flush()
    }
}

fn write_line(out: &mut impl Write, now: &Zoned, line: &str, columns: Option<fn() -> usize>) -> io::Result<()> {
    let line = format!("{} {line}", paint(DIM, &now.strftime("%H:%M:%S").to_string()));
    match columns {
        Some(columns) => fit(&line, columns()).iter().try_for_each(|part| writeln!(out, "{part}")),
        None => writeln!(out, "{line}"),
    }
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
