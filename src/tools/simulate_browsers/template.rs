//! The body of a publishing POST, written once per event from a template.

use std::fmt;
use std::str::FromStr;

/// Text with placeholders; braces that are not one of them are plain text, so that JSON needs no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    Kind,
    Event,
    Room,
    Payload,
}

const PLACEHOLDERS: [(&str, Part); 5] = [
    ("{number}", Part::Number),
    ("{kind}", Part::Kind),
    ("{event}", Part::Event),
    ("{room}", Part::Room),
    ("{payload}", Part::Payload),
];

/// What the placeholders of one event stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) number: u32,
    pub(super) kind: &'a str,
    pub(super) event: &'a str,
    pub(super) room: &'a str,
    pub(super) payload: &'a str,
}

impl Template {
    pub(super) fn write(&self, values: Values<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Number => out.extend_from_slice(values.number.to_string().as_bytes()),
                Part::Kind => out.extend_from_slice(values.kind.as_bytes()),
                Part::Event => out.extend_from_slice(values.event.as_bytes()),
                Part::Room => out.extend_from_slice(values.room.as_bytes()),
                Part::Payload => out.extend_from_slice(values.payload.as_bytes()),
            }
        }
    }
}

impl FromStr for Template {
    type Err = String;

    /// A template without `{payload}` is refused: nothing it publishes could be recognised.
    fn from_str(source: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((start, name, part)) = first_placeholder(rest) {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            parts.push(part);
            rest = &rest[start + name.len()..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !parts.contains(&Part::Payload) {
            return Err("the template has no {payload}".to_owned());
        }
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.source)
    }
}

fn first_placeholder(text: &str) -> Option<(usize, &'static str, Part)> {
    PLACEHOLDERS
        .iter()
        .filter_map(|(name, part)| text.find(name).map(|start| (start, *name, part.clone())))
        .min_by_key(|(start, ..)| *start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(template: &str) -> String {
        let values =
            Values { number: 7, kind: "job-update", event: "/jobs", room: "Jobs", payload: r#"{"name":"{number}"}"# };
        let mut out = Vec::new();
        template.parse::<Template>().unwrap().write(values, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn placeholders_are_replaced_and_other_braces_stay() {
        assert_eq!(
            written(r#"{"type":"{kind}","payload":{payload}}"#),
            r#"{"type":"job-update","payload":{"name":"{number}"}}"#,
            "what a payload holds is not looked at again"
        );
        assert_eq!(written(r#"42["{event}",{payload}]"#), r#"42["/jobs",{"name":"{number}"}]"#);
        assert_eq!(written("{{number}} {x} {room}{payload}{"), r#"{7} {x} Jobs{"name":"{number}"}{"#);
    }

    #[test]
    fn a_template_without_payload_is_refused() {
        assert!("{number}".parse::<Template>().is_err());
    }
}
