//! The format of log lines.

use std::io::{self, Write};

use clap::Args;
use env_logger::fmt::Formatter;
use log::{
    Record,
    kv::{self, Key, Value, VisitSource},
};
use serde_json::Map;

use crate::options::heading;

/// The format of log lines on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// The options of the log.
#[derive(Debug, Clone, Copy, Args)]
pub struct LogOptions {
    /// Format of log lines on stderr
    #[arg(long, value_name = "FORMAT", env = "WEBUPDATES_LOG_FORMAT", value_enum, default_value = "text", help_heading = heading::LISTENING, hide_short_help = true)]
    pub log_format: LogFormat,
}

/// Writes a record as one line of JSON: `time`, `level`, `target` and `message`, then its own keys.
///
/// # Errors
///
/// The line cannot be written.
pub fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut line = Map::new();
    // Own keys first, so that none replaces one of the four.
    record.key_values().visit(&mut Fields(&mut line)).map_err(io::Error::other)?;
    line.insert("time".to_owned(), out.timestamp_millis().to_string().into());
    line.insert("level".to_owned(), record.level().as_str().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

struct Fields<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = match value.to_u64() {
            Some(number) => number.into(),
            None => value.to_string().into(),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}
