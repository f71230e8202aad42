//! Which headers pass the proxy, and what it adds to them.

use std::net::IpAddr;

use actix_http::{
    BoxedPayloadStream, Payload, RequestHead,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

/// Headers that are between two neighbours and not for whoever is behind them (RFC 9110 §7.6.1), and the expectation that
/// this server has already fulfilled when a request is forwarded.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The name under which one server passes requests on, so that it knows one that came back to it.
#[derive(Debug, Clone)]
pub(super) struct Via(HeaderValue);

impl Via {
    /// `instance` is in no other server's name.
    pub(super) fn new(instance: u64) -> Self {
        let value = format!("1.1 flamenco-webupdates-{instance:016x}");
        Self(HeaderValue::from_str(&value).expect("letters, digits, dots, dashes and spaces make a header"))
    }

    /// Whether these are the headers of a request that this server has passed on before.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let name = self.0.as_bytes();
        headers.get_all(header::VIA).any(|value| value.as_bytes().windows(name.len()).any(|part| part == name))
    }
}

/// The headers with which a browser's request goes on to the Manager. Its `Host` stays: it is what the browser knows the
/// Manager by.
pub(super) fn to_manager(head: &RequestHead, peer: Option<IpAddr>, is_tls: bool, via: &Via) -> HeaderMap {
    let mut headers = head.headers().clone();
    drop_hop_by_hop(&mut headers);
    if let Some(peer) = peer {
        append_to_list(&mut headers, FORWARDED_FOR, &peer.to_string());
    }
    // A proxy before this one knows better.
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if is_tls { "https" } else { "http" }));
    }
    if let (false, Some(host)) = (headers.contains_key(FORWARDED_HOST), headers.get(header::HOST).cloned()) {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.append(header::VIA, via.0.clone());
    headers
}

/// The headers of the Manager's answer that are for the browser.
pub(super) fn to_browser(mut headers: HeaderMap) -> HeaderMap {
    drop_hop_by_hop(&mut headers);
    headers
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(named) = named_by_connection(headers) {
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The names that the `Connection` headers list.
fn named_by_connection(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut lists = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok()).peekable();
    lists.peek()?;
    Some(lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect())
}

/// Adds an element to a header that is a list, in the one line that all readers understand.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let before = headers.get_all(&name).filter_map(|value| value.to_str().ok());
    let list: Vec<&str> = before.chain([element]).collect();
    if let Ok(value) = HeaderValue::from_str(&list.join(", ")) {
        headers.insert(name, value);
    }
}

/// A request's body on its way through, and how it was framed.
pub(super) enum RequestBody {
    None,
    Sized(u64, Payload<BoxedPayloadStream>),
    Chunked(Payload<BoxedPayloadStream>),
}

impl RequestBody {
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

    const VIA: &str = "1.1 flamenco-webupdates-000000000000002a";

    #[test]
    fn what_is_between_neighbours_stays_there() {
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
            shown(&to_manager(request.head(), Some([192, 0, 2, 7].into()), false, &Via::new(42))),
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
    fn a_proxy_before_this_one_is_believed_and_added_to() {
        let request = request(&[
            ("host", "farm"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "farm.example"),
            ("x-forwarded-proto", "https"),
            ("via", "1.1 nginx"),
        ]);
        assert_eq!(
            shown(&to_manager(request.head(), Some([127, 0, 0, 1].into()), false, &Via::new(42))),
            [
                "host: farm",
                &format!("via: {VIA}"),
                "via: 1.1 nginx",
                "x-forwarded-for: 198.51.100.1, 203.0.113.9, 127.0.0.1",
                "x-forwarded-host: farm.example",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let via = Via::new(42);
        let first = request(&[("via", "1.1 nginx")]);
        assert!(!via.is_in(first.headers()));
        assert!(via.is_in(&to_manager(first.head(), None, false, &via)));
        assert!(!Via::new(43).is_in(&to_manager(first.head(), None, false, &via)));
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
