//! Encoders of whole engine packets for the hot path, which write straight into the buffer.

use super::AckId;
use std::fmt;
use std::io::Write as _;

/// Appends the event `42["name",payload]`; `payload` is JSON text.
pub fn write_event(out: &mut Vec<u8>, name: &str, payload: &str) {
    out.reserve(name.len() + payload.len() + 8);
    out.extend_from_slice(b"42[");
    json_string(out, name);
    out.push(b',');
    out.extend_from_slice(payload.as_bytes());
    out.push(b']');
}

/// Appends the event `42["name",payload,more…]`; `payload` and `more` are JSON.
pub fn write_event_with(out: &mut Vec<u8>, name: &str, payload: &str, more: &str) {
    write_event(out, name, payload);
    out.pop();
    out.push(b',');
    out.extend_from_slice(more.as_bytes());
    out.push(b']');
}

/// Appends the acknowledgement `43<ack>[value]`; `value` is JSON.
pub fn write_ack_value(out: &mut Vec<u8>, ack: AckId, value: &str) {
    display(out, format_args!("43{ack}["));
    out.extend_from_slice(value.as_bytes());
    out.push(b']');
}

/// Appends the acknowledgement `43<ack>["text"]`; `text` is plain text.
pub fn write_ack(out: &mut Vec<u8>, ack: AckId, text: &str) {
    display(out, format_args!("43{ack}["));
    json_string(out, text);
    out.push(b']');
}

/// Appends the refusal `44<namespace>,"Invalid namespace"`; `namespace` is a path without its query.
pub fn write_invalid_namespace(out: &mut Vec<u8>, namespace: &str) {
    display(out, format_args!("44{namespace},\"Invalid namespace\""));
}

pub(super) fn json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string serializes, and a Vec takes it");
}

pub(super) fn display(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whole_engine_packets() {
        assert_eq!(written(|out| write_event(out, "/jobs", r#"{"id":1}"#)), r#"42["/jobs",{"id":1}]"#);
        assert_eq!(written(|out| write_event(out, "a\"b\n", "null")), r#"42["a\"b\n",null]"#);
        assert_eq!(written(|out| write_ack(out, AckId::from(12), "ok")), r#"4312["ok"]"#);
        assert_eq!(written(|out| write_ack(out, AckId::from(0), "\\ \"🎬\"\u{1}")), r#"430["\\ \"🎬\"\u0001"]"#);
        assert_eq!(written(|out| write_invalid_namespace(out, "/admin")), r#"44/admin,"Invalid namespace""#);
    }
}
