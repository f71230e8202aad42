//! Remote text made safe for a terminal.

/// The text with everything taken out that a terminal would obey instead of show, and cut after `max` characters.
///
/// Control characters become visible signs: an escape sequence in a job's name can move no cursor, set no title and ring
/// no bell. So do the characters that turn the direction of the text around them, because they could make one thing
/// look like another.
pub(super) fn plain(text: &str, max: usize) -> String {
    let mut plain = String::with_capacity(text.len().min(max));
    for (index, character) in text.chars().enumerate() {
        if index == max {
            plain.push('…');
            break;
        }
        match character {
            '\t' => plain.push_str("    "),
            // The "control pictures" stand at the same distance from U+2400 as what they picture from 0.
            '\0'..='\x1f' => plain.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}')),
            '\x7f' => plain.push('\u{2421}'),
            _ if is_unsafe(character) => plain.push('\u{fffd}'),
            _ => plain.push(character),
        }
    }
    plain
}

/// JSON text on one line and without raw characters that a terminal would obey. It stays the same value: inside strings
/// they are escaped, and outside there can only be white space.
pub(super) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, '\n' | '\r' | '\t') {
            plain.push(' ');
        } else if character == '\x7f' || is_unsafe(character) {
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Controls of the upper half, line separators, and what changes the direction of text.
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, expected) in [
            ("shot_010 “lighting” 🎬 👩🏽‍🚀 مشهد", "shot_010 “lighting” 🎬 👩🏽‍🚀 مشهد"),
            ("\x1b[2J\x1b]0;owned\x07", "␛[2J␛]0;owned␇"),
            ("a\r\nb\x08\x7f\0", "a␍␊b␈␡␀"),
            ("\u{9b}31m\u{85}", "\u{fffd}31m\u{fffd}"),
            ("abc\u{202e}fdp.exe\u{2069}", "abc\u{fffd}fdp.exe\u{fffd}"),
            ("a\tb", "a    b"),
        ] {
            assert_eq!(plain(text, 100), expected);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(plain("čekaj", 5), "čekaj");
        assert_eq!(plain("čekaj", 3), "ček…");
    }

    #[test]
    fn json_keeps_its_value_on_one_line() {
        let json = "{\"a\":\n [\"\u{9b}31m\u{7f}\u{202e}\",\t\"\\u001b\"]\r}";
        let plain = plain_json(json);
        assert_eq!(plain, "{\"a\":  [\"\\u009b31m\\u007f\\u202e\", \"\\u001b\"] }");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(json), value(&plain));
    }
}
