//! Certificates with which the server does not start.

use crate::support::{
    authority::{Authority, Folder},
    server::{SERVE, program, refusal},
};

#[actix_rt::test]
async fn what_is_wrong_with_a_pair_is_said_in_one_sentence() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (certificate, key) = authority.sign().write(&folder, "one");
    let (_, other_key) = authority.sign().write(&folder, "other");
    let empty = folder.write("empty.pem", "");
    let text = folder.write("text.pem", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing.pem").to_str().unwrap().to_owned();
    for prefix in ["tls", "manager-tls"] {
        let (cert_option, key_option) = (format!("--{prefix}-cert"), format!("--{prefix}-key"));
        let pair = |certificate: &str, key: &str| {
            vec![cert_option.clone(), certificate.to_owned(), key_option.clone(), key.to_owned()]
        };
        for (arguments, expected) in [
            (vec![cert_option.clone(), certificate.clone()], format!("{cert_option} needs {key_option} too")),
            (vec![key_option.clone(), key.clone()], format!("{key_option} needs {cert_option} too")),
            (pair(&missing, &key), format!("cannot read the certificate file {missing}: No such file")),
            (pair(&certificate, &missing), format!("cannot read the key file {missing}: No such file")),
            (pair(&empty, &key), format!("the certificate file {empty} contains no PEM certificate")),
            (pair(&text, &key), format!("the certificate file {text} contains no PEM certificate")),
            (pair(&key, &key), format!("the certificate file {key} contains no PEM certificate")),
            (
                pair(&certificate, &certificate),
                format!("the key file {certificate} contains no unencrypted PEM private key"),
            ),
            (pair(&certificate, &other_key), format!("the key in {other_key} does not belong to the certificate in")),
        ] {
            let mut command = program(&SERVE);
            command.args(&arguments);
            let refusal = refusal(command).await;
            assert!(refusal.contains(&expected), "{arguments:?}: {refusal}");
        }
    }
}

#[actix_rt::test]
async fn a_pair_may_come_from_variables() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (certificate, key) = authority.sign().write(&folder, "one");
    let mut command = program(&SERVE);
    command.env("WEBUPDATES_TLS_CERT", &certificate);
    assert!(refusal(command).await.contains("--tls-cert needs --tls-key too"));
    let mut command = program(&SERVE);
    command.env("WEBUPDATES_TLS_CERT", &certificate).env("WEBUPDATES_TLS_KEY", &key);
    let server = crate::support::server::Server::spawn(command).await;
    assert!(server.browsers_url.starts_with("https://"));
}
