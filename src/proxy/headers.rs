//! The headers that the proxy forwards, and those that it adds.

use actix_http::{
    BoxedPayloadStream, Payload, RequestHead, Version,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use crate::{forwarded::Forwarded, http::connection_options};

/// Hop-by-hop headers (RFC 9110 §7.6.1), and the expectation that this server has already met when
/// it forwards a request.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// The name that a server adds to `Via`, by which it recognises loops.
#[derive(Debug, Clone)]
pub(super) struct Via(String);

impl Via {
    /// Creates the name. `instance` is unique to this server.
    pub(super) fn new(instance: u64) -> Self {
        Self(format!("flamenco-webupdates-{instance:016x}"))
    }

    /// Returns whether this server has forwarded the request before.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let name = self.0.as_bytes();
        headers.get_all(header::VIA).any(|value| value.as_bytes().windows(name.len()).any(|part| part == name))
    }

    /// Returns the element that is added for a request with this HTTP version.
    fn element(&self, version: Version) -> HeaderValue {
        let version = if version < Version::HTTP_11 { "1.0" } else { "1.1" };
        let element = HeaderValue::from_str(&format!("{version} {}", self.0));
        element.expect("letters, digits, dots, dashes and spaces make a header")
    }
}

/// Returns the headers of a browser's request for the Manager. `Host` is kept, because the Manager
/// sees the name that the browser used.
pub(super) fn to_manager(head: &RequestHead, forwarded: &Forwarded, via: &Via) -> HeaderMap {
    let mut headers = head.headers().clone();
    drop_hop_by_hop(&mut headers);
    forwarded.write(&mut headers);
    headers.append(header::VIA, via.element(head.version));
    headers
}

/// Returns the headers of the Manager's response for the browser.
pub(super) fn to_browser(mut headers: HeaderMap) -> HeaderMap {
    drop_hop_by_hop(&mut headers);
    headers
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers).filter_map(|name| name.parse().ok()).collect();
    // `Host` is end-to-end.
    for name in named.into_iter().filter(|name| *name != header::HOST) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The body of a forwarded request, and its framing.
pub(super) enum RequestBody {
    None,
    Sized(u64, Payload<BoxedPayloadStream>),
    Chunked(Payload<BoxedPayloadStream>),
}

impl RequestBody {
    /// Returns the number of bytes, as far as it is known, or the greatest number.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Sized(length, _) => *length,
            Self::Chunked(_) => u64::MAX,
        }
    }

    pub(super) fn new(head: &RequestHead, body: Payload<BoxedPayloadStream>) -> Self {
        let headers = head.headers();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match length {
            _ if headers.contains_key(header::TRANSFER_ENCODING) => Self::Chunked(body),
            None | Some(0) => Self::None,
            Some(length) => Self::Sized(length, body),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_http::{HttpMessage, Request};

    use super::*;
    use crate::forwarded::Trust;

    fn request(headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new();
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn from_a_client(request: &Request) -> Forwarded {
        Forwarded::of(request.head(), Some(([192, 0, 2, 7], 4711).into()), &Trust::default())
    }

    const VIA: &str = "1.1 flamenco-webupdates-000000000000002a";

    #[test]
    fn hop_by_hop_headers_are_not_forwarded() {
        let request = request(&[
            ("host", "farm:8081"),
            ("connection", "keep-alive, X-Mine"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("proxy-authorization", "Basic eDp5"),
            ("authorization", "Basic eDp5"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ]);
        assert_eq!(
            shown(&to_manager(request.head(), &from_a_client(&request), &Via::new(42))),
            [
                "authorization: Basic eDp5",
                "cookie: a=1",
                "cookie: b=2",
                "host: farm:8081",
                &format!("via: {VIA}"),
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: farm:8081",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let via = Via::new(42);
        let first = request(&[("via", "1.1 nginx")]);
        assert!(!via.is_in(first.headers()));
        assert!(via.is_in(&to_manager(first.head(), &from_a_client(&first), &via)));
        assert!(!Via::new(43).is_in(&to_manager(first.head(), &from_a_client(&first), &via)));
        assert!(via.is_in(request(&[("via", "1.1 a, 1.1 flamenco-webupdates-000000000000002a, 1.1 b")]).headers()));
    }

    #[test]
    fn a_body_goes_on_as_it_was_framed() {
        let framing = |headers| match RequestBody::new(request(headers).head(), Payload::None) {
            RequestBody::None => "none".to_owned(),
            RequestBody::Sized(length, _) => length.to_string(),
            RequestBody::Chunked(_) => "chunked".to_owned(),
        };
        assert_eq!(framing(&[]), "none");
        assert_eq!(framing(&[("content-length", "0")]), "none");
        assert_eq!(framing(&[("content-length", "1073741824")]), "1073741824");
        assert_eq!(framing(&[("transfer-encoding", "chunked")]), "chunked");
    }
}
