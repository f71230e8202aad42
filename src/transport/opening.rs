//! Opening handshakes: upgrade requests, which become a WebSocket of this server or a tunnel to the
//! Manager.

use std::{io, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use actix_codec::Framed;
use actix_http::{Request, Response, body::BodySize, h1, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    door::Door,
    frames::Messages,
    handshake,
    local::Local,
    origins,
    paths::Part,
    polling::{Probe, ProbeError},
    refusal::Refusal,
    sid::random_sid,
    upgrade,
    websocket::{self, Opened, SessionStream},
    worker::Worker,
};
use crate::{
    clock,
    forwarded::Forwarded,
    frame::Frame,
    http::{self, Admission, Paced},
    protocol::{HandshakeError, HandshakeQuery, TransportName, write_refusal_of_newer},
};

/// How long a refused WebSocket client may take to read the reason.
const NEWER_PATIENCE: Duration = Duration::from_secs(2);

/// Handles an upgrade request. The connection gets a task of its own, so that the memory of HTTP is
/// freed.
pub(super) async fn open<S: SessionStream>(
    door: Arc<Door>,
    local: Rc<Local>,
    request: Request,
    mut framed: Framed<Paced<S>, h1::Codec>,
) -> Result<(), actix_web::Error> {
    let forwarded = door.forwarded(request.head(), request.peer_addr());
    let part = door.part(request.head());
    let checked = door.check(request.head(), &forwarded);
    let admitted = match (checked, part) {
        (Err(refusal), _) => Err(refusal),
        (Ok(()), Part::SocketIo) => admit(&door, &local, &request, &forwarded).await,
        (Ok(()), Part::Closed) => Err(Refusal::ClosedPath),
        (Ok(()), part @ (Part::Other | Part::Static(_) | Part::Health | Part::File(_))) => {
            match local.upstream.clone().filter(|_| is_managers(&part, &door)) {
                None => Err(Refusal::NoPath),
                Some(upstream) => match may_tunnel(&door, &local, &request, &forwarded).await {
                    // Boxed, because the future of every connection has room for this one.
                    Ok(()) => {
                        return Box::pin(upstream.tunnel(request, forwarded, framed.into_map_io(Paced::into_inner)))
                            .await;
                    }
                    Err(refusal) => Err(refusal),
                },
            }
        }
    };
    let (arrival, response) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            door.refuse(refusal, request.head(), &forwarded);
            if refusal == Refusal::Engine(HandshakeError::NewerRevision(TransportName::WebSocket))
                && let Ok(response) = handshake::websocket(request.head())
            {
                return refuse_newer(framed, response).await;
            }
            let mut response = Response::build(refusal.status());
            for header in refusal.headers() {
                response.append_header(header);
            }
            let response = response.insert_header((header::CONTENT_TYPE, refusal.content_type())).finish();
            return http::finish(framed, response.drop_body(), refusal.text().into_owned().into()).await;
        }
    };
    Pin::new(&mut framed).write(h1::Message::Item((response, BodySize::None)))?;
    let parts = framed.into_parts();
    let mut messages = Messages::new(door.settings.options.max_message);
    messages.extend(&parts.read_buf);
    let opened = Opened { stream: parts.io.into_inner(), greeting: parts.write_buf.to_vec(), messages };
    match arrival {
        Arrival::New(worker, admission) => {
            let (client, can_resume) = (forwarded.client, handshake::can_resume(request.head()));
            websocket::serve(&door.hub, &worker, opened, client, can_resume, admission)
        }
        Arrival::Poller(worker, probe) => {
            actix_rt::spawn(upgrade::serve(door.hub.clone(), worker, opened, probe));
        }
    }
    Ok(())
}

/// Returns whether a path is the Manager's, if there is one.
fn is_managers(part: &Part, door: &Door) -> bool {
    match part {
        Part::Other => true,
        Part::Static(_) => door.settings.options.directory.is_none(),
        Part::SocketIo | Part::Health | Part::File(_) | Part::Closed => false,
    }
}

/// The session that a WebSocket belongs to.
enum Arrival {
    New(Rc<Worker>, Admission),
    Poller(Rc<Worker>, Probe),
}

/// Checks a WebSocket that is proxied. It has an origin, and perhaps a user, like any other
/// connection of a page.
async fn may_tunnel(door: &Door, local: &Local, request: &Request, forwarded: &Forwarded) -> Result<(), Refusal> {
    origins::check_origin(request.head(), forwarded, &door.settings.origins)?;
    if let Some(guard) = local.guard.as_ref().filter(|guard| guard.covers_everything()) {
        guard.admit(request.head(), forwarded).await?;
    }
    Ok(())
}

async fn admit(
    door: &Arc<Door>,
    local: &Local,
    request: &Request,
    forwarded: &Forwarded,
) -> Result<(Arrival, Response<()>), Refusal> {
    origins::check_origin(request.head(), forwarded, &door.settings.origins)?;
    let query = HandshakeQuery::parse(request.uri().query().unwrap_or_default())?;
    if query.transport != TransportName::WebSocket {
        return Err(HandshakeError::BadRequest.into());
    }
    let response = handshake::websocket(request.head())?;
    let arrival = match query.sid {
        None => {
            if let Some(guard) = &local.guard {
                guard.admit(request.head(), forwarded).await?;
            }
            let admission = door.enter(forwarded)?;
            Arrival::New(local.worker()?, admission)
        }
        Some(sid) => {
            let poller = door.pollers.get(sid).ok_or(HandshakeError::SessionUnknown)?;
            let worker = local.worker()?;
            let probe = poller.probe().map_err(|error| match error {
                ProbeError::Busy => HandshakeError::BadRequest,
                ProbeError::Over => HandshakeError::SessionUnknown,
            })?;
            Arrival::Poller(worker, probe)
        }
    };
    Ok((arrival, response))
}

/// Opens a WebSocket for a client of revision 4, sends the list of clients that work, and closes
/// after a moment.
async fn refuse_newer<S: SessionStream>(
    mut framed: Framed<Paced<S>, h1::Codec>,
    response: Response<()>,
) -> Result<(), actix_web::Error> {
    Pin::new(&mut framed).write(h1::Message::Item((response, BodySize::None)))?;
    let mut parts = framed.into_parts();
    let mut bytes = parts.write_buf.to_vec();
    write_refusal_of_newer(random_sid(), |packet| {
        let frame = Frame::text(clock::now(), |out| out.extend_from_slice(packet.as_bytes()));
        bytes.extend_from_slice(frame.websocket());
    });
    let explained = async {
        parts.io.write_all(&bytes).await?;
        parts.io.flush().await?;
        let mut ignored = [0; 256];
        while parts.io.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection ends here, whether or not the client read it.
    let _ = actix_rt::time::timeout(NEWER_PATIENCE, explained).await;
    Ok(())
}
