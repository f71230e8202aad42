//! One packet of Socket.IO (protocol revision 4, "Packet encoding"): a type digit, `<n>-` if binary, `<namespace>,` if
//! not `/`, an acknowledgement id, JSON. It travels as the data of an engine message.

use super::{ProtocolError, json};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU8;

/// The maximum number of binary attachments that a packet may announce. Events of this project take
/// none, and 10 is the default of the reference parser since attachments were found to exhaust a
/// server's memory (CVE-2026-33151).
pub const MAX_ATTACHMENTS: usize = 10;

/// 2^53 has 16 digits.
const MAX_ACK_DIGITS: usize = 16;
const MAX_ACK_ID: u64 = 1 << 53;

/// A namespace in a packet; `/` if the packet has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace<'a> {
    /// Starts with `/`; without the query.
    pub path: &'a str,
    /// The text after the `?`, undecoded. Clients of the 2.x line append theirs when they connect.
    pub query: Option<&'a str>,
}

/// The id under which the sender of an event waits for its acknowledgement. It is echoed digit for
/// digit, so leading zeros are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckId {
    /// At most 2^53, the largest integer that a JavaScript client can count to.
    value: u64,
    digits: NonZeroU8,
}

/// An event: its name and its arguments, each as unchanged JSON text.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    pub name: Cow<'a, str>,
    pub args: Vec<&'a RawValue>,
}

#[derive(Debug, Clone)]
pub enum SocketPacket<'a> {
    /// `0`
    Connect { namespace: Namespace<'a> },
    /// `1`
    Disconnect { namespace: Namespace<'a> },
    /// `2`
    Event { namespace: Namespace<'a>, ack: Option<AckId>, event: Event<'a> },
    /// `3`
    Ack { namespace: Namespace<'a>, ack: AckId, args: Vec<&'a RawValue> },
    /// `4`; `message` is JSON text.
    Error { namespace: Namespace<'a>, message: &'a str },
    /// `5`; as many binary messages as there are attachments follow.
    BinaryEvent { attachments: usize, namespace: Namespace<'a>, ack: Option<AckId>, event: Event<'a> },
    /// `6`; likewise.
    BinaryAck { attachments: usize, namespace: Namespace<'a>, ack: AckId, args: Vec<&'a RawValue> },
}

impl<'a> SocketPacket<'a> {
    /// Decodes the data of an engine message.
    ///
    /// # Errors
    ///
    /// The packet is malformed, or exceeds a limit of arguments, attachments or nesting.
    pub fn decode(text: &'a str) -> Result<Self, ProtocolError> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(ProtocolError::EmptyPacket)?;
        let rest = rest.as_str();
        match kind {
            '0' => bare(rest).map(|namespace| Self::Connect { namespace }),
            '1' => bare(rest).map(|namespace| Self::Disconnect { namespace }),
            '2' => {
                let (namespace, ack, json) = head(rest)?;
                Ok(Self::Event { namespace, ack, event: Event::decode(json)? })
            }
            '3' => {
                let (namespace, ack, json) = head(rest)?;
                let ack = ack.ok_or(ProtocolError::MissingAckId)?;
                Ok(Self::Ack { namespace, ack, args: json::elements(json)? })
            }
            '4' => {
                let (namespace, json) = Namespace::split(rest);
                Ok(Self::Error { namespace, message: json::value(json)? })
            }
            '5' => {
                let (attachments, rest) = attachments(rest)?;
                let (namespace, ack, json) = head(rest)?;
                let event = Event::decode(json)?;
                json::check_placeholders(json, attachments)?;
                Ok(Self::BinaryEvent { attachments, namespace, ack, event })
            }
            '6' => {
                let (attachments, rest) = attachments(rest)?;
                let (namespace, ack, json) = head(rest)?;
                let ack = ack.ok_or(ProtocolError::MissingAckId)?;
                let args = json::elements(json)?;
                json::check_placeholders(json, attachments)?;
                Ok(Self::BinaryAck { attachments, namespace, ack, args })
            }
            _ => Err(ProtocolError::UnknownSocketType),
        }
    }

    /// Appends the packet, without the engine's digit `4`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { namespace } => write_head(out, b'0', None, namespace, None),
            Self::Disconnect { namespace } => write_head(out, b'1', None, namespace, None),
            Self::Event { namespace, ack, event } => {
                write_head(out, b'2', None, namespace, *ack);
                write_array(out, Some(&event.name), &event.args);
            }
            Self::Ack { namespace, ack, args } => {
                write_head(out, b'3', None, namespace, Some(*ack));
                write_array(out, None, args);
            }
            Self::Error { namespace, message } => {
                write_head(out, b'4', None, namespace, None);
                out.extend_from_slice(message.as_bytes());
            }
            Self::BinaryEvent { attachments, namespace, ack, event } => {
                write_head(out, b'5', Some(*attachments), namespace, *ack);
                write_array(out, Some(&event.name), &event.args);
            }
            Self::BinaryAck { attachments, namespace, ack, args } => {
                write_head(out, b'6', Some(*attachments), namespace, Some(*ack));
                write_array(out, None, args);
            }
        }
    }
}

impl<'a> Namespace<'a> {
    pub const ROOT: Namespace<'static> = Namespace { path: "/", query: None };

    pub fn is_root(&self) -> bool {
        self.path == Self::ROOT.path
    }

    /// Splits the namespace off the front of `text`. Without a comma it extends to the end, as in
    /// `0/admin`.
    fn split(text: &'a str) -> (Self, &'a str) {
        if !text.starts_with('/') {
            return (Self::ROOT, text);
        }
        let (name, rest) = text.split_once(',').unwrap_or((text, ""));
        match name.split_once('?') {
            Some((path, query)) => (Self { path, query: Some(query) }, rest),
            None => (Self { path: name, query: None }, rest),
        }
    }
}

impl AckId {
    /// Splits the id, if there is one, off the front of `text`.
    fn split(text: &str) -> Result<(Option<Self>, &str), ProtocolError> {
        let (digits, rest) = split_digits(text);
        if digits.len() > MAX_ACK_DIGITS {
            return Err(ProtocolError::AckIdTooLarge);
        }
        let Some(width) = u8::try_from(digits.len()).ok().and_then(NonZeroU8::new) else { return Ok((None, rest)) };
        match digits.parse() {
            Ok(value) if value <= MAX_ACK_ID => Ok((Some(Self { value, digits: width }), rest)),
            Ok(_) | Err(_) => Err(ProtocolError::AckIdTooLarge),
        }
    }

    pub fn value(self) -> u64 {
        self.value
    }
}

impl From<u32> for AckId {
    fn from(value: u32) -> Self {
        let digits = u8::try_from(value.checked_ilog10().unwrap_or(0)).expect("a u32 has 10 digits");
        Self { value: value.into(), digits: NonZeroU8::MIN.saturating_add(digits) }
    }
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$}", self.value, width = usize::from(self.digits.get()))
    }
}

impl<'a> Event<'a> {
    fn decode(json: &'a str) -> Result<Self, ProtocolError> {
        let mut args = json::elements(json)?;
        if args.is_empty() {
            return Err(ProtocolError::MissingEventName);
        }
        let name = args.remove(0).get();
        let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let name = match quoted.ok_or(ProtocolError::EventNameNotString)? {
            plain if !plain.contains('\\') => plain.into(),
            _ => serde_json::from_str::<String>(name).map_err(|_| ProtocolError::MalformedJson)?.into(),
        };
        Ok(Self { name, args })
    }
}

/// Arguments are equal if their JSON text is.
impl PartialEq for Event<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.args.iter().map(|arg| arg.get()).eq(other.args.iter().map(|arg| arg.get()))
    }
}

/// The namespace, acknowledgement id and JSON of an event or acknowledgement.
fn head(text: &str) -> Result<(Namespace<'_>, Option<AckId>, &str), ProtocolError> {
    let (namespace, rest) = Namespace::split(text);
    let (ack, json) = AckId::split(rest)?;
    Ok((namespace, ack, json))
}

/// Returns the namespace of a packet that contains nothing else.
fn bare(text: &str) -> Result<Namespace<'_>, ProtocolError> {
    let (namespace, rest) = Namespace::split(text);
    if rest.is_empty() { Ok(namespace) } else { Err(ProtocolError::UnexpectedData) }
}

fn attachments(text: &str) -> Result<(usize, &str), ProtocolError> {
    let (digits, rest) = split_digits(text);
    let rest = rest.strip_prefix('-').filter(|_| !digits.is_empty()).ok_or(ProtocolError::MalformedAttachmentCount)?;
    match digits.parse() {
        Ok(0) => Err(ProtocolError::MalformedAttachmentCount),
        Ok(count) if count <= MAX_ATTACHMENTS => Ok((count, rest)),
        Ok(_) | Err(_) => Err(ProtocolError::TooManyAttachments),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).expect("digits are one byte each")
}

fn write_head(out: &mut Vec<u8>, kind: u8, attachments: Option<usize>, namespace: &Namespace<'_>, ack: Option<AckId>) {
    out.push(kind);
    if let Some(attachments) = attachments {
        super::write::display(out, format_args!("{attachments}-"));
    }
    match namespace {
        Namespace { path: "/", query: None } => {}
        Namespace { path, query: None } => super::write::display(out, format_args!("{path},")),
        Namespace { path, query: Some(query) } => super::write::display(out, format_args!("{path}?{query},")),
    }
    if let Some(ack) = ack {
        super::write::display(out, format_args!("{ack}"));
    }
}

/// Appends a JSON array: the name, if there is one, and the unchanged arguments.
fn write_array(out: &mut Vec<u8>, name: Option<&str>, args: &[&RawValue]) {
    out.push(b'[');
    if let Some(name) = name {
        super::write::json_string(out, name);
        out.push(b',');
    }
    for arg in args {
        out.extend_from_slice(arg.get().as_bytes());
        out.push(b',');
    }
    out.pop_if(|last| *last == b',');
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_ids_are_echoed_digit_for_digit() {
        for digits in ["0", "00", "7", "0000000000000012", "9007199254740992"] {
            let text = format!("{digits}[]");
            let (id, rest) = AckId::split(&text).unwrap();
            assert_eq!((id.unwrap().to_string().as_str(), rest), (digits, "[]"));
        }
        for value in [0, 1, 9, 10, 99, 100, u32::MAX] {
            assert_eq!(AckId::from(value).to_string(), value.to_string());
            assert_eq!(AckId::from(value).value(), u64::from(value));
        }
        assert!(size_of::<Option<AckId>>() <= 16);
    }

    #[test]
    fn plain_names_are_borrowed() {
        let name = |json| Event::decode(json).unwrap().name;
        assert!(matches!(name(r#"["/jobs"]"#), Cow::Borrowed("/jobs")));
        assert!(matches!(name(r#"["\/jobs"]"#), Cow::Owned(name) if name == "/jobs"));
    }

    #[test]
    fn arguments_stay_as_they_came() {
        let event = Event::decode(r#"["a", {"t" : 1.50e3} ,"\u00e9" ]"#).unwrap();
        assert_eq!(event.args.iter().map(|arg| arg.get()).collect::<Vec<_>>(), [r#"{"t" : 1.50e3}"#, r#""\u00e9""#]);
    }
}
