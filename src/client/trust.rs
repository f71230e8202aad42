//! The certificate authorities that this program trusts as a client: the system's.

use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

use actix_rt::net::TcpStream;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, ServerName,
        pem::{self, PemObject},
    },
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Returns the TLS configuration for connections to servers. Loads the system's authorities at the
/// first call, from `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set.
pub fn trust() -> Arc<ClientConfig> {
    static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    TRUST.get_or_init(|| Arc::new(client_config())).clone()
}

/// Returns a TLS configuration that trusts only the authorities in a PEM file.
///
/// # Errors
///
/// Returns an error if the file cannot be read or has no certificate.
pub fn trust_only(file: &Path) -> io::Result<Arc<ClientConfig>> {
    let invalid = |error| if let pem::Error::Io(error) = error { error } else { io::Error::other(error.to_string()) };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(invalid)?.collect();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(certificates.map_err(invalid)?);
    if authorities.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate"));
    }
    Ok(Arc::new(trusting(authorities)))
}

fn client_config() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
        log::warn!("no certificate authorities can be read, so no server can be trusted over TLS: {why}");
    }
    trusting(authorities)
}

fn trusting(authorities: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for both versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

/// Opens TLS to the server with this name or IP address.
///
/// # Errors
///
/// The handshake fails, for example because no authority that the program trusts has signed the
/// server's certificate.
pub async fn connect(stream: TcpStream, host: &str) -> io::Result<Box<TlsStream<TcpStream>>> {
    connect_with(trust(), stream, host).await
}

/// Opens TLS with this configuration to the server with this name or IP address.
pub(crate) async fn connect_with(
    config: Arc<ClientConfig>,
    stream: TcpStream,
    host: &str,
) -> io::Result<Box<TlsStream<TcpStream>>> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(config).connect(name, stream).await.map(Box::new)
}

/// Returns what is wrong with the server's certificate, as the end of a sentence, or `None` if a
/// connection failed for another reason.
pub fn explain(error: &io::Error) -> Option<String> {
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    let reason = if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        "no authority that this system trusts has signed it; SSL_CERT_FILE can name a file with further authorities"
            .to_owned()
    } else if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired".to_owned()
    } else if matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        "it is for another host name than the one asked for".to_owned()
    } else if error.to_string().contains("CaUsedAsEndEntity") {
        // The error is one of a library below rustls, which rustls hides.
        "it is the certificate of an authority, as `openssl req -x509` makes it; make it again with \
        -addext basicConstraints=critical,CA:FALSE and name its file in SSL_CERT_FILE"
            .to_owned()
    } else {
        error.to_string()
    };
    Some(format!("its certificate is not trusted: {reason}"))
}
