//! Tunnels proxied WebSockets to the Manager.

use std::{pin::Pin, rc::Rc, time::Duration};

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{
    ConnectionType, Request, Response, ResponseHead, StatusCode,
    body::{BodySize, MessageBody},
    h1,
    header::{self, HeaderValue},
};
use bytes::Bytes;
use futures_util::{SinkExt, future::poll_fn};
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::{
    ForwardError, Upstream,
    exchange::{self, Answer},
    headers::RequestBody,
};
use crate::{forwarded::Forwarded, http};

/// How long the Manager may take to answer an upgrade request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

type Browser<S> = Framed<S, h1::Codec>;

/// Serves an upgrade request until either side ends the connection.
pub(super) async fn tunnel<S>(
    upstream: &Rc<Upstream>,
    request: Request,
    forwarded: &Forwarded,
    mut browser: Browser<S>,
) -> Result<(), actix_web::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = actix_rt::time::timeout(ANSWER_TIMEOUT, open(upstream, &request, forwarded)).await;
    match answered.unwrap_or(Err(ForwardError::Stalled)) {
        Ok((head, answer)) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
            connect(browser, head, answer).await?;
        }
        Ok((head, answer)) => {
            respond(&mut browser, head, answer).await?;
            http::see_off(&mut browser.into_parts().io, http::LINGER).await;
        }
        Err(error) => {
            let mut head = ResponseHead::new(error.status());
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            respond(&mut browser, head, format!("{error}\n")).await?;
            http::see_off(&mut browser.into_parts().io, http::LINGER).await;
        }
    }
    Ok(())
}

async fn open(
    upstream: &Rc<Upstream>,
    request: &Request,
    forwarded: &Forwarded,
) -> Result<(ResponseHead, Answer), ForwardError> {
    let mut head = upstream.request_head(request.head(), forwarded)?;
    // No other protocol that the client offers: over HTTP/2 it could send requests that this server
    // never sees.
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.set_connection_type(ConnectionType::Upgrade);
    let stream = upstream.pool.connect().await?;
    exchange::exchange(&upstream.pool, stream, head, RequestBody::None).await
}

/// Copies bytes in both directions after the upgrade.
async fn connect<S>(mut browser: Browser<S>, head: ResponseHead, answer: Answer) -> Result<(), actix_web::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut response = response(head);
    response.head_mut().set_connection_type(ConnectionType::Upgrade);
    Pin::new(&mut browser).write(h1::Message::Item((response, BodySize::None)))?;
    let Some((mut manager, read)) = answer.into_stream() else { return Ok(()) };
    let mut parts = browser.into_parts();
    parts.io.write_all(&[&parts.write_buf[..], &read[..]].concat()).await?;
    parts.io.flush().await?;
    manager.write_all(&parts.read_buf).await?;
    manager.flush().await?;
    // Either side may end it in any way; there is no peer left to notify.
    let _ = copy_bidirectional(&mut parts.io, &mut manager).await;
    Ok(())
}

/// Sends a response that is not an upgrade.
async fn respond<S, B>(browser: &mut Browser<S>, head: ResponseHead, body: B) -> Result<(), actix_web::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: MessageBody,
    B::Error: Into<Box<dyn std::error::Error>>,
{
    let mut body = Box::pin(body);
    let mut response = response(head);
    response.head_mut().set_connection_type(ConnectionType::Close);
    browser.send(h1::Message::Item((response, body.size()))).await?;
    while let Some(chunk) = poll_fn(|task| body.as_mut().poll_next(task)).await {
        let chunk: Bytes = chunk.map_err(|error| actix_web::error::ErrorBadGateway(error.into().to_string()))?;
        browser.send(h1::Message::Chunk(Some(chunk))).await?;
    }
    browser.send(h1::Message::Chunk(None)).await?;
    Ok(())
}

fn response(head: ResponseHead) -> Response<()> {
    let mut response = Response::new(head.status).drop_body();
    *response.headers_mut() = head.headers;
    response
}
