//! Base64 (RFC 4648, section 4) as far as `b4…` packets need it.

/// Appends the padded base64 form of `data`.
pub(super) fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        let digits = [18, 12, 6, 0].map(|shift| digit(bits >> shift & 63));
        let used = chunk.len() + 1;
        out.extend(digits.iter().take(used));
        out.extend(std::iter::repeat_n(b'=', 4 - used));
    }
}

/// The bytes `text` stands for; padding may be left out. `None` if it is not base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = match text.strip_suffix("==").or_else(|| text.strip_suffix('=')) {
        Some(digits) if text.len().is_multiple_of(4) => digits,
        Some(_) => return None,
        None => text,
    };
    let mut data = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for &digit in chunk {
            bits = bits << 6 | value(digit)?;
        }
        let bytes = (bits << (6 * (4 - chunk.len()))).to_be_bytes();
        match chunk.len() {
            1 => return None,
            used => data.extend(bytes.iter().skip(1).take(used - 1)),
        }
    }
    Some(data)
}

fn digit(value: u32) -> u8 {
    let value = u8::try_from(value).expect("six bits fit a byte");
    match value {
        0..26 => b'A' + value,
        26..52 => b'a' + (value - 26),
        52..62 => b'0' + (value - 52),
        62 => b'+',
        _ => b'/',
    }
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn vectors_of_the_specification() {
        for (data, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut encoded = Vec::new();
            encode(data.as_bytes(), &mut encoded);
            assert_eq!(encoded, text.as_bytes());
            assert_eq!(decode(text).as_deref(), Some(data.as_bytes()));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(data.as_bytes()));
        }
    }

    #[test]
    fn every_digit_is_its_own_inverse() {
        for number in 0..64 {
            assert_eq!(value(digit(number)), Some(number));
        }
    }
}
