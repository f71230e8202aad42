//! `simulate-farm`: the farm's events as NDJSON on stdout.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Farm, Settings};
use client::clock;
use farm::FarmEvent;

/// The default start of a simulated Manager. It is fixed, so that the same seed gives the same bytes.
const START: &str = "2026-01-01T08:00:00Z";

/// Print the events of a simulated render farm, one JSON object per line
///
/// A Manager posts this format to /api/events as application/x-ndjson; a server with --events-from-stdin reads it. The
/// farm runs until --duration is over or the output is closed.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Workers on the farm
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub workers: u32,

    /// Number of unfinished jobs; when one ends, the next is submitted
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub jobs: u32,

    /// Events per second, evenly spaced; 0 means as fast as possible [default: the farm's own pace]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,

    /// Stop the Manager after this time, e.g. 90s or 5m; real time, or the farm's time with --rate 0 [default: never]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Seed of the random numbers. The same seed (with the same --workers, --jobs and --start) gives the same bytes, ids of the
    /// events included, so a server that has just had them treats them as repetitions [default: random, printed on
    /// stderr]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Start time of the Manager (RFC 3339); all timestamps count from it
    #[arg(long, value_name = "TIME", default_value = START, value_parser = start)]
    pub start: Timestamp,
}

/// Why the events could not be printed to the end.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error("cannot write the events: {0}")]
    Output(#[from] io::Error),
}

/// Prints events until the duration is over. A closed output is not an error.
///
/// # Errors
///
/// The output cannot be written, for another reason than that it is closed.
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
        Ok(_) | Err(_) => Err("expected a number of events per second: 0, or at least 0.001"),
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let duration: SignedDuration = text.parse().map_err(|_| "expected a duration such as 90s, 5m or 1h")?;
    duration.try_into().map_err(|_| "a duration cannot be negative")
}

fn start(text: &str) -> Result<Timestamp, &'static str> {
    match text.parse() {
        Ok(start) if start >= Timestamp::UNIX_EPOCH => Ok(start),
        Ok(_) | Err(_) => Err("expected a time such as 2026-01-01T08:00:00Z, not before 1970"),
    }
}
