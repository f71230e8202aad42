//! This program as a client of servers over TLS: `watch`, and what stands in front of a Manager.

use std::{
    io::{BufRead, BufReader},
    process::Command,
};

use tokio::net::TcpStream;

use crate::program::run;
use crate::support::{
    authority::{Authority, Folder, Signed},
    http::{Connection, Request},
    server::{JOB, SERVE, Server, program, refusal},
    stub, within,
};

#[actix_rt::test]
async fn watch_shows_a_server_whose_certificate_the_system_trusts() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let trusted = folder.write("authorities.pem", &authority.pem());
    let server = Server::start(&authority.sign().arguments(&folder, "tls").each_ref().map(String::as_str)).await;
    for scheme in ["https", "wss"] {
        let url = format!("{scheme}://localhost:{}", server.browsers.port());
        let mut watch = program(&["watch", "--json", &url]).env("SSL_CERT_FILE", &trusted).spawn().unwrap();
        server.until("watch to be in its rooms", |stats| stats["rooms"]["Worker-Tags"] == 1).await;
        server.publish(7..8, 10).await;
        let mut stdout = BufReader::new(watch.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            while !line.contains("priority") {
                line.clear();
                assert!(stdout.read_line(&mut line).unwrap() > 0, "watch ended");
            }
            line
        });
        let line = within("a line of watch", line).await.unwrap();
        assert!(line.contains(JOB) && line.contains(r#""priority":7"#), "{line}");
        watch.kill().unwrap();
        watch.wait().unwrap();
        server.until("watch to be gone", |stats| stats["sessions"]["total"] == 0).await;
    }
}

#[actix_rt::test]
async fn a_certificate_that_is_not_trusted_is_one_sentence() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let trusted = folder.write("authorities.pem", &authority.pem());
    let stranger = folder.write("stranger.pem", &Authority::new().pem());
    let for_another = authority.sign_for(&["farm.example"]);
    // What `openssl req -x509` makes by default.
    let own = Authority::for_names(&["localhost"]);
    let trusts_own = folder.write("own.pem", &own.pem());
    let of_authority = "its certificate is not trusted: it is the certificate of an authority, as `openssl req -x509` \
        makes it; --tls-ca FILE trusts it";
    for (signed, trusts, expected) in [
        (
            authority.sign(),
            &stranger,
            "its certificate is not trusted: no authority that this system trusts has signed it",
        ),
        (own.itself(), &trusts_own, of_authority),
        (own.itself(), &stranger, of_authority),
        (for_another, &trusted, "its certificate is not trusted: it is for another host name than the one asked for"),
    ] {
        let (address, _) = stub::serve(Some(signed.acceptor()), async |_| Some(stub::answer("404 Not Found", "")));
        let url = format!("https://localhost:{}", address.port());
        let mut watch = program(&["watch", &url]);
        watch.env("SSL_CERT_FILE", trusts);
        let mut serve = program(&[&SERVE[..], &["--manager", &url]].concat());
        serve.env("SSL_CERT_FILE", trusts);
        for command in [watch, serve] {
            let refusal = refusal(command).await;
            assert!(refusal.contains(expected) && refusal.contains(&url), "{refusal}");
        }
    }
}

#[actix_rt::test]
async fn a_certificate_that_signs_itself_is_trusted_by_its_file() {
    let (own, folder) = (Signed::by_itself(&["localhost"]), Folder::new());
    let trusted = folder.write("own.pem", &own.certificate);
    let (address, heard) = stub::serve(Some(own.acceptor()), async |_| Some(stub::answer("404 Not Found", "")));
    let url = format!("https://localhost:{}", address.port());
    let mut watch = program(&["watch", &url]).env("SSL_CERT_FILE", trusted).spawn().unwrap();
    let request = async {
        while heard.heads().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within("a request to come through", request).await;
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// Returns what a program that cannot do its work says.
async fn complaint(command: Command) -> String {
    let output = run(command).await;
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// `--tls-ca` names the authority, the certificate itself, or, as `openssl req -x509` makes it, one that is marked
/// as an authority's. A name in it that is not the server's is refused as always.
#[actix_rt::test]
async fn the_file_of_an_option_is_trusted_too() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (own, plain) = (Authority::for_names(&["localhost"]), Signed::by_itself(&["localhost"]));
    let certificate = plain.certificate.clone();
    for (name, signed, trusts) in [
        ("authority", authority.sign(), authority.pem()),
        ("itself", plain, certificate),
        ("x509", own.itself(), own.pem()),
    ] {
        let file = folder.write(&format!("{name}.pem"), &trusts);
        let file = file.as_str();
        let (address, heard) = stub::serve(Some(signed.acceptor()), async |_| Some(stub::answer("404 Not Found", "")));
        let url = format!("https://localhost:{}", address.port());
        let mut watch = program(&["watch", "--tls-ca", file, &url]).spawn().unwrap();
        within("a request to come through", async {
            while heard.heads().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        watch.kill().unwrap();
        watch.wait().unwrap();
        let refused = complaint(program(&["record", "--tls-ca", file, &url])).await;
        assert!(refused.contains("404"), "{name}: {refused}");
        let refused = complaint(program(&[&SERVE[..], &["--tls-ca", file, "--manager", &url]].concat())).await;
        assert!(refused.contains("/api/v3/version returns status 404 Not Found"), "{name}: {refused}");
        if name == "authority" {
            // Its certificate is for 127.0.0.1 too.
            continue;
        }
        let other = refusal(program(&["watch", "--tls-ca", file, &url.replace("localhost", "127.0.0.1")])).await;
        assert!(other.contains("it is for another host name than the one asked for"), "{name}: {other}");
    }
    let empty = folder.write("empty.pem", "");
    let empty = empty.as_str();
    for arguments in [&["watch"][..], &["record"], &["config", "check"], &SERVE] {
        let refusal = complaint(program(&[arguments, &["--tls-ca", empty]].concat())).await;
        let expected = format!("the file {empty} of --tls-ca: it holds no certificate");
        assert!(refusal.contains(&expected), "{arguments:?}: {refusal}");
    }
}

#[actix_rt::test]
async fn a_manager_may_be_spoken_to_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let trusted = folder.write("authorities.pem", &authority.pem());
    let big = "x".repeat(1 << 20);
    let (manager, heard) = stub::serve(Some(authority.sign().acceptor()), move |head| {
        let body = if head.starts_with("GET /big") { big.clone() } else { r#"{"version":"3.9"}"#.to_owned() };
        async move { Some(stub::answer("200 OK", &body)) }
    });
    let url = format!("https://localhost:{}", manager.port());
    let mut command = program(&[&SERVE[..], &["--manager", &url]].concat());
    command.env("SSL_CERT_FILE", &trusted);
    let server = Server::spawn(command).await;
    let mut browser = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    for _ in 0..3 {
        let answer = browser.request(Request::new("GET", "/big")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    }
    // More than TLS and the kernel hold on the way.
    let upload = Request::new("POST", "/upload").body(&vec![b'x'; (8 << 20) + 7]);
    assert_eq!(browser.request(upload).await.status, 200);
    let asked = |start: &str| heard.heads().iter().any(|head| head.starts_with(start));
    within("the relay to ask for a connection", async {
        while !asked("get /socket.io/?eio=3&transport=websocket") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}
