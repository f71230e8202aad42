//! The JSON part of a Socket.IO packet: an array whose elements are kept unchanged.

use super::ProtocolError;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The maximum nesting of arrays and objects in a packet. Events need 3; stack use must not depend
/// on a peer's brackets.
pub const MAX_DEPTH: usize = 64;

/// The maximum number of elements in the array of an event or acknowledgement, including the
/// event's name. Events have 2; a reference costs 16 bytes where the element may cost the peer 2.
pub const MAX_ARGUMENTS: usize = 64;

/// Splits the JSON array `text` into its elements.
pub(super) fn elements(text: &str) -> Result<Vec<&RawValue>, ProtocolError> {
    if !text.starts_with('[') {
        return Err(if text.is_empty() { ProtocolError::MalformedJson } else { ProtocolError::ArgumentsNotArray });
    }
    check_depth(text)?;
    let elements: Elements<'_> = serde_json::from_str(text).map_err(|_| ProtocolError::MalformedJson)?;
    if elements.total > MAX_ARGUMENTS { Err(ProtocolError::TooManyArguments) } else { Ok(elements.kept) }
}

/// Checks that `text` is one JSON value.
pub(super) fn value(text: &str) -> Result<&str, ProtocolError> {
    check_depth(text)?;
    let value: &RawValue = serde_json::from_str(text).map_err(|_| ProtocolError::MalformedJson)?;
    Ok(value.get())
}

/// Checks that every `{"_placeholder":true,"num":n}` in `text` names one of the attachments (socket.io-protocol
/// revision 4, "Packet encoding").
pub(super) fn check_placeholders(text: &str, attachments: usize) -> Result<(), ProtocolError> {
    let mut walk = Walk { attachments, found: 0, misplaced: false };
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_any(&mut walk).map_err(|_| ProtocolError::MalformedJson)?;
    if walk.misplaced {
        return Err(ProtocolError::MisplacedPlaceholder);
    }
    if walk.found > attachments { Err(ProtocolError::TooManyPlaceholders) } else { Ok(()) }
}

/// A raw value is skipped without recursion, however deep it is; but its later reader may recurse.
fn check_depth(text: &str) -> Result<(), ProtocolError> {
    let mut depth = 0_usize;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' if depth == MAX_DEPTH => return Err(ProtocolError::NestedTooDeep),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

struct Elements<'a> {
    kept: Vec<&'a RawValue>,
    total: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements { kept: Vec::with_capacity(2), total: 0 })
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Elements<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(element) = seq.next_element()? {
            self.total += 1;
            if self.total <= MAX_ARGUMENTS {
                self.kept.push(element);
            }
        }
        Ok(self)
    }
}

/// Visits every value and looks for placeholders; recursion is bounded by [`MAX_DEPTH`].
struct Walk {
    attachments: usize,
    found: usize,
    misplaced: bool,
}

/// The role of a value as a member of a placeholder.
enum Member {
    True,
    Number(u64),
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "_placeholder")]
    Placeholder,
    #[serde(rename = "num")]
    Number,
    #[serde(other)]
    Other,
}

impl<'de> serde::de::DeserializeSeed<'de> for &mut Walk {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member, E> {
        Ok(if value { Member::True } else { Member::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member, E> {
        Ok(Member::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
        while seq.next_element_seed(&mut *self)?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
        let (mut marked, mut number) = (Member::Other, Member::Other);
        while let Some(key) = map.next_key()? {
            let member = map.next_value_seed(&mut *self)?;
            match key {
                Key::Placeholder => marked = member,
                Key::Number => number = member,
                Key::Other => {}
            }
        }
        if let Member::True = marked {
            self.found += 1;
            self.misplaced |= !matches!(number, Member::Number(n) if n < self.attachments as u64);
        }
        Ok(Member::Other)
    }
}
