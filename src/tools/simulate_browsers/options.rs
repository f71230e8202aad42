//! The command line, and what it comes to once it is checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use thiserror::Error;
use url::Url;

use super::process;
use super::protocol::Transport;
use super::publisher::Outlet;
use super::swarm::Behaviour;
use super::tally::Role;
use super::template::Template;
use super::traffic::{MAX_EVENTS, Page};

/// Load test: open many simulated browsers to a Socket.IO v2 server, publish events, and measure what arrives
///
/// The simulated browsers connect, keep up their heartbeat and check every event they get: nothing may
/// be lost, doubled, out of order or sent to the wrong room. Exit code: 0 when all was well, 1 when something was not
/// (the report says what), 2 when an option is bad.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Servers to connect the browsers to in turn, as http://host:port
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
    urls: Vec<Url>,

    /// Path of the server's Socket.IO endpoint
    #[arg(long, default_value = "/socket.io/")]
    path: String,

    /// Number of simulated browsers
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// Transport of the packets
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    transport: Transport,

    /// Page that the browsers show; decides their subscriptions and the published events
    #[arg(long, value_enum, default_value_t = Page::Jobs)]
    page: Page,

    /// Number of jobs that the pages `job` and `mix` are spread over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    jobs: u32,

    /// Subscribe without acknowledgements, as Flamenco's page does; a client counts as ready once connected,
    /// and --hold must be long enough for the server to handle the subscriptions
    #[arg(long)]
    no_ack: bool,

    /// Maximum number of connects in progress; 0: all at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    in_flight: u32,

    /// Number of events to publish; 0: only connect and hold
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    events: u32,

    /// Events to publish per second; 0: each as soon as the previous one is answered
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0, value_parser = rate)]
    rate: f64,

    /// Events per POST; more than one are sent as a JSON array
    #[arg(long, value_name = "EVENTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,

    /// Length of an event's payload in bytes; a payload that needs more is longer
    #[arg(long, value_name = "BYTES", default_value_t = 330, value_parser = clap::value_parser!(u32).range(..=65_536))]
    payload_bytes: u32,

    /// URL that events are posted to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082/api/events")]
    publish_url: Url,

    /// File with the bearer token for the publish URL
    #[arg(long, value_name = "FILE")]
    publish_token_file: Option<PathBuf>,

    /// Body posted for an event. {payload}: its JSON object; {kind}: the Manager's name, `job-update`; {event}: the
    /// browsers' name, `/jobs`; {room}: its room, `Jobs`; {number}: its number, from 0. Other braces are unchanged
    #[arg(long, value_name = "TEMPLATE", default_value = r#"{"type":"{kind}","payload":{payload}}"#)]
    publish_body: Template,

    /// Number of browsers that read slowly. The server may coalesce their updates or close them; the report lists them separately
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow: u32,

    /// Bytes per second that each slow browser reads; 0: none at all once it is connected
    #[arg(long, value_name = "BYTES_PER_SECOND", default_value_t = 0)]
    slow_rate: u32,

    /// Share of the browsers, 0 to 1, that leave and come back all the time
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    churn: f64,

    /// How long a browser that leaves and comes back stays, as in 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    churn_stay: Duration,

    /// Number of times that, after the load, all connections are dropped and all browsers reconnect at once; one event is
    /// published each time to see that all are back
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    storms: u32,

    /// How long the browsers are held idle before publishing, as in 3min; the server's memory per idle client is measured at its end
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    hold: Duration,

    /// How long the browsers are held after the last event; doubled events can still be seen, and the server's memory
    /// after the load is measured at its end
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    hold_after: Duration,

    /// Process ids of the server, to measure its CPU time and memory; separated by commas
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    server_pid: Vec<u32>,

    /// Longest time for each phase (connecting, publishing and receiving, each storm); what is not done then has failed
    #[arg(long, value_name = "TIME", default_value = "2min", value_parser = duration)]
    timeout: Duration,

    /// How long after the last receipt the deliveries that have not come are given up as lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    patience: Duration,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,

    /// Draw latency over time and its distribution into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Allow servers on other machines; never point a load test at a server without its owner's consent
    #[arg(long)]
    allow_remote: bool,
}

/// Why a run cannot begin.
#[derive(Debug, Error)]
pub enum OptionsError {
    #[error("{url}: only http URLs with a host are supported")]
    BadUrl { url: Url },
    #[error("{host}: {source}")]
    UnknownHost { host: String, source: io::Error },
    #[error("{host} is not on this machine: --allow-remote permits it")]
    Remote { host: String },
    #[error("--path and the URLs must not hold spaces or control characters")]
    BadPath,
    #[error("more slow and churning browsers than browsers")]
    TooManyRoles,
    #[error("cannot read the token file {path}: {source}")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token file {path} does not hold a token")]
    BadToken { path: PathBuf },
    #[error("cannot read /proc/{pid}: {source}")]
    ServerPid { pid: u32, source: io::Error },
    #[error("{wanted} open files are needed and at most {possible} allowed: raise the limit with `ulimit -n {wanted}`")]
    OpenFiles { wanted: u64, possible: u64 },
}

/// Options that can be performed.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) urls: Vec<Url>,
    pub(super) publish_url: Url,
    pub(super) targets: Vec<SocketAddr>,
    /// What the servers are called, in requests: the first one's name.
    pub(super) host: String,
    pub(super) path: String,
    pub(super) clients: u32,
    pub(super) slow: u32,
    pub(super) churning: u32,
    pub(super) transport: Transport,
    pub(super) page: Page,
    pub(super) jobs: u32,
    pub(super) acknowledged: bool,
    pub(super) behaviour: Behaviour,
    pub(super) outlet: Outlet,
    pub(super) events: u32,
    pub(super) payload_bytes: u32,
    pub(super) storms: u32,
    pub(super) hold: Duration,
    pub(super) hold_after: Duration,
    pub(super) server_pids: Vec<u32>,
    pub(super) timeout: Duration,
    pub(super) patience: Duration,
    pub(super) json: bool,
    pub(super) plot: Option<PathBuf>,
}

impl Plan {
    /// Resolves names, reads the token, and sees to it that there are enough file descriptors.
    pub(super) fn try_new(options: Options) -> Result<Self, OptionsError> {
        let resolve_one = |url| resolve(url, options.allow_remote);
        let (targets, hosts): (Vec<_>, Vec<_>) =
            options.urls.iter().map(resolve_one).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let outlet = outlet(&options)?;
        if !is_visible(&options.path) {
            return Err(OptionsError::BadPath);
        }
        let churning = (f64::from(options.clients) * options.churn).round() as u32;
        if options.slow.checked_add(churning).is_none_or(|special| special > options.clients) {
            return Err(OptionsError::TooManyRoles);
        }
        for &pid in &options.server_pid {
            process::cpu_time(pid).map_err(|source| OptionsError::ServerPid { pid, source })?;
        }
        let per_client = match options.transport {
            Transport::Websocket => 1,
            Transport::Polling => 2,
        };
        let wanted = u64::from(options.clients) * per_client + FILES_BESIDE_CLIENTS;
        process::allow_open_files(wanted).map_err(|possible| OptionsError::OpenFiles { wanted, possible })?;
        Ok(Self {
            targets,
            host: hosts.into_iter().next().expect("there is a default"),
            outlet,
            churning,
            path: options.path,
            behaviour: Behaviour {
                slow_bytes_per_second: options.slow_rate,
                stay: options.churn_stay,
                in_flight: if options.in_flight == 0 { usize::MAX } else { options.in_flight as usize },
            },
            urls: options.urls,
            publish_url: options.publish_url,
            clients: options.clients,
            slow: options.slow,
            transport: options.transport,
            page: options.page,
            jobs: options.jobs,
            acknowledged: !options.no_ack,
            events: options.events,
            payload_bytes: options.payload_bytes,
            storms: options.storms,
            hold: options.hold,
            hold_after: options.hold_after,
            server_pids: options.server_pid,
            timeout: options.timeout,
            patience: options.patience,
            json: options.json,
            plot: options.plot,
        })
    }

    /// All events of the run: those of the load, and one for each storm.
    pub(super) fn all_events(&self) -> u32 {
        self.events + if self.events > 0 { self.storms } else { 0 }
    }

    pub(super) fn roles(&self) -> impl Iterator<Item = Role> + use<> {
        let of = |role, count| std::iter::repeat_n(role, count as usize);
        of(Role::Slow, self.slow)
            .chain(of(Role::Churning, self.churning))
            .chain(of(Role::Steady, self.clients - self.slow - self.churning))
    }
}

/// Standard streams, epoll, the publisher, /proc, and those inherited from the parent process.
const FILES_BESIDE_CLIENTS: u64 = 32;

const _: () = assert!(10_000_000 + 1000 < MAX_EVENTS);

fn outlet(options: &Options) -> Result<Outlet, OptionsError> {
    let (address, host) = resolve(&options.publish_url, options.allow_remote)?;
    let token = options.publish_token_file.as_ref().map(|path| {
        let text = fs::read_to_string(path).map_err(|source| OptionsError::TokenFile { path: path.clone(), source })?;
        let token = text.trim().to_owned();
        if is_visible(&token) { Ok(token) } else { Err(OptionsError::BadToken { path: path.clone() }) }
    });
    let url = &options.publish_url;
    Ok(Outlet {
        address,
        host,
        path: url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())),
        token: token.transpose()?,
        template: options.publish_body.clone(),
        batch: options.batch,
        rate: options.rate,
    })
}

/// The address to connect to, and what to call it in a `Host` header.
fn resolve(url: &Url, allow_remote: bool) -> Result<(SocketAddr, String), OptionsError> {
    let bad_url = || OptionsError::BadUrl { url: url.clone() };
    let (Some(name), Some(port)) = (url.host_str().filter(|_| url.scheme() == "http"), url.port_or_known_default())
    else {
        return Err(bad_url());
    };
    let host = format!("{name}:{port}");
    let addresses =
        host.to_socket_addrs().map_err(|source| OptionsError::UnknownHost { host: host.clone(), source })?;
    let addresses = addresses.filter(|address| allow_remote || address.ip().is_loopback());
    // IPv4 first: of loopback it has 16 million addresses, IPv6 one.
    let address =
        addresses.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| OptionsError::Remote { host: host.clone() })?;
    Ok((address, host))
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(signed)
        .ok()
        .filter(|&duration| duration <= LONGEST)
        .ok_or_else(|| "not between 0 and 24 hours".to_owned())
}

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.0..=1e6)
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0..=1.0)
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if range.contains(&number) { Ok(number) } else { Err(format!("not between {} and {}", range.start(), range.end())) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    #[test]
    fn without_options_it_is_this_server_on_this_machine() {
        let plan = plan(&[]).unwrap();
        assert_eq!(
            (plan.targets, plan.outlet.address),
            (vec!["127.0.0.1:8081".parse().unwrap()], "127.0.0.1:8082".parse().unwrap())
        );
        assert_eq!((plan.host.as_str(), plan.outlet.path.as_str()), ("127.0.0.1:8081", "/api/events"));
    }

    #[test]
    fn roles_are_dealt_out() {
        let plan = plan(&["-n", "10", "--slow", "2", "--churn", "0.3"]).unwrap();
        let count = |role| plan.roles().filter(|&other| other == role).count();
        assert_eq!([Role::Slow, Role::Churning, Role::Steady].map(count), [2, 3, 5]);
    }

    #[test]
    fn bad_options_are_refused() {
        let bad: [(&[&str], &str); 10] = [
            (&["http://192.0.2.1:8081"], "--allow-remote"),
            (&["--publish-url", "http://192.0.2.1/x"], "--allow-remote"),
            (&["https://127.0.0.1:8081"], "only http"),
            (&["--path", "/a b"], "spaces"),
            (&["-n", "10", "--slow", "6", "--churn", "0.5"], "more slow"),
            (&["--churn", "1.5"], "not between"),
            (&["--hold", "-1s"], ""),
            (&["--publish-body", "{number}"], "{payload}"),
            (&["--publish-token-file", "/nonexistent/token"], "/nonexistent/token"),
            (&["--server-pid", "4294967295"], "/proc/4294967295"),
        ];
        for (arguments, part) in bad {
            let error = plan(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
        assert!(plan(&["http://192.0.2.1:8081", "--allow-remote"]).is_ok());
    }
}
