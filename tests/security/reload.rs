//! Files that are read again on SIGHUP.

use rustix::process::Signal;

use crate::support::{
    authority::{Authority, Folder},
    http::{Connection, Request},
    server::Server,
};

#[actix_rt::test]
async fn a_new_certificate_is_for_new_connections_only() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let first = authority.sign();
    let server = Server::start(&first.arguments(&folder, "tls").each_ref().map(String::as_str)).await;
    let stream = authority.connect(server.browsers).await;
    assert!(first.is_shown_on(&stream));
    let mut browser = Connection::websocket(stream).await;

    let second = authority.sign();
    second.write(&folder, "tls");
    assert!(first.is_shown_on(&authority.connect(server.browsers).await), "nobody has said that it changed");
    server.signal(Signal::HUP);
    server.logged("was reloaded", 1).await;
    assert!(second.is_shown_on(&authority.connect(server.browsers).await));

    let key = folder.write("tls-key.pem", &first.key);
    server.signal(Signal::HUP);
    server.logged(&format!("the key in {key} does not belong to the certificate in"), 1).await;
    server.logged("the previous certificate stays in use", 1).await;
    assert!(second.is_shown_on(&authority.connect(server.browsers).await));

    std::fs::remove_file(key).unwrap();
    server.signal(Signal::HUP);
    server.logged("the previous certificate stays in use", 2).await;
    assert!(second.is_shown_on(&authority.connect(server.browsers).await));

    server.publish(0..1, 10).await;
    assert_eq!(browser.number().await, 0, "the first browser is still there");
    assert_eq!(server.stats().await["disconnects"]["transport-error"], 0);
}

#[actix_rt::test]
async fn a_new_token_takes_the_place_of_the_old_one() {
    let folder = Folder::new();
    let file = folder.write("token", "the-first-token-of-all\n");
    let server = Server::start(&["--manager-token-file", &file]).await;
    let status = async |token: &str| {
        let authorization = format!("Bearer {token}");
        Request::new("GET", "/api/stats").header("authorization", &authorization).send(server.manager).await.status
    };
    let statuses = async || [status("the-first-token-of-all").await, status("the-second-token-of-all").await];
    assert_eq!(statuses().await, [200, 403]);

    folder.write("token", "the-second-token-of-all\n");
    assert_eq!(statuses().await, [200, 403], "nobody has said that it changed");
    server.signal(Signal::HUP);
    server.logged("the token file was reloaded", 1).await;
    assert_eq!(statuses().await, [403, 200]);

    folder.write("token", " \n");
    server.signal(Signal::HUP);
    server.logged(&format!("the token file {file} is empty; the previous token stays in use"), 1).await;
    folder.write("token", "short\n");
    server.signal(Signal::HUP);
    server.logged(&format!("the token in {file} has fewer than 16 characters"), 1).await;
    folder.write("token", "two words of enough length\n");
    server.signal(Signal::HUP);
    server.logged(&format!("the token file {file} holds more than one word"), 1).await;
    assert_eq!(statuses().await, [403, 200]);

    std::fs::remove_file(&file).unwrap();
    server.signal(Signal::HUP);
    server.logged(&format!("cannot read the token file {file}: "), 1).await;
    assert_eq!(statuses().await, [403, 200]);
}

#[actix_rt::test]
async fn a_server_without_such_files_takes_no_harm() {
    let server = Server::start(&[]).await;
    server.signal(Signal::HUP);
    server.logged("there is nothing to reload", 1).await;
    assert_eq!(Request::new("GET", "/healthz").send(server.browsers).await.status, 200);
    server.signal(Signal::TERM);
    server.ended().await;
}
