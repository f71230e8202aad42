//! Packets and bodies: what is read is what the specification says, and what is written is read again.

use flamenco_webupdates::protocol::engine_payload::{self, Payload};
use flamenco_webupdates::protocol::{EnginePacket, MAX_ARGUMENTS, MAX_ATTACHMENTS, SocketPacket};
use serde_json::Value;
use serde_json::value::RawValue;

/// Few, so that the bound is met.
const MAX_PACKETS: usize = 20;

const MAX_LENGTH_DIGITS: usize = 9;

/// A frame, text or binary.
pub fn engine_packet(data: &[u8]) {
    match EnginePacket::decode_binary(data) {
        Ok(packet) => assert_eq!(packet, EnginePacket::BinaryMessage(data[1..].into())),
        Err(_) => assert_ne!(data.first(), Some(&4)),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (kind, rest) = text.split_at_checked(1).unwrap_or(("", text));
    let Ok(packet) = EnginePacket::decode_text(text) else {
        let sound = matches!(kind, "0" | "2" | "3" | "4") || (matches!(kind, "1" | "5" | "6") && rest.is_empty());
        assert!(!sound, "{text:?} is a packet");
        return;
    };
    let again = engine_text(&packet);
    assert_eq!(EnginePacket::decode_text(&again).as_ref(), Ok(&packet));
    if let EnginePacket::BinaryMessage(_) = packet {
        // Padding may be left out, and the last digit may have bits that stand for nothing.
        let (ours, theirs) = (again.trim_end_matches('='), text.trim_end_matches('='));
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(ours[..ours.len() - 1], theirs[..ours.len() - 1]);
    } else {
        assert_eq!(again, text);
    }
}

/// A polling body in either framing, and the form of a JSONP client.
pub fn payload(data: &[u8]) {
    if let Ok(text) = engine_payload::decode_jsonp_form(data) {
        let _ = Payload::decode(text.as_bytes(), MAX_PACKETS);
    }
    let decoded = Payload::decode(data, MAX_PACKETS);
    let texts = match data.first() {
        Some(0 | 1) => binary_packets(data),
        _ => std::str::from_utf8(data)
            .ok()
            .and_then(text_packets)
            .map(|texts| texts.into_iter().map(decoded_once).collect()),
    };
    let expected = texts.as_ref().filter(|texts| texts.len() <= MAX_PACKETS).and_then(|texts: &Vec<String>| {
        texts.iter().map(|text| EnginePacket::decode_text(text)).collect::<Result<Vec<_>, _>>().ok()
    });
    match &decoded {
        Ok(payload) => assert_eq!(Some(payload.packets().collect::<Vec<_>>()), expected),
        Err(error) => {
            assert!(error.offset <= data.len() && error.packet <= MAX_PACKETS && expected.is_none(), "{error}");
        }
    }
    if let Some(packets) = expected {
        encoded_body(&packets);
    }
}

/// The data of an engine message.
pub fn socket_packet(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(packet) = SocketPacket::decode(text) else { return };
    let again = socket_text(&packet);
    // Not compared with what came: a namespace, a name and white space can be written in several ways.
    let decoded = SocketPacket::decode(&again).expect("what was written is read");
    assert_eq!(format!("{decoded:?}"), format!("{packet:?}"));
    assert_eq!(socket_text(&decoded), again);
    match &packet {
        SocketPacket::Connect { .. } | SocketPacket::Disconnect { .. } => {}
        SocketPacket::Error { message, .. } => is_json(message),
        SocketPacket::Event { event, .. } => arguments(&event.args, 1, None),
        SocketPacket::Ack { ack, args, .. } => {
            assert!(ack.value() <= 1 << 53);
            arguments(args, 0, None);
        }
        SocketPacket::BinaryEvent { attachments, event, .. } => arguments(&event.args, 1, Some(*attachments)),
        SocketPacket::BinaryAck { attachments, args, .. } => arguments(args, 0, Some(*attachments)),
    }
}

fn engine_text(packet: &EnginePacket<'_>) -> String {
    let mut text = Vec::new();
    packet.encode_text(&mut text);
    String::from_utf8(text).expect("a packet's text form is text")
}

fn socket_text(packet: &SocketPacket<'_>) -> String {
    let mut text = Vec::new();
    packet.encode(&mut text);
    String::from_utf8(text).expect("a packet's text form is text")
}

/// The packets of a text body as JavaScript takes them out: by UTF-16 code units.
fn text_packets(body: &str) -> Option<Vec<String>> {
    let units: Vec<u16> = body.encode_utf16().collect();
    let (mut rest, mut packets) = (&units[..], Vec::new());
    while !rest.is_empty() {
        let digits = rest.iter().take(MAX_LENGTH_DIGITS + 1).position(|&unit| unit == u16::from(b':'))?;
        let number = String::from_utf16(&rest[..digits]).ok()?;
        let length = number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse::<usize>().ok())??;
        rest = &rest[digits + 1..];
        packets.push(String::from_utf16(rest.get(..length)?).ok()?);
        rest = &rest[length..];
    }
    (!packets.is_empty()).then_some(packets)
}

/// The packets of a binary body, in their text form.
fn binary_packets(body: &[u8]) -> Option<Vec<String>> {
    let (mut rest, mut packets) = (body, Vec::new());
    while let Some((&kind, after)) = rest.split_first() {
        let digits = after.iter().take(MAX_LENGTH_DIGITS + 1).position(|&byte| byte == 0xff)?;
        let number =
            after[..digits].iter().try_fold(0, |n, &digit| (digit < 10).then(|| n * 10 + usize::from(digit)))?;
        let data = after[digits + 1..].get(..number).filter(|_| digits > 0)?;
        packets.push(match kind {
            0 => std::str::from_utf8(data).ok()?.to_owned(),
            1 => engine_text(&EnginePacket::decode_binary(data).ok()?),
            _ => return None,
        });
        rest = &after[digits + 1 + number..];
    }
    Some(packets)
}

/// The text without the second of two encodings, if its form tells that there were two.
fn decoded_once(text: String) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(char).ok()).collect();
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(once) if !text.is_ascii() => once,
        Some(_) | None => text,
    }
}

/// What a client takes out of a body made for it are these packets; and a script says the same as the body.
fn encoded_body(packets: &[EnginePacket<'_>]) {
    let texts: Vec<String> = packets.iter().map(engine_text).collect();
    let mut body = Vec::new();
    engine_payload::encode_text(&texts, &mut body);
    let body = String::from_utf8(body).expect("texts make a text");
    let taken = text_packets(&body).expect("the lengths are those of JavaScript");
    assert_eq!(taken.len(), texts.len());
    for (taken, text) in taken.iter().zip(&texts) {
        let json = |text: &str| {
            serde_json::from_str::<Value>(text.get(2..)?.trim_start_matches(|c: char| c.is_ascii_digit())).ok()
        };
        assert!(taken == text || json(text).is_none() || json(taken) == json(text), "{taken:?} for {text:?}");
    }
    let mut script = Vec::new();
    engine_payload::encode_jsonp(0, body.as_bytes(), &mut script);
    let script = String::from_utf8(script).expect("texts make a text");
    assert!(!script.contains(['<', '\u{2028}', '\u{2029}', '\n']));
    let string = script.strip_prefix("___eio[0](").and_then(|rest| rest.strip_suffix(");"));
    assert_eq!(string.and_then(|string| serde_json::from_str::<String>(string).ok()), Some(body));
}

/// Each is JSON, there are not too many with the `before` that are not among them, and placeholders name attachments.
fn arguments(args: &[&RawValue], before: usize, attachments: Option<usize>) {
    assert!(args.len() + before <= MAX_ARGUMENTS);
    args.iter().for_each(|arg| is_json(arg.get()));
    let Some(attachments) = attachments else { return };
    assert!((1..=MAX_ATTACHMENTS).contains(&attachments));
    let values: Option<Vec<Value>> = args.iter().map(|arg| unambiguous(arg.get())).collect();
    if let Some(values) = values {
        let found: usize = values.iter().map(|value| placeholders(value, attachments)).sum();
        assert!(found <= attachments);
    }
}

fn is_json(text: &str) {
    assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text:?} is no JSON");
}

/// The value, if no member is given twice in it, which is to say: if it is written again as it came.
fn unambiguous(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok().filter(|value: &Value| value.to_string().len() == json.len())
}

fn placeholders(value: &Value, attachments: usize) -> usize {
    match value {
        Value::Array(elements) => elements.iter().map(|element| placeholders(element, attachments)).sum(),
        Value::Object(members) if members.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = members.get("num").and_then(Value::as_u64);
            assert!(number.is_some_and(|number| number < attachments as u64), "{value}");
            1
        }
        Value::Object(members) => members.values().map(|member| placeholders(member, attachments)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
