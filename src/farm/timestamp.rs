//! Times as the Manager writes them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Serialize, Serializer};

use super::json::{self, FieldError, FromJson, Problem};

/// The length of `2026-11-23T08:00:00.123456789+01:00`, the longest text.
const MAX_LENGTH: usize = 35;
/// What Go prints for a time that was never set.
const GO_ZERO: &str = "0001-01-01T00:00:00Z";
/// The format of the part before the fraction and the offset; `0` is any digit.
const DATE_TIME: &[u8; 19] = b"0000-00-00T00:00:00";

/// An RFC 3339 time with any offset and up to nanoseconds.
///
/// It keeps its text, and compares as the instant that the text names: the same instant written
/// with two offsets is equal.
#[derive(Clone, Copy)]
pub struct Timestamp {
    text: ArrayString<MAX_LENGTH>,
    at: jiff::Timestamp,
}

/// The text is not a time of RFC 3339 with at most nine digits of fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// Go's zero time, which the Manager sends where there is no time, for example for a worker
    /// that has just registered.
    pub fn zero() -> Self {
        GO_ZERO.parse().expect("Go's zero time is a time")
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Prints the time in UTC with as many digits as needed, as Go does. Times before the year 0 become
/// Go's zero time.
impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        at.to_string().parse().unwrap_or_else(|InvalidTimestamp| Self::zero())
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let at = instant(text).ok_or(InvalidTimestamp)?;
        let text = ArrayString::from(text).map_err(|_| InvalidTimestamp)?;
        Ok(Self { text, at })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.at.hash(state);
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromJson for Timestamp {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        Ok(json::text(json)?.parse().map_err(|InvalidTimestamp| Problem::NotATime)?)
    }
}

/// Parses the instant in `text` with jiff. The format is checked first, because jiff accepts more
/// than RFC 3339 §5.6 allows.
fn instant(text: &str) -> Option<jiff::Timestamp> {
    if has_the_shape(text.as_bytes()) { text.parse().ok() } else { None }
}

fn has_the_shape(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(DATE_TIME.len()) else { return false };
    let digit = |byte: &u8| byte.is_ascii_digit();
    let is_date_time = date_time.iter().zip(DATE_TIME).all(|(byte, wanted)| match wanted {
        b'0' => digit(byte),
        wanted => byte.eq_ignore_ascii_case(wanted),
    });
    let offset = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|byte| digit(byte)).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        Some(_) | None => rest,
    };
    let is_offset = match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hour @ .., b':', m1, m2] => {
            hour.len() == 2 && hour <= b"23" && hour.iter().chain([m1, m2]).all(digit)
        }
        _ => false,
    };
    is_date_time && is_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn texts_printed_by_go_are_parsed_and_kept() {
        for text in [
            GO_ZERO,
            "2026-11-23T17:19:32.497942793Z",
            "2026-11-23T08:00:00.123456789+01:00",
            "2026-11-23T08:00:00.1-09:30",
            "2026-11-23T08:00:00Z",
            "2024-02-29T23:59:59.000000001+23:59",
            "0000-01-01T00:00:00+23:59",
            "9999-12-30T21:59:59.999999999Z",
            "2026-11-23t08:00:00z",
        ] {
            assert_eq!(time(text).as_str(), text);
            assert_eq!(serde_json::to_string(&time(text)).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn what_rfc_3339_does_not_allow_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-23",
            "2026-11-23T08:00:00",
            "2026-11-23 08:00:00Z",
            "2026-11-23T08:00Z",
            "2026-11-23T08:00:00.Z",
            "2026-11-23T08:00:00,5Z",
            "2026-11-23T08:00:00.1234567890Z",
            "2026-11-23T08:00:00+01",
            "2026-11-23T08:00:00+0100",
            "2026-11-23T08:00:00+24:00",
            "2026-11-23T08:00:00+01:60",
            "2026-11-23T08:00:00Z[Europe/Berlin]",
            "2026-11-23T08:00:00ZZ",
            " 2026-11-23T08:00:00Z",
            "+02026-11-23T08:00:00Z",
            "-001-11-23T08:00:00Z",
            "2026-13-23T08:00:00Z",
            "2026-02-29T08:00:00Z",
            "2026-11-00T08:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T08:60:00Z",
            "2026-11-23T08:00:61Z",
            "2026-11-23T08:00:0٣Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn times_compare_as_instants() {
        assert_eq!(time("2026-11-23T08:00:00+01:00"), time("2026-11-23T07:00:00.000Z"));
        let ascending = [
            GO_ZERO,
            "1969-12-31T23:59:59.999999999Z",
            "2026-11-23T08:00:00+01:00",
            "2026-11-23T07:00:00.000000001Z",
            "2026-11-23T07:00:00.1Z",
            "2026-11-23T06:30:00-00:31",
        ];
        for pair in ascending.windows(2) {
            assert!(time(pair[0]) < time(pair[1]), "{pair:?}");
        }
    }

    /// jiff has no leap seconds.
    #[test]
    fn a_leap_second_is_the_second_before_it() {
        assert_eq!(time("2016-12-31T23:59:60Z"), time("2016-12-31T23:59:59Z"));
        assert_eq!(time("2016-12-31T23:59:60Z").as_str(), "2016-12-31T23:59:60Z");
    }

    #[test]
    fn a_time_of_jiff_is_printed_as_go_prints_it() {
        for (nanosecond, text) in [
            (1_795_454_372_497_942_793, "2026-11-23T17:19:32.497942793Z"),
            (1_795_454_372_500_000_000, "2026-11-23T17:19:32.5Z"),
            (1_795_454_372_000_000_000, "2026-11-23T17:19:32Z"),
        ] {
            assert_eq!(Timestamp::from(jiff::Timestamp::from_nanosecond(nanosecond).unwrap()).as_str(), text);
        }
        assert_eq!(Timestamp::from(jiff::Timestamp::MAX).as_str(), "9999-12-30T22:00:00.999999999Z");
        assert_eq!(Timestamp::from(jiff::Timestamp::MIN), Timestamp::zero());
    }
}
