//! Colours and shapes.

use anstyle::{AnsiColor, Style};

use super::text::plain;

pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const ALARM: Style = AnsiColor::Red.on_default();
pub(super) const NEWS: Style = AnsiColor::Cyan.on_default();

/// Width of the column for state words; the longer ones are rare.
const STATE_WIDTH: usize = 11;
const BAR_WIDTH: i128 = 10;
const MAX_STATE: usize = 20;

pub(super) fn paint(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

/// Returns a status word in its colour, padded to the width of its column. An unknown word has no
/// colour.
pub(super) fn state(word: &str) -> String {
    let word = plain(word, MAX_STATE);
    let style = match word.as_str() {
        "active" | "starting" | "testing" => AnsiColor::Cyan.on_default().bold(),
        "completed" | "awake" => AnsiColor::Green.on_default(),
        "queued" | "requeueing" | "waiting" | "restart" | "under-construction" => AnsiColor::Yellow.on_default(),
        "soft-failed" => AnsiColor::Magenta.on_default(),
        "failed" | "error" | "inoperative" => AnsiColor::Red.on_default().bold(),
        "canceled" | "cancel-requested" | "deleted" => AnsiColor::Red.on_default(),
        "paused" | "pause-requested" | "asleep" | "idle" => AnsiColor::Blue.on_default(),
        "offline" | "unknown" => DIM,
        _ => Style::new(),
    };
    let gap = STATE_WIDTH.saturating_sub(word.chars().count());
    paint(style, &word) + &" ".repeat(gap)
}

/// A bar for steps done of steps in all; blank of the same width when that says nothing.
pub(super) fn bar(completed: Option<i64>, total: Option<i64>) -> String {
    let (Some(completed), Some(total @ 1..)) = (completed, total) else {
        return " ".repeat(BAR_WIDTH as usize + 10);
    };
    let share = i128::from(completed.clamp(0, total)) * BAR_WIDTH / i128::from(total);
    let full = "▰".repeat(share as usize);
    let rest = "▱".repeat((BAR_WIDTH - share) as usize);
    let count = format!("{completed}/{total}");
    format!("{}{} {count:>9}", paint(AnsiColor::Green.on_default(), &full), paint(DIM, &rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn states_have_colours_and_a_column() {
        assert_eq!(state("failed"), "\u{1b}[1m\u{1b}[31mfailed\u{1b}[0m     ");
        assert_eq!(bare(&state("pause-requested")), "pause-requested");
        assert_eq!(state("\u{1b}[31m"), "␛[31m      ");
        assert_eq!(state(""), " ".repeat(STATE_WIDTH));
    }

    #[test]
    fn bars_grow_with_the_steps_and_survive_nonsense() {
        for (completed, total, expected) in [
            (Some(0), Some(25), "▱▱▱▱▱▱▱▱▱▱      0/25"),
            (Some(12), Some(25), "▰▰▰▰▱▱▱▱▱▱     12/25"),
            (Some(24), Some(25), "▰▰▰▰▰▰▰▰▰▱     24/25"),
            (Some(25), Some(25), "▰▰▰▰▰▰▰▰▰▰     25/25"),
            (Some(30), Some(25), "▰▰▰▰▰▰▰▰▰▰     30/25"),
            (Some(-1), Some(1), "▱▱▱▱▱▱▱▱▱▱      -1/1"),
            (Some(0), Some(0), "                    "),
            (None, None, "                    "),
        ] {
            assert_eq!(bare(&bar(completed, total)), expected);
        }
        assert!(bare(&bar(Some(i64::MAX), Some(i64::MAX))).starts_with("▰▰▰▰▰▰▰▰▰▰ "));
    }
}
