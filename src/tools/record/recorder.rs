//! `record`: what a server publishes, one event per line.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use awc::{Client, http::StatusCode};
use bytes::BytesMut;
use client::Backoff;
use fastrand::Rng;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use crate::{MAX_ANSWER, Port, RecordError, line, refusal};

/// The time without a line after which the connection counts as broken. The server sends an empty
/// line every 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// Record everything that a server publishes, one event per line, for `replay`
///
/// A broken connection is made again, and nothing is missed as long as the server's --history goes back that far. Each
/// line has the event's id, its offset and time in the server's history, its type and its payload.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordOptions {
    #[command(flatten)]
    port: Port,

    /// Begin after the event with this id, or with the `oldest` one of the server's history [default: now]
    #[arg(long, value_name = "ID")]
    since: Option<String>,

    /// File for the recording, to which is appended [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Records until it is interrupted. A closed output is not an error.
///
/// # Errors
///
/// The server cannot be reached at the start, refuses the request, or the output cannot be written.
pub fn record(options: &RecordOptions) -> Result<(), RecordError> {
    let client = options.port.client()?;
    let output: Box<dyn Write> = match &options.output {
        Some(path) => Box::new(File::options().create(true).append(true).open(path).map_err(RecordError::Output)?),
        None => Box::new(io::stdout()),
    };
    let mut recorder = Recorder { options, client, output, since: options.since.clone(), events: 0 };
    let ended = actix_rt::System::new().block_on(async {
        tokio::select! {
            result = recorder.run() => result,
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(RecordError::Output),
        }
    });
    match ended {
        Err(RecordError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => {
            eprintln!("record: {} events", recorder.events);
            result
        }
    }
}

struct Recorder<'a> {
    options: &'a RecordOptions,
    client: Client,
    output: Box<dyn Write>,
    /// The id of the last event that was written.
    since: Option<String>,
    events: u64,
}

impl Recorder<'_> {
    async fn run(&mut self) -> Result<(), RecordError> {
        let (backoff, mut rng) = (Backoff::default(), Rng::new());
        let (mut failures, mut was_there) = (0, false);
        loop {
            let ended = match self.follow(&mut was_there, &mut failures).await {
                Err(error @ (RecordError::Unreachable(..) | RecordError::Refused(..))) if was_there => {
                    error.to_string()
                }
                Err(error) => return Err(error),
                Ok(why) => why,
            };
            eprintln!("record: {ended}; connecting again");
            failures += 1;
            sleep(backoff.wait(failures, &mut rng)).await;
        }
    }

    /// Writes what comes until the connection ends, and returns why it did.
    async fn follow(&mut self, was_there: &mut bool, failures: &mut u32) -> Result<String, RecordError> {
        let url = &self.options.port.url;
        let mut request = self.client.get(self.options.port.events());
        if let Some(since) = &self.since {
            request = request.query(&[("since", since)]).expect("a text is a query");
        }
        let response = request.send().await;
        let mut response = response.map_err(|error| RecordError::Unreachable(url.to_string(), error.to_string()))?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.body().limit(MAX_ANSWER).await.unwrap_or_default();
            let error = RecordError::Refused(url.to_string(), status.as_u16(), refusal(&body));
            if status == StatusCode::GONE && *was_there {
                self.since = None;
                return Ok(format!("events are missing here: {error}"));
            }
            return Err(error);
        }
        (*was_there, *failures) = (true, 0);
        let mut response = response.timeout(Duration::MAX);
        let mut received = BytesMut::new();
        loop {
            match timeout(SILENCE, response.next()).await {
                Ok(Some(Ok(chunk))) => {
                    received.extend_from_slice(&chunk);
                    self.write(&mut received).map_err(RecordError::Output)?;
                }
                Ok(Some(Err(error))) => return Ok(format!("the connection broke: {error}")),
                Ok(None) => return Ok("the server closed the connection".to_owned()),
                Err(_) => return Ok(format!("nothing came for {} s", SILENCE.as_secs())),
            }
        }
    }

    /// Writes the lines that are complete.
    fn write(&mut self, received: &mut BytesMut) -> io::Result<()> {
        let Some(end) = received.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let lines = received.split_to(end + 1);
        let mut last = None;
        for line in lines[..].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.output.write_all(line)?;
            self.output.write_all(b"\n")?;
            self.events += 1;
            last = Some(line);
        }
        self.output.flush()?;
        self.since = last.and_then(line::id).or_else(|| self.since.take());
        Ok(())
    }
}
