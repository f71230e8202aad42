//! Responses written below the HTTP codec, and the lingering close that lets them arrive.

use std::{io, time::Duration};

use actix_http::{StatusCode, header::HttpDate};
use actix_rt::time::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock;

/// How long a refused client may go on sending.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// Encodes a response after which the connection is closed.
pub(crate) fn raw(status: StatusCode, text: &str) -> Vec<u8> {
    let date = HttpDate::from(clock::wall());
    let retry = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => "retry-after: 1\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ndate: {date}\r\n{retry}content-type: text/plain\r\n\
        content-length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// Shuts `stream` down for writing and discards what the client still sends, for a while. Closing a
/// socket with unread bytes makes the kernel reset the connection, which may discard the last
/// response.
pub(crate) async fn see_off<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, within: Duration) {
    let read = async {
        stream.shutdown().await?;
        // On the heap, because the future of every connection has room for this one.
        let mut ignored = vec![0; 4096];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection ends here in any case.
    let _ = timeout(within, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is() {
        let answer = String::from_utf8(raw(StatusCode::SERVICE_UNAVAILABLE, "too many\n")).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ndate: "), "{head}");
        assert!(head.ends_with("\r\nretry-after: 1\r\ncontent-type: text/plain\r\ncontent-length: 9"), "{head}");
        assert_eq!(body, "too many\n");
    }
}
