//! The files that are read again on SIGHUP: certificates and the Manager's token.

use std::{path::PathBuf, sync::Arc};

use super::ServeError;
use crate::{
    config::Options,
    ingest::http::Token,
    tls::{Certificate, Files},
};

/// What they held when they were last read.
pub(super) struct Secrets {
    pub(super) browsers: Option<Arc<Certificate>>,
    pub(super) manager: Option<Arc<Certificate>>,
    pub(super) token: Option<Arc<Token>>,
}

impl Secrets {
    pub(super) fn read(options: &Options) -> Result<Self, ServeError> {
        let browsers = certificate(["--tls-cert", "--tls-key"], options.tls_cert.as_ref(), options.tls_key.as_ref())?;
        let manager = certificate(
            ["--manager-tls-cert", "--manager-tls-key"],
            options.manager_tls_cert.as_ref(),
            options.manager_tls_key.as_ref(),
        )?;
        let token = options.manager_token_file.clone().map(Token::read).transpose()?;
        Ok(Self { browsers, manager, token: token.map(Arc::new) })
    }

    /// Reads all files again. What cannot be read stays what it was, and no connection notices.
    pub(super) fn read_again(&self) {
        for certificate in [&self.browsers, &self.manager].into_iter().flatten() {
            let path = certificate.files().certificate.display();
            match certificate.read_again() {
                Ok(()) => log::info!("the certificate {path} was read again"),
                Err(error) => log::error!("{error}; the certificate from before stays in use"),
            }
        }
        match self.token.as_ref().map(|token| token.read_again()) {
            Some(Ok(())) => log::info!("the token file was read again"),
            Some(Err(error)) => log::error!("{error}; the token from before stays in use"),
            None if self.browsers.is_none() && self.manager.is_none() => {
                log::info!("there is nothing to read again: neither certificates nor a token file were given");
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
