//! The request, as far as it is not sent yet.
//!
//! ```text
//!            a piece of the body, or its end            written
//!  Sized ────────────────────────────────────▶ unsent ──────────▶ Sized …
//!  Chunked                                                  │     Chunked
//!     │                                                     │ after the last piece
//!     │ the Manager closed its side, or does not read       ▼
//!     └──────────────▶ Refused                           Complete
//! ```

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_codec::Encoder;
use actix_http::{
    BoxedPayloadStream, Payload, RequestHead, RequestHeadType,
    body::BodySize,
    error::PayloadError,
    h1::{self, ClientCodec},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;

use crate::proxy::{ForwardError, headers::RequestBody};

/// The unsent part of the request: first `framing`, then `chunk`, then the rest of the body.
pub(super) struct Upload {
    framing: BytesMut,
    chunk: Bytes,
    body: Body,
    pub(super) had_body: bool,
}

enum Body {
    Sized(Payload<BoxedPayloadStream>),
    Chunked(Payload<BoxedPayloadStream>),
    Complete,
    /// The Manager accepts no more, for example because it has already responded.
    Refused,
}

impl Upload {
    pub(super) fn new(codec: &mut ClientCodec, head: RequestHead, body: RequestBody) -> Result<Self, ForwardError> {
        let (size, body) = match body {
            RequestBody::None => (BodySize::None, Body::Complete),
            RequestBody::Sized(length, body) => (BodySize::Sized(length), Body::Sized(body)),
            RequestBody::Chunked(body) => (BodySize::Stream, Body::Chunked(body)),
        };
        let mut framing = BytesMut::new();
        let item = h1::Message::Item((RequestHeadType::Owned(head), size));
        codec.encode(item, &mut framing).map_err(ForwardError::Unreachable)?;
        let had_body = !matches!(body, Body::Complete);
        Ok(Self { framing, chunk: Bytes::new(), body, had_body })
    }

    /// Prepares the next piece of the body. Returns `None` when everything is sent.
    pub(super) fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<(), PayloadError>>> {
        let (body, is_chunked) = match &mut self.body {
            Body::Sized(body) => (body, false),
            Body::Chunked(body) => (body, true),
            Body::Complete | Body::Refused => return Poll::Ready(None),
        };
        match Pin::new(body).poll_next(task) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
            Poll::Ready(Some(Ok(chunk))) => {
                if is_chunked {
                    self.framing.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                }
                self.chunk = chunk;
            }
            Poll::Ready(None) => {
                if is_chunked {
                    self.framing.extend_from_slice(b"0\r\n\r\n");
                }
                self.body = Body::Complete;
            }
        }
        Poll::Ready(Some(Ok(())))
    }

    /// Records that these bytes are written.
    pub(super) fn advance(&mut self, written: usize) {
        let framing = written.min(self.framing.len());
        self.framing.advance(framing);
        let chunk = written - framing;
        if chunk > 0 {
            self.chunk.advance(chunk);
            if self.chunk.is_empty() && matches!(self.body, Body::Chunked(_)) {
                self.framing.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Returns the bytes to write next, which are empty when the next piece is to be prepared.
    pub(super) fn unsent(&self) -> [&[u8]; 2] {
        [&self.framing, &self.chunk]
    }

    /// Drops what is left: the Manager accepts no more.
    pub(super) fn refuse(&mut self) {
        (self.framing, self.chunk) = (BytesMut::new(), Bytes::new());
        self.body = Body::Refused;
    }

    /// Returns whether the whole request is sent.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.body, Body::Complete) && self.framing.is_empty()
    }
}
