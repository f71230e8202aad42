//! Lines that fit a terminal.

use unicode_width::UnicodeWidthChar;

/// The columns of the time and the kind of event, which continued lines leave blank.
const INDENT: usize = 16;

/// A narrower terminal breaks the lines itself.
const MIN_WIDTH: usize = 40;

/// Breaks a line so that no part is wider than `width` columns, between words if that is possible. Before
/// that it closes the gaps that columns without a value leave. Escape sequences have no width.
pub(super) fn fit(line: &str, width: usize) -> Vec<String> {
    if width < MIN_WIDTH || columns(line) <= width {
        return vec![line.to_owned()];
    }
    let (mut parts, mut part, mut used) = (Vec::new(), String::new(), 0);
    // The end of the last word of the part that is followed by a space.
    let mut break_at = None;
    for (character, columns_of_it) in measured(&without_gaps(line)) {
        if used + columns_of_it > width {
            let rest = if character == ' ' { String::new() } else { part.split_off(break_at.unwrap_or(part.len())) };
            parts.push(std::mem::take(&mut part).trim_end().to_owned());
            part = " ".repeat(INDENT) + rest.trim_start();
            (used, break_at) = (columns(&part), None);
        }
        if character == ' ' && used > INDENT {
            break_at = Some(part.len());
        }
        if character != ' ' || used != INDENT || parts.is_empty() {
            part.push(character);
            used += columns_of_it;
        }
    }
    parts.push(part);
    parts
}

fn columns(line: &str) -> usize {
    measured(line).map(|(_, columns)| columns).sum()
}

/// Returns each character with its columns; those of escape sequences, which are colours, have none.
fn measured(line: &str) -> impl Iterator<Item = (char, usize)> {
    let mut is_escape = false;
    line.chars().map(move |character| {
        let was_escape = is_escape;
        is_escape = character == '\x1b' || is_escape && character != 'm';
        (character, if is_escape || was_escape { 0 } else { character.width().unwrap_or(0) })
    })
}

/// Shortens runs of spaces to two.
fn without_gaps(line: &str) -> String {
    let (mut short, mut used, mut spaces) = (String::with_capacity(line.len()), 0, 0);
    for (character, columns) in measured(line) {
        spaces = if character == ' ' { spaces + 1 } else { 0 };
        used += columns;
        if spaces <= 2 || used <= INDENT {
            short.push(character);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::{ALARM, DIM, paint};

    const TIME: &str = "22:22:34 job    ";

    #[test]
    fn a_line_that_fits_stays_as_it_is() {
        let line = format!("{TIME}queued                             shot_010 anim 🎬  priority 40");
        assert_eq!(fit(&line, 80), [line.as_str()]);
        assert_eq!(fit(&line.repeat(9), 39), [line.repeat(9)], "the terminal is too narrow");
    }

    #[test]
    fn gaps_are_closed_before_a_line_is_broken() {
        let line = format!("{TIME}active                             shot_010 anim 🎬  was queued · priority 40");
        assert_eq!(fit(&line, 80), [format!("{TIME}active  shot_010 anim 🎬  was queued · priority 40")]);
    }

    #[test]
    fn lines_are_broken_between_words_and_long_words_within() {
        let words = format!("{TIME}{}", "frame ".repeat(20));
        let indent = " ".repeat(INDENT);
        let ten = "frame ".repeat(10);
        let expected = [format!("{TIME}{}", ten.trim_end()), format!("{indent}{}", ten)];
        assert_eq!(fit(&words, 80), expected);
        let word = "x".repeat(100);
        let expected = [format!("{TIME}{}", "x".repeat(64)), format!("{indent}{}", "x".repeat(36))];
        assert_eq!(fit(&format!("{TIME}{word}"), 80), expected);
    }

    #[test]
    fn no_part_is_wider_than_the_terminal_and_nothing_is_lost() {
        let words = ["shot_010", "🎬🎬", "пролёт", "レンダリング", "x", &"y".repeat(150), "·", &paint(ALARM, "failed")];
        let line = format!("{}{}", paint(DIM, TIME), words.join("  ").repeat(7));
        for width in 40..130 {
            let parts = fit(&line, width);
            assert!(parts.iter().all(|part| columns(part) <= width), "{width}: {parts:#?}");
            let without_spaces = |text: &str| text.replace(' ', "");
            assert_eq!(without_spaces(&parts.concat()), without_spaces(&line), "{width}");
        }
    }
}
