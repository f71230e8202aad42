//! Reads members of a JSON object without changing a byte of it.
//!
//! serde's derived readers cannot be used here: they refuse lone surrogates (which `JSON.parse`
//! accepts), do not name a missing field, and copy texts of which only the type matters. So an
//! object is split into the texts of its members, and each known member is read separately.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The maximum nesting of a value. Real payloads have three levels; every later reader, browsers
/// included, has a limit of its own.
pub const MAX_DEPTH: usize = 64;

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", subject(field))]
pub struct FieldError {
    /// The path of the field, `worker.uuid` or `thumbnail.suffixes[2]`; empty for the value as a
    /// whole.
    pub field: String,
    pub reason: Problem,
}

/// What is wrong with a value, as the predicate of a sentence. It never quotes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("is not JSON")]
    NotJson,
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("is missing")]
    Missing,
    #[error("is given more than once")]
    Repeated,
    #[error("is {found} where {expected} is due")]
    WrongType { expected: JsonType, found: JsonType },
    #[error("is not a whole number of at most 64 bits")]
    NotAnInteger,
    #[error("is not a UUID")]
    NotAUuid,
    #[error("is not the name of a room")]
    NotARoom,
    #[error("is not an RFC 3339 time with at most nine digits of fraction")]
    NotATime,
    #[error("is not a kind of event that this server knows")]
    UnknownKind,
    #[error("is longer than {max_bytes} bytes")]
    TooLong { max_bytes: usize },
}

/// The types of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// A type that can be read from the text of one JSON value.
pub trait FromJson: Sized {
    /// Decodes the value in `json`.
    ///
    /// # Errors
    ///
    /// The value has another type or is invalid; the error names the field.
    fn from_json(json: &str) -> Result<Self, FieldError>;
}

/// The members of one JSON object, each as its unchanged text.
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Splits the object in `json`.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object.
    pub fn of(json: &'a str) -> Result<Self, Problem> {
        JsonType::Object.expect(json)?;
        let raw: RawMembers<'a> = serde_json::from_str(json).map_err(|_| Problem::NotJson)?;
        Ok(Self(raw.0.into_iter().map(|(name, value)| (unescape(name.get()), value.get())).collect()))
    }

    /// Returns a member that every such object has.
    ///
    /// # Errors
    ///
    /// The member is missing, occurs twice or is invalid; the error names it.
    pub fn required<T: FromJson>(&self, name: &str) -> Result<T, FieldError> {
        T::from_json(self.required_json(name)?).map_err(|error| error.within(name))
    }

    /// Returns the text of a member that every such object has.
    ///
    /// # Errors
    ///
    /// The member is missing or occurs twice; the error names it.
    pub fn required_json(&self, name: &str) -> Result<&'a str, FieldError> {
        self.get(name)?.ok_or_else(|| Problem::Missing.at(name))
    }

    /// Returns a member that may be absent. `null` counts as absent; the Manager never sends it.
    ///
    /// # Errors
    ///
    /// The member occurs twice or is invalid; the error names it.
    pub fn optional<T: FromJson>(&self, name: &str) -> Result<Option<T>, FieldError> {
        match self.get(name)? {
            None | Some("null") => Ok(None),
            Some(json) => T::from_json(json).map(Some).map_err(|error| error.within(name)),
        }
    }

    fn get(&self, name: &str) -> Result<Option<&'a str>, FieldError> {
        let mut found = self.0.iter().filter(|(known, _)| known == name).map(|&(_, json)| json);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Problem::Repeated.at(name)),
        }
    }
}

/// Returns the subject of an error's sentence.
pub fn subject(field: &str) -> &str {
    if field.is_empty() { "the value" } else { field }
}

impl Problem {
    pub fn at(self, field: &str) -> FieldError {
        FieldError { field: field.to_owned(), reason: self }
    }
}

impl From<Problem> for FieldError {
    fn from(problem: Problem) -> Self {
        problem.at("")
    }
}

impl FieldError {
    /// Returns the error as seen from the object that has the value as its member `parent`.
    pub fn within(self, parent: &str) -> Self {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        Self { field: format!("{parent}{dot}{}", self.field), ..self }
    }
}

impl JsonType {
    /// Returns the type of the JSON value in `json`, which its first character decides.
    pub fn of(json: &str) -> Self {
        match json.trim_ascii_start().bytes().next() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    /// Checks that `json` has this type.
    ///
    /// # Errors
    ///
    /// The value has another type.
    pub fn expect(self, json: &str) -> Result<(), Problem> {
        match Self::of(json) {
            found if found == self => Ok(()),
            found => Err(Problem::WrongType { expected: self, found }),
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        })
    }
}

impl FromJson for String {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        Ok(text(json)?.into_owned())
    }
}

impl FromJson for bool {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        JsonType::Boolean.expect(json)?;
        Ok(json == "true")
    }
}

/// Only plain integers: `1.0` and `1e2` are numbers in JSON, but no Manager prints a count like
/// that.
impl FromJson for i64 {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        JsonType::Number.expect(json)?;
        Ok(json.parse().map_err(|_| Problem::NotAnInteger)?)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(json: &str) -> Result<Self, FieldError> {
        elements(json)?
            .into_iter()
            .enumerate()
            .map(|(index, json)| T::from_json(json).map_err(|error| error.within(&format!("[{index}]"))))
            .collect()
    }
}

/// Returns the texts of the elements of the array in `json`.
///
/// # Errors
///
/// The text is not a JSON array.
pub fn elements(json: &str) -> Result<Vec<&str>, Problem> {
    JsonType::Array.expect(json)?;
    let raw: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| Problem::NotJson)?;
    Ok(raw.into_iter().map(RawValue::get).collect())
}

/// Returns the text of the string in `json`.
///
/// # Errors
///
/// The text is not a JSON string.
pub fn text(json: &str) -> Result<Cow<'_, str>, Problem> {
    JsonType::String.expect(json)?;
    Ok(unescape(json))
}

/// Refuses values that are nested deeper than [`MAX_DEPTH`]. `json` need not be valid.
///
/// # Errors
///
/// A value is nested deeper.
pub fn check_depth(json: &str) -> Result<(), Problem> {
    // Nearly always there are too few brackets to nest that deep, and counting them is many times
    // faster.
    if json.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Problem::TooDeep);
        }
    }
    Ok(())
}

/// Returns the object's text with its member `name` set to the JSON text `value`, or without that
/// member if `value` is `None`. All other bytes are unchanged. A text that is not an object is
/// returned unchanged.
pub fn with_member<'a>(object: &'a str, name: &str, value: Option<&str>) -> Cow<'a, str> {
    let Ok(RawMembers(members)) = serde_json::from_str(object) else { return Cow::Borrowed(object) };
    let found = members.iter().position(|(key, _)| unescape(key.get()) == name);
    let (replaced, replacement) = match (found, value) {
        (None, None) => return Cow::Borrowed(object),
        (None, Some(value)) => {
            let start = object.find('{').map_or(0, |brace| brace + 1);
            let comma = if members.is_empty() { "" } else { "," };
            (start..start, format!("\"{name}\":{value}{comma}"))
        }
        (Some(index), Some(value)) => (span(object, members[index].1), value.to_owned()),
        (Some(index), None) => (span_with_comma(object, &members, index), String::new()),
    };
    Cow::Owned([&object[..replaced.start], &replacement, &object[replaced.end..]].concat())
}

/// Returns the range of the member in `object`, including the comma after it, or before it if it is
/// the last.
fn span_with_comma(object: &str, members: &[(&RawValue, &RawValue)], index: usize) -> Range<usize> {
    let (key, value) = members[index];
    let (start, end) = (span(object, key).start, span(object, value).end);
    match (members.get(index + 1), members[..index].last()) {
        (Some((next, _)), _) => start..span(object, next).start,
        (None, Some((_, before))) => span(object, before).end..end,
        (None, None) => start..end,
    }
}

/// Returns the range in `object` of `part`, which was borrowed from it.
fn span(object: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - object.as_ptr().addr();
    start..start + part.get().len()
}

/// Decodes a JSON string. A string that Rust cannot represent, because of a lone surrogate, is
/// returned as it is spelled.
fn unescape(json: &str) -> Cow<'_, str> {
    let json = json.trim_ascii();
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json);
    match inner.contains('\\') {
        false => Cow::Borrowed(inner),
        true => serde_json::from_str(json).map_or(Cow::Borrowed(inner), Cow::Owned),
    }
}

/// Returns the names and values of an object's members as they are spelled.
struct RawMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_set_where_it_is_and_nothing_else_changes() {
        for (object, value, expected) in [
            (r#"{"a":1,"x":2,"b":3}"#, "9", r#"{"a":1,"x":9,"b":3}"#),
            ("{ \"a\" : 1e0 ,\n \"x\"\t: [1, {\"x\":2}] }", "9", "{ \"a\" : 1e0 ,\n \"x\"\t: 9 }"),
            (r#"{"\u0078":"1","X":1,"xx":2}"#, "9", r#"{"\u0078":9,"X":1,"xx":2}"#),
            (r#"{"b":"\ud800x"}"#, "9", r#"{"x":9,"b":"\ud800x"}"#),
            (r#"{"b":{"x":1}}"#, "9", r#"{"x":9,"b":{"x":1}}"#),
            (" { } ", "9", r#" {"x":9 } "#),
            (r#"{"x":1}"#, r#""}\"""#, r#"{"x":"}\""}"#),
        ] {
            assert_eq!(with_member(object, "x", Some(value)), expected, "{object}");
        }
    }

    #[test]
    fn a_member_is_removed_with_one_comma() {
        for (object, expected) in [
            (r#"{"x":1}"#, "{}"),
            (r#"{ "x" : 1 }"#, "{  }"),
            (r#"{"x":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{ "x":1 , "b":2 }"#, r#"{ "b":2 }"#),
            (r#"{"a":"x","x":{"x":[1]},"b":2}"#, r#"{"a":"x","b":2}"#),
            (r#"{"a":1 , "x":2 }"#, r#"{"a":1 }"#),
            (r#"{"\ud800":1,"x":2}"#, r#"{"\ud800":1}"#),
        ] {
            assert_eq!(with_member(object, "x", None), expected, "{object}");
        }
    }

    #[test]
    fn unchanged_text_is_not_copied() {
        for text in [r#"{"a":{"x":1}}"#, "{}", "[]", "\"x\"", "{", ""] {
            assert!(matches!(with_member(text, "x", None), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check_depth(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check_depth(&nested(MAX_DEPTH + 1)), Err(Problem::TooDeep));
        assert_eq!(check_depth(&format!("[{}]", vec![nested(MAX_DEPTH - 1); 9].join(","))), Ok(()));
        assert_eq!(check_depth(&format!("{{\"a\\\"{0}\":\"{0}\\\\\"}}", "[{".repeat(99))), Ok(()));
        assert_eq!(check_depth(&r#"{"a":"#.repeat(MAX_DEPTH + 1)), Err(Problem::TooDeep));
    }

    #[test]
    fn texts_are_unescaped_unless_rust_cannot_hold_them() {
        for (json, expected) in [
            (r#""""#, ""),
            (r#""plain — 🎬""#, "plain — 🎬"),
            (r#""a\u003eb\n\"\\""#, "a>b\n\"\\"),
            (r#""\ud83c\udfac""#, "🎬"),
            (r#""half \ud83c""#, r"half \ud83c"),
        ] {
            assert_eq!(text(json), Ok(Cow::Borrowed(expected)));
        }
    }

    #[test]
    fn only_whole_numbers_that_fit_are_integers() {
        for (json, expected) in [("0", 0), ("-7", -7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(i64::from_json(json), Ok(expected));
        }
        for json in ["1.5", "1.0", "1e2", "9223372036854775808"] {
            assert_eq!(i64::from_json(json), Err(Problem::NotAnInteger.into()), "{json}");
        }
    }

    #[test]
    fn errors_name_the_path() {
        let error = Problem::NotAUuid.at("uuid").within("worker").within("payload");
        assert_eq!(error.to_string(), "payload.worker.uuid is not a UUID");
        let error = Vec::<String>::from_json(r#"["a",{}]"#).unwrap_err().within("suffixes");
        assert_eq!(error.to_string(), "suffixes[1] is an object where a string is due");
        assert_eq!(FieldError::from(Problem::NotJson).to_string(), "the value is not JSON");
    }
}
