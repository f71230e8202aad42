//! The connection to NATS, and the stream: created if it is missing, checked if it is there.

use std::{io, time::Duration};

use actix_rt::time::sleep;
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions,
    jetstream::{
        Context, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        kv::{self, Store},
        stream::{Config, DiscardPolicy, Info, StorageType, Stream},
    },
};

use super::{super::RepetitionOptions, NatsOptions, lease::LEASE};
use crate::{client, clock};

/// The first version of NATS whose atomic batches are atomic.
const MIN_VERSION: (u64, u64) = (2, 12);

/// The interval of pings: after two without an answer the connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum time between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// How long a request to JetStream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a NATS server that does not say that it has JetStream may take until another one of its
/// cluster answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why this server can never work with NATS as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("the file {file} of {option}: {error}")]
    File { option: &'static str, file: String, error: io::Error },
    #[error("NATS refuses the user: check the user in --nats, and the file of --nats-credentials")]
    Unauthorized,
    #[error("the certificate or TLS of NATS cannot be used: {0}; --nats-ca names the authority that signed it")]
    Tls(String),
    #[error("NATS has the version {0}, but 2.12 or newer is needed, because older ones tear batches of events apart")]
    OldServer(String),
    #[error("NATS has no JetStream: start nats-server with -js, and allow it for this account")]
    NoJetStream,
    #[error("the stream {name} has another shape: {problem}; remove it, or choose another with --nats-stream")]
    OtherShape { name: String, problem: String },
    #[error("the stream {name} cannot be created: {reason}")]
    NotCreated { name: String, reason: String },
    #[error("another node is named {0}: give each node a --node-name of its own")]
    NameInUse(String),
    #[error("--nats-max-age must not be shorter than --event-id-age, for which ids are remembered")]
    ShortAge,
}

/// A connection to NATS that has a usable stream.
pub struct Connection {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) config: Config,
}

impl Connection {
    /// Connects, and checks or creates the stream. Waits for a server that cannot be reached yet.
    ///
    /// # Errors
    ///
    /// It can never work.
    pub async fn open(options: &NatsOptions, repetition: &RepetitionOptions) -> Result<Self, NatsError> {
        if options.nats_max_age < repetition.event_id_age {
            return Err(NatsError::ShortAge);
        }
        let client = connect(options).await?;
        let version = client.server_info().version;
        if !is_new_enough(&version) {
            return Err(NatsError::OldServer(version));
        }
        let mut context = async_nats::jetstream::new(client.clone());
        context.set_timeout(REQUEST_TIMEOUT);
        let connection = Self { client, context, config: config(options, repetition) };
        let (began, mut complained) = (clock::now(), String::new());
        loop {
            let opened = async {
                let info = connection.stream().await?;
                connection.check(&info).map_err(StreamProblem::Permanent)?;
                connection.bucket().await
            };
            match opened.await {
                Ok(_) => return Ok(connection),
                Err(StreamProblem::Permanent(error)) => return Err(error),
                // With JetStream it is one of a cluster that has no leader yet, however long that takes.
                Err(StreamProblem::Later(_))
                    if !connection.client.server_info().jetstream && began.elapsed() > PATIENCE =>
                {
                    return Err(NatsError::NoJetStream);
                }
                Err(StreamProblem::Later(reason)) if reason != complained => {
                    log::warn!("waiting for JetStream: {reason}");
                    complained = reason;
                }
                Err(StreamProblem::Later(_)) => {}
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Returns the state of the stream, which is created if it is missing.
    pub(super) async fn stream(&self) -> Result<Info, StreamProblem> {
        match self.context.get_stream(&self.config.name).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    let created = self.context.create_stream(self.config.clone()).await;
                    created
                        .map(|stream: Stream<Info>| stream.cached_info().clone())
                        .map_err(|error| self.explain(&error.kind()))
                }
                GetStreamErrorKind::JetStream(error) => Err(self.of_jetstream(&error)),
                GetStreamErrorKind::EmptyName | GetStreamErrorKind::Request | GetStreamErrorKind::InvalidStreamName => {
                    Err(StreamProblem::Later("it does not answer".to_owned()))
                }
            },
        }
    }

    pub(super) fn bucket_name(&self) -> String {
        format!("{}-cluster", self.config.name)
    }

    /// Opens the bucket of what expires, which is created if it is missing.
    pub(super) async fn bucket(&self) -> Result<Store, StreamProblem> {
        let config = kv::Config {
            bucket: self.bucket_name(),
            description: "locks and nodes of the servers that share the stream".to_owned(),
            history: 1,
            max_age: LEASE,
            storage: StorageType::File,
            num_replicas: self.config.num_replicas,
            ..kv::Config::default()
        };
        let store = match self.context.get_key_value(&config.bucket).await {
            Ok(store) => store,
            Err(_) => {
                let created = self.context.create_key_value(config).await;
                created.map_err(|error| StreamProblem::Later(error.to_string()))?
            }
        };
        let age = store.stream.cached_info().config.max_age;
        if age == LEASE {
            return Ok(store);
        }
        let (age, lease) = (age.as_secs(), LEASE.as_secs());
        let problem = format!("its keys live for {age} s instead of {lease} s, so that no lock expires in time");
        Err(StreamProblem::Permanent(NatsError::OtherShape { name: format!("KV_{}", self.bucket_name()), problem }))
    }

    fn explain(&self, error: &CreateStreamErrorKind) -> StreamProblem {
        if let CreateStreamErrorKind::JetStream(error) = error {
            return self.of_jetstream(error);
        }
        StreamProblem::Later(error.to_string())
    }

    fn of_jetstream(&self, error: &async_nats::jetstream::Error) -> StreamProblem {
        let reason = error.to_string();
        match error.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                StreamProblem::Permanent(NatsError::NoJetStream)
            }
            // A cluster that elects a leader has too few servers for a moment.
            _ if error.code() == 503 => StreamProblem::Later(reason),
            _ => StreamProblem::Permanent(NatsError::NotCreated { name: self.config.name.clone(), reason }),
        }
    }

    /// Refuses a stream that does not keep what this server needs, and warns of other differences.
    fn check(&self, info: &Info) -> Result<(), NatsError> {
        let (want, have) = (&self.config, &info.config);
        let problem = if have.subjects != want.subjects {
            Some(format!("its subjects are {} instead of {}", have.subjects.join(", "), want.subjects.join(", ")))
        } else if !have.allow_atomic_publish {
            Some("it does not allow atomic batches (allow_atomic)".to_owned())
        } else if have.discard != DiscardPolicy::Old {
            Some("it refuses new events when it is full, instead of removing old ones".to_owned())
        } else if have.duplicate_window < want.duplicate_window {
            let (has, needs) = (have.duplicate_window.as_secs(), want.duplicate_window.as_secs());
            Some(format!("it recognises repetitions for {has} s, and --event-id-age asks for {needs} s"))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(NatsError::OtherShape { name: want.name.clone(), problem });
        }
        if (have.num_replicas, have.max_age, have.max_bytes) != (want.num_replicas, want.max_age, want.max_bytes) {
            let (name, replicas, age, bytes) = (&want.name, have.num_replicas, have.max_age.as_secs(), have.max_bytes);
            log::warn!(
                "the stream {name} keeps {replicas} replicas, {age} s and {bytes} bytes, other than the options say; change it with `nats stream edit`"
            );
        }
        Ok(())
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamProblem {
    #[error("{0}")]
    Later(String),
    #[error(transparent)]
    Permanent(NatsError),
}

fn config(options: &NatsOptions, repetition: &RepetitionOptions) -> Config {
    let name = options.nats_stream.clone();
    Config {
        subjects: vec![format!("{name}.events.*")],
        name,
        max_bytes: i64::try_from(options.nats_max_bytes).unwrap_or(i64::MAX),
        max_age: options.nats_max_age,
        storage: StorageType::File,
        num_replicas: options.nats_replicas,
        // Zero would mean the server's default.
        duplicate_window: repetition.event_id_age.max(Duration::from_millis(100)),
        allow_atomic_publish: true,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Config::default()
    }
}

async fn connect(options: &NatsOptions) -> Result<Client, NatsError> {
    let mut complained = String::new();
    loop {
        match settings(options)?.connect(options.nats.iter().map(|url| url.0.clone()).collect::<Vec<_>>()).await {
            Ok(client) => return Ok(client),
            Err(error) => match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    return Err(NatsError::Unauthorized);
                }
                ConnectErrorKind::Tls => return Err(NatsError::Tls(error.to_string())),
                ConnectErrorKind::ServerParse
                | ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => {
                    let complaint = error.to_string();
                    if complaint != complained {
                        log::warn!(
                            "NATS cannot be reached at {:?}: {complaint}; the server starts once it can",
                            options.nats
                        );
                        complained = complaint;
                    }
                }
            },
        }
        sleep(MAX_RECONNECT_DELAY).await;
    }
}

fn settings(options: &NatsOptions) -> Result<ConnectOptions, NatsError> {
    let file =
        |option, file: &std::path::Path, error| NatsError::File { option, file: file.display().to_string(), error };
    let mut settings = ConnectOptions::new()
        .name("flamenco-webupdates")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| MAX_RECONNECT_DELAY.min(Duration::from_millis(50 * attempts as u64)));
    if let Some((user, password)) = options.nats.iter().find_map(|url| url.user()) {
        settings = settings.user_and_password(user, password);
    }
    if let Some(path) = &options.nats_credentials {
        let credentials = std::fs::read_to_string(path).and_then(|text| settings.credentials(&text));
        settings = credentials.map_err(|error| file("--nats-credentials", path, error))?;
    }
    let trust = match &options.nats_ca {
        Some(path) => client::trust_only(path).map_err(|error| file("--nats-ca", path, error))?,
        None if options.nats.iter().any(|url| url.0.tls_required()) => client::trust(),
        None => return Ok(settings),
    };
    Ok(settings.tls_client_config((*trust).clone()))
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(str::parse::<u64>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= MIN_VERSION,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, expected) in [
            ("2.9.10", false),
            ("2.11.99", false),
            ("2.12.0-RC.1", true),
            ("2.15.2", true),
            ("3.0.0", true),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
