//! What one side writes, the other reads; and whatever bytes come, nothing panics.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use flamenco_webupdates::protocol::engine_payload::{self, Payload};
use flamenco_webupdates::protocol::{
    AckId, Connection, EnginePacket, Event, HandshakeQuery, MAX_ATTACHMENTS, Namespace, Received, ServerOpen,
    SocketPacket, write_ack, write_event, write_invalid_namespace,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

/// Text with the characters that framings and escapes care for.
fn text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            any::<char>(),
            prop::sample::select(vec![
                '"', '\\', '\n', 'n', '[', ']', ',', '/', '<', '\u{2028}', 'é', '€', '🎬', '\0', ':'
            ]),
        ],
        0..12,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn engine_packet() -> impl Strategy<Value = EnginePacket<'static>> {
    prop_oneof![
        text().prop_map(|data| EnginePacket::Open(data.leak())),
        Just(EnginePacket::Close),
        text().prop_map(|data| EnginePacket::Ping(data.leak())),
        text().prop_map(|data| EnginePacket::Pong(data.leak())),
        text().prop_map(|data| EnginePacket::Message(data.leak())),
        vec(any::<u8>(), 0..20).prop_map(|data| EnginePacket::BinaryMessage(data.into())),
        Just(EnginePacket::Upgrade),
        Just(EnginePacket::Noop),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn args() -> impl Strategy<Value = Vec<&'static RawValue>> {
    vec(json(), 0..4).prop_map(|values| values.into_iter().map(raw).collect())
}

fn raw(value: Value) -> &'static RawValue {
    Box::leak(serde_json::value::to_raw_value(&value).unwrap())
}

fn namespace() -> impl Strategy<Value = Namespace<'static>> {
    prop_oneof![
        Just(Namespace::ROOT),
        ("/[^,?]{0,8}", proptest::option::of("[^,]{0,8}"))
            .prop_map(|(path, query)| Namespace { path: path.leak(), query: query.map(|query| &*query.leak()) }),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    (text(), args()).prop_map(|(name, args)| Event { name: name.into(), args })
}

fn socket_packet() -> impl Strategy<Value = SocketPacket<'static>> {
    let ack = || any::<u32>().prop_map(AckId::from);
    let optional = || proptest::option::of(any::<u32>().prop_map(AckId::from));
    prop_oneof![
        namespace().prop_map(|namespace| SocketPacket::Connect { namespace }),
        namespace().prop_map(|namespace| SocketPacket::Disconnect { namespace }),
        (namespace(), optional(), event()).prop_map(|(namespace, ack, event)| SocketPacket::Event {
            namespace,
            ack,
            event
        }),
        (namespace(), ack(), args()).prop_map(|(namespace, ack, args)| SocketPacket::Ack { namespace, ack, args }),
        (namespace(), json())
            .prop_map(|(namespace, message)| SocketPacket::Error { namespace, message: raw(message).get() }),
        (1..=MAX_ATTACHMENTS, namespace(), optional(), event()).prop_map(|(attachments, namespace, ack, event)| {
            SocketPacket::BinaryEvent { attachments, namespace, ack, event }
        }),
        (1..=MAX_ATTACHMENTS, namespace(), ack(), args()).prop_map(|(attachments, namespace, ack, args)| {
            SocketPacket::BinaryAck { attachments, namespace, ack, args }
        }),
    ]
}

/// Text that comes close to a packet, so that decoding gets far before it fails.
fn nearly_a_packet() -> impl Strategy<Value = String> {
    let tokens = vec![
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "40",
        "41",
        "42",
        "43",
        "44",
        "451-",
        "452-",
        "461-",
        "b4",
        "/",
        "/admin,",
        "?",
        ",",
        "-",
        "12",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        ":",
        "\"x\"",
        "[\"x\"",
        "_placeholder",
        "\"num\":",
        "true",
        "null",
        "0.5",
        "1e999",
        "AQID",
        "=",
        "\u{0}",
        "🎬",
        "é",
    ];
    vec(prop::sample::select(tokens), 0..12).prop_map(|tokens| tokens.concat())
}

/// The binary framing as clients write it; the server only reads it.
fn encode_binary(packets: &[EnginePacket<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for packet in packets {
        let mut data = Vec::new();
        if let EnginePacket::BinaryMessage(message) = packet {
            data.push(4);
            data.extend_from_slice(message);
            body.push(1);
        } else {
            packet.encode_text(&mut data);
            body.push(0);
        }
        body.extend(data.len().to_string().bytes().map(|digit| digit - b'0'));
        body.push(0xFF);
        body.extend(data);
    }
    body
}

fn encoded(packets: &[EnginePacket<'_>]) -> Vec<Vec<u8>> {
    let encode = |packet: &EnginePacket<'_>| {
        let mut text = Vec::new();
        packet.encode_text(&mut text);
        text
    };
    packets.iter().map(encode).collect()
}

/// Whether the text would be taken for one that was encoded twice.
fn looks_encoded_twice(packet: &EnginePacket<'_>) -> bool {
    let text = String::from_utf8(encoded(std::slice::from_ref(packet)).concat()).unwrap();
    !text.is_ascii()
        && text
            .chars()
            .map(u8::try_from)
            .collect::<Result<Vec<_>, _>>()
            .is_ok_and(|bytes| str::from_utf8(&bytes).is_ok())
}

proptest! {
    #[test]
    fn engine_packets(packet in engine_packet()) {
        let text = String::from_utf8(encoded(std::slice::from_ref(&packet)).concat()).unwrap();
        prop_assert_eq!(EnginePacket::decode_text(&text), Ok(packet));
    }

    #[test]
    fn binary_frames(data in vec(any::<u8>(), 0..50)) {
        let frame = [&[4], &data[..]].concat();
        prop_assert_eq!(EnginePacket::decode_binary(&frame), Ok(EnginePacket::BinaryMessage(data.into())));
    }

    /// Namespaces of the same meaning may be written in two ways, so the text is compared.
    #[test]
    fn socket_packets(packet in socket_packet()) {
        let mut text = Vec::new();
        packet.encode(&mut text);
        let text = String::from_utf8(text).unwrap();
        let decoded = SocketPacket::decode(&text).unwrap();
        prop_assert_eq!(format!("{decoded:?}"), format!("{packet:?}"));
        let mut again = Vec::new();
        decoded.encode(&mut again);
        prop_assert_eq!(text.as_bytes(), &again[..]);
    }

    #[test]
    fn text_bodies(packets in vec(engine_packet(), 1..6)) {
        prop_assume!(!packets.iter().any(looks_encoded_twice));
        let mut body = Vec::new();
        engine_payload::encode_text(encoded(&packets), &mut body);
        let payload = Payload::decode(&body, packets.len()).unwrap();
        prop_assert_eq!(payload.packets().collect::<Vec<_>>(), packets);
    }

    #[test]
    fn binary_bodies(packets in vec(engine_packet(), 1..6)) {
        let body = encode_binary(&packets);
        let payload = Payload::decode(&body, packets.len()).unwrap();
        prop_assert_eq!(payload.packets().collect::<Vec<_>>(), packets);
    }

    /// The clients' two ways of reading a body agree only on ASCII.
    #[test]
    fn events_in_bodies_are_ascii(event in event(), ack in proptest::option::of(any::<u32>())) {
        let mut packet = vec![b'4'];
        SocketPacket::Event { namespace: Namespace::ROOT, ack: ack.map(AckId::from), event: event.clone() }.encode(&mut packet);
        let mut body = Vec::new();
        engine_payload::encode_text([&packet], &mut body);
        prop_assert!(body.is_ascii());

        let payload = Payload::decode(&body, 1).unwrap();
        let Some(EnginePacket::Message(text)) = payload.packets().next() else { panic!("a message") };
        let SocketPacket::Event { event: decoded, .. } = SocketPacket::decode(text).unwrap() else { panic!("an event") };
        prop_assert_eq!(decoded.name, event.name);
        let values = |args: &[&RawValue]| args.iter().map(|arg| arg.get().parse::<Value>().unwrap()).collect::<Vec<_>>();
        prop_assert_eq!(values(&decoded.args), values(&event.args));
    }

    /// As JavaScript a script must be one call with one string, which is the body; nothing in it may end the element.
    #[test]
    fn scripts(index: u64, packets in vec(engine_packet(), 1..6)) {
        let (mut body, mut script) = (Vec::new(), Vec::new());
        engine_payload::encode_text(encoded(&packets), &mut body);
        engine_payload::encode_jsonp(index, &body, &mut script);
        let script = String::from_utf8(script).unwrap();
        let harmful = ['<', '\u{2028}', '\u{2029}', '\n'];
        prop_assert!(!script.contains(harmful));
        let string = script.strip_prefix(&format!("___eio[{index}](")).and_then(|rest| rest.strip_suffix(");")).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(string).unwrap().into_bytes(), body);
    }

    /// What a JSONP client does to its body before it posts it. It cannot distinguish a backslash before a line feed from one
    /// before an `n`; JSON has no line feed within strings.
    #[test]
    fn forms(text in text()) {
        prop_assume!(!text.contains("\\\n"));
        let escaped = text.replace("\\n", "\\\n").replace('\n', "\\n");
        let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("d", &escaped).finish();
        prop_assert_eq!(engine_payload::decode_jsonp_form(form.as_bytes()).unwrap(), text);
    }

    #[test]
    fn fast_writers(name in text(), payload in json(), ack: u32, text in text()) {
        let mut event = Vec::new();
        write_event(&mut event, &name, &payload.to_string());
        let expected = Event { name: name.into(), args: vec![raw(payload)] };
        let event = String::from_utf8(event).unwrap();
        let Ok(EnginePacket::Message(message)) = EnginePacket::decode_text(&event) else { panic!("a message") };
        let Ok(SocketPacket::Event { ack: None, event, .. }) = SocketPacket::decode(message) else { panic!("an event") };
        prop_assert_eq!(event, expected);

        let mut acknowledgement = Vec::new();
        write_ack(&mut acknowledgement, ack.into(), &text);
        let expected = format!("43{ack}[{}]", Value::from(text));
        prop_assert_eq!(String::from_utf8(acknowledgement).unwrap(), expected);
    }

    #[test]
    fn refusals(path in "/[^,?]{1,8}") {
        let mut refusal = Vec::new();
        write_invalid_namespace(&mut refusal, &path);
        let refusal = String::from_utf8(refusal).unwrap();
        let packet = SocketPacket::decode(refusal.strip_prefix('4').unwrap()).unwrap();
        let SocketPacket::Error { namespace, message } = packet else { panic!("an error") };
        prop_assert_eq!((namespace.path, message), (path.as_str(), r#""Invalid namespace""#));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), text in ".{0,200}") {
        swallow(&bytes, &text);
    }

    #[test]
    fn almost_packets_never_panic(frames in vec(nearly_a_packet(), 1..6)) {
        let mut connection = Connection::new();
        for frame in &frames {
            swallow(frame.as_bytes(), frame);
            let Ok(packet) = EnginePacket::decode_text(frame) else { continue };
            if let Ok(Received::Entered | Received::Left) = connection.receive(packet) {
                prop_assert!(connection.in_root() == frame.starts_with("40"));
            }
        }
    }
}

/// Gives the input to everything that reads.
fn swallow(bytes: &[u8], text: &str) {
    let _ = EnginePacket::decode_binary(bytes);
    let _ = EnginePacket::decode_text(text).map(|packet| Connection::new().receive(packet).is_ok());
    let _ = SocketPacket::decode(text);
    let _ = ServerOpen::decode(text);
    let _ = HandshakeQuery::parse(text);
    for bytes in [bytes, text.as_bytes()] {
        let _ = Payload::decode(bytes, 100).map(|payload| payload.packets().count());
        let _ = engine_payload::decode_jsonp_form(bytes);
        engine_payload::encode_text([bytes], &mut Vec::new());
        engine_payload::encode_jsonp(0, bytes, &mut Vec::new());
    }
}
