//! Points in time as the Manager writes them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use arrayvec::ArrayString;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde::{Serialize, Serializer};

use super::json::{self, FieldError, FromJson, Problem};

/// Length of `2026-11-23T08:00:00.123456789+01:00`, the longest text there is.
const MAX_LENGTH: usize = 35;
/// What Go prints for a time that was never set.
const GO_ZERO: &str = "0001-01-01T00:00:00Z";
const UNIX_EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const SECONDS_PER_DAY: i64 = 86_400;

/// A time of RFC 3339 with any offset and up to nanoseconds.
///
/// It keeps the text it was read from, and compares as the instant that the text names: the same moment written with
/// two offsets is equal.
#[derive(Clone, Copy)]
pub struct Timestamp {
    text: ArrayString<MAX_LENGTH>,
    since_epoch: SignedDuration,
}

/// The text is not a time of RFC 3339 with at most nine digits of fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// Go's zero time: what the Manager sends where there is no time, for instance for a worker that just registered.
    pub fn zero() -> Self {
        GO_ZERO.parse().expect("Go's zero time is a time")
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Printed in UTC with as many digits as needed, like Go does it. What is before the year 0 becomes Go's zero time.
impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        at.to_string().parse().unwrap_or_else(|InvalidTimestamp| Self::zero())
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let since_epoch = instant(text.as_bytes()).ok_or(InvalidTimestamp)?;
        let text = ArrayString::from(text).map_err(|_| InvalidTimestamp)?;
        Ok(Self { text, since_epoch })
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
        self.since_epoch == other.since_epoch
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
        self.since_epoch.cmp(&other.since_epoch)
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.since_epoch.hash(state);
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

/// The instant that `text` names, as the time since 1970 in UTC (RFC 3339 §5.6).
///
/// The shape is checked here because jiff's own parser takes more than the RFC allows; the calendar is jiff's.
fn instant(text: &[u8]) -> Option<SignedDuration> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let &[y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T' | b't', h1, h2, b':', mi1, mi2, b':', s1, s2] = date_time
    else {
        return None;
    };
    let (nanosecond, offset) = fraction(rest)?;
    let second = digits(&[s1, s2])?;
    // RFC 3339 has leap seconds, jiff has none: 23:59:60 is read as one second after 23:59:59.
    let leap = second == 60;
    let year = i16::try_from(digits(&[y1, y2, y3, y4])?).ok()?;
    let two = |tens, ones| digits(&[tens, ones]).and_then(|number| i8::try_from(number).ok());
    let (month, day, hour, minute) = (two(mo1, mo2)?, two(d1, d2)?, two(h1, h2)?, two(mi1, mi2)?);
    let second = if leap { 59 } else { i8::try_from(second).ok()? };
    let local = DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()?.duration_since(UNIX_EPOCH);
    let utc = local - SignedDuration::from_mins(offset_minutes(offset)?);
    match leap {
        false => Some(utc),
        true if utc.as_secs().rem_euclid(SECONDS_PER_DAY) == SECONDS_PER_DAY - 1 => {
            Some(utc + SignedDuration::from_secs(1))
        }
        true => None,
    }
}

/// Reads `.123456789`, one to nine digits, or nothing: nanoseconds and what follows.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some((b'.', text)) = text.split_first() else { return Some((0, text)) };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = text.split_at(length);
    let scale = 10_i32.pow(u32::try_from(9_usize.checked_sub(length)?).ok()?);
    (length > 0).then_some((digits(fraction)? * scale, rest))
}

/// Reads `Z`, `+01:00` or `-09:30`: minutes east of UTC.
fn offset_minutes(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, digits(&[h1, h2])?, digits(&[m1, m2])?),
        [b'-', h1, h2, b':', m1, m2] => (-1, digits(&[h1, h2])?, digits(&[m1, m2])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 60 + minutes))
}

/// The number that at most nine ASCII digits spell.
fn digits(text: &[u8]) -> Option<i32> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i32::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_go_prints_is_read_and_kept() {
        for text in [
            GO_ZERO,
            "2026-11-23T17:19:32.497942793Z",
            "2026-11-23T08:00:00.123456789+01:00",
            "2026-11-23T08:00:00.1-09:30",
            "2026-11-23T08:00:00Z",
            "2024-02-29T23:59:59.000000001+23:59",
            "0000-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999999999-23:59",
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
            "2026-11-23T08:00:60Z",
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

    #[test]
    fn a_leap_second_is_the_second_before_midnight_in_utc() {
        let leap = time("2016-12-31T23:59:60Z");
        assert_eq!(leap, time("2017-01-01T00:59:60+01:00"));
        assert!(time("2016-12-31T23:59:59.9Z") < leap);
        assert_eq!(leap, time("2017-01-01T00:00:00Z"));
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
