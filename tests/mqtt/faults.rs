//! The broker goes away and returns, refuses, or cannot be trusted.

use std::fs;

use serde_json::json;

use super::{
    broker::Broker,
    browser::Browser,
    server::{Server, until},
    topics::{job, rest, status},
};

/// The user `farm` with the password `s3cret`, as `mosquitto_passwd` writes it.
const USERS: &str = "farm:$7$101$gOuOlaIx+qP4He5r$ry4t6g9L4zWjhISYIkhcbKjKnf393dp0cV6OGCdWtbue8d62bRCx9ArTOdD8Zwtd02GW10NxyyGdxOaizkH8gg==\n";

#[actix_rt::test]
async fn a_killed_broker_is_found_again() {
    let Some(mut broker) = Broker::start("").await else { return };
    let server = Server::with_broker(&broker.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    broker.publish([status("active")]).await;
    assert_eq!(browser.next("/status").await["status"], "active");
    broker.kill();
    assert_eq!(browser.next("/status").await["status"], "unknown");
    server.until_mqtt("away").await;
    assert!(server.health().await.ends_with("mqtt: away\n"));
    broker.restart().await;
    server.until_mqtt("connected").await;
    // The session is gone, and the server has subscribed again.
    broker.publish([status("idle"), job("active", None, "after")]).await;
    assert_eq!(browser.next("/status").await["status"], "idle");
    assert_eq!(browser.next("/jobs").await["name"], "after");
    assert!(rest(&broker, &mut browser).await.is_empty());
    assert_eq!(server.stats().await["mqtt"]["connections"], 2);
}

#[actix_rt::test]
async fn a_broker_with_persistence_keeps_the_session_over_its_restart() {
    let lines = "persistence true\npersistence_location FOLDER/\n";
    let Some(mut broker) = Broker::start(lines).await else { return };
    let server = Server::with_broker(&broker.url(), &[]).await;
    let mut browser = Browser::connect(&server.address()).await;
    broker.stop().await;
    server.until_mqtt("away").await;
    broker.restart().await;
    broker.publish((0..100).map(|number| job("active", None, &number.to_string()))).await;
    let names: Vec<_> =
        rest(&broker, &mut browser).await.into_iter().map(|(name, job)| (name, job["name"].clone())).collect();
    let jobs = (0..100).map(|number| ("/jobs".to_owned(), json!(number.to_string())));
    let unknown = ("/status".to_owned(), json!(null));
    assert_eq!(names, [unknown].into_iter().chain(jobs).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn messages_queue_while_the_server_is_away() {
    let Some(broker) = Broker::start("").await else { return };
    drop(Server::with_broker(&broker.url(), &[]).await);
    broker.publish((0..3000).map(|number| job("active", None, &number.to_string()))).await;
    let server = Server::with_broker(&broker.url(), &[]).await;
    until("the queued messages to be published", async || server.stats().await["sources"]["mqtt"]["events"] == 3000)
        .await;
    let mut browser = Browser::connect(&server.address()).await;
    assert!(rest(&broker, &mut browser).await.is_empty());
    assert_eq!(server.stats().await["sources"]["mqtt"]["dropped"], 0);
}

#[actix_rt::test]
async fn faults_leave_nothing_in_memory() {
    let Some(mut broker) = Broker::start("").await else { return };
    let is_long = std::env::var("WEBUPDATES_LONG_TESTS").is_ok_and(|value| value == "1");
    let server = Server::with_broker(&broker.url(), &["--history", "0"]).await;
    let mut resident = Vec::new();
    for round in 1..=if is_long { 60 } else { 6 } {
        // 4 MB, of which nothing may stay.
        broker.publish((0..2000).map(|_| job("active", None, &"x".repeat(2000)))).await;
        // The first of all is a new job.
        until("all events", async || server.stats().await["events"]["job-update"] == 2000 * round - 1).await;
        broker.kill();
        server.until_mqtt("away").await;
        broker.restart().await;
        server.until_mqtt("connected").await;
        assert_eq!(server.stats().await["mqtt"]["connections"], round + 1, "no reconnect loop");
        resident.push(server.rss());
    }
    let (settled, last) = (resident[2], resident[resident.len() - 1]);
    println!("resident memory after each fault: {resident:?}");
    assert!(last < settled + 4_000_000, "resident memory grows with each fault: {resident:?}");
}

#[actix_rt::test]
async fn a_wrong_password_is_said_once() {
    let Some(broker) = Broker::start_with("allow_anonymous false\npassword_file FOLDER/users\n", |folder| {
        fs::write(folder.join("users"), USERS).unwrap();
    })
    .await
    else {
        return;
    };
    let url = broker.url().replace("mqtt://", "mqtt://farm@");
    let (wrong, right) = (broker.folder.join("wrong"), broker.folder.join("right"));
    fs::write(&wrong, "guess\n").unwrap();
    fs::write(&right, "s3cret\n").unwrap();

    let server = Server::start(&["--mqtt", &url, "--mqtt-password-file", &wrong.display().to_string()]).await;
    let complaint = "the broker refuses the user name or password: check the user in --mqtt";
    until("the complaint", async || server.log().contains(complaint)).await;
    assert!(!server.log().contains("guess"));
    assert_eq!(server.log().matches(complaint).count(), 1);
    assert!(server.health().await.ends_with("mqtt: away\n"));

    drop(Server::with_broker(&url, &["--mqtt-password-file", &right.display().to_string()]).await);
    drop(Server::with_broker(&broker.url().replace("mqtt://", "mqtt://farm:s3cret@"), &[]).await);
}

#[actix_rt::test]
async fn only_a_trusted_broker_is_used() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let broker = Broker::start_with("certfile FOLDER/cert.pem\nkeyfile FOLDER/key.pem\n", |folder| {
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    });
    let Some(broker) = broker.await else { return };
    let server = Server::start(&["--mqtt", &broker.tls_url()]).await;
    until("the complaint", async || server.log().contains("no authority that this system trusts has signed it")).await;
    assert_eq!(server.log().matches("has signed it").count(), 1);
    drop(server);
    drop(
        Server::with_broker(&broker.tls_url(), &["--mqtt-ca", &broker.folder.join("cert.pem").display().to_string()])
            .await,
    );
}

#[actix_rt::test]
async fn files_that_cannot_be_used_end_the_start() {
    for option in ["--mqtt-password-file", "--mqtt-ca"] {
        let output = super::server::run(&["--mqtt", "mqtt://127.0.0.1:1", option, "/nowhere"]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("the file /nowhere of {option}: No such file")), "{error}");
    }
}

#[actix_rt::test]
async fn a_broker_that_is_not_there_does_not_keep_the_server_from_starting() {
    let server = Server::start(&["--mqtt", "mqtt://127.0.0.1:1"]).await;
    until("the complaint", async || server.log().contains("the broker cannot be reached: Connection refused")).await;
    assert_eq!(server.log().matches("cannot be reached").count(), 1);
}

#[actix_rt::test]
async fn two_servers_with_one_id_notice_each_other() {
    let Some(broker) = Broker::start("").await else { return };
    let first = Server::with_broker(&broker.url(), &[]).await;
    let second = Server::with_broker(&broker.url(), &[]).await;
    let notice = "another client with the same client id took the session over: give each server a --mqtt-client-id";
    until("the first to notice", async || first.log().contains(notice)).await;
    until("the second to notice", async || second.log().contains(notice)).await;
    let has_grown = |line: &str| line.contains("next attempt in") && !line.contains("in 0.");
    until("the waits to grow", async || second.log().lines().any(has_grown)).await;
    drop(first);
    second.until_mqtt("connected").await;
}
