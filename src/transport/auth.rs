//! Forward authentication: a service that knows the users decides whether a request is admitted.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_http::{
    RequestHead, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use actix_rt::time::timeout;
use clap::Args;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::refusal::Refusal;
use crate::{
    client::{Address, http_client},
    clock,
    forwarded::Forwarded,
    http::counted,
    options::{heading, positive_duration},
    slots::Shrink,
};

/// The maximum number of requests to the service in flight. Others wait for their turn, within
/// their timeout.
const MAX_QUESTIONS: usize = 64;

/// The share of requests without credentials, so that strangers do not keep users waiting.
const MAX_ANONYMOUS: usize = 16;

/// The share of one address. Loopback is exempt, because it may be a proxy.
const MAX_PER_ADDRESS: usize = 16;

/// The share of one address for requests without credentials, because the address may be a proxy.
const MAX_ANONYMOUS_PER_ADDRESS: usize = 8;

/// How long an admission is cached for the same credentials from the same address. A denial is not
/// cached: a log-in often keeps the credentials and changes what the service knows of them.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The maximum number of cached admissions.
const MAX_REMEMBERED: usize = 10_000;

/// Bytes of a response body that are read, so that its connection can be reused. Only the head
/// matters.
const MAX_ANSWER: usize = 16 * 1024;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The headers that carry a user's credentials.
const CREDENTIALS: [HeaderName; 2] = [header::COOKIE, header::AUTHORIZATION];

/// The headers of a denial that lead a browser to a log-in page.
const LOGIN_HEADERS: [HeaderName; 3] = [header::WWW_AUTHENTICATE, header::LOCATION, header::SET_COOKIE];

/// Which requests the service decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthScope {
    /// Every request except /healthz, including those that --manager proxies
    All,
    /// Only the start of Socket.IO sessions
    Sessions,
}

/// The options of the auth service.
#[derive(Debug, Clone, Args)]
pub struct AuthOptions {
    /// URL of an auth service that decides whether a browser may connect: it gets the Cookie and
    /// Authorization headers; 2xx admits, 401 and 403 deny
    #[arg(id = "auth-url", long = "auth-url", value_name = "URL", env = "WEBUPDATES_AUTH_URL", hide_env_values = true, help_heading = heading::ACCESS)]
    pub url: Option<Address>,

    /// Which requests --auth-url decides about; an admission is cached for 5 s
    #[arg(id = "auth-scope", long = "auth-scope", value_name = "WHICH", env = "WEBUPDATES_AUTH_SCOPE", value_enum, default_value = "all", help_heading = heading::ACCESS, hide_short_help = true)]
    pub scope: AuthScope,

    /// Timeout of the auth service; a browser without an answer is refused. Flamenco's page
    /// abandons a connection attempt after one second
    #[arg(id = "auth-timeout", long = "auth-timeout", value_name = "TIME", env = "WEBUPDATES_AUTH_TIMEOUT", default_value = "750ms", value_parser = positive_duration, help_heading = heading::ACCESS, hide_short_help = true)]
    pub timeout: Duration,
}

/// The auth service, shared by all workers.
#[derive(Debug, Clone)]
pub(super) struct Auth {
    url: Address,
    timeout: Duration,
    scope: AuthScope,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    turns: Semaphore,
    anonymous: Semaphore,
    /// The addresses with requests in flight or waiting.
    addresses: Mutex<HashMap<IpAddr, Arc<Places>>>,
    /// When each cached admission expires, by the hash of its credentials.
    remembered: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
    /// Whether the service answered the last request.
    answers: AtomicBool,
}

impl Auth {
    /// Creates the client of the service, if there is one.
    pub(super) fn of(options: &AuthOptions) -> Option<Self> {
        let url = options.url.clone()?;
        let shared = Shared {
            turns: Semaphore::new(MAX_QUESTIONS),
            anonymous: Semaphore::new(MAX_ANONYMOUS),
            addresses: Mutex::default(),
            remembered: Mutex::default(),
            hasher: RandomState::new(),
            answers: AtomicBool::new(true),
        };
        Some(Self { url, timeout: options.timeout, scope: options.scope, shared: Arc::new(shared) })
    }
}

/// Asks the service for the browsers of one worker.
pub(super) struct Guard {
    auth: Auth,
    http: awc::Client,
}

/// A denial, with the service's instructions for logging in.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) status: StatusCode,
    pub(super) login: Vec<(HeaderName, HeaderValue)>,
}

/// Why a request is not admitted.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    Denied(Denial),
    Unanswered,
}

impl From<NotAdmitted> for Refusal {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::Denied(_) => Self::Denied,
            NotAdmitted::Unanswered => Self::AuthUnavailable,
        }
    }
}

/// Why the service gave no decision.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Unreachable(#[from] awc::error::SendRequestError),
    #[error(
        "it answers with status {0}, which neither admits (2xx) nor denies (401, 403, or a redirect to a log-in page)"
    )]
    Status(StatusCode),
}

impl Guard {
    pub(super) fn new(auth: Auth) -> Self {
        let http = http_client(&auth.url, auth.timeout);
        Self { auth, http }
    }

    pub(super) fn covers_everything(&self) -> bool {
        self.auth.scope == AuthScope::All
    }

    /// Asks whether this request is admitted.
    pub(super) async fn admit(&self, head: &RequestHead, forwarded: &Forwarded) -> Result<(), NotAdmitted> {
        let shared = &*self.auth.shared;
        let key = shared.key(head.headers(), forwarded.client);
        let began = clock::now();
        if key.is_some_and(|key| shared.remembers(key, began)) {
            return Ok(());
        }
        // Unless the service was asked early enough, a missing answer is the fault of other requests.
        let is_crowded = Cell::new(true);
        let asked = timeout(self.auth.timeout, async {
            let _turn = shared.turn(forwarded.client, key.is_some()).await;
            is_crowded.set(clock::now() > began + self.auth.timeout / 2);
            self.ask(head, forwarded).await
        });
        let answer = asked.await.unwrap_or(Err(NoAnswer::Timeout(self.auth.timeout)));
        if answer.is_err() && is_crowded.get() {
            return Err(NotAdmitted::Unanswered);
        }
        // A whole farm's browsers may ask, so only changes are logged.
        let answered_before = shared.answers.swap(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Ok(decided) => {
                if !answered_before {
                    log::info!("--auth-url answers again");
                }
                match (&decided, key) {
                    (Ok(()), Some(key)) => shared.remember(key, clock::now()),
                    (Ok(()), None) | (Err(_), _) => {}
                }
                decided.map_err(NotAdmitted::Denied)
            }
            Err(error) => {
                if answered_before {
                    log::warn!("browsers are refused because --auth-url gives no decision: {error}");
                }
                Err(NotAdmitted::Unanswered)
            }
        }
    }

    async fn ask(&self, head: &RequestHead, forwarded: &Forwarded) -> Result<Result<(), Denial>, NoAnswer> {
        let mut question = self.http.get(self.auth.url.as_str()).no_decompress();
        for name in CREDENTIALS {
            for value in head.headers().get_all(&name) {
                question = question.append_header((name.clone(), value.clone()));
            }
        }
        forwarded.write(question.headers_mut());
        let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let question =
            question.insert_header((FORWARDED_METHOD, head.method.as_str())).insert_header((FORWARDED_URI, uri));
        let mut answer = question.send().await?;
        // A body that is longer or breaks off costs only the connection.
        let _ = answer.body().limit(MAX_ANSWER).await;
        decide(answer.status(), answer.headers())
    }
}

fn decide(status: StatusCode, headers: &HeaderMap) -> Result<Result<(), Denial>, NoAnswer> {
    let is_no = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || status.is_redirection() && headers.contains_key(header::LOCATION);
    if status.is_success() {
        Ok(Ok(()))
    } else if is_no {
        let of = |name: HeaderName| {
            let values = headers.get_all(&name).cloned().collect::<Vec<_>>();
            values.into_iter().map(move |value| (name.clone(), value))
        };
        Ok(Err(Denial { status, login: LOGIN_HEADERS.into_iter().flat_map(of).collect() }))
    } else {
        Err(NoAnswer::Status(status))
    }
}

impl Shared {
    /// Returns the cache key for these credentials, or `None` without credentials.
    fn key(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        let mut has_credentials = false;
        for (number, name) in CREDENTIALS.iter().enumerate() {
            for value in headers.get_all(name) {
                has_credentials = true;
                (number, value.as_bytes()).hash(&mut hasher);
            }
        }
        client.hash(&mut hasher);
        has_credentials.then(|| hasher.finish())
    }

    fn remembers(&self, key: u64, now: Instant) -> bool {
        lock(&self.remembered).get(&key).is_some_and(|&until| now < until)
    }

    fn remember(&self, key: u64, now: Instant) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, until| now < *until);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(key, now + REMEMBERED);
        }
    }

    /// Waits until the service may be asked about a request of this address.
    async fn turn(&self, address: IpAddr, has_credentials: bool) -> Turn<'_> {
        let line = self.line(address);
        // The narrowest line first: a request that waits there holds no permit that others need. The
        // semaphores are never closed.
        let mut own = Vec::new();
        if let Some(line) = &line {
            if !has_credentials {
                own.extend(line.places.anonymous.clone().acquire_owned().await);
            }
            own.extend(line.places.all.clone().acquire_owned().await);
        }
        let anonymous = if has_credentials { None } else { self.anonymous.acquire().await.ok() };
        Turn { _own: own, _line: line, _anonymous: anonymous, _turn: self.turns.acquire().await.ok() }
    }

    /// Returns the line in which requests of this address wait, or `None` for loopback.
    fn line(&self, address: IpAddr) -> Option<Line<'_>> {
        if address.is_loopback() {
            return None;
        }
        let address = counted(address);
        let places = lock(&self.addresses).entry(address).or_default().clone();
        Some(Line { shared: self, address, places })
    }
}

/// The permits to ask the service, held until it is dropped.
struct Turn<'a> {
    _own: Vec<OwnedSemaphorePermit>,
    _line: Option<Line<'a>>,
    _anonymous: Option<SemaphorePermit<'a>>,
    _turn: Option<SemaphorePermit<'a>>,
}

/// The permits of one address.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { all: places(MAX_PER_ADDRESS), anonymous: places(MAX_ANONYMOUS_PER_ADDRESS) }
    }
}

/// A place in the line of an address. The last one to leave removes the line.
struct Line<'a> {
    shared: &'a Shared,
    address: IpAddr,
    places: Arc<Places>,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut addresses = lock(&self.shared.addresses);
        // One reference is here, one in the map.
        if Arc::strong_count(&self.places) == 2 {
            addresses.remove(&self.address);
            addresses.shrink_if_sparse();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        let url = Some("http://127.0.0.1:1".parse().unwrap());
        Auth::of(&AuthOptions { url, timeout: Duration::from_secs(1), scope: AuthScope::All }).unwrap()
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(name, value)| headers.append(name.clone(), HeaderValue::from_static(value)));
        headers
    }

    #[test]
    fn a_yes_holds_for_a_while_and_for_these_credentials_only() {
        let (auth, now) = (auth(), clock::now());
        let client = IpAddr::from([192, 0, 2, 1]);
        let key = |pairs: &[(HeaderName, &'static str)], client| auth.shared.key(&headers(pairs), client);
        assert_eq!(key(&[], client), None);
        let cookie = key(&[(header::COOKIE, "a=1")], client).unwrap();
        auth.shared.remember(cookie, now);
        assert!(auth.shared.remembers(cookie, now + REMEMBERED / 2));
        assert!(!auth.shared.remembers(cookie, now + REMEMBERED));
        for other in [
            key(&[(header::COOKIE, "a=2")], client),
            key(&[(header::AUTHORIZATION, "a=1")], client),
            key(&[(header::COOKIE, "a=1")], IpAddr::from([192, 0, 2, 2])),
        ] {
            assert!(!auth.shared.remembers(other.unwrap(), now));
        }
    }

    #[test]
    fn the_cache_of_admissions_is_bounded() {
        let (auth, now) = (auth(), clock::now());
        (0..2 * MAX_REMEMBERED as u64).for_each(|key| auth.shared.remember(key, now));
        assert_eq!(lock(&auth.shared.remembered).len(), MAX_REMEMBERED);
        auth.shared.remember(u64::MAX, now + REMEMBERED);
        assert!(auth.shared.remembers(u64::MAX, now + REMEMBERED));
        assert_eq!(lock(&auth.shared.remembered).len(), 1);
    }

    #[test]
    fn a_line_is_gone_with_the_last_one_in_it() {
        let auth = auth();
        let address = IpAddr::from([192, 0, 2, 1]);
        let (first, second) = (auth.shared.line(address), auth.shared.line(address));
        assert!(auth.shared.line(IpAddr::from([127, 0, 0, 1])).is_none());
        drop(first);
        assert_eq!(lock(&auth.shared.addresses).len(), 1);
        drop(second);
        assert_eq!(lock(&auth.shared.addresses).len(), 0);
        let network = ["2001:db8::1", "2001:db8::2:3:4:5"].map(|address| auth.shared.line(address.parse().unwrap()));
        assert_eq!((network.len(), lock(&auth.shared.addresses).len()), (2, 1), "one IPv6 network has one line");
    }

    #[test]
    fn a_redirection_to_a_log_in_page_is_a_no() {
        let login = headers(&[(header::LOCATION, "https://login.example"), (header::SET_COOKIE, "a=1")]);
        let denial = decide(StatusCode::FOUND, &login).unwrap().unwrap_err();
        assert_eq!((denial.status, denial.login.len()), (StatusCode::FOUND, 2));
        assert!(decide(StatusCode::FOUND, &HeaderMap::new()).is_err());
        assert!(decide(StatusCode::NO_CONTENT, &HeaderMap::new()).unwrap().is_ok());
        assert!(decide(StatusCode::NOT_FOUND, &HeaderMap::new()).is_err());
    }
}
