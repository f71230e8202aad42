//! One request and its answer on one connection to the Manager.
//!
//! Both directions run at once: the Manager may answer before it has all of the request, as it does when it already has the
//! file that somebody uploads. The `awc` client sends all before it reads, and such an answer would be lost; so this drives
//! the codec below that client by itself.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_codec::{Decoder, Encoder, poll_read_buf};
use actix_http::{
    BoxedPayloadStream, Payload, RequestHead, RequestHeadType, ResponseHead, StatusCode,
    body::{BodySize, MessageBody},
    error::PayloadError,
    h1::{self, ClientCodec, ClientPayloadCodec},
    header,
};
use actix_rt::time::{Sleep, sleep};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::AsyncWrite;

use super::{
    ForwardError,
    headers::{self, RequestBody},
    pool::{ManagerStream, Pool},
};
use crate::clock;

/// How long nothing may move, in either direction, before a request is given up. An upload may take hours as long as bytes
/// flow, and a Manager may think for minutes about one.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes that are read at once.
const READ_BUFFER: usize = 32 * 1024;

/// Interim answers (RFC 9110 §15.2) that are passed over while the final one is due.
const MAX_INTERIM: usize = 16;

/// Sends a request on `stream` and waits for the head of the answer. The rest of both follows while the answer's body is
/// read.
pub(super) async fn exchange(
    pool: &Rc<Pool>,
    stream: ManagerStream,
    head: RequestHead,
    body: RequestBody,
) -> Result<(ResponseHead, Answer), ForwardError> {
    let is_head = head.method == actix_http::Method::HEAD;
    let mut codec = ClientCodec::new(pool.http().clone());
    let sending = Sending::new(&mut codec, head, body)?;
    let mut connection = Connection { stream, read: BytesMut::new(), sending, stall: Stall::default() };
    let mut head = poll_fn(|task| connection.poll_head(task, &mut codec)).await?;
    let rest = Rest::new(&head, codec, is_head);
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.headers = headers::to_browser(mem::take(&mut head.headers));
    }
    let size = rest.size(&head);
    let mut answer = Answer { rest, failure: None, size, connection: Some(connection), pool: pool.clone() };
    if matches!(answer.rest, Rest::Nothing { .. }) {
        answer.finish();
    }
    Ok((head, answer))
}

struct Connection {
    stream: ManagerStream,
    /// Read and not yet taken apart.
    read: BytesMut,
    sending: Sending,
    stall: Stall,
}

/// What of the request is still to be sent: first `framing`, then `chunk`, then what the body brings.
struct Sending {
    framing: BytesMut,
    chunk: Bytes,
    body: Upload,
}

enum Upload {
    Sized(Payload<BoxedPayloadStream>),
    Chunked(Payload<BoxedPayloadStream>),
    Complete,
    /// The Manager takes no more, for instance because it has answered already.
    Refused,
}

impl Sending {
    fn new(codec: &mut ClientCodec, head: RequestHead, body: RequestBody) -> Result<Self, ForwardError> {
        let (size, body) = match body {
            RequestBody::None => (BodySize::None, Upload::Complete),
            RequestBody::Sized(length, body) => (BodySize::Sized(length), Upload::Sized(body)),
            RequestBody::Chunked(body) => (BodySize::Stream, Upload::Chunked(body)),
        };
        let mut framing = BytesMut::new();
        let item = h1::Message::Item((RequestHeadType::Owned(head), size));
        codec.encode(item, &mut framing).map_err(ForwardError::Unreachable)?;
        Ok(Self { framing, chunk: Bytes::new(), body })
    }

    /// Gets the next piece of the body ready. `None` when there is nothing more to send.
    fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<(), PayloadError>>> {
        let (body, is_chunked) = match &mut self.body {
            Upload::Sized(body) => (body, false),
            Upload::Chunked(body) => (body, true),
            Upload::Complete | Upload::Refused => return Poll::Ready(None),
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
                self.body = Upload::Complete;
            }
        }
        Poll::Ready(Some(Ok(())))
    }

    /// Takes note that this much was written.
    fn advance(&mut self, written: usize) {
        let framing = written.min(self.framing.len());
        self.framing.advance(framing);
        let chunk = written - framing;
        if chunk > 0 {
            self.chunk.advance(chunk);
            if self.chunk.is_empty() && matches!(self.body, Upload::Chunked(_)) {
                self.framing.extend_from_slice(b"\r\n");
            }
        }
    }
}

impl Connection {
    /// Sends what there is to send; ready when that is all, or when the Manager takes no more.
    fn poll_send(&mut self, task: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        loop {
            while !self.sending.framing.is_empty() || !self.sending.chunk.is_empty() {
                let parts = [IoSlice::new(&self.sending.framing), IoSlice::new(&self.sending.chunk)];
                match Pin::new(&mut self.stream).poll_write_vectored(task, &parts) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(written)) if written > 0 => {
                        self.sending.advance(written);
                        self.stall.moved();
                    }
                    // It may have said why before it closed: that is still to be read.
                    Poll::Ready(_) => {
                        self.sending = Sending { framing: BytesMut::new(), chunk: Bytes::new(), body: Upload::Refused };
                    }
                }
            }
            match self.sending.poll_fill(task) {
                Poll::Pending => {
                    let _ = self.poll_flush(task);
                    return Poll::Pending;
                }
                Poll::Ready(None) => return self.poll_flush(task).map(Ok),
                Poll::Ready(Some(Ok(()))) => {}
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(ForwardError::BrowserGone)),
            }
        }
    }

    /// Sends what the stream itself holds back, as TLS does with what the socket did not take.
    fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<()> {
        // Whatever fails here is seen when reading.
        Pin::new(&mut self.stream).poll_flush(task).map(drop)
    }

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
                Ok(None) => match self.poll_read(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(ForwardError::Closed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
                Err(_) => return Poll::Ready(Err(ForwardError::Malformed)),
            }
        }
    }

    /// Reads more; how much, where 0 is the end.
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
}

/// Notices when nothing has moved for too long. Time counts only while it is waited for: a browser that reads slowly keeps
/// nobody waiting.
#[derive(Default)]
struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn moved(&mut self) {
        self.since = None;
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        let deadline = *self.since.get_or_insert(now) + STALL_TIMEOUT;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        while timer.as_mut().poll(task).is_ready() {
            if now >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}

/// How the body of an answer ends.
enum Rest {
    /// There is none.
    Nothing { keep_alive: bool },
    /// The codec knows.
    Framed(ClientPayloadCodec),
    /// With the connection.
    UntilClosed,
}

impl Rest {
    fn new(head: &ResponseHead, codec: ClientCodec, is_head: bool) -> Self {
        let bodyless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = head.headers.get(header::CONTENT_LENGTH);
        if is_head || bodyless || length.is_some_and(|length| length == "0") {
            Self::Nothing { keep_alive: codec.keep_alive() }
        } else if length.is_some() || head.headers.contains_key(header::TRANSFER_ENCODING) {
            Self::Framed(codec.into_payload_codec())
        } else {
            // RFC 9112 §6.3; the codec takes such an answer of HTTP/1.1 for empty.
            Self::UntilClosed
        }
    }

    fn size(&self, head: &ResponseHead) -> BodySize {
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match (length, self) {
            // Its length is that of what did not change.
            _ if head.status == StatusCode::NOT_MODIFIED => BodySize::None,
            (Some(length), _) => BodySize::Sized(length),
            (None, Self::Nothing { .. }) => BodySize::None,
            (None, Self::Framed(_) | Self::UntilClosed) => BodySize::Stream,
        }
    }
}

/// The body of the Manager's answer. Dropping it before its end closes the connection.
pub(super) struct Answer {
    rest: Rest,
    failure: Option<ForwardError>,
    size: BodySize,
    connection: Option<Connection>,
    pool: Rc<Pool>,
}

impl Answer {
    /// After an answer that switches protocols: the connection, and what was read beyond the head.
    pub(super) fn into_stream(self) -> Option<(ManagerStream, BytesMut)> {
        self.connection.map(|connection| (connection.stream, connection.read))
    }

    /// The next piece; `None` at the end.
    fn poll_piece(&mut self, task: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ForwardError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        if let Poll::Ready(Err(error)) = connection.poll_send(task) {
            return Poll::Ready(Err(error));
        }
        loop {
            let piece = match &mut self.rest {
                Rest::Nothing { .. } => Ok(Some(None)),
                Rest::Framed(codec) => codec.decode(&mut connection.read),
                Rest::UntilClosed if connection.read.is_empty() => Ok(None),
                Rest::UntilClosed => Ok(Some(Some(connection.read.split().freeze()))),
            };
            match piece {
                Ok(Some(Some(chunk))) => return Poll::Ready(Ok(Some(chunk))),
                Ok(Some(None)) => {
                    self.finish();
                    return Poll::Ready(Ok(None));
                }
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(ForwardError::Malformed)),
            }
            match connection.poll_read(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if matches!(self.rest, Rest::UntilClosed) => {
                    self.connection = None;
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ForwardError::Cut)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The connection has done what it was for: it is kept if it can do more.
    fn finish(&mut self) {
        let keep_alive = match &self.rest {
            Rest::Nothing { keep_alive } => *keep_alive,
            Rest::Framed(codec) => codec.keep_alive(),
            Rest::UntilClosed => false,
        };
        let Some(Connection { stream, read, sending, .. }) = self.connection.take() else { return };
        if keep_alive && read.is_empty() && matches!(sending.body, Upload::Complete) && sending.framing.is_empty() {
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
                // At a failure the server forgets what it has not written: it shall write that first.
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
