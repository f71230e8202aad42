//! The secret that the Manager must bring. It can be read anew while the listener serves.

use std::{
    fs, io,
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use subtle::ConstantTimeEq;

/// A file's secret, as it was when last read.
pub struct Token {
    file: PathBuf,
    secret: RwLock<String>,
}

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token file {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
}

impl Token {
    pub fn read(file: PathBuf) -> Result<Self, TokenError> {
        let secret = RwLock::new(read(&file)?);
        Ok(Self { file, secret })
    }

    /// Reads the file again. If that fails, the token stays what it was.
    pub fn read_again(&self) -> Result<(), TokenError> {
        let secret = read(&self.file)?;
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        Ok(())
    }

    /// Takes as long wherever the first difference is.
    pub(super) fn matches(&self, given: &str) -> bool {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        secret.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// White space around it is not part of it.
fn read(file: &PathBuf) -> Result<String, TokenError> {
    let text = fs::read_to_string(file).map_err(|error| TokenError::Unreadable { file: file.clone(), error })?;
    match text.trim() {
        "" => Err(TokenError::Empty(file.clone())),
        secret => Ok(secret.to_owned()),
    }
}
