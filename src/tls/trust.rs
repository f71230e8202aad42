//! Whom this program trusts where it is the client: whom the system does.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use actix_rt::net::TcpStream;
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How connections to servers speak TLS. The system's authorities are read when this is first called, from where `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` say if they do.
pub fn trust() -> Arc<ClientConfig> {
    static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    TRUST.get_or_init(|| Arc::new(client_config())).clone()
}

fn client_config() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
        log::warn!("no certificate authorities can be read, so no server can be trusted over TLS: {why}");
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for both versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

/// Opens TLS to the server of this name or IP address.
pub async fn connect(stream: TcpStream, host: &str) -> io::Result<Box<TlsStream<TcpStream>>> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(trust()).connect(name, stream).await.map(Box::new)
}

/// What a failed connection says about the server's certificate, as the end of a sentence; `None` if it failed for another
/// reason.
pub fn explain(error: &io::Error) -> Option<String> {
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    let reason = if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        "no authority that this system trusts has signed it; SSL_CERT_FILE can name a file of those to trust".to_owned()
    } else if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired".to_owned()
    } else if matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        "it is for another host name than the one asked for".to_owned()
    } else {
        error.to_string()
    };
    Some(format!("its certificate is not trusted: {reason}"))
}
