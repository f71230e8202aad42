//! The certificate of a listener. It can be reloaded while the listener serves; new connections use
//! the new one.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The only HTTP version offered (RFC 7301 §6).
const HTTP_1_1: &[u8] = b"http/1.1";

/// The paths of a certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The listener's own certificate first, then its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why files cannot be used as a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read the certificate file {}: {error}", path.display())]
    CertificateUnreadable { path: PathBuf, error: io::Error },
    #[error("cannot read the key file {}: {error}", path.display())]
    KeyUnreadable { path: PathBuf, error: io::Error },
    #[error("the certificate file {} contains no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("the key file {} contains no unencrypted PEM private key", .0.display())]
    NoKey(PathBuf),
    #[error("the key in {} does not belong to the certificate in {}", .0.key.display(), .0.certificate.display())]
    Mismatch(Files),
    #[error("the certificate in {} cannot be used with the key in {}: {error}", files.certificate.display(), files.key.display())]
    Unusable { files: Files, error: rustls::Error },
}

/// A certificate with its key, as last loaded.
pub struct Certificate {
    files: Files,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or the certificate and the key do not belong together.
    pub fn read(files: Files) -> Result<Arc<Self>, CertificateError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reloads the files. If that fails, the certificate is unchanged.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_again(&self) -> Result<(), CertificateError> {
        let read = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the TLS configuration (1.2 and 1.3) of a listener with this certificate.
    pub(super) fn server_config(self: Arc<Self>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Certificate {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &Files) -> Result<CertifiedKey, CertificateError> {
    let chain = read_chain(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        let path = files.key.clone();
        if let pem::Error::Io(error) = error {
            CertificateError::KeyUnreadable { path, error }
        } else {
            CertificateError::NoKey(path)
        }
    })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        let files = files.clone();
        if error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            CertificateError::Mismatch(files)
        } else {
            CertificateError::Unusable { files, error }
        }
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Err(pem::Error::Io(error)) => Err(CertificateError::CertificateUnreadable { path: path.to_owned(), error }),
        Ok(_) | Err(_) => Err(CertificateError::NoCertificate(path.to_owned())),
    }
}
