//! `replay`: posts the events of a recording to a server.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use awc::{
    Client,
    http::{StatusCode, header},
};
use client::{Backoff, clock};
use fastrand::Rng;
use tokio::time::sleep;

use crate::{MAX_ANSWER, Port, RecordError, line, refusal};

/// The maximum length of a line, which is also that of a server's `--max-body`, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// The maximum number and size of the events of one request.
const MAX_BATCH: usize = 100;
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// How long a server may be away or overloaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the progress is shown on a terminal.
const PROGRESS: Duration = Duration::from_secs(1);

/// Post the events of a recording to a server
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayOptions {
    /// Recording of `record`, or any file with one event per line; - reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    port: Port,

    /// How many times faster than recorded, or `max` for as fast as the server takes the events
    #[arg(long, value_name = "N|max", default_value_t = Speed::Times(1.0))]
    speed: Speed,

    /// Give each event a new id, so that a server that has had the recording takes it again
    #[arg(long)]
    new_ids: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "max" => Ok(Self::Max),
            Ok(times) if (0.001..=1e6).contains(&times) => Ok(Self::Times(times)),
            Ok(_) | Err(_) => Err("expected max, or a number from 0.001 to 1000000"),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => fmt::Display::fmt(times, f),
            Self::Max => f.write_str("max"),
        }
    }
}

/// Replays a recording to its end.
///
/// # Errors
///
/// The file cannot be read, a line is no event, or the server refuses the events or stays away.
pub fn replay(options: &ReplayOptions) -> Result<(), RecordError> {
    let name = options.file.display().to_string();
    let file: Box<dyn BufRead> = if options.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&options.file).map_err(|error| RecordError::File(name.clone(), error))?))
    };
    let client = options.port.client()?;
    let mut replayer = Replayer { options, client, batch: Vec::new(), bytes: 0, posted: 0, shown: clock::now() };
    let began = clock::now();
    actix_rt::System::new().block_on(replayer.run(file, &name))?;
    eprintln!("replay: {} events in {:.1} s", replayer.posted, (clock::now() - began).as_secs_f32());
    Ok(())
}

struct Replayer<'a> {
    options: &'a ReplayOptions,
    client: Client,
    /// Events that wait for a request.
    batch: Vec<String>,
    bytes: usize,
    posted: u64,
    shown: Instant,
}

impl Replayer<'_> {
    async fn run(&mut self, mut file: Box<dyn BufRead>, name: &str) -> Result<(), RecordError> {
        let (began, mut first) = (clock::now(), None);
        let run = Rng::new().u64(..);
        for number in 1.. {
            let mut text = String::new();
            let read = file.by_ref().take(MAX_LINE + 1).read_line(&mut text);
            match read.map_err(|error| RecordError::File(name.to_owned(), error))? {
                0 => break,
                read if read as u64 > MAX_LINE => {
                    return Err(RecordError::Line(number, format!("longer than {MAX_LINE} bytes")));
                }
                _ if text.trim().is_empty() => continue,
                _ => {}
            }
            let id = format!("replay-{run:016x}-{number}");
            let posting =
                line::read(text.trim(), &id, self.options.new_ids).map_err(|error| RecordError::Line(number, error))?;
            if let (Speed::Times(times), Some(at)) = (self.options.speed, posting.at) {
                let since = at.saturating_sub(*first.get_or_insert(at));
                let due = began + since.div_f64(times);
                if due > clock::now() {
                    self.post().await?;
                    sleep(due.saturating_duration_since(clock::now())).await;
                }
            }
            self.bytes += posting.json.len();
            self.batch.push(posting.json);
            if self.batch.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES {
                self.post().await?;
            }
        }
        self.post().await
    }

    /// Posts what waits. The events have ids, so a request that is repeated publishes none twice.
    async fn post(&mut self) -> Result<(), RecordError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let body = format!("[{}]", self.batch.join(","));
        let (backoff, mut rng, began) = (Backoff::default(), Rng::new(), clock::now());
        for failures in 1.. {
            match self.try_post(&body).await {
                Ok(()) => break,
                Err((error, can_pass)) if !can_pass || clock::now() - began > PATIENCE => return Err(error),
                Err(_) => sleep(backoff.wait(failures, &mut rng)).await,
            }
        }
        self.posted += self.batch.len() as u64;
        self.batch.clear();
        self.bytes = 0;
        if io::stderr().is_terminal() && clock::now() - self.shown > PROGRESS {
            eprintln!("replay: {} events", self.posted);
            self.shown = clock::now();
        }
        Ok(())
    }

    /// Posts once. Returns with an error whether it may pass.
    async fn try_post(&self, body: &str) -> Result<(), (RecordError, bool)> {
        let url = self.options.port.url.to_string();
        let request = self.client.post(self.options.port.events());
        let request = request.insert_header((header::CONTENT_TYPE, "application/json"));
        let response = request.send_body(body.to_owned()).await;
        let mut response =
            response.map_err(|error| (RecordError::Unreachable(url.clone(), error.to_string()), true))?;
        let (status, body) = (response.status(), response.body().limit(MAX_ANSWER).await.unwrap_or_default());
        match status {
            StatusCode::OK => Ok(()),
            status => {
                let can_pass = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
                Err((RecordError::Refused(url, status.as_u16(), refusal(&body)), can_pass))
            }
        }
    }
}
