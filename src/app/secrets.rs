//! The files that are reloaded on SIGHUP: certificates and the Manager's token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::ServeError;
use crate::{
    config::ServeOptions,
    manager_port::Token,
    tls::{Certificate, Files},
};

/// Their content at the last load.
pub(super) struct Secrets {
    pub(super) browsers: Option<Arc<Certificate>>,
    pub(super) manager: Option<Arc<Certificate>>,
    pub(super) token: Option<Arc<Token>>,
}

impl Secrets {
    pub(super) fn read(options: &ServeOptions) -> Result<Self, ServeError> {
        let (transport, port) = (&options.transport, &options.manager_port);
        options.trust.apply().map_err(ServeError::Trust)?;
        let browsers =
            certificate(["--tls-cert", "--tls-key"], transport.tls_cert.as_ref(), transport.tls_key.as_ref())?;
        let manager =
            certificate(["--manager-tls-cert", "--manager-tls-key"], port.tls_cert.as_ref(), port.tls_key.as_ref())?;
        let token = port.token_file.clone().map(Token::read).transpose()?;
        let files = [&port.token_file, &transport.tls_key, &port.tls_key];
        files.into_iter().flatten().filter(|file| is_public(file)).for_each(|file| {
            // In a container that may be so, and nobody else be there.
            let file = file.display();
            log::warn!("the secret file {file} can be read by every user of this machine: run `chmod 600 {file}`");
        });
        Ok(Self { browsers, manager, token: token.map(Arc::new) })
    }

    /// Reloads all files on a thread that may block.
    pub(super) fn read_again_aside(self: Arc<Self>) {
        drop(actix_rt::task::spawn_blocking(move || self.read_again()));
    }

    /// Reloads all files. A file that cannot be read keeps its previous content, and no connection
    /// is affected.
    fn read_again(&self) {
        for certificate in [&self.browsers, &self.manager].into_iter().flatten() {
            let path = certificate.files().certificate.display();
            match certificate.read_again() {
                Ok(()) => log::info!("the certificate {path} was reloaded"),
                Err(error) => log::error!("{error}; the previous certificate stays in use"),
            }
        }
        match self.token.as_ref().map(|token| token.read_again()) {
            Some(Ok(())) => log::info!("the token file was reloaded"),
            Some(Err(error)) => log::error!("{error}; the previous token stays in use"),
            None if self.browsers.is_none() && self.manager.is_none() => {
                log::info!("there is nothing to reload: no certificates and no token file are configured");
            }
            None => {}
        }
    }
}

fn certificate(
    [certificate_option, key_option]: [&'static str; 2],
    certificate: Option<&PathBuf>,
    key: Option<&PathBuf>,
) -> Result<Option<Arc<Certificate>>, ServeError> {
    match (certificate.cloned(), key.cloned()) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Certificate::read(Files { certificate, key })?)),
        (Some(_), None) => Err(ServeError::HalfAPair { given: certificate_option, missing: key_option }),
        (None, Some(_)) => Err(ServeError::HalfAPair { given: key_option, missing: certificate_option }),
    }
}

/// Returns whether users other than the file's owner and group may read it.
#[cfg(unix)]
fn is_public(file: &Path) -> bool {
    use std::{fs, os::unix::fs::PermissionsExt};
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_public(_: &Path) -> bool {
    false
}
