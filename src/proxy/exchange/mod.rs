//! One request and its response on one connection to the Manager.
//!
//! Both directions run at once: the Manager may respond before it has the whole request, for
//! example if it already has the uploaded file. The `awc` client sends everything before it reads
//! and would lose such a response, so this module drives the codec below that client itself.
//!
//! ```text
//!  request   Upload ── pieces … ──▶ Complete or Refused ──────────────┐
//!                                                                     ├─▶ the pool, or closed
//!  response  interim heads … ──▶ head ──▶ Answer ── pieces … ──▶ end ─┘
//! ```

mod answer;
mod stall;
mod upload;

use std::{
    future::poll_fn,
    io::IoSlice,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_codec::{Decoder, poll_read_buf};
use actix_http::{RequestHead, ResponseHead, StatusCode, Version, h1::ClientCodec, header};
use bytes::BytesMut;
use tokio::io::AsyncWrite;

pub(super) use self::answer::Answer;
use self::{answer::Rest, stall::Stall, upload::Upload};
use super::{
    ForwardError,
    headers::{self, RequestBody},
    pool::{self, ManagerStream, Pool},
};
use crate::http;

/// The maximum number of bytes read at once.
const READ_BUFFER: usize = 32 * 1024;

/// The maximum number of interim responses (RFC 9110 §15.2) before the final one.
const MAX_INTERIM: usize = 16;

/// Sends a request on `stream` and waits for the head of the response. The remaining request and
/// response bodies are transferred while the response's body is read.
pub(super) async fn exchange(
    pool: &Rc<Pool>,
    stream: ManagerStream,
    head: RequestHead,
    body: RequestBody,
) -> Result<(ResponseHead, Answer), ForwardError> {
    let is_head = head.method == actix_http::Method::HEAD;
    let mut codec = ClientCodec::new(pool.http().clone());
    let upload = Upload::new(&mut codec, head, body)?;
    if upload.had_body {
        pool::set_abortive(&stream, true);
    }
    let mut connection = Connection { stream, read: BytesMut::new(), upload, stall: Stall::default() };
    let mut head = poll_fn(|task| connection.poll_head(task, &mut codec)).await?;
    settle_length(&mut head)?;
    let rest = Rest::new(&head, codec, is_head);
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.headers = headers::to_browser(mem::take(&mut head.headers));
    }
    let answer = Answer::new(pool, connection, rest, &head);
    Ok((head, answer))
}

/// Removes the length of a response that has chunks too: with two lengths servers may disagree, and
/// chunks count (RFC 9112 §6.3), if the HTTP version has them.
fn settle_length(head: &mut ResponseHead) -> Result<(), ForwardError> {
    let Some(encoding) = head.headers.get(header::TRANSFER_ENCODING) else { return Ok(()) };
    let is_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !is_chunked || head.version < Version::HTTP_11 {
        return Err(ForwardError::Malformed);
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// A connection in use, and the request that is being sent on it.
struct Connection {
    stream: ManagerStream,
    /// Bytes that were read and not parsed yet.
    read: BytesMut,
    upload: Upload,
    stall: Stall,
}

impl Connection {
    /// Sends the request. Ready when everything is sent, or when the Manager accepts no more.
    fn poll_send(&mut self, task: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        loop {
            ready!(self.poll_write(task));
            match self.upload.poll_fill(task) {
                Poll::Pending => {
                    let _ = self.poll_flush(task);
                    return Poll::Pending;
                }
                Poll::Ready(None) => return self.poll_flush(task).map(Ok),
                Poll::Ready(Some(Ok(()))) => {}
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(match http::is_too_slow(&error) {
                        true => ForwardError::BrowserTooSlow,
                        false => ForwardError::BrowserGone,
                    }));
                }
            }
        }
    }

    /// Writes the piece in hand.
    fn poll_write(&mut self, task: &mut Context<'_>) -> Poll<()> {
        loop {
            let parts = self.upload.unsent();
            if parts.iter().all(|part| part.is_empty()) {
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(task, &parts.map(IoSlice::new))) {
                Ok(written) if written > 0 => {
                    self.upload.advance(written);
                    self.stall.moved();
                }
                // The Manager may have explained the close before; the response is still to be read.
                Ok(_) | Err(_) => self.upload.refuse(),
            }
        }
    }

    /// Flushes bytes that the stream itself holds back, as TLS does when the socket blocks.
    fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<()> {
        // The reader sees any error.
        Pin::new(&mut self.stream).poll_flush(task).map(drop)
    }

    /// Sends the request and reads the head of the response, whichever can go on.
    fn poll_head(
        &mut self,
        task: &mut Context<'_>,
        codec: &mut ClientCodec,
    ) -> Poll<Result<ResponseHead, ForwardError>> {
        if let Poll::Ready(Err(error)) = self.poll_send(task) {
            return Poll::Ready(Err(error));
        }
        let mut interim = 0;
        loop {
            match codec.decode(&mut self.read) {
                Ok(Some(head)) if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Poll::Ready(Err(ForwardError::Malformed));
                    }
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => match ready!(self.poll_read(task)) {
                    Ok(0) => return Poll::Ready(Err(ForwardError::Closed)),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Err(_) => return Poll::Ready(Err(ForwardError::Malformed)),
            }
        }
    }

    /// Reads more bytes. Returns their number, which is 0 at the end.
    fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<Result<usize, ForwardError>> {
        if self.read.capacity() - self.read.len() < READ_BUFFER / 4 {
            self.read.reserve(READ_BUFFER);
        }
        match poll_read_buf(Pin::new(&mut self.stream), task, &mut self.read) {
            Poll::Pending if self.stall.poll(task).is_ready() => Poll::Ready(Err(ForwardError::Stalled)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(read)) => {
                self.stall.moved();
                Poll::Ready(Ok(read))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(ForwardError::Closed)),
        }
    }

    /// Returns the stream if both sides have sent everything, so that it can carry another request.
    fn into_reusable(self) -> Option<ManagerStream> {
        if !self.read.is_empty() || !self.upload.is_complete() {
            return None;
        }
        if self.upload.had_body {
            pool::set_abortive(&self.stream, false);
        }
        Some(self.stream)
    }
}
