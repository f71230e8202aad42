//! Errors in a peer's input. No text quotes the input: it may be long or secret.

use thiserror::Error;

/// A packet that violates the protocol. The connection it came from must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("packet is empty")]
    EmptyPacket,
    #[error("unknown engine.io packet type")]
    UnknownEngineType,
    #[error("binary packet is not a message")]
    BinaryNotMessage,
    #[error("malformed base64 in a binary packet")]
    MalformedBase64,
    #[error("unknown socket.io packet type")]
    UnknownSocketType,
    #[error("data after a packet that carries none")]
    UnexpectedData,
    #[error("packet type that only a server may send")]
    ServerOnlyPacket,
    #[error("number of attachments is missing, zero or malformed")]
    MalformedAttachmentCount,
    #[error("more than {} binary attachments", super::MAX_ATTACHMENTS)]
    TooManyAttachments,
    #[error("acknowledgement without an id")]
    MissingAckId,
    #[error("acknowledgement id above 2^53 or of more than 16 digits")]
    AckIdTooLarge,
    #[error("malformed JSON")]
    MalformedJson,
    #[error("JSON nested deeper than {} levels", super::MAX_DEPTH)]
    NestedTooDeep,
    #[error("more than {} arguments", super::MAX_ARGUMENTS)]
    TooManyArguments,
    #[error("arguments are not a JSON array")]
    ArgumentsNotArray,
    #[error("event without a name")]
    MissingEventName,
    #[error("event name is not a string")]
    EventNameNotString,
    #[error("placeholder that belongs to no binary attachment")]
    MisplacedPlaceholder,
    #[error("more placeholders than binary attachments")]
    TooManyPlaceholders,
    #[error("text message while binary attachments are outstanding")]
    AttachmentExpected,
    #[error("binary message that no event announced")]
    UnexpectedAttachment,
    #[error("malformed open packet")]
    MalformedOpen,
}

/// A polling body that does not parse, and where: HTTP 400, and the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("packet {packet} at byte {offset} of the body: {problem}")]
pub struct PayloadError {
    /// Number of the packet within the body, counted from 0.
    pub packet: usize,
    /// The offset of that packet (for [`PayloadProblem::NotUtf8`], of the invalid byte), in bytes
    /// from the start of the body.
    pub offset: usize,
    pub problem: PayloadProblem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadProblem {
    #[error("body is empty")]
    EmptyBody,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("more than {max} packets in one body")]
    TooManyPackets { max: usize },
    #[error("length is missing or not a number")]
    MalformedLength,
    #[error("length has too many digits")]
    LengthTooLong,
    #[error("length runs past the end of the body")]
    PastTheEnd,
    #[error("length ends inside a surrogate pair")]
    SplitsSurrogatePair,
    #[error("form has no field d")]
    MissingFormField,
    #[error(transparent)]
    Packet(#[from] ProtocolError),
}
