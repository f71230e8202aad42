//! What a client may send to do harm: it ends that client's connection, or changes nothing. The known failures of this
//! line of software are named where they are tested.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "support/hostile.rs"]
mod hostile;

use flamenco_webupdates::protocol::engine_payload::{self, Payload};
use flamenco_webupdates::protocol::{
    Connection, EnginePacket, MAX_ARGUMENTS, MAX_DEPTH, PayloadProblem, ProtocolError, Received, SocketPacket,
};

/// Feeds text frames to a new connection. All but the last must be fine.
fn receive<'a>(frames: &[&'a str]) -> Result<Received<'a>, ProtocolError> {
    let mut connection = Connection::new();
    let (last, before) = frames.split_last().unwrap();
    for frame in before {
        connection.receive(EnginePacket::decode_text(frame)?).unwrap();
    }
    connection.receive(EnginePacket::decode_text(last)?)
}

#[test]
fn frames_that_close_the_connection() {
    for (frame, error) in hostile::FRAMES {
        assert_eq!(receive(&[frame]), Err(error), "{frame}");
    }
}

#[test]
fn bodies_that_end_their_session() {
    let text = hostile::text_bodies();
    for body in text.iter().map(String::as_bytes).chain(hostile::BINARY_BODIES) {
        let mut connection = Connection::new();
        let is_harmless = Payload::decode(body, 1000)
            .is_ok_and(|payload| payload.packets().all(|packet| connection.receive(packet).is_ok()));
        assert!(!is_harmless, "{}", String::from_utf8_lossy(body));
    }
}

/// A name that has methods of its own, or none, where one of text is called (CVE-2023-32695).
#[test]
fn the_name_of_an_event_is_text() {
    for name in ["{}", "null", "[]", "5", "true", r#"{"toString":"x"}"#, r#"{"_placeholder":true,"num":0}"#] {
        assert_eq!(receive(&[&format!("42[{name}]")]), Err(ProtocolError::EventNameNotString), "{name}");
        assert!(receive(&[&format!("451-[{name}]")]).is_err(), "{name}");
    }
}

/// As many attachments as one likes, which a server waits for and keeps (CVE-2026-33151).
#[test]
fn few_attachments_may_be_announced() {
    for count in ["11", "999999", "99999999999999999999"] {
        assert_eq!(receive(&[&format!(r#"45{count}-["x"]"#)]), Err(ProtocolError::TooManyAttachments));
        assert_eq!(receive(&[&format!("46{count}-1[]")]), Err(ProtocolError::TooManyAttachments));
    }
    assert_eq!(receive(&[r#"4510-["x"]"#]), Ok(Received::Nothing));
}

/// A packet that announces none, after which all attachments were kept for ever (CVE-2026-69185).
#[test]
fn unannounced_attachments_are_refused() {
    for announced in [r#"450-["x"]"#, "460-1[]", r#"4500-["x"]"#] {
        assert!(receive(&[announced]).is_err(), "{announced}");
    }
    for done in [&[r#"42["x"]"#][..], &[r#"451-["x"]"#, "b4AQID"]] {
        assert_eq!(receive(&[done, &["b4AQID"]].concat()), Err(ProtocolError::UnexpectedAttachment), "{done:?}");
    }
}

/// Placeholders that reach for methods of the array of attachments, or beside it (CVE-2022-2421).
#[test]
fn a_placeholder_is_the_number_of_an_attachment() {
    for number in [r#""splice""#, r#""0""#, "-1", "0.5", "1e300", "1", "null", "[0]", "{}"] {
        let frame = format!(r#"451-["x",{{"_placeholder":true,"num":{number}}}]"#);
        assert_eq!(receive(&[&frame]), Err(ProtocolError::MisplacedPlaceholder), "{frame}");
    }
}

/// Numbers without end, read by adding one digit to the others (CVE-2020-36049).
#[test]
fn long_runs_of_digits() {
    let digits = "9".repeat(400);
    assert_eq!(receive(&[&format!(r#"42{digits}["x"]"#)]), Err(ProtocolError::AckIdTooLarge));
    assert_eq!(receive(&[&format!("43{digits}[]")]), Err(ProtocolError::AckIdTooLarge));
    assert_eq!(receive(&[&format!(r#"45{digits}-["x"]"#)]), Err(ProtocolError::TooManyAttachments));
    assert_eq!(receive(&[&format!("42{digits}")]), Err(ProtocolError::AckIdTooLarge));

    // In front of a packet of a polling request (CVE-2020-36048).
    let mut body = vec![0];
    body.resize(1 << 20, 9);
    assert_eq!(Payload::decode(&body, 10).unwrap_err().problem, PayloadProblem::LengthTooLong);
    let body = "1".repeat(1 << 20);
    assert_eq!(Payload::decode(body.as_bytes(), 10).unwrap_err().problem, PayloadProblem::LengthTooLong);
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"["x",{}{}]"#, open.repeat(depth - 1), ["0", &close.repeat(depth - 1)].concat())
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deepest = nested(open, close, MAX_DEPTH);
        assert!(SocketPacket::decode(&format!("2{deepest}")).is_ok());
        assert!(SocketPacket::decode(&format!("51-{deepest}")).is_ok());
        let deeper = nested(open, close, MAX_DEPTH + 1);
        assert_eq!(receive(&[&format!("42{deeper}")]), Err(ProtocolError::NestedTooDeep));
        assert_eq!(receive(&[&format!("451-{deeper}")]), Err(ProtocolError::NestedTooDeep));
        assert_eq!(receive(&[&format!("44{deeper}")]), Err(ProtocolError::NestedTooDeep));
    }
    let unclosed = format!("42{}", "[".repeat(10_000));
    assert_eq!(receive(&[&unclosed]), Err(ProtocolError::NestedTooDeep));
    let quoted = format!(r#"42["x","\"{}"]"#, "[".repeat(10_000));
    assert!(matches!(receive(&[&quoted]), Ok(Received::Event { .. })), "brackets in a string nest nothing");
}

#[test]
fn arguments_are_bounded() {
    let event = |arguments: usize| format!(r#"42["x"{}]"#, ",1".repeat(arguments - 1));
    assert!(matches!(receive(&[&event(MAX_ARGUMENTS)]), Ok(Received::Event { .. })));
    assert_eq!(receive(&[&event(MAX_ARGUMENTS + 1)]), Err(ProtocolError::TooManyArguments));
    assert_eq!(receive(&[&event(1 << 19)]), Err(ProtocolError::TooManyArguments));
}

/// Names that a library emits itself, `error` among them, which ends a process that does not listen (CVE-2024-38355).
#[test]
fn reserved_names_are_not_heard() {
    for name in [
        "connect",
        "connect_error",
        "connect_timeout",
        "connecting",
        "disconnect",
        "disconnecting",
        "error",
        "newListener",
        "ping",
        "pong",
        "reconnect",
        "reconnect_attempt",
        "reconnect_error",
        "reconnect_failed",
        "reconnecting",
        "removeListener",
    ] {
        assert_eq!(receive(&[&format!(r#"42["{name}"]"#)]), Ok(Received::Nothing));
        assert_eq!(receive(&[&format!(r#"427["{name}",{{}}]"#)]), Ok(Received::Nothing));
        assert_eq!(receive(&[&format!(r#"451-["{name}"]"#), "b4AQID"]), Ok(Received::Nothing));
    }
    assert_eq!(receive(&[r#"42["\u0065rror"]"#]), Ok(Received::Nothing), "however it is written");
    for name in ["Error", "connection", "message", "/chat", ""] {
        assert!(matches!(receive(&[&format!(r#"42["{name}"]"#)]), Ok(Received::Event { .. })), "{name}");
    }
}

#[test]
fn attachments_cannot_desynchronise_the_stream() {
    let announced = r#"452-["x",{"_placeholder":true,"num":0}]"#;
    assert_eq!(receive(&[announced, r#"42["y"]"#]), Err(ProtocolError::AttachmentExpected));
    assert_eq!(receive(&[announced, "b4AQ==", announced]), Err(ProtocolError::AttachmentExpected));
    assert_eq!(receive(&[announced, "b4AQ==", "b4AQ==", "b4AQ=="]), Err(ProtocolError::UnexpectedAttachment));
    assert_eq!(receive(&[announced, "b4AQ==", "2", "b4AQ=="]), Ok(Received::BinaryEvent { ack: None }));
}

/// Were any of these quadratic, it would take hours; as it is, it takes a moment.
#[test]
fn megabytes_of_the_worst_kind() {
    const SIZE: usize = 1 << 20;
    for unit in ["[", "]", "\"", "\\", "\\\"", "{\"a\":", ",", "/", "9", " ", "🎬", "\\ud83c"] {
        let filler = unit.repeat(SIZE / unit.len());
        for frame in [
            filler.clone(),
            format!("42{filler}"),
            format!(r#"42["x",{filler}]"#),
            format!(r#"42["x","{filler}"]"#),
            format!(r#"42["{filler}"]"#),
            format!("42/{filler}"),
            format!(r#"451-["x","{filler}"]"#),
            format!("b4{filler}"),
        ] {
            // Whether it is an error is not the question here.
            let _ = EnginePacket::decode_text(&frame).and_then(|packet| Connection::new().receive(packet).map(|_| ()));
        }
        let form = format!("d={filler}");
        let _ =
            engine_payload::decode_jsonp_form(form.as_bytes()).map(|text| Payload::decode(text.as_bytes(), 1).is_ok());
    }
    let many = "1:2".repeat(SIZE / 3);
    assert_eq!(Payload::decode(many.as_bytes(), usize::MAX).unwrap().packets().count(), SIZE / 3);
    assert_eq!(Payload::decode(many.as_bytes(), 1000).unwrap_err().packet, 1000);
    let form = "d&".repeat(SIZE / 2) + "d=1:2";
    assert_eq!(engine_payload::decode_jsonp_form(form.as_bytes()).unwrap(), "", "the first field counts");
}
