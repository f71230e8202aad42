//! Requests of browsers that are not upgraded: the common checks, and the way to what answers them.

use std::rc::Rc;

use actix_http::{ConnectionType, Method, StatusCode, header};
use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use simulate_farm::Answer;

use super::{cors::Sharing, door::Door, local::Local, origins, paths::Part, polling, refusal::Refusal};
use crate::{
    forwarded::Forwarded,
    http::{self, Guest, Pace},
    proxy,
};

/// Refuses requests that fail the common checks.
pub(super) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let door = request.app_data::<web::Data<Door>>().expect("the door is part of the app");
    let forwarded = door.forwarded(request.head(), request.peer_addr());
    let part = door.part(request.head());
    // Health checks may use any host name.
    let refused = match door.check(request.head(), &forwarded) {
        Err(Refusal::ForeignHost) if part == Part::Health => None,
        checked => checked.err(),
    };
    let share = match (refused, forwarded.by_proxy) {
        (Some(refusal), _) => Err(refusal),
        (None, true) => door.admit_request(door.known_client(&forwarded)),
        (None, false) => Ok(Guest::default()),
    };
    match share {
        Ok(share) => request.conn_data::<Rc<Pace>>().expect("every connection has one").hold(share),
        Err(refusal) => {
            let mut response = polling::refuse(door, refusal, request.head(), &forwarded);
            // The body is not awaited.
            response.head_mut().set_connection_type(ConnectionType::Close);
            return Ok(request.into_response(response).map_into_boxed_body());
        }
    }
    request.extensions_mut().insert(forwarded);
    request.extensions_mut().insert(part);
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Routes a request by its path.
pub(super) async fn dispatch(request: HttpRequest, body: web::Payload, door: web::Data<Door>) -> HttpResponse {
    let part = request.extensions_mut().remove::<Part>().expect("every request is checked first");
    match part {
        Part::SocketIo => polling::serve(request, body, door).await,
        Part::Closed => polling::refuse(&door, Refusal::ClosedPath, request.head(), &forwarded(&request)),
        part @ (Part::Health | Part::File(_) | Part::Static(_) | Part::Other) => {
            let sharing = Sharing::of(&request, &door);
            let mut response = match sharing.preflight(&request) {
                Some(answer) => answer,
                None => respond(part, request.clone(), body, &door).await,
            };
            sharing.mark(&request, response.headers_mut());
            response
        }
    }
}

/// Answers a request that is not for Socket.IO.
async fn respond(part: Part, request: HttpRequest, body: web::Payload, door: &Door) -> HttpResponse {
    if part == Part::Health {
        return match *request.method() {
            Method::GET | Method::HEAD => health(door).await,
            _ => http::method_not_allowed("GET, HEAD"),
        };
    }
    let local = Local::of(&request);
    if let Some(guard) = local.guard.as_ref().filter(|guard| guard.covers_everything()) {
        let forwarded = forwarded(&request);
        // The browser adds its user's cookies to what a page of another origin has it send.
        if !request.method().is_safe()
            && let Err(refusal) = origins::check_origin(request.head(), &forwarded, &door.settings.origins)
        {
            return polling::refuse(door, refusal, request.head(), &forwarded);
        }
        if let Err(not_admitted) = guard.admit(request.head(), &forwarded).await {
            return polling::turn_away(door, not_admitted, request.head(), &forwarded);
        }
    }
    if let Part::File(name) = part
        && let Some(answer) = door.files.answer(name, &request)
    {
        return answer;
    }
    if let (Part::Static(path), Some(directory)) = (&part, &door.settings.options.directory) {
        let answer = directory.answer(path, &request).await;
        return answer.unwrap_or_else(|| polling::refuse(door, Refusal::NoFile, request.head(), &forwarded(&request)));
    }
    if let Some(upstream) = &local.upstream {
        let forwarded = forwarded(&request);
        return proxy::forward(upstream, request, &forwarded, body).await;
    }
    if let Some(answer) = door.settings.demo.as_ref().and_then(|demo| demo.answer(request.path())) {
        return simulate(&request, answer);
    }
    let has_directory = door.settings.options.directory.is_some();
    let page = door.files.redirect_root(&request, &door.settings.options.path, has_directory);
    page.unwrap_or_else(|| polling::refuse(door, Refusal::NoPath, request.head(), &forwarded(&request)))
}

/// Answers for the simulated Manager.
fn simulate(request: &HttpRequest, answer: Answer) -> HttpResponse {
    if !request.method().is_safe() {
        return http::method_not_allowed("GET, HEAD");
    }
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    match answer {
        Answer::Json(body) => response.content_type("application/json").body(body),
        Answer::Svg(body) => response.content_type("image/svg+xml").body(body),
        Answer::Nothing => response.status(StatusCode::NO_CONTENT).finish(),
    }
}

/// Returns the origin of a request, which [`check`] determined.
pub(super) fn forwarded(request: &HttpRequest) -> Forwarded {
    request.extensions().get::<Forwarded>().cloned().expect("every request is checked first")
}

async fn health(door: &Door) -> HttpResponse {
    let (is_well, text) = door.hub.health().await;
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).content_type("text/plain").body(text)
}
