//! `health`: what a container asks.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use crate::{
    program::{command, run},
    server::Server,
};

async fn health(url: &str) -> (Option<i32>, String, String) {
    let output = run(command(&["health", url])).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[actix_rt::test]
async fn both_ports_tell_that_the_server_is_well() {
    let server = Server::start(&[]);
    for url in [&server.browsers_url, &server.manager_url] {
        assert_eq!(health(url).await, (Some(0), "ok\n".into(), String::new()));
    }
}

#[actix_rt::test]
async fn a_server_that_is_unwell_or_silent_is_an_error() {
    let unwell = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", unwell.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut connection, _) = unwell.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]).unwrap();
        connection.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\nunwell\n").unwrap();
    });
    let expected = format!("error: {url} answers with status 503: unwell\n");
    assert_eq!(health(&url).await, (Some(1), String::new(), expected));
    // Nothing listens there any more.
    answering.join().unwrap();
    let (code, _, error) = health(&url).await;
    assert!(code == Some(1) && error.starts_with(&format!("error: {url} cannot be reached: ")), "{code:?} {error}");
}
