//! Bodies of long-polling requests: several packets in one (engine.io-protocol revision 3, "Payload").
//!
//! Text is `<length>:<packet>`, repeated; the length counts UTF-16 code units, as JavaScript does. A body that holds
//! binary packets may instead be a sequence of `0x00` (text) or `0x01` (binary), the decimal digits of the length as
//! bytes 0 to 9, `0xFF`, and that many bytes.
//!
//! Clients disagree about text that is not ASCII, and nothing in a request says which client it comes from. The 1.x line
//! encodes it as UTF-8 twice and decodes it twice; python-engineio 3 counts code points. So what is sent to them is ASCII
//! wherever that is possible (JSON can escape all else), which all of them read alike, and text that was encoded twice is
//! recognised by its form.

use super::{EnginePacket, PayloadError, PayloadProblem, ProtocolError};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The default for the maximum number of packets in a client's body. A body holds the packets of
/// all events since the client's last request; each costs the server a few dozen bytes besides its
/// text.
pub const DEFAULT_MAX_PACKETS: usize = 1000;

/// The maximum number of packets in a body for a client written in Python, besides a close packet
/// at its end: python-engineio 3 refuses more.
pub const MAX_PACKETS_FOR_PYTHON: usize = 15;

/// The maximum number of digits of a length. No body needs more, and such a number fits in 32 bits.
const MAX_LENGTH_DIGITS: usize = 9;

/// A body that was validated as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'a> {
    pieces: Vec<Piece<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece<'a> {
    Packet(EnginePacket<'a>),
    /// A text packet that had been encoded twice.
    Repaired(String),
}

impl<'a> Payload<'a> {
    /// Decodes the body of a `POST`, in either framing, with at most `max_packets` packets.
    ///
    /// # Errors
    ///
    /// The body or one of its packets is malformed, or there are more packets. The error has the
    /// number of the packet and its offset in bytes.
    pub fn decode(body: &'a [u8], max_packets: usize) -> Result<Self, PayloadError> {
        let mut reader = Reader { packet: 0, offset: 0, body };
        let mut pieces = Vec::new();
        match body.first() {
            None => return Err(reader.error(PayloadProblem::EmptyBody)),
            Some(0 | 1) => {
                while reader.offset < body.len() {
                    pieces.push(reader.next_binary(max_packets)?);
                }
            }
            Some(_) => {
                let text = std::str::from_utf8(body).map_err(|error| PayloadError {
                    packet: 0,
                    offset: error.valid_up_to(),
                    problem: PayloadProblem::NotUtf8,
                })?;
                let mut rest = text;
                while !rest.is_empty() {
                    pieces.push(reader.next_text(&mut rest, max_packets)?);
                }
            }
        }
        Ok(Self { pieces })
    }

    pub fn packets(&self) -> impl Iterator<Item = EnginePacket<'_>> {
        self.pieces.iter().map(|piece| match piece {
            Piece::Packet(packet) => packet.clone(),
            Piece::Repaired(text) => EnginePacket::decode_text(text).expect("it was decoded before it was kept"),
        })
    }
}

/// Appends the body of a `GET`: at least one whole engine packet, in text framing.
pub fn encode_text<P: AsRef<[u8]>>(packets: impl IntoIterator<Item = P>, out: &mut Vec<u8>) {
    for packet in packets {
        let packet = to_ascii(packet.as_ref());
        super::write::display(out, format_args!("{}:", utf16_length(&packet)));
        out.extend_from_slice(&packet);
    }
}

/// Appends the body of a `GET` as a script that calls the client's callback number `index` with
/// `body`, which is in text framing.
pub fn encode_jsonp(index: u64, body: &[u8], out: &mut Vec<u8>) {
    let mut text = serde_json::to_string(&String::from_utf8_lossy(body)).expect("a string serializes");
    // A JSON string is a JavaScript string except for the two line separators; the bracket could
    // end the script element.
    for (special, escape) in [("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029"), ("<", "\\u003c")] {
        text = text.replace(special, escape);
    }
    super::write::display(out, format_args!("___eio[{index}]({text});"));
}

/// Extracts the payload from the form that a JSONP client posts, for [`Payload::decode`].
///
/// Browsers change line ends in forms, so the client writes a line feed as `\n` and, to distinguish
/// it, an original `\n` as `\\n`.
///
/// # Errors
///
/// The form has no field `d`.
pub fn decode_jsonp_form(form: &[u8]) -> Result<String, PayloadError> {
    let (_, data) = url::form_urlencoded::parse(form).find(|(key, _)| key == "d").ok_or(PayloadError {
        packet: 0,
        offset: 0,
        problem: PayloadProblem::MissingFormField,
    })?;
    let mut text = String::with_capacity(data.len());
    let mut backslashes = 0;
    for char in data.chars() {
        match char {
            '\\' => backslashes += 1,
            'n' if backslashes == 1 => {
                text.push('\n');
                backslashes = 0;
            }
            _ => {
                let doubled = usize::from(char == 'n' && backslashes > 1);
                text.extend(std::iter::repeat_n('\\', backslashes - doubled));
                text.push(char);
                backslashes = 0;
            }
        }
    }
    text.extend(std::iter::repeat_n('\\', backslashes));
    Ok(text)
}

/// The offset of a packet in the body, for errors.
struct Reader<'a> {
    packet: usize,
    offset: usize,
    body: &'a [u8],
}

impl<'a> Reader<'a> {
    fn next_text(&mut self, rest: &mut &'a str, max_packets: usize) -> Result<Piece<'a>, PayloadError> {
        self.check_count(max_packets)?;
        let digits = rest.bytes().take(MAX_LENGTH_DIGITS + 1).take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at_checked(digits).expect("digits are one byte each");
        let length = self.length(digits.bytes().map(|digit| digit - b'0'))?;
        let after = after.strip_prefix(':').ok_or_else(|| self.error(PayloadProblem::MalformedLength))?;
        let end = utf16_offset(after, length).map_err(|problem| self.error(problem))?;
        let (packet, after) = after.split_at_checked(end).expect("the offset is one of a character");
        let piece = decode_maybe_twice(packet).map_err(|problem| self.error(problem.into()))?;
        self.packet += 1;
        self.offset = self.body.len() - after.len();
        *rest = after;
        Ok(piece)
    }

    fn next_binary(&mut self, max_packets: usize) -> Result<Piece<'a>, PayloadError> {
        self.check_count(max_packets)?;
        let rest = self.body.get(self.offset..).unwrap_or_default();
        let (is_text, rest) = match rest.split_first() {
            Some((0, rest)) => (true, rest),
            Some((1, rest)) => (false, rest),
            Some(_) | None => return Err(self.error(PayloadProblem::MalformedLength)),
        };
        let digits = rest.iter().take(MAX_LENGTH_DIGITS + 1).take_while(|digit| **digit < 10).count();
        let (digits, rest) = rest.split_at_checked(digits).expect("they were counted in it");
        let length = self.length(digits.iter().copied())?;
        let rest = rest.strip_prefix(&[0xFF]).ok_or_else(|| self.error(PayloadProblem::MalformedLength))?;
        let (data, rest) = rest.split_at_checked(length).ok_or_else(|| self.error(PayloadProblem::PastTheEnd))?;
        let packet = if is_text {
            let text = std::str::from_utf8(data).map_err(|_| self.error(PayloadProblem::NotUtf8))?;
            EnginePacket::decode_text(text)
        } else {
            EnginePacket::decode_binary(data)
        };
        let packet = packet.map_err(|problem| self.error(problem.into()))?;
        self.packet += 1;
        self.offset = self.body.len() - rest.len();
        Ok(Piece::Packet(packet))
    }

    fn length(&self, digits: impl ExactSizeIterator<Item = u8>) -> Result<usize, PayloadError> {
        match digits.len() {
            0 => Err(self.error(PayloadProblem::MalformedLength)),
            count if count > MAX_LENGTH_DIGITS => Err(self.error(PayloadProblem::LengthTooLong)),
            _ => Ok(digits.fold(0, |length, digit| length * 10 + usize::from(digit))),
        }
    }

    fn check_count(&self, max: usize) -> Result<(), PayloadError> {
        if self.packet < max { Ok(()) } else { Err(self.error(PayloadProblem::TooManyPackets { max })) }
    }

    fn error(&self, problem: PayloadProblem) -> PayloadError {
        PayloadError { packet: self.packet, offset: self.offset, problem }
    }
}

/// Returns the offset in bytes after `units` UTF-16 code units of `text`.
fn utf16_offset(text: &str, units: usize) -> Result<usize, PayloadProblem> {
    let mut left = units;
    for (offset, char) in text.char_indices() {
        if left == 0 {
            return Ok(offset);
        }
        left = left.checked_sub(char.len_utf16()).ok_or(PayloadProblem::SplitsSurrogatePair)?;
    }
    if left == 0 { Ok(text.len()) } else { Err(PayloadProblem::PastTheEnd) }
}

/// Returns the number of UTF-16 code units of UTF-8 text: one per character, and another one per
/// four-byte character.
fn utf16_length(utf8: &[u8]) -> usize {
    utf8.iter().map(|byte| usize::from(byte & 0xC0 != 0x80) + usize::from(*byte >= 0xF0)).sum()
}

/// Decodes a packet of a text body. If a 1.x client has encoded it twice, each character is a byte,
/// and together the bytes are UTF-8. Text of another client has that form only if it quotes such an
/// accident, like `Ã©` for `é`.
fn decode_maybe_twice(text: &str) -> Result<Piece<'_>, ProtocolError> {
    if !text.is_ascii()
        && let Ok(bytes) = text.chars().map(u8::try_from).collect::<Result<Vec<_>, _>>()
        && let Ok(repaired) = String::from_utf8(bytes)
    {
        EnginePacket::decode_text(&repaired)?;
        return Ok(Piece::Repaired(repaired));
    }
    EnginePacket::decode_text(text).map(Piece::Packet)
}

/// Escapes non-ASCII characters in the JSON of an event or acknowledgement of the namespace `/`.
/// Other packets hold text that is not JSON, and stay unchanged.
fn to_ascii(packet: &[u8]) -> Cow<'_, [u8]> {
    if packet.is_ascii() || !matches!(packet, [b'4', b'2' | b'3', b'[' | b'0'..=b'9', ..]) {
        return packet.into();
    }
    let mut ascii = String::with_capacity(packet.len() * 2);
    for char in String::from_utf8_lossy(packet).chars() {
        if char.is_ascii() {
            ascii.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(ascii, "\\u{unit:04x}").expect("a String takes whatever is written to it");
            }
        }
    }
    ascii.into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(packets: &[&str]) -> String {
        let mut out = Vec::new();
        encode_text(packets, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_for_clients() {
        assert_eq!(body(&["2", "42[\"a\"]"]), "1:27:42[\"a\"]");
        assert_eq!(
            body(&["42[\"/message\",{\"text\":\"é🎬\"}]"]),
            r#"44:42["/message",{"text":"\u00e9\ud83c\udfac"}]"#
        );
        assert_eq!(body(&["4312[\"€\"]"]), r#"14:4312["\u20ac"]"#);
        assert_eq!(body(&["3é🎬", "44/ü,\"x\""]), "4:3é🎬8:44/ü,\"x\"", "what is not JSON cannot be escaped");
    }

    #[test]
    fn scripts_for_clients() {
        let (mut body, mut script) = (Vec::new(), Vec::new());
        encode_text(["42[\"a\\n\",\"</script>\"]", "3\u{2028}\u{2029}"], &mut body);
        encode_jsonp(7, &body, &mut script);
        assert_eq!(
            String::from_utf8(script).unwrap(),
            r#"___eio[7]("21:42[\"a\\n\",\"\u003c/script>\"]3:3\u2028\u2029");"#
        );
    }

    #[test]
    fn lengths_are_those_of_javascript() {
        for text in ["", "a", "é", "€", "🎬", "a🎬é\u{ffff}\u{10000}"] {
            assert_eq!(utf16_length(text.as_bytes()), text.encode_utf16().count(), "{text}");
        }
    }

    #[test]
    fn forms() {
        let decode = |form: &str| decode_jsonp_form(form.as_bytes()).map_err(|error| error.problem);
        assert_eq!(decode("d=2:4+"), Ok("2:4 ".into()));
        assert_eq!(decode("x=1&d=a&d=b"), Ok("a".into()));
        assert_eq!(decode(r"d=\n-\\n-\\\n-\\-\-\"), Ok("\n-\\n-\\\\n-\\\\-\\-\\".into()));
        for form in ["", "d2:4", "D=1:2", "dd=1:2"] {
            assert_eq!(decode(form), Err(PayloadProblem::MissingFormField), "{form}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = Payload::decode("1:22:4🎬".as_bytes(), 10).unwrap_err();
        assert_eq!(error.to_string(), "packet 1 at byte 3 of the body: length ends inside a surrogate pair");
        let error = Payload::decode(b"1:9", 10).unwrap_err();
        assert_eq!(error.to_string(), "packet 0 at byte 0 of the body: unknown engine.io packet type");
    }
}
