//! HTTP/1.1 on both listeners, independent of their paths: the requirements of RFC 9110 and 9112 in
//! `docs/http.md` that apply to every request.

mod addresses;
mod body;
mod file;
mod limits;
mod pace;
mod refusal;

use std::{future::Future, net::SocketAddr, rc::Rc, time::Duration};

use actix_codec::Framed;
use actix_http::{
    ConnectionType, HttpService, KeepAlive, Method, Request, Response, StatusCode, Version, body::BodySize,
    error::DispatchError, h1, header,
};
use actix_service::{Service as _, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::{
    App, HttpMessage, HttpResponse,
    body::MessageBody,
    dev::{AppConfig, Payload, ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use tokio::io::AsyncWriteExt;

pub(crate) use self::{
    addresses::{Addresses, Admission, Guest, counted},
    body::is_too_slow,
    file::EmbeddedFile,
    pace::{Pace, Paced},
    refusal::{LINGER, raw, see_off},
};
use self::{body::Body, pace::Expected};
pub use self::{
    limits::HttpLimits,
    pace::{Closed, Stream},
};
use crate::stats::Stats;

/// A connection that has just been opened.
pub(crate) type Opened<S> = (Paced<S>, Option<SocketAddr>);

/// Prepares a connection for HTTP. The admission is held until it is closed or becomes a WebSocket.
pub(crate) fn open<S: Stream>(stream: S, admission: Admission) -> Opened<S> {
    let peer = stream.peer();
    (Paced::new(stream, admission), peer)
}

/// Serves `app` on connections within `limits`. WebSocket upgrade requests go to `upgrade`; a
/// request that only looks like one is handled normally (RFC 9110 §7.8).
pub(crate) fn service<S, T, B, U, Fut>(
    app: App<T>,
    limits: HttpLimits,
    stats: &'static Stats,
    upgrade: U,
) -> impl ServiceFactory<Opened<S>, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    S: Stream,
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
    U: Fn(Request, Framed<Paced<S>, h1::Codec>) -> Fut + Clone + 'static,
    Fut: Future<Output = Result<(), actix_web::Error>> + 'static,
{
    let app = app.wrap(from_fn(move |request, next| answer(limits, stats, request, next)));
    let http = HttpService::build()
        // `pace` handles all timeouts. Without a disconnect timeout here nothing would linger.
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(2 * LINGER)
        .keep_alive(KeepAlive::Os)
        .on_connect_ext(|stream: &Paced<S>, data| drop(data.insert(stream.pace().clone())))
        .upgrade(fn_service(move |(request, framed): (Request, Framed<Paced<S>, h1::Codec>)| {
            framed.io_ref().take_time();
            match Upgrade::of(&request) {
                Upgrade::WebSocket => upgrade(request, framed).left_future(),
                Upgrade::None => again(request, framed).left_future().right_future(),
                Upgrade::Connect => refuse_connect(framed).right_future().right_future(),
            }
        }))
        .h1(map_config(app, |_| AppConfig::default()));
    fn_factory(move || {
        let http = http.new_service(());
        async move {
            let http = Rc::new(http.await?);
            Ok(fn_service(move |(mut stream, peer): Opened<S>| {
                let http = http.clone();
                async move {
                    let (pace, left) = (stream.pace().clone(), stream.left().clone());
                    loop {
                        // Boxed, because otherwise it would take up its space twice: as an argument
                        // and as a field.
                        let served = Box::pin(http.call((stream, peer)));
                        pace::keep(pace.clone(), limits, stats, served).await?;
                        let Some(next) = left.take() else { return Ok(()) };
                        stream = next;
                    }
                }
            }))
        }
    })
}

/// Answers a request within the limits of its connection and according to its HTTP version.
async fn answer(
    limits: HttpLimits,
    stats: &'static Stats,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let pace = request.conn_data::<Rc<Pace>>().expect("every connection has one").clone();
    let payload = request.take_payload();
    let expected = expected(&request, &payload);
    let answering = pace.answer(expected);
    if let Expected::Body { .. } = expected {
        let body: futures_util::stream::LocalBoxStream<'static, _> =
            Box::pin(Body::new(payload, pace, limits.body, stats));
        request.set_payload(Payload::Stream { payload: body });
    }
    let version = request.version();
    let is_upgrade = request.head().connection_type() == ConnectionType::Upgrade;
    let mut response = match *request.method() {
        // It would reveal headers that were added on the way, including cookies and addresses.
        Method::TRACE => request.into_response(method_not_allowed("GET, HEAD, POST, OPTIONS")),
        _ => next.call(request).await?.map_into_boxed_body(),
    };
    let size = response.response().body().size();
    let head = response.response_mut().head_mut();
    if version < Version::HTTP_11 && size == BodySize::Stream {
        // HTTP/1.0 has no chunks: the end of the connection ends the body.
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
        head.headers.remove(header::CONTENT_LENGTH);
    }
    // After an ignored upgrade the codec closes, whatever it announces; and a body that arrived too
    // slowly is not awaited.
    if is_upgrade || head.status == StatusCode::REQUEST_TIMEOUT {
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_body(|_, body| answering.until_the_end_of(body)))
}

fn expected(request: &ServiceRequest, payload: &Payload) -> Expected {
    if matches!(payload, Payload::None) {
        return Expected::Nothing;
    }
    // Only HTTP/1.1 clients understand interim responses, and not every proxy can handle one that
    // it did not ask for.
    let by_proxy = [header::VIA, header::X_FORWARDED_FOR, header::FORWARDED]
        .iter()
        .any(|name| request.headers().contains_key(name));
    Expected::Body { may_ask: request.version() >= Version::HTTP_11 && !by_proxy }
}

/// Refuses a method that a path does not support.
pub(crate) fn method_not_allowed(allow: &'static str) -> HttpResponse {
    HttpResponse::MethodNotAllowed()
        .insert_header((header::ALLOW, allow))
        .content_type("text/plain")
        .body(format!("this path answers {allow}\n"))
}

/// What a request asks for that the codec treats as an upgrade.
enum Upgrade {
    WebSocket,
    /// Nothing: it only has an `Upgrade` header.
    None,
    Connect,
}

impl Upgrade {
    fn of(request: &Request) -> Self {
        let head = request.head();
        if head.method == Method::CONNECT {
            return Self::Connect;
        }
        let is_one = head.method == Method::GET
            && head.version >= Version::HTTP_11
            && connection_options(head.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"));
        if is_one { Self::WebSocket } else { Self::None }
    }
}

/// Returns the options in the `Connection` headers.
pub(crate) fn connection_options(headers: &header::HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

/// Parses the request again, without the headers that made the codec treat it as an upgrade.
async fn again<S: Stream>(request: Request, framed: Framed<Paced<S>, h1::Codec>) -> Result<(), actix_web::Error> {
    let mut parts = framed.into_parts();
    // Responses to earlier requests.
    parts.io.write_all(&parts.write_buf).await?;
    let head = request.head();
    let mut bytes = format!("{} {} {:?}\r\n", head.method, head.uri, head.version).into_bytes();
    for (name, value) in head.headers().iter().filter(|(name, _)| **name != header::UPGRADE) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&parts.read_buf);
    parts.io.leave(bytes.into());
    Ok(())
}

async fn refuse_connect<S: Stream>(framed: Framed<Paced<S>, h1::Codec>) -> Result<(), actix_web::Error> {
    let response = Response::build(StatusCode::METHOD_NOT_ALLOWED)
        .insert_header((header::ALLOW, "GET, HEAD, POST, OPTIONS"))
        .insert_header((header::CONTENT_TYPE, "text/plain"))
        .finish();
    finish(framed, response.drop_body(), "this server is not a tunnel\n".into()).await
}

/// Answers and closes so that the response arrives.
pub(crate) async fn finish<S: Stream>(
    mut framed: Framed<Paced<S>, h1::Codec>,
    mut response: Response<()>,
    text: Bytes,
) -> Result<(), actix_web::Error> {
    response.head_mut().set_connection_type(ConnectionType::Close);
    let size = BodySize::Sized(text.len() as u64);
    framed.send(h1::Message::Item((response, size))).await?;
    framed.send(h1::Message::Chunk(Some(text))).await?;
    framed.send(h1::Message::Chunk(None)).await?;
    see_off(&mut framed.into_parts().io, LINGER).await;
    Ok(())
}
