//! `simulate-farm`: the farm's events as NDJSON on stdout.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Farm, Settings};
use crate::clock;
use crate::farm::FarmEvent;

/// When a simulated Manager starts unless somebody says otherwise: fixed, or the same seed would not give the same bytes.
const START: &str = "2026-01-01T08:00:00Z";

/// Print the events of a simulated render farm, one JSON object a line.
///
/// This is what a Manager posts to /api/events as application/x-ndjson, or feeds to a server that was started with
/// --events-from-stdin. The farm lives until --duration is over or nobody reads any more.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Workers on the farm
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub workers: u32,

    /// Unfinished jobs there are at a time; when one ends the next is submitted
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub jobs: u32,

    /// Events per second, evenly spaced; 0 is as fast as they can be written [default: in the farm's own time]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,

    /// Stop the Manager after this long, such as 90s or 5m: of real time, with --rate 0 of the farm's [default: never]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Where chance starts. The same seed (with the same --workers, --jobs and --start) gives the same bytes, ids of the
    /// events included, so that a server that has just had them takes them for repetitions [default: another one each
    /// time, told on stderr]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// When the Manager starts, as RFC 3339; all time stamps count from here
    #[arg(long, value_name = "TIME", default_value = START, value_parser = start)]
    pub start: Timestamp,
}

/// Why the events could not be printed to the end.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error("cannot write the events: {0}")]
    Output(#[from] io::Error),
}

/// Prints until the duration is over. That nobody reads any more is no error.
pub fn run(options: &Options) -> Result<(), StreamError> {
    let seed = options.seed.unwrap_or_else(|| {
        let seed = fastrand::u64(..);
        eprintln!("simulate-farm: --seed {seed}");
        seed
    });
    let settings =
        Settings { workers: options.workers as usize, jobs: options.jobs as usize, seed, start: options.start };
    let pace = match options.rate {
        None => Pace::OwnTime,
        Some(0.0) => Pace::Flat,
        Some(rate) => Pace::PerSecond(rate),
    };
    let begin = clock::now();
    let wait = |until: Duration| thread::sleep((begin + until).saturating_duration_since(clock::now()));
    match print(settings, pace, options.duration, &mut io::stdout().lock(), wait) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// When events are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// When they happen on the farm.
    OwnTime,
    /// At once, however long they take on the farm.
    Flat,
    /// One after the other at this rate, whatever the time on the farm.
    PerSecond(f64),
}

/// Writes one line an event; `wait` returns once that much time is over since the begin.
pub(super) fn print(
    settings: Settings,
    pace: Pace,
    duration: Option<Duration>,
    out: &mut impl Write,
    mut wait: impl FnMut(Duration),
) -> io::Result<()> {
    let mut no = 0;
    for (due, event) in Farm::new(settings) {
        let due = match pace {
            Pace::OwnTime | Pace::Flat => due,
            Pace::PerSecond(rate) => Duration::from_secs_f64(no as f64 / rate),
        };
        if duration.is_some_and(|duration| due > duration) {
            break;
        }
        if pace != Pace::Flat {
            wait(due);
        }
        write_line(out, &settings, no, &event)?;
        no += 1;
    }
    write_line(out, &settings, no, &Farm::shutdown())
}

fn write_line(out: &mut impl Write, settings: &Settings, no: u64, event: &FarmEvent) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: String,
        #[serde(rename = "type")]
        kind: &'static str,
        payload: &'a RawValue,
    }
    let Settings { seed, workers, jobs, start } = settings;
    let line = Line {
        id: format!("sim-{seed}-{workers}x{jobs}-{}-{no}", start.as_second()),
        kind: event.kind().as_str(),
        payload: serde_json::from_str(event.json())?,
    };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(rate) if rate == 0.0 || (0.001..=1e9).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("a number of events per second is due: 0, or at least 0.001"),
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let duration: SignedDuration = text.parse().map_err(|_| "a time such as 90s, 5m or 1h is due")?;
    duration.try_into().map_err(|_| "a time that is not negative is due")
}

fn start(text: &str) -> Result<Timestamp, &'static str> {
    match text.parse() {
        Ok(start) if start >= Timestamp::UNIX_EPOCH => Ok(start),
        Ok(_) | Err(_) => Err("a time such as 2026-01-01T08:00:00Z is due, not before 1970"),
    }
}
