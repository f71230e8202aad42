//! The response of the Manager after its head.
//!
//! ```text
//!  Nothing ─────────────────────────────────────▶ finished: the connection returns to the pool,
//!  Framed ── pieces … ── the codec's last piece ─▶           if both sides are through with it
//!  UntilClosed ── pieces … ── end of stream ────▶ finished, without the connection
//!      │
//!      └── cut, malformed or stalled ──▶ failure: reported after what was written before
//! ```

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_codec::Decoder;
use actix_http::{
    ResponseHead, StatusCode,
    body::{BodySize, MessageBody},
    error::PayloadError,
    h1::{ClientCodec, ClientPayloadCodec},
    header,
};
use bytes::{Bytes, BytesMut};

use super::Connection;
use crate::proxy::{
    ForwardError,
    pool::{ManagerStream, Pool},
};

/// The body of the Manager's response. Dropping it before its end closes the connection.
pub(in crate::proxy) struct Answer {
    rest: Rest,
    failure: Option<ForwardError>,
    size: BodySize,
    connection: Option<Connection>,
    pool: Rc<Pool>,
}

impl Answer {
    /// Returns the body of a response with this head, which the rest of `connection` holds.
    pub(super) fn new(pool: &Rc<Pool>, connection: Connection, rest: Rest, head: &ResponseHead) -> Self {
        let size = rest.size(head);
        let mut answer = Self { rest, failure: None, size, connection: Some(connection), pool: pool.clone() };
        if matches!(answer.rest, Rest::Nothing { .. }) {
            answer.finish();
        }
        answer
    }

    /// After a 101 response: the connection, and the bytes that were read after the head.
    pub(in crate::proxy) fn into_stream(self) -> Option<(ManagerStream, BytesMut)> {
        self.connection.map(|connection| (connection.stream, connection.read))
    }

    /// Returns the next piece, or `None` at the end.
    fn poll_piece(&mut self, task: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ForwardError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        if let Poll::Ready(Err(error)) = connection.poll_send(task) {
            return Poll::Ready(Err(error));
        }
        loop {
            match self.rest.take(&mut connection.read) {
                Ok(Piece::Bytes(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Ok(Piece::End) => {
                    self.finish();
                    return Poll::Ready(Ok(None));
                }
                Ok(Piece::Unread) => {}
                Err(_) => return Poll::Ready(Err(ForwardError::Malformed)),
            }
            match ready!(connection.poll_read(task)) {
                Ok(0) if matches!(self.rest, Rest::UntilClosed) => {
                    self.connection = None;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) => return Poll::Ready(Err(ForwardError::Cut)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The exchange is complete: the connection is kept if it can be reused.
    fn finish(&mut self) {
        let Some(connection) = self.connection.take().filter(|_| self.rest.keep_alive()) else { return };
        if let Some(stream) = connection.into_reusable() {
            self.pool.put(stream);
        }
    }
}

impl MessageBody for Answer {
    type Error = ForwardError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, ForwardError>>> {
        let answer = self.get_mut();
        if let Some(failure) = answer.failure.take() {
            answer.connection = None;
            return Poll::Ready(Some(Err(failure)));
        }
        match answer.poll_piece(task) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(piece)) => Poll::Ready(piece.map(Ok)),
            Poll::Ready(Err(failure)) => {
                // On an error the server drops unwritten bytes, so they are written first.
                answer.failure = Some(failure);
                task.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl From<ForwardError> for io::Error {
    fn from(error: ForwardError) -> Self {
        Self::other(error)
    }
}

/// How the body of a response ends.
pub(super) enum Rest {
    /// There is no body.
    Nothing { keep_alive: bool },
    /// The codec decides.
    Framed(ClientPayloadCodec),
    /// With the connection.
    UntilClosed,
}

impl Rest {
    pub(super) fn new(head: &ResponseHead, codec: ClientCodec, is_head: bool) -> Self {
        let bodyless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = head.headers.get(header::CONTENT_LENGTH);
        if is_head || bodyless || length.is_some_and(|length| length == "0") {
            Self::Nothing { keep_alive: codec.keep_alive() }
        } else if length.is_some() || head.headers.contains_key(header::TRANSFER_ENCODING) {
            Self::Framed(codec.into_payload_codec())
        } else {
            // RFC 9112 §6.3; the codec treats such an HTTP/1.1 response as empty.
            Self::UntilClosed
        }
    }

    pub(super) fn size(&self, head: &ResponseHead) -> BodySize {
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match (length, self) {
            // The length is that of the unchanged content.
            _ if head.status == StatusCode::NOT_MODIFIED => BodySize::None,
            (Some(length), _) => BodySize::Sized(length),
            (None, Self::Nothing { .. }) => BodySize::None,
            (None, Self::Framed(_) | Self::UntilClosed) => BodySize::Stream,
        }
    }

    /// Takes the next piece of the body from the bytes that were read.
    fn take(&mut self, read: &mut BytesMut) -> Result<Piece, PayloadError> {
        Ok(match self {
            Self::Nothing { .. } => Piece::End,
            Self::Framed(codec) => match codec.decode(read)? {
                Some(Some(bytes)) => Piece::Bytes(bytes),
                Some(None) => Piece::End,
                None => Piece::Unread,
            },
            Self::UntilClosed if read.is_empty() => Piece::Unread,
            Self::UntilClosed => Piece::Bytes(read.split().freeze()),
        })
    }

    /// Returns whether the Manager keeps the connection open after the body.
    fn keep_alive(&self) -> bool {
        match self {
            Self::Nothing { keep_alive } => *keep_alive,
            Self::Framed(codec) => codec.keep_alive(),
            Self::UntilClosed => false,
        }
    }
}

/// The next step of a body.
enum Piece {
    Bytes(Bytes),
    End,
    /// More bytes must be read first.
    Unread,
}
