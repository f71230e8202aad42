//! What can never work ends the start with one sentence and exit code 2.

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
