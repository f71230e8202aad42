//! The place of an event in the history, as clients hold it.

use std::{fmt, str::FromStr};

use super::Offset;

/// The maximum length of a token's text.
const MAX_LENGTH: usize = 64;

/// The place of an event in the history of one server: `<epoch>-<offset>-<check>`, to be passed
/// back unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Distinguishes one history from another.
    pub(super) epoch: u64,
    pub(super) offset: Offset,
    /// Derived from the time of the event, so that a number that is given again is noticed.
    pub(super) check: u32,
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one that a server gave: pass it back unchanged, or null")]
pub struct InvalidToken;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}-{:x}", self.epoch, self.offset, self.check)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parse = || {
            let mut parts = text.split('-');
            let (epoch, offset, check) = (parts.next()?, parts.next()?, parts.next()?);
            let token = Self {
                epoch: u64::from_str_radix(epoch, 16).ok()?,
                offset: offset.parse().ok()?,
                check: u32::from_str_radix(check, 16).ok()?,
            };
            parts.next().is_none().then_some(token)
        };
        if text.len() > MAX_LENGTH { Err(InvalidToken) } else { parse().ok_or(InvalidToken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let token = Token { epoch: u64::MAX, offset: u64::MAX, check: u32::MAX };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(token.to_string().len() <= MAX_LENGTH);
        for text in ["", "-", "1-2", "1-2-3-4", "x-1-1", "1--1", "1-2-100000000", &"1".repeat(10_000)] {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{}", &text[..text.len().min(20)]);
        }
    }
}
