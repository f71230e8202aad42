//! As much of HTTP/1.1 as a publisher and a WebSocket handshake need.

use thiserror::Error;

/// Largest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Headers of an answer that are read.
const MAX_HEADERS: usize = 64;

/// An answer that is there with all of its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// The server closes the connection after this answer.
    pub(super) closes: bool,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum AnswerError {
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    #[error("the answer is too large")]
    TooLarge,
}

/// The head of an answer: its status, what follows it, and how many bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) length: usize,
    body: BodyLength,
    closes: bool,
    retry_after: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
    UntilClose,
}

/// Reads the head of an answer, `None` while it is not whole.
pub(super) fn read_head(input: &[u8]) -> Result<Option<Head>, AnswerError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(input).map_err(|_| AnswerError::NotHttp)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if input.len() > MAX_HEAD => return Err(AnswerError::TooLarge),
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(AnswerError::NotHttp)?;
    let bodiless = matches!(status, 100..200 | 204 | 304);
    let mut head = Head {
        status,
        length,
        body: if bodiless { BodyLength::Known(0) } else { BodyLength::UntilClose },
        closes: response.version == Some(0),
        retry_after: None,
    };
    for header in &*response.headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.body = BodyLength::Known(value.parse().map_err(|_| AnswerError::NotHttp)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            head.body = BodyLength::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = value.parse().ok();
        }
    }
    Ok(Some(head))
}

/// Reads an answer that must not be followed by another; `None` while it is not whole. `ended`: the server has closed.
/// `max_body`: the largest body that is read, in bytes.
pub(super) fn read_answer(input: &[u8], ended: bool, max_body: usize) -> Result<Option<Answer>, AnswerError> {
    let Some(head) = read_head(input)? else { return Ok(None) };
    let rest = input.get(head.length..).unwrap_or_default();
    // Chunks come with a little around them.
    if rest.len() > max_body.saturating_mul(2) {
        return Err(AnswerError::TooLarge);
    }
    let body = match head.body {
        BodyLength::Known(length) if length > max_body => return Err(AnswerError::TooLarge),
        BodyLength::Known(length) => rest.get(..length).map(<[u8]>::to_vec),
        BodyLength::Chunked => read_chunks(rest, max_body)?,
        BodyLength::UntilClose => ended.then(|| rest.to_vec()),
    };
    let closes = head.closes || head.body == BodyLength::UntilClose;
    Ok(body.map(|body| Answer { status: head.status, body, closes, retry_after: head.retry_after }))
}

fn read_chunks(mut rest: &[u8], max_body: usize) -> Result<Option<Vec<u8>>, AnswerError> {
    let mut body = Vec::new();
    loop {
        let (line, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((line, size))) => (line, size),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::InvalidChunkSize) => return Err(AnswerError::NotHttp),
        };
        let size = usize::try_from(size).ok().filter(|&size| size <= max_body).ok_or(AnswerError::NotHttp)?;
        // The end of its line comes after the chunk.
        let Some(chunk) = rest.get(line..line + size + 2) else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        rest = &rest[line + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64 * 1024;

    fn whole(text: &str) -> Answer {
        for end in 0..text.len() {
            assert_eq!(read_answer(&text.as_bytes()[..end], false, MAX), Ok(None), "{end} bytes of {text:?}");
        }
        read_answer(text.as_bytes(), false, MAX).unwrap().unwrap()
    }

    #[test]
    fn answers_with_a_length_with_chunks_and_without_a_body() {
        let answer = whole("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"accepted\":1}");
        assert_eq!(
            answer,
            Answer { status: 200, body: b"{\"accepted\":1}".to_vec(), closes: false, retry_after: None }
        );
        let answer =
            whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\na;x=y\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(answer.body, b"ok0123456789");
        let answer = whole("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!((answer.status, answer.closes), (204, true));
        let answer = whole("HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer.retry_after, Some(2));
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let text = b"HTTP/1.0 200 OK\r\n\r\nok";
        assert_eq!(read_answer(text, false, MAX), Ok(None));
        let answer = read_answer(text, true, MAX).unwrap().unwrap();
        assert_eq!((answer.body.as_slice(), answer.closes), (&b"ok"[..], true));
    }

    #[test]
    fn what_is_not_http_or_never_ends_is_refused() {
        assert_eq!(read_answer(b"SSH-2.0-OpenSSH\r\n\r\n", false, MAX), Err(AnswerError::NotHttp));
        assert_eq!(
            read_answer(&[b"HTTP/1.1 200 OK\r\nx: ", vec![b'x'; MAX_HEAD].as_slice()].concat(), false, MAX),
            Err(AnswerError::TooLarge)
        );
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n";
        assert_eq!(read_answer(chunks, false, MAX), Err(AnswerError::NotHttp));
        let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
        assert_eq!(read_answer(huge, false, MAX), Err(AnswerError::TooLarge));
    }
}
