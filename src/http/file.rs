//! Files that are embedded in the program, for both listeners' pages.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    sync::OnceLock,
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::header::{self, AcceptEncoding, ContentEncoding, Encoding, EntityTag, IfNoneMatch},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

/// The policy of a page: its own files, images and requests only. Trusted types keep names of jobs from
/// becoming markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file, compressed when the first request for that comes.
#[derive(Debug)]
pub(crate) struct EmbeddedFile {
    pub(crate) name: &'static str,
    text: Bytes,
    gzip: OnceLock<Bytes>,
    hash: u64,
    /// Whether pages of other hosts may load it.
    is_shared: bool,
}

impl EmbeddedFile {
    pub(crate) fn new(name: &'static str, text: Bytes, is_shared: bool) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { name, text, gzip: OnceLock::new(), hash: hasher.finish(), is_shared }
    }

    /// Answers `GET` and `HEAD`.
    pub(crate) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let accepted = request.get_header::<AcceptEncoding>();
        let gzip = accepted.is_some_and(|accepted| {
            accepted.negotiate([Encoding::gzip(), Encoding::identity()].iter()) == Some(Encoding::gzip())
        });
        let tag = EntityTag::new_strong(format!("{:016x}{}", self.hash, if gzip { "-gzip" } else { "" }));
        let is_known = match request.get_header::<IfNoneMatch>() {
            Some(IfNoneMatch::Any) => true,
            Some(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(&tag)),
            None => false,
        };
        let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response
            .insert_header(header::ETag(tag))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::VARY, "Accept-Encoding"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "same-origin"));
        if self.is_shared {
            // `--allow-origin` decides whether those pages may connect.
            response
                .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
                .insert_header((header::CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"));
        } else {
            response.insert_header((header::CONTENT_SECURITY_POLICY, POLICY));
        }
        if is_known {
            return response.finish();
        }
        response.content_type(self.content_type());
        if gzip {
            response.insert_header(ContentEncoding::Gzip).body(self.gzip.get_or_init(|| compressed(&self.text)).clone())
        } else {
            response.body(self.text.clone())
        }
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("json") => "application/json",
            Some("js") => "text/javascript; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        }
    }
}

fn compressed(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("writing to a vector does not fail").into()
}
