//! Long-polling: sessions that requests carry, by XHR or by script.

mod handover;
mod poller;

use std::{rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
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
    Door,
    auth::Guard,
    handshake::{self, Refusal},
};
use crate::{
    disconnect::Disconnect,
    outbox::BodyRoom,
    protocol::{HandshakeError, HandshakeQuery, SessionId, TransportName, engine_payload},
    stats::Refused,
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=UTF-8");
/// A script's client posts from a form, and some browsers offer what comes back for download if it is no page.
const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

/// Bytes of packets in one answer, unless a single one is bigger: as much as the kernel takes at once.
const MAX_BODY: usize = 64 * 1024;

/// Seconds for which a browser may remember that it may post.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers a request to Socket.IO's path that asks for no WebSocket.
pub(super) async fn serve(request: HttpRequest, body: Payload, door: web::Data<Door>) -> HttpResponse {
    let origin = match handshake::origin(request.head(), &door.options.origins) {
        Ok(origin) => origin.cloned(),
        Err(refusal) => return refuse(&door, refusal),
    };
    let mut response = match origin {
        Some(_) if request.method() == Method::OPTIONS => preflight(&request),
        Some(_) | None => respond(&request, body, &door).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

async fn respond(request: &HttpRequest, body: Payload, door: &Arc<Door>) -> HttpResponse {
    let query = match HandshakeQuery::parse(request.query_string()) {
        Ok(query) => query,
        Err(error) => return refuse(door, error.into()),
    };
    if query.jsonp.is_some()
        && let Err(refusal) = handshake::script(request.head(), &door.options.origins)
    {
        return refuse(door, refusal);
    }
    let answer = match (query.transport, request.method(), query.sid) {
        (TransportName::Polling, &Method::GET, None) => open(request, door, query.jsonp).await,
        (TransportName::Polling, &Method::GET, Some(sid)) => get(request, door, sid, query.jsonp).await,
        (TransportName::Polling, &Method::POST, Some(sid)) => post(request, body, door, sid, query.jsonp).await,
        (TransportName::WebSocket, &Method::GET, Some(_)) => Err(HandshakeError::SessionUnknown.into()),
        (TransportName::WebSocket, &Method::GET, None) => Err(HandshakeError::BadRequest.into()),
        (TransportName::Polling | TransportName::WebSocket, ..) => Err(HandshakeError::BadMethod.into()),
    };
    answer.unwrap_or_else(|refusal| refuse(door, refusal))
}

/// A new session. Its first answer holds its first packets.
async fn open(request: &HttpRequest, door: &Arc<Door>, jsonp: Option<u64>) -> Result<HttpResponse, Refusal> {
    if let Some(Some(guard)) = request.app_data::<Option<Rc<Guard>>>() {
        guard.admit(request.head(), request.peer_addr()).await?;
    }
    let (worker, admission) = door.enter(request.head(), request.peer_addr())?;
    answer_get(request, &Poller::open(door, &worker, admission), jsonp).await
}

async fn get(request: &HttpRequest, door: &Door, sid: SessionId, jsonp: Option<u64>) -> Result<HttpResponse, Refusal> {
    let poller = door.pollers.get(sid).ok_or(HandshakeError::SessionUnknown)?;
    answer_get(request, &poller, jsonp).await
}

async fn answer_get(request: &HttpRequest, poller: &Poller, jsonp: Option<u64>) -> Result<HttpResponse, Refusal> {
    let is_python = is_python(request);
    let packets = if is_python { engine_payload::MAX_PACKETS_FOR_PYTHON } else { usize::MAX };
    let mut body = poller.get(BodyRoom { bytes: MAX_BODY, packets }).await.map_err(|error| match error {
        GetError::Overlap => HandshakeError::BadRequest,
        GetError::Over => HandshakeError::SessionUnknown,
    })?;
    // After a close packet python-socketio never comes back; after a refusal it does.
    if is_python && poller.has_ended() && body.ends_with(CLOSE) {
        body.truncate(body.len() - CLOSE.len());
        if body.is_empty() {
            return Err(HandshakeError::SessionUnknown.into());
        }
    }
    let mut response = HttpResponse::Ok();
    if poller.was_stopped() {
        // What comes next on this connection is for the server that takes over.
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

/// Whether this is python-socketio: unless it is told otherwise it names itself after Python, as the libraries below it do.
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
    let poller = door.pollers.get(sid).ok_or(HandshakeError::SessionUnknown)?;
    poller.hear();
    let read = read(request, body, door.options.max_message);
    let body = match actix_rt::time::timeout(door.hub.rules.silence(), read).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooBig)) => {
            poller.close(Disconnect::MessageTooBig);
            return Err(Refusal::TooBig);
        }
        Ok(Err(BodyError::Interrupted)) | Err(_) => {
            poller.close(Disconnect::TransportError);
            return Err(HandshakeError::BadRequest.into());
        }
    };
    let body = if jsonp.is_some() {
        match engine_payload::decode_jsonp_form(&body) {
            Ok(text) => Bytes::from(text),
            Err(error) => {
                log::debug!("a client is closed: {error}");
                poller.close(Disconnect::ParseError);
                return Err(HandshakeError::BadRequest.into());
            }
        }
    } else {
        body
    };
    match poller.post(body).await {
        None | Some(Disconnect::TransportClose) => {
            Ok(answer(HttpResponse::Ok(), if jsonp.is_some() { PAGE } else { TEXT }).body("ok"))
        }
        Some(_) => Err(HandshakeError::BadRequest.into()),
    }
}

enum BodyError {
    TooBig,
    Interrupted,
}

/// Reads a body of at most `limit` bytes. One that announces more is not waited for.
async fn read(request: &HttpRequest, mut body: Payload, limit: usize) -> Result<Bytes, BodyError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|announced: u64| announced > limit as u64) {
        return Err(BodyError::TooBig);
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| BodyError::Interrupted)?;
        if whole.len() + chunk.len() > limit {
            return Err(BodyError::TooBig);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Says to a page of an allowed origin that it may send what it is about to send.
fn preflight(request: &HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")));
    response.insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE));
    if let Some(names) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
    }
    response.finish()
}

pub(super) fn refuse(door: &Door, refusal: Refusal) -> HttpResponse {
    refusal.counted().into_iter().for_each(|reason: Refused| door.hub.stats.refused(reason).add(1));
    let mut response = HttpResponse::build(refusal.status());
    if refusal == Refusal::Stopping {
        response.force_close();
    }
    answer(response, HeaderValue::from_static(refusal.content_type())).body(refusal.text())
}

/// Nothing here may be kept by a cache or taken for another type than it is.
fn answer(mut response: HttpResponseBuilder, content_type: HeaderValue) -> HttpResponseBuilder {
    response.insert_header((header::CONTENT_TYPE, content_type));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    response
}
