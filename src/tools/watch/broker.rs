//! Events from an MQTT broker instead of a server.

use client::mqtt::{Broker, Connection, Incoming, Message, MqttError, SessionOptions};
use farm::mqtt::TopicKind;
use serde_json::value::RawValue;
use std::io::Write;
use std::time::Duration;

use super::screen::Screen;
use super::{WatchError, say};
use client::Backoff;
use fastrand::Rng;
use tokio::time::sleep;

/// Connects, shows, and connects again, without end. Wrong credentials and an untrusted broker end
/// it.
pub(super) async fn forever<W: Write>(
    broker: &Broker,
    prefix: &str,
    screen: &mut Screen<W>,
    said: &mut String,
) -> Result<(), WatchError> {
    let session = SessionOptions {
        // Two clients with one id would disconnect each other.
        client_id: format!("flamenco-watch-{}", std::process::id()),
        expiry: Duration::ZERO,
        password: None,
        tls: None,
    };
    let (backoff, mut rng, mut failures) = (Backoff::default(), Rng::new(), 0);
    loop {
        let error = match Connection::open(broker, &session).await {
            Ok(mut connection) => {
                failures = 0;
                say(screen, said, format!("connected to {broker}"))?;
                show(&mut connection, prefix, screen).await?
            }
            Err(error @ (MqttError::Unauthorized | MqttError::Untrusted(_) | MqttError::OldProtocol)) => {
                return Err(WatchError::Broker(broker.to_string(), error));
            }
            Err(error) => error,
        };
        say(screen, said, format!("{error}; connecting again"))?;
        failures += 1;
        sleep(backoff.wait(failures, &mut rng)).await;
    }
}

/// Shows what comes until the connection ends, and returns why it did.
async fn show<W: Write>(
    connection: &mut Connection,
    prefix: &str,
    screen: &mut Screen<W>,
) -> Result<MqttError, WatchError> {
    if let Err(error) = connection.subscribe(&format!("{prefix}/#")) {
        return Ok(error);
    }
    let sender = connection.sender();
    loop {
        match connection.next().await {
            Ok(Incoming::Message(message)) => {
                show_message(&message, prefix, screen)?;
                sender.acknowledge(&message);
            }
            Ok(Incoming::Subscribed | Incoming::Published) => {}
            Err(error) => return Ok(error),
        }
    }
}

fn show_message<W: Write>(message: &Message, prefix: &str, screen: &mut Screen<W>) -> Result<(), WatchError> {
    let kind = TopicKind::of(prefix, &message.topic);
    if matches!(kind, TopicKind::LastRenderedOfJob | TopicKind::State) {
        return Ok(());
    }
    let payload = String::from_utf8(message.payload.to_vec()).ok().and_then(|json| RawValue::from_string(json).ok());
    let name = kind.event().map_or(message.topic.as_str(), |kind| kind.wire_name());
    Ok(screen.event(name, payload.as_slice())?)
}
