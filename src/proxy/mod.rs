//! Everything of the Manager's that is not ours, passed through: its pages, its API, its files.

mod exchange;
mod headers;
mod pool;
mod tunnel;

use std::{io, net::SocketAddr, rc::Rc};

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{BoxedPayloadStream, Payload, Request, RequestHead, ResponseHead, StatusCode, Uri, h1, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};

use self::{
    exchange::Answer,
    headers::{RequestBody, Via},
    pool::Pool,
};
use crate::client::Address;

/// What a browser shows while the Manager is away. It looks by itself whether that is over.
const AWAY_PAGE: &str = include_str!("away.html");

/// Passes on what is not ours. Cheap to clone; each thread makes an [`Upstream`] of it.
#[derive(Debug, Clone)]
pub struct Proxy {
    manager: Address,
    via: Via,
    /// Whether browsers come over TLS.
    tls: bool,
}

impl Proxy {
    pub fn new(manager: Address, tls: bool) -> Self {
        let instance = uuid::Uuid::new_v4().as_u64_pair().0;
        Self { manager, via: Via::new(instance), tls }
    }

    /// The part of it that one thread uses.
    pub fn upstream(&self) -> Upstream {
        Upstream { proxy: self.clone(), pool: Rc::new(Pool::new(self.manager.clone())) }
    }
}

/// A thread's connections to the Manager.
pub struct Upstream {
    proxy: Proxy,
    pool: Rc<Pool>,
}

/// Why a request has no answer of the Manager's.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("flamenco manager cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("flamenco manager cannot be reached: {0}")]
    Untrusted(String),
    #[error("flamenco manager does not accept a connection in time")]
    ConnectTimeout,
    #[error("flamenco manager closed the connection instead of answering")]
    Closed,
    #[error("flamenco manager closed the connection in the middle of its answer")]
    Cut,
    #[error("flamenco manager answers with something that is no http")]
    Malformed,
    #[error("nothing has moved for too long between flamenco manager and this server")]
    Stalled,
    #[error("the request ended before its body did")]
    BrowserGone,
    #[error("this request has been here before: --manager leads back to this server")]
    Loop,
}

impl ForwardError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(_) | Self::Untrusted(_) | Self::Closed | Self::Cut | Self::Malformed => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::Stalled => StatusCode::GATEWAY_TIMEOUT,
            Self::BrowserGone => StatusCode::BAD_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }
}

impl ResponseError for ForwardError {
    fn status_code(&self) -> StatusCode {
        self.status()
    }
}

/// Answers a request with what the Manager answers. The app has an [`Upstream`] as its data.
pub async fn forward(request: HttpRequest, body: web::Payload) -> HttpResponse {
    let upstream = request.app_data::<Rc<Upstream>>().expect("an app that forwards has the upstream as its data");
    match upstream.forward(&request, body.into_inner()).await {
        Ok((head, answer)) => {
            let mut response = HttpResponse::with_body(head.status, answer).map_into_boxed_body();
            *response.headers_mut() = head.headers;
            response
        }
        Err(error) => refuse(&request, &error),
    }
}

impl Upstream {
    /// Serves a request to switch protocols that is not ours, until either side ends the connection.
    pub async fn tunnel<S>(
        self: Rc<Self>,
        request: Request,
        browser: Framed<S, h1::Codec>,
    ) -> Result<(), actix_web::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tunnel::tunnel(&self, request, browser).await
    }

    async fn forward(
        &self,
        request: &HttpRequest,
        body: Payload<BoxedPayloadStream>,
    ) -> Result<(ResponseHead, Answer), ForwardError> {
        let head = || self.request_head(request.head(), request.peer_addr());
        let body = RequestBody::new(request.head(), body);
        let (head, answer) = match self.pool.take() {
            // The Manager may have closed the connection while the request was on its way: then it did not see it.
            Some(stream) if matches!(body, RequestBody::None) && request.method().is_safe() => {
                match exchange::exchange(&self.pool, stream, head()?, RequestBody::None).await {
                    Err(ForwardError::Closed) => {
                        let stream = self.pool.connect().await?;
                        exchange::exchange(&self.pool, stream, head()?, body).await?
                    }
                    answered => answered?,
                }
            }
            Some(stream) => exchange::exchange(&self.pool, stream, head()?, body).await?,
            None => {
                let (head, stream) = (head()?, self.pool.connect().await?);
                exchange::exchange(&self.pool, stream, head, body).await?
            }
        };
        // Nobody asked for another protocol.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Malformed);
        }
        Ok((head, answer))
    }

    /// The head with which a request goes on.
    fn request_head(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Result<RequestHead, ForwardError> {
        if self.proxy.via.is_in(head.headers()) {
            return Err(ForwardError::Loop);
        }
        let headers = headers::to_manager(head, peer.map(|peer| peer.ip()), self.proxy.tls, &self.proxy.via);
        let uri = below(self.proxy.manager.path(), &head.uri);
        let mut onward = RequestHead::default();
        (onward.uri, onward.method, onward.headers) = (uri, head.method.clone(), headers);
        Ok(onward)
    }
}

/// The address of a request at a Manager that lives below `path`.
fn below(path: &str, uri: &Uri) -> Uri {
    let path = path.trim_end_matches('/');
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    // What was part of an address once still is behind a path that is one.
    if path.is_empty() { uri.clone() } else { format!("{path}{rest}").parse().unwrap_or_else(|_| uri.clone()) }
}

fn refuse(request: &HttpRequest, error: &ForwardError) -> HttpResponse {
    log::debug!("{} {} is answered {}: {error}", request.method(), request.path(), error.status());
    let mut response = HttpResponse::build(error.status());
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    match error {
        ForwardError::Unreachable(_)
        | ForwardError::Untrusted(_)
        | ForwardError::ConnectTimeout
        | ForwardError::Closed
        | ForwardError::Stalled
            if is_for_a_page(request) =>
        {
            response.content_type("text/html; charset=utf-8").body(AWAY_PAGE)
        }
        ForwardError::Unreachable(_)
        | ForwardError::Untrusted(_)
        | ForwardError::ConnectTimeout
        | ForwardError::Closed
        | ForwardError::Cut
        | ForwardError::Malformed
        | ForwardError::Stalled
        | ForwardError::BrowserGone
        | ForwardError::Loop => response.content_type("text/plain; charset=utf-8").body(format!("{error}\n")),
    }
}

/// Whether somebody looks at what is answered.
fn is_for_a_page(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    request.method() == actix_http::Method::GET && accept.is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_may_live_below_a_path() {
        let below = |path, uri: &'static str| below(path, &Uri::from_static(uri)).to_string();
        assert_eq!(below("/", "/app/?a=b%20c"), "/app/?a=b%20c");
        assert_eq!(below("/farm", "/app/?a=b%20c"), "/farm/app/?a=b%20c");
        assert_eq!(below("/farm/", "/"), "/farm/");
    }
}
