//! The configuration file.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{
    Command,
    builder::{OsStr, Resettable},
    error::{ContextKind, ContextValue},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// How similar a known name must be to be suggested for an unknown one.
const SIMILAR: f64 = 0.8;

/// Why a configuration file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}", lines(path, mistakes))]
    Mistakes { path: PathBuf, mistakes: Vec<Mistake> },
}

/// One mistake in a configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {what}")]
pub struct Mistake {
    line: usize,
    what: What,
}

#[derive(Debug, thiserror::Error)]
enum What {
    #[error("not TOML: {0}")]
    NotToml(String),
    #[error("`{name}` is not an option; did you mean `{suggestion}`?")]
    Misspelt { name: String, suggestion: String },
    #[error("`{0}` is not an option; `config example` prints all of them")]
    Unknown(String),
    #[error("`{0}` must be a text, a number, a boolean, or a list of them")]
    WrongType(String),
    #[error("the value of `{name}` is not accepted: {reason}")]
    BadValue { name: String, reason: String },
}

fn lines(path: &Path, mistakes: &[Mistake]) -> impl fmt::Display {
    let lines: Vec<_> = mistakes.iter().map(|mistake| format!("{}:{mistake}", path.display())).collect();
    lines.join("\n       ")
}

/// Makes the values of a configuration file the defaults of the options of `serve`.
///
/// # Errors
///
/// The file cannot be read, or it has mistakes: all of them, with their lines.
pub fn with_file(serve: Command, path: &Path) -> Result<Command, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    with_text(serve, &text).map_err(|mistakes| FileError::Mistakes { path: path.to_owned(), mistakes })
}

fn with_text(mut serve: Command, text: &str) -> Result<Command, Vec<Mistake>> {
    let mistake = |span: Range<usize>, what| Mistake { line: line(text, span.start), what };
    let table = DeTable::parse(text)
        .map_err(|error| vec![mistake(error.span().unwrap_or_default(), What::NotToml(error.message().to_owned()))])?;
    let alone = serve.clone().mut_args(|argument| argument.env(Resettable::Reset));
    let mut mistakes = Vec::new();
    for (name, value) in table.into_inner() {
        match default_of(&serve, &alone, name.get_ref(), value.get_ref()) {
            Ok((id, values)) => serve = serve.mut_arg(id, |argument| argument.default_values(values)),
            Err(what @ (What::Misspelt { .. } | What::Unknown(_) | What::NotToml(_))) => {
                mistakes.push(mistake(name.span(), what));
            }
            Err(what @ (What::WrongType(_) | What::BadValue { .. })) => mistakes.push(mistake(value.span(), what)),
        }
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(serve) } else { Err(mistakes) }
}

/// Returns the option of this name with the values that the file gives it. `alone` is the command
/// without its environment.
fn default_of(
    serve: &Command,
    alone: &Command,
    name: &str,
    value: &DeValue<'_>,
) -> Result<(clap::Id, Vec<OsStr>), What> {
    let mut known = serve.get_arguments().filter(|argument| argument.get_long() != Some("config"));
    let Some(argument) = known.find(|argument| argument.get_long() == Some(name)) else {
        return Err(unknown(serve, name));
    };
    let id = argument.get_id().clone();
    let values = as_texts(value).ok_or_else(|| What::WrongType(name.to_owned()))?;
    let defaults = values.clone();
    let alone = alone.clone().mut_arg(&id, |argument| argument.default_values(defaults));
    match alone.no_binary_name(true).try_get_matches_from::<[&str; 0], _>([]) {
        Ok(_) => Ok((id, values)),
        Err(error) => Err(What::BadValue { name: name.to_owned(), reason: reason(&error) }),
    }
}

/// Returns why a value is not accepted, without the value: it may be a secret.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) => format!("it must be one of {}", valid.join(", ")),
        Some(_) | None => "it must not be empty".to_owned(),
    }
}

fn unknown(serve: &Command, name: &str) -> What {
    let dashed = name.replace('_', "-");
    let known = serve.get_arguments().filter_map(|argument| argument.get_long()).filter(|known| *known != "config");
    let similar =
        known.map(|known| (strsim::jaro(known, &dashed), known)).filter(|(similarity, _)| *similarity > SIMILAR);
    match similar.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((_, suggestion)) => What::Misspelt { name: name.to_owned(), suggestion: suggestion.to_owned() },
        None => What::Unknown(name.to_owned()),
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn as_texts(value: &DeValue<'_>) -> Option<Vec<OsStr>> {
    match value {
        DeValue::String(text) => Some(vec![text.to_string().into()]),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(vec![number.to_string().into()])
        }
        DeValue::Boolean(yes) => Some(vec![yes.to_string().into()]),
        DeValue::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(Spanned::get_ref).map(as_texts).collect();
            Some(texts?.concat())
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}
