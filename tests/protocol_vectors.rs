//! Vectors: what each packet and body means, or why it is refused. They are written as the specifications write packets
//! (engine.io-protocol revision 3, socket.io-protocol revision 4); the bodies were made by the reference clients of the
//! 1.x and 2.x lines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use flamenco_webupdates::protocol::engine_payload::{self, Payload};
use flamenco_webupdates::protocol::{EnginePacket, Namespace, SocketPacket};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn load<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let vectors: Vec<T> = serde_json::from_str(file).unwrap();
    assert!(!vectors.is_empty());
    vectors
}

#[test]
fn engine_packets() {
    #[derive(Deserialize)]
    struct Vector {
        text: Option<String>,
        binary: Option<Vec<u8>>,
        packet: Option<Value>,
        error: Option<String>,
    }
    for vector in load::<Vector>(include_str!("vectors/engine_packets.json")) {
        let decoded = match (&vector.text, &vector.binary) {
            (Some(text), None) => EnginePacket::decode_text(text),
            (None, Some(frame)) => EnginePacket::decode_binary(frame),
            other => panic!("text or binary, not {other:?}"),
        };
        let input = (&vector.text, &vector.binary);
        match decoded {
            Ok(packet) => {
                assert_eq!(Some(describe_engine(&packet)), vector.packet, "{input:?}");
                let mut text = Vec::new();
                packet.encode_text(&mut text);
                let text = String::from_utf8(text).unwrap();
                assert_eq!(EnginePacket::decode_text(&text).unwrap(), packet, "{input:?} again");
            }
            Err(error) => assert_eq!(Some(format!("{error:?}")), vector.error, "{input:?}"),
        }
    }
}

#[test]
fn socket_packets() {
    #[derive(Deserialize)]
    struct Vector {
        text: String,
        packet: Option<Value>,
        error: Option<String>,
    }
    for vector in load::<Vector>(include_str!("vectors/socket_packets.json")) {
        match SocketPacket::decode(&vector.text) {
            Ok(packet) => {
                let description = describe_socket(&packet);
                assert_eq!(Some(&description), vector.packet.as_ref(), "{}", vector.text);
                let mut text = Vec::new();
                packet.encode(&mut text);
                let again = String::from_utf8(text).unwrap();
                assert_eq!(describe_socket(&SocketPacket::decode(&again).unwrap()), description, "{again}");
            }
            Err(error) => assert_eq!(Some(format!("{error:?}")), vector.error, "{}", vector.text),
        }
    }
}

#[test]
fn bodies_of_both_lines_of_clients() {
    #[derive(Deserialize)]
    struct Vector {
        body: Option<String>,
        body_hex: Option<String>,
        packets: Vec<String>,
    }
    let text = load::<Vector>(include_str!("vectors/payloads_text.json"));
    let binary = load::<Vector>(include_str!("vectors/payloads_binary.json"));
    for vector in text.into_iter().chain(binary) {
        let body = bytes(vector.body, vector.body_hex);
        let payload = Payload::decode(&body, vector.packets.len()).unwrap();
        let packets: Vec<_> = payload.packets().collect();
        let expected: Vec<_> = vector.packets.iter().map(|text| EnginePacket::decode_text(text).unwrap()).collect();
        assert_eq!(packets, expected, "{:?}", body.escape_ascii().to_string());
    }
}

#[test]
fn bodies_that_lie() {
    #[derive(Deserialize)]
    struct Vector {
        body: Option<String>,
        body_hex: Option<String>,
        packet: usize,
        offset: usize,
        problem: String,
    }
    for vector in load::<Vector>(include_str!("vectors/payload_errors.json")) {
        let body = bytes(vector.body, vector.body_hex);
        let error = Payload::decode(&body, 4).unwrap_err();
        let found = (error.packet, error.offset, format!("{:?}", error.problem));
        assert_eq!(found, (vector.packet, vector.offset, vector.problem), "{:?}", body.escape_ascii().to_string());
    }
}

#[test]
fn jsonp_forms() {
    #[derive(Deserialize)]
    struct Vector {
        body: String,
        payload: String,
    }
    for vector in load::<Vector>(include_str!("vectors/jsonp_forms.json")) {
        let payload = engine_payload::decode_jsonp_form(vector.body.as_bytes()).unwrap();
        assert_eq!(payload, vector.payload, "{}", vector.body);
    }
}

fn bytes(text: Option<String>, hex: Option<String>) -> Vec<u8> {
    match (text, hex) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(hex)) => hex
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect(),
        other => panic!("a body as text or in hexadecimal, not {other:?}"),
    }
}

fn describe_engine(packet: &EnginePacket<'_>) -> Value {
    match packet {
        EnginePacket::Open(data) => json!({"type": "open", "data": data}),
        EnginePacket::Close => json!({"type": "close"}),
        EnginePacket::Ping(data) => json!({"type": "ping", "data": data}),
        EnginePacket::Pong(data) => json!({"type": "pong", "data": data}),
        EnginePacket::Message(data) => json!({"type": "message", "data": data}),
        EnginePacket::BinaryMessage(data) => json!({"type": "message", "bytes": data}),
        EnginePacket::Upgrade => json!({"type": "upgrade"}),
        EnginePacket::Noop => json!({"type": "noop"}),
    }
}

fn describe_socket(packet: &SocketPacket<'_>) -> Value {
    let describe = |kind: &str, namespace: &Namespace<'_>| {
        let mut description = json!({"type": kind, "nsp": namespace.path});
        if let Some(query) = namespace.query {
            description["query"] = query.into();
        }
        description
    };
    let (mut description, attachments, ack, data) = match packet {
        SocketPacket::Connect { namespace } => (describe("connect", namespace), None, None, None),
        SocketPacket::Disconnect { namespace } => (describe("disconnect", namespace), None, None, None),
        SocketPacket::Event { namespace, ack, event } => {
            (describe("event", namespace), None, *ack, Some(array(Some(&event.name), &event.args)))
        }
        SocketPacket::Ack { namespace, ack, args } => {
            (describe("ack", namespace), None, Some(*ack), Some(array(None, args)))
        }
        SocketPacket::Error { namespace, message } => {
            (describe("error", namespace), None, None, Some(serde_json::from_str(message).unwrap()))
        }
        SocketPacket::BinaryEvent { attachments, namespace, ack, event } => {
            (describe("binary event", namespace), Some(*attachments), *ack, Some(array(Some(&event.name), &event.args)))
        }
        SocketPacket::BinaryAck { attachments, namespace, ack, args } => {
            (describe("binary ack", namespace), Some(*attachments), Some(*ack), Some(array(None, args)))
        }
    };
    if let Some(attachments) = attachments {
        description["attachments"] = attachments.into();
    }
    if let Some(ack) = ack {
        description["id"] = ack.to_string().into();
    }
    if let Some(data) = data {
        description["data"] = data;
    }
    description
}

fn array(name: Option<&str>, args: &[&RawValue]) -> Value {
    let args = args.iter().map(|arg| serde_json::from_str(arg.get()).unwrap());
    name.map(Value::from).into_iter().chain(args).collect()
}
