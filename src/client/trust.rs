//! The certificates that this program trusts as a client: those that the system's authorities have signed, and
//! those in files that options name.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use actix_rt::net::TcpStream;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::ring,
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::ParsedCertificate,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What servers this program connects to over TLS.
static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// The option for servers that the system does not trust.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TrustOptions {
    /// PEM file with certificates that servers may have, or that may have signed theirs, besides the
    /// system's: for everything that this program connects to over TLS
    #[arg(long, value_name = "FILE", env = "WEBUPDATES_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
}

impl TrustOptions {
    /// Trusts the certificates of the file from now on, in the whole program.
    ///
    /// # Errors
    ///
    /// Returns an error, which names the file, if it cannot be read or has no certificate.
    pub fn apply(&self) -> io::Result<()> {
        let Some(file) = &self.tls_ca else { return Ok(()) };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("the file {} of --tls-ca: {error}", file.display()))
        };
        let certificates = read(file).map_err(named)?;
        // At the start there is no connection yet; later it is the same file.
        let _ = TRUST.set(Arc::new(trusting(authorities(), certificates)));
        Ok(())
    }
}

/// Returns the TLS configuration for connections to servers. Loads the system's authorities at the
/// first call, from `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set.
pub fn trust() -> Arc<ClientConfig> {
    TRUST.get_or_init(|| Arc::new(trusting(authorities(), Vec::new()))).clone()
}

/// Returns a TLS configuration that trusts only the certificates in a PEM file.
///
/// # Errors
///
/// Returns an error if the file cannot be read or has no certificate.
pub fn trust_only(file: &Path) -> io::Result<Arc<ClientConfig>> {
    Ok(Arc::new(trusting(RootCertStore::empty(), read(file)?)))
}

fn read(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let invalid = |error| if let pem::Error::Io(error) = error { error } else { io::Error::other(error.to_string()) };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(invalid)?.collect();
    let certificates = certificates.map_err(invalid)?;
    let (valid, _) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    match valid {
        0 => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate")),
        _ => Ok(certificates),
    }
}

fn authorities() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
        log::warn!("no certificate authorities can be read, so no server can be trusted over TLS: {why}");
    }
    authorities
}

/// Trusts what `authorities` or one of the `named` certificates has signed, and each of these itself.
fn trusting(mut authorities: RootCertStore, named: Vec<CertificateDer<'static>>) -> ClientConfig {
    const SUPPORTED: &str = "ring has cipher suites for both versions";
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    authorities.add_parsable_certificates(named.iter().cloned());
    if named.is_empty() {
        return config.expect(SUPPORTED).with_root_certificates(authorities).with_no_client_auth();
    }
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider).build();
    let usual = usual.expect("there is an authority, and no list of revoked certificates that may be wrong");
    let verifier = Arc::new(Verifier { usual, named });
    config.expect(SUPPORTED).dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

/// Accepts, besides what is usual, a certificate that a file names and that is marked as an authority's, as
/// `openssl req -x509` makes it.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.usual.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // It is looked at after the dates and before the name.
            Err(rustls::Error::InvalidCertificate(error))
                if is_of_authority(&error) && self.named.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Returns whether a certificate is refused for being that of an authority. The error is one of a library
/// below rustls, which rustls hides.
fn is_of_authority(error: &CertificateError) -> bool {
    error.to_string().contains("CaUsedAsEndEntity")
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
        "no authority that this system trusts has signed it; --tls-ca FILE trusts it, or its authority".to_owned()
    } else if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired".to_owned()
    } else if matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        "it is for another host name than the one asked for".to_owned()
    } else if is_of_authority(error) {
        "it is the certificate of an authority, as `openssl req -x509` makes it; --tls-ca FILE trusts it".to_owned()
    } else {
        error.to_string()
    };
    Some(format!("its certificate is not trusted: {reason}"))
}
