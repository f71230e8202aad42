//! HTTP responses by hand: takes them from what a connection has received.

/// A response. Its head is as it was sent, with the blank line.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Takes a response with a `Content-Length`, or without a body, from the front of `received`.
    /// `None` while it is incomplete.
    pub(crate) fn take(received: &mut Vec<u8>, has_body: bool) -> Option<Self> {
        let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        let end_of_body = end + length.filter(|_| has_body).unwrap_or(0);
        let body = received.get(end..end_of_body)?.to_vec();
        received.drain(..end_of_body);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Some(Self { status, head, body })
    }
}
