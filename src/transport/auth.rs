//! Forward authentication: whether a browser may come in is asked of somebody who knows its cookies.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_http::{
    RequestHead, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use actix_rt::time::timeout;
use tokio::sync::Semaphore;

use super::handshake::Refusal;
use crate::client::{Address, http_client};

/// Questions that are open at once; further ones wait for their turn, within their time.
const MAX_QUESTIONS: usize = 64;

/// Bytes of an answer that are read, so that its connection can carry the next question. Only its status counts.
const MAX_ANSWER: usize = 16 * 1024;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Who is asked, by all workers together.
#[derive(Debug, Clone)]
pub struct Auth {
    url: Address,
    timeout: Duration,
    turns: Arc<Semaphore>,
    /// Whether the last question was answered with yes or no.
    answers: Arc<AtomicBool>,
}

impl Auth {
    /// `timeout`: how long an answer may take.
    pub fn new(url: Address, timeout: Duration) -> Self {
        Self { url, timeout, turns: Arc::new(Semaphore::new(MAX_QUESTIONS)), answers: Arc::new(AtomicBool::new(true)) }
    }
}

/// Asks for the browsers of one worker.
pub(super) struct Guard {
    auth: Auth,
    /// Whether browsers come over TLS.
    tls: bool,
    http: awc::Client,
}

/// Why there was no yes and no no.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Unreachable(#[from] awc::error::SendRequestError),
    #[error("it answers with status {0}, which is neither yes (2xx) nor no (401, 403)")]
    Status(StatusCode),
}

impl Guard {
    pub(super) fn new(auth: Auth, tls: bool) -> Self {
        let http = http_client(&auth.url, auth.timeout);
        Self { auth, tls, http }
    }

    /// Whether whoever sends this request may come in.
    pub(super) async fn admit(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Result<(), Refusal> {
        let answer = timeout(self.auth.timeout, self.ask(head, peer)).await;
        let answer = answer.unwrap_or(Err(NoAnswer::Timeout(self.auth.timeout))).and_then(|status| match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Err(Refusal::Denied)),
            status if status.is_success() => Ok(Ok(())),
            status => Err(NoAnswer::Status(status)),
        });
        // A whole farm's browsers may ask: it is enough to say what changes.
        let answered_before = self.auth.answers.swap(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Ok(decided) => {
                if !answered_before {
                    log::info!("--auth-url answers again");
                }
                decided
            }
            Err(error) => {
                if answered_before {
                    log::warn!(
                        "browsers are refused because --auth-url does not say whether they may come in: {error}"
                    );
                }
                Err(Refusal::AuthUnavailable)
            }
        }
    }

    async fn ask(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Result<StatusCode, NoAnswer> {
        // Nobody closes the semaphore.
        let _turn = self.auth.turns.acquire().await;
        let mut question = self.http.get(self.auth.url.as_str()).no_decompress();
        for name in [header::COOKIE, header::AUTHORIZATION] {
            for value in head.headers().get_all(&name) {
                question = question.append_header((name.clone(), value.clone()));
            }
        }
        let peer = peer.map(|peer| peer.ip().to_string());
        let before = head.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok());
        let whence: Vec<&str> = before.chain(peer.as_deref()).collect();
        if let Some(host) = head.headers().get(header::HOST) {
            question = question.insert_header((FORWARDED_HOST, host.clone()));
        }
        let scheme = if self.tls { "https" } else { "http" };
        let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let question = question
            .insert_header((FORWARDED_FOR, whence.join(", ")))
            .insert_header((FORWARDED_PROTO, HeaderValue::from_static(scheme)))
            .insert_header((FORWARDED_METHOD, head.method.as_str()))
            .insert_header((FORWARDED_URI, uri));
        let mut answer = question.send().await?;
        // A body that is longer, or breaks off, costs the connection and nothing else.
        let _ = answer.body().limit(MAX_ANSWER).await;
        Ok(answer.status())
    }
}
