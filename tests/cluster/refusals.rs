//! What can never work ends the start with one sentence and exit code 2.

use std::net::TcpListener;

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};

use super::{
    nats::Nats,
    nodes::node,
    server::{Server, run},
};

/// Asserts that a server with these arguments does not start, and says this.
async fn refused(arguments: &[&str], sentence: &str) {
    let output = run(arguments).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(sentence), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[actix_rt::test]
async fn options_that_make_no_sense_are_refused() {
    refused(&["--nats", "http://farm:s3cret@host"], "not a URL of NATS").await;
    refused(&["--nats", "nats://127.0.0.1:1", "--nats-stream", "a.b"], "the name of a stream").await;
    refused(&["--nats", "nats://127.0.0.1:1", "--nats-max-age", "1m"], "must not be shorter than --event-id-age").await;
    for option in ["--nats-credentials", "--nats-ca"] {
        let sentence = format!("the file /nowhere of {option}: No such file");
        refused(&["--nats", "nats://127.0.0.1:1", option, "/nowhere"], &sentence).await;
    }
}

#[actix_rt::test]
async fn a_nats_without_jetstream_is_refused() {
    let Some(nats) = Nats::start_with("").await else { return };
    refused(&["--nats", &nats.url()], "NATS has no JetStream").await;
}

#[actix_rt::test]
async fn a_user_that_nats_does_not_know_is_refused() {
    let lines = "jetstream { store_dir: \"FOLDER/store\" }\nauthorization { user: farm, password: right }\n";
    let Some(nats) = Nats::start_with(lines).await else { return };
    let url = nats.url();
    refused(&["--nats", &url.replace("nats://", "nats://farm:s3cret@")], "NATS refuses the user").await;
    drop(Server::start(&["--nats", &url.replace("nats://", "nats://farm:right@")]).await);
}

#[actix_rt::test]
async fn a_stream_of_another_shape_is_refused() {
    let Some(nats) = Nats::start().await else { return };
    drop(node(&nats, &["--event-id-age", "1m"]).await);
    refused(&["--nats", &nats.url()], "it recognises repetitions for 60 s, and --event-id-age asks for 600 s").await;
    // Retention may be changed by the operator; the log says so.
    let other = node(&nats, &["--event-id-age", "1m", "--nats-max-age", "2h"]).await;
    assert!(other.log().contains("other than the options say"));
}

#[actix_rt::test]
async fn a_stream_that_another_program_made_is_refused() {
    let Some(nats) = Nats::start().await else { return };
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let made = |name: &str| Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.events.*")],
        allow_atomic_publish: true,
        max_bytes: 1 << 20,
        ..Config::default()
    };
    let streams = [
        (Config { subjects: vec!["a.>".to_owned()], ..made("a") }, "its subjects are a.> instead of a.events.*"),
        (Config { allow_atomic_publish: false, ..made("b") }, "it does not allow atomic batches"),
        (Config { discard: DiscardPolicy::New, ..made("c") }, "it refuses new events when it is full"),
    ];
    for (config, problem) in streams {
        let name = config.name.clone();
        context.create_stream(config).await.unwrap();
        let sentence = format!("the stream {name} has another shape: {problem}");
        refused(&["--nats", &nats.url(), "--nats-stream", &name], &sentence).await;
    }
}

#[actix_rt::test]
async fn a_stream_that_nats_has_no_room_for_is_refused() {
    let lines = "jetstream { store_dir: \"FOLDER/store\", max_file_store: 1MB }\n";
    let Some(nats) = Nats::start_with(lines).await else { return };
    refused(&["--nats", &nats.url()], "the stream webupdates cannot be created: insufficient storage").await;
    drop(node(&nats, &["--nats-max-bytes", "1000000"]).await);
}

#[actix_rt::test]
async fn more_replicas_than_servers_are_refused() {
    let Some(nats) = Nats::start().await else { return };
    refused(&["--nats", &nats.url(), "--nats-replicas", "3"], "the stream webupdates cannot be created: replicas")
        .await;
}

#[actix_rt::test]
async fn a_server_waits_for_a_nats_that_is_not_there_yet() {
    let Some(mut nats) = Nats::start().await else { return };
    nats.kill();
    let port = TcpListener::bind(nats.address()).unwrap();
    let url = nats.url();
    let starting = actix_rt::spawn(async move { Server::start(&["--nats", &url]).await });
    // The first attempt is turned away.
    drop(tokio::task::spawn_blocking(move || port.accept().unwrap()).await.unwrap());
    nats.restart().await;
    let log = starting.await.unwrap().log();
    assert_eq!(log.matches("NATS cannot be reached at [nats://127.0.0.1:").count(), 1, "{log}");
}

#[actix_rt::test]
async fn an_old_nats_is_refused() {
    let Some(nats) = Nats::start_old().await else { return };
    refused(&["--nats", &nats.url()], "but 2.12 or newer is needed").await;
}
