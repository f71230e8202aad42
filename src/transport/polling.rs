//! Long-polling: sessions over XHR or JSONP requests.

mod handover;
mod poller;

use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix_http::RequestHead;
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    http::{
        Method,
        header::{self, HeaderValue},
    },
    web::{self, Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;

pub(super) use self::{
    handover::ProbeError,
    poller::{Pollers, Probe},
};
use self::{
    handover::{CLOSE, GetError},
    poller::Poller,
};
use super::{
    auth::NotAdmitted,
    cors,
    door::Door,
    local::Local,
    origins::{self, Origins},
    refusal::Refusal,
    requests::forwarded,
    sid::random_sid,
};
use crate::{
    disconnect::Disconnect,
    forwarded::Forwarded,
    http::{self, Pace},
    outbox::BodyRoom,
    protocol::{HandshakeError, HandshakeQuery, SessionId, TransportName, engine_payload, write_refusal_of_newer},
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=UTF-8");
/// A JSONP client posts from a form, and some browsers offer the response for download if it is not
/// a page.
const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

/// Bytes of packets in one response, unless a single packet is bigger: as much as the kernel takes
/// at once.
const MAX_BODY: usize = 64 * 1024;

/// Answers a request to Socket.IO's path that is not a WebSocket upgrade.
pub(super) async fn serve(request: HttpRequest, body: Payload, door: web::Data<Door>) -> HttpResponse {
    let from = forwarded(&request);
    let origin = match origins::check_origin(request.head(), &from, &door.settings.origins) {
        Ok(origin) => origin.cloned(),
        Err(refusal) => return refuse(&door, refusal, request.head(), &from),
    };
    let mut response = match origin {
        Some(_) if request.method() == Method::OPTIONS => cors::preflight(&request, "GET, POST"),
        Some(_) | None => respond(&request, body, &door, &from).await,
    };
    if let Some(origin) = origin {
        match &door.settings.origins {
            Origins::Any => cors::admit_any(response.headers_mut()),
            Origins::SameHostAnd(_) => cors::admit(origin, response.headers_mut()),
        }
    }
    response
}

async fn respond(request: &HttpRequest, body: Payload, door: &Arc<Door>, from: &Forwarded) -> HttpResponse {
    let query = match HandshakeQuery::parse(request.query_string()) {
        Ok(query) => query,
        Err(HandshakeError::NewerRevision(TransportName::Polling)) if request.method() == Method::GET => {
            return refuse_newer(door, request, from);
        }
        Err(error) => return refuse(door, error.into(), request.head(), from),
    };
    let page = match query.jsonp {
        Some(_) => origins::check_script(request.head(), from, &door.settings.origins),
        None => origins::check_fetch(request.head(), &door.settings.origins),
    };
    if let Err(refusal) = page {
        return refuse(door, refusal, request.head(), from);
    }
    let answer = match (query.transport, request.method(), query.sid) {
        (TransportName::Polling, &Method::GET, None) => open(request, door, from, query.jsonp).await,
        (TransportName::Polling, &Method::GET, Some(sid)) => get(request, door, sid, query.jsonp).await,
        (TransportName::Polling, &Method::POST, Some(sid)) => post(request, body, door, sid, query.jsonp).await,
        (TransportName::WebSocket, &Method::GET, Some(_)) => Err(HandshakeError::SessionUnknown.into()),
        (TransportName::WebSocket, &Method::GET, None) => Err(HandshakeError::BadRequest.into()),
        (TransportName::Polling | TransportName::WebSocket, ..) => Err(HandshakeError::BadMethod.into()),
    };
    answer.unwrap_or_else(|refusal| refuse(door, refusal, request.head(), from))
}

/// Opens a session. The first response holds its first packets.
async fn open(
    request: &HttpRequest,
    door: &Arc<Door>,
    from: &Forwarded,
    jsonp: Option<u64>,
) -> Result<HttpResponse, Refusal> {
    let local = Local::of(request);
    if let Some(guard) = &local.guard {
        guard.admit(request.head(), from).await?;
    }
    let admission = door.enter(from)?;
    let worker = local.worker()?;
    let can_resume = super::handshake::can_resume(request.head());
    answer_get(request, &Poller::open(door, &worker, from.client, can_resume, admission), jsonp).await
}

async fn get(request: &HttpRequest, door: &Door, sid: SessionId, jsonp: Option<u64>) -> Result<HttpResponse, Refusal> {
    let poller = door.pollers.get(sid).ok_or(HandshakeError::SessionUnknown)?;
    answer_get(request, &poller, jsonp).await
}

async fn answer_get(request: &HttpRequest, poller: &Poller, jsonp: Option<u64>) -> Result<HttpResponse, Refusal> {
    let is_python = is_python(request);
    let packets = if is_python { engine_payload::MAX_PACKETS_FOR_PYTHON } else { usize::MAX };
    let pace = request.conn_data::<Rc<Pace>>().expect("every connection has one");
    let mut get = pin!(poller.get(BodyRoom { bytes: MAX_BODY, packets }));
    let body = tokio::select! {
        biased;
        body = &mut get => body,
        // A waiting client that stops sending is probably gone. If it is not, the response reports
        // the end of the session.
        () = pace.half_closed() => {
            poller.close(Disconnect::TransportClose);
            get.await
        }
    };
    let mut body = body.map_err(|error| match error {
        GetError::Overlap => HandshakeError::BadRequest,
        GetError::Over => HandshakeError::SessionUnknown,
    })?;
    // python-socketio does not reconnect after a close packet, but does after a refusal.
    if is_python && poller.has_ended() && body.ends_with(CLOSE) {
        body.truncate(body.len() - CLOSE.len());
        if body.is_empty() {
            return Err(HandshakeError::SessionUnknown.into());
        }
    }
    let mut response = HttpResponse::Ok();
    if poller.was_stopped() {
        // The next request on this connection belongs to the server that takes over.
        response.force_close();
    }
    Ok(match jsonp {
        None => answer(response, TEXT).body(body),
        Some(index) => {
            let mut script = Vec::with_capacity(body.len() * 2);
            engine_payload::encode_jsonp(index, &body, &mut script);
            answer(response, SCRIPT).body(script)
        }
    })
}

/// Returns whether the client is python-socketio, which names itself after Python by default, as
/// its libraries do.
fn is_python(request: &HttpRequest) -> bool {
    let agent = request.headers().get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    agent.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"python"))
}

async fn post(
    request: &HttpRequest,
    body: Payload,
    door: &Door,
    sid: SessionId,
    jsonp: Option<u64>,
) -> Result<HttpResponse, Refusal> {
    let ok = || {
        let content_type = if jsonp.is_some() { PAGE } else { TEXT };
        Ok(answer(HttpResponse::Ok(), content_type).body("ok"))
    };
    match receive(request, body, door, sid, jsonp).await {
        Ok(()) => ok(),
        Err(PostError::Refused(refusal)) => Err(refusal),
        Err(PostError::Ended(refusal)) if !is_python(request) => Err(refusal),
        // A refused POST stops python-socketio for good; after a refused GET it reconnects. If its writer misses that its reader
        // has stopped, it goes on to post until a POST fails without an answer.
        Err(PostError::Ended(refusal)) => {
            door.count(refusal);
            if door.pollers.note_lost(sid) { ok() } else { Ok(HttpResponse::Ok().body(Unanswered)) }
        }
    }
}

/// A body that fails before anything of its response is written, so that the connection closes without an answer.
struct Unanswered;

impl MessageBody for Unanswered {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}

/// Why the body of a `POST` is refused.
enum PostError {
    /// The session goes on.
    Refused(Refusal),
    /// The session is over, or there is none.
    Ended(Refusal),
}

/// Hands the body of a `POST` to its session.
async fn receive(
    request: &HttpRequest,
    body: Payload,
    door: &Door,
    sid: SessionId,
    jsonp: Option<u64>,
) -> Result<(), PostError> {
    let poller = door.pollers.get(sid).ok_or(PostError::Ended(HandshakeError::SessionUnknown.into()))?;
    let _post = poller.begin_post().ok_or(PostError::Refused(Refusal::PostsFull))?;
    if is_encoded(request) {
        return Err(PostError::Refused(Refusal::ContentEncoding));
    }
    let end = |reason, refusal| {
        poller.close(reason);
        // A script's client cannot see how its form is answered, so it needs a close packet.
        if jsonp.is_none() {
            poller.end_unless_polled(reason);
        }
        Err(PostError::Ended(refusal))
    };
    let read = read(request, body, door.settings.options.max_message);
    let body = match actix_rt::time::timeout(door.hub.rules.silence(), read).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooBig)) => return end(Disconnect::MessageTooBig, Refusal::TooBig),
        Ok(Err(BodyError::TooSlow)) | Err(_) => return end(Disconnect::TransportError, Refusal::TooSlow),
        Ok(Err(BodyError::Interrupted)) => {
            return end(Disconnect::TransportError, HandshakeError::BadRequest.into());
        }
    };
    let body = if jsonp.is_some() {
        match engine_payload::decode_jsonp_form(&body) {
            Ok(text) => Bytes::from(text),
            Err(error) => {
                log::debug!("a client is closed: {error}");
                return end(Disconnect::ParseError, HandshakeError::BadRequest.into());
            }
        }
    } else {
        body
    };
    match poller.post(body).await {
        None | Some(Disconnect::TransportClose) => Ok(()),
        Some(reason) => end(reason, HandshakeError::BadRequest.into()),
    }
}

/// Returns whether a body is encoded in a way that would have to be undone.
fn is_encoded(request: &HttpRequest) -> bool {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    encodings.into_iter().any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

enum BodyError {
    TooBig,
    TooSlow,
    Interrupted,
}

/// Reads a body of at most `limit` bytes. A longer announced body is not awaited.
async fn read(request: &HttpRequest, mut body: Payload, limit: usize) -> Result<Bytes, BodyError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|announced: u64| announced > limit as u64) {
        return Err(BodyError::TooBig);
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| match http::is_too_slow(&error) {
            true => BodyError::TooSlow,
            false => BodyError::Interrupted,
        })?;
        if whole.len() + chunk.len() > limit {
            return Err(BodyError::TooBig);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Sends a client of revision 4 the list of clients that work, so that it can show it to its user.
fn refuse_newer(door: &Door, request: &HttpRequest, from: &Forwarded) -> HttpResponse {
    door.refuse(HandshakeError::NewerRevision(TransportName::Polling).into(), request.head(), from);
    let mut packets = Vec::new();
    write_refusal_of_newer(random_sid(), |packet| packets.push(packet.to_owned()));
    answer(HttpResponse::Ok(), TEXT).body(packets.join("\x1e"))
}

pub(super) fn refuse(door: &Door, refusal: Refusal, head: &RequestHead, from: &Forwarded) -> HttpResponse {
    door.refuse(refusal, head, from);
    let mut response = HttpResponse::build(refusal.status());
    for header in refusal.headers() {
        response.append_header(header);
    }
    if refusal == Refusal::Stopping {
        response.force_close();
    }
    answer(response, HeaderValue::from_static(refusal.content_type())).body(refusal.text())
}

/// Answers a request that the auth service denies. The headers lead the browser to a log-in page.
pub(super) fn turn_away(door: &Door, not_admitted: NotAdmitted, head: &RequestHead, from: &Forwarded) -> HttpResponse {
    let NotAdmitted::Denied(denial) = not_admitted else { return refuse(door, Refusal::AuthUnavailable, head, from) };
    door.refuse(Refusal::Denied, head, from);
    let mut response = HttpResponse::build(denial.status);
    for header in denial.login {
        response.append_header(header);
    }
    answer(response, TEXT).body("the auth service denied access\n")
}

/// Starts a response that no cache may store and whose type no browser may guess.
fn answer(mut response: HttpResponseBuilder, content_type: HeaderValue) -> HttpResponseBuilder {
    response.insert_header((header::CONTENT_TYPE, content_type));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    response
}
