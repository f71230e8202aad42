//! Cross-origin resource sharing (Fetch standard, section 3.2): which responses pages of the origins
//! in `--allow-origin` may read.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
};

use super::{
    door::Door,
    origins::{self, Origins},
    requests::forwarded,
};

/// Seconds for which a browser may cache the preflight response.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// What the Manager's API uses.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// How a response outside Socket.IO is shared with pages of other origins.
#[derive(Debug)]
pub(super) enum Sharing {
    /// No origin is listed. A Manager's own headers remain.
    Off,
    /// The request comes from no listed origin, but another page's request for the same may.
    Varies,
    /// With this listed origin, for all methods.
    With(HeaderValue),
    /// With every page, for reading only: a page that nobody has named must not change the farm.
    Read,
}

impl Sharing {
    pub(super) fn of(request: &HttpRequest, door: &Door) -> Self {
        let origin = request.headers().get(header::ORIGIN);
        let origins = &door.settings.origins;
        match (origin, origins) {
            (_, Origins::Any) => Self::Read,
            (Some(origin), Origins::SameHostAnd(_)) if origins.list(origin) => Self::With(origin.clone()),
            (Some(_), Origins::SameHostAnd(listed)) => {
                // The Manager may share by its own rules, so the request is not refused here. The log
                // names the option.
                let from = forwarded(request);
                if let Err(refusal) = origins::check_origin(request.head(), &from, origins) {
                    door.refusal_log.request(refusal, request.head(), &from);
                }
                if listed.is_empty() { Self::Off } else { Self::Varies }
            }
            (None, Origins::SameHostAnd(listed)) if listed.is_empty() => Self::Off,
            (None, Origins::SameHostAnd(_)) => Self::Varies,
        }
    }

    /// Answers a preflight request. It carries no credentials, so the auth service cannot decide
    /// about it, and the Manager does not know the origins.
    pub(super) fn preflight(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let headers = request.headers();
        let is_one = request.method() == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        match self {
            Self::With(_) if is_one => Some(preflight(request, METHODS)),
            Self::Read if is_one => Some(preflight(request, "GET, HEAD")),
            Self::Off | Self::Varies | Self::With(_) | Self::Read => None,
        }
    }

    /// Adds the headers to a response, in place of the Manager's own.
    pub(super) fn mark(self, request: &HttpRequest, headers: &mut HeaderMap) {
        match self {
            Self::Off => {}
            Self::Varies => headers.append(header::VARY, HeaderValue::from_static("Origin")),
            Self::With(origin) => admit(origin, headers),
            Self::Read if request.method().is_safe() => admit_any(headers),
            Self::Read => {}
        }
    }
}

/// Lets a page of this origin read a response, with its user's cookies.
pub(super) fn admit(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Lets any page read a response. For an origin that is not listed, browsers send no cookies.
pub(super) fn admit_any(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
}

/// Answers a preflight request of an allowed origin.
pub(super) fn preflight(request: &HttpRequest, methods: &'static str) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods)));
    response.insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE));
    if let Some(names) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
    }
    response.finish()
}
