//! What a client may send to do harm, in one place: the protocol's tests feed it to the decoder,
//! the tests of a started server send it over a socket.

use flamenco_webupdates::protocol::ProtocolError::{self, *};

/// Frames that end their connection.
pub(crate) const FRAMES: [(&str, ProtocolError); 15] = [
    ("", EmptyPacket),
    ("4", EmptyPacket),
    ("x", UnknownEngineType),
    ("9", UnknownEngineType),
    ("47", UnknownSocketType),
    ("0x", ServerOnlyPacket),
    (r#"0{"sid":"x"}"#, ServerOnlyPacket),
    (r#"40{"sid":"x"}"#, UnexpectedData),
    ("40\0", UnexpectedData),
    (r#"42[]"#, MissingEventName),
    ("42[{}]", EventNameNotString),
    ("4212345", MalformedJson),
    ("430[", MalformedJson),
    ("b4AQID", UnexpectedAttachment),
    (r#"451-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#, TooManyPlaceholders),
];

/// Bodies of polling requests that are text and end their session, besides each frame as a body.
pub(crate) fn text_bodies() -> Vec<String> {
    let nested = format!("42[\"a\",{}", "[".repeat(10_000));
    let written = [
        "",
        "9:42[\"a\"]",
        "3:42[\"a\"]",
        "-1:2",
        "+1:2",
        " 1:2",
        "1",
        ":",
        "1:",
        "0:",
        "0:1:2",
        "1:21",
        "99999999999999999999:2",
        "4294967297:2",
        "2:4🎬",
        "1:🎬",
        "1:7",
        "1:0",
        "2:b3",
        "6:b4****",
        "11:451-[\"a\"]2:40",
    ];
    let of_frames = FRAMES.iter().map(|&(frame, _)| frame).chain([&*nested]).map(body);
    written.into_iter().map(str::to_owned).chain(of_frames).collect()
}

/// Bodies of polling requests that are binary and end their session.
pub(crate) const BINARY_BODIES: [&[u8]; 13] = [
    b"\xff",
    b"2:\xff\xff",
    b"\x00",
    b"\x00\x01",
    b"\x00\xff2",
    b"\x00\x01\xff",
    b"\x00\x02\xff2",
    b"\x01\x02\xff\x03\xca",
    b"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\xff2",
    b"\x00\x0a\xff2",
    b"\x02\x01\xff2",
    b"\x00\x01\xff\xff",
    b"\x01\x01\xff\x04",
];

/// Returns a body with one packet, whose length counts UTF-16 code units.
fn body(packet: &str) -> String {
    format!("{}:{packet}", packet.encode_utf16().count())
}
