//! The reverse proxy to the Manager: its pages, its API, its files.

mod exchange;
mod grace;
mod headers;
mod pool;
mod tunnel;

use std::{io, rc::Rc, time::Duration};

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{
    BoxedPayloadStream, Payload, Request, RequestHead, ResponseHead, StatusCode, Uri, h1,
    header::{self, HeaderValue},
};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use clap::Args;

use self::{
    exchange::Answer,
    grace::{Grace, Room},
    headers::{RequestBody, Via},
    pool::{ManagerStream, Pool},
};
use crate::{
    client::Address,
    forwarded::Forwarded,
    options::{duration, heading},
    stats::ProxyStats,
};

/// The page that browsers see while the Manager is away. It polls until the Manager is back.
const AWAY_PAGE: &str = include_str!("away.html");

/// The options of the proxy.
#[derive(Debug, Clone, Copy, Args)]
pub struct ProxyOptions {
    /// How long a proxied request waits for a Manager that cannot be reached, for example because it
    /// restarts; 0s means not at all
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_MANAGER_GRACE", default_value = "5s", value_parser = duration, help_heading = heading::EVENTS, hide_short_help = true)]
    pub manager_grace: Duration,
}

/// The configuration of the proxy. Cheap to clone; each thread creates an [`Upstream`] from it.
#[derive(Debug, Clone)]
pub struct Proxy {
    manager: Address,
    options: ProxyOptions,
    waiting: Room,
    via: Via,
}

impl Proxy {
    pub fn new(manager: Address, options: ProxyOptions) -> Self {
        let instance = uuid::Uuid::new_v4().as_u64_pair().0;
        Self { manager, options, waiting: Room::new(), via: Via::new(instance) }
    }

    /// Creates the part that one thread uses.
    pub fn upstream(&self, stats: &'static ProxyStats) -> Upstream {
        Upstream {
            proxy: self.clone(),
            pool: Rc::new(Pool::new(self.manager.clone())),
            grace: Grace::new(self.options.manager_grace, self.waiting.clone(), stats),
        }
    }
}

/// A thread's connections to the Manager.
pub struct Upstream {
    proxy: Proxy,
    pool: Rc<Pool>,
    grace: Grace,
}

/// Why a request has no response from the Manager.
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
    #[error("flamenco manager does not answer in HTTP")]
    Malformed,
    #[error("nothing has moved for too long between flamenco manager and this server")]
    Stalled,
    #[error("the request ended before its body did")]
    BrowserGone,
    #[error("the request arrives too slowly")]
    BrowserTooSlow,
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
            Self::BrowserTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }
}

impl ResponseError for ForwardError {
    fn status_code(&self) -> StatusCode {
        self.status()
    }
}

/// Forwards a request and returns the Manager's response.
pub async fn forward(
    upstream: &Upstream,
    request: HttpRequest,
    forwarded: &Forwarded,
    body: web::Payload,
) -> HttpResponse {
    match upstream.forward(&request, forwarded, body.into_inner()).await {
        Ok((head, answer)) => {
            let mut response = HttpResponse::with_body(head.status, answer).map_into_boxed_body();
            *response.headers_mut() = head.headers;
            response
        }
        Err(error) => refuse(&request, &error),
    }
}

impl Upstream {
    /// Tunnels an upgraded connection to the Manager, until either side ends it.
    ///
    /// # Errors
    ///
    /// The response to the browser cannot be written.
    pub async fn tunnel<S>(
        self: Rc<Self>,
        request: Request,
        forwarded: Forwarded,
        browser: Framed<S, h1::Codec>,
    ) -> Result<(), actix_web::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tunnel::tunnel(&self, request, &forwarded, browser).await
    }

    async fn forward(
        &self,
        request: &HttpRequest,
        forwarded: &Forwarded,
        body: Payload<BoxedPayloadStream>,
    ) -> Result<(ResponseHead, Answer), ForwardError> {
        let head = || self.request_head(request.head(), forwarded);
        let body = RequestBody::new(request.head(), body);
        let first = head()?;
        let stream = match self.pool.take() {
            Some(stream) => stream,
            None => self.connect(request, body.len()).await?,
        };
        // The Manager may have closed the connection while the request was in transit, and so has
        // not seen it.
        let may_repeat = matches!(body, RequestBody::None) && request.method().is_safe();
        let (head, answer) = match exchange::exchange(&self.pool, stream, first, body).await {
            Err(ForwardError::Closed) if may_repeat => {
                let stream = self.connect(request, 0).await?;
                exchange::exchange(&self.pool, stream, head()?, RequestBody::None).await?
            }
            answered => answered?,
        };
        // The request did not ask for another protocol.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Malformed);
        }
        Ok((head, answer))
    }

    /// Opens a connection for a request, which waits if the Manager is away. A page does not wait: it
    /// shows that the Manager is away, and waits itself.
    async fn connect(&self, request: &HttpRequest, body: u64) -> Result<ManagerStream, ForwardError> {
        match self.pool.connect().await {
            Err(failure @ ForwardError::Unreachable(_)) if !is_for_a_page(request) => {
                self.grace.connect(&self.pool, body, failure).await
            }
            connected => connected,
        }
    }

    /// Creates the head of the forwarded request.
    fn request_head(&self, head: &RequestHead, forwarded: &Forwarded) -> Result<RequestHead, ForwardError> {
        if self.proxy.via.is_in(head.headers()) {
            return Err(ForwardError::Loop);
        }
        let mut headers = headers::to_manager(head, forwarded, &self.proxy.via);
        if let Some(host) = self.host(head) {
            headers.insert(header::HOST, host);
        }
        let uri = below(self.proxy.manager.path(), &head.uri);
        let mut onward = RequestHead::default();
        (onward.uri, onward.method, onward.headers) = (uri, head.method.clone(), headers);
        Ok(onward)
    }

    /// Returns the host of a request: that of its target if it has one, which overrides the header
    /// (RFC 9112 §3.2.2), otherwise the Manager's for an HTTP/1.0 request without a host.
    fn host(&self, head: &RequestHead) -> Option<HeaderValue> {
        let (name, port) = self.proxy.manager.host_and_port();
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str().rsplit('@').next().unwrap_or_default().to_owned(),
            None if head.headers.contains_key(header::HOST) => return None,
            None if name.contains(':') => format!("[{name}]:{port}"),
            None => format!("{name}:{port}"),
        };
        HeaderValue::from_str(&host).ok()
    }
}

/// Returns the request's address at a Manager below `path`.
fn below(path: &str, uri: &Uri) -> Uri {
    let path = path.trim_end_matches('/');
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    // A part of a valid address stays valid behind a path.
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
        | ForwardError::BrowserTooSlow
        | ForwardError::Loop => response.content_type("text/plain; charset=utf-8").body(format!("{error}\n")),
    }
}

/// Returns whether the client still waits for the response.
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
