//! TLS for the listeners: the handshake and the certificates.

mod accept;
mod certificate;

pub use self::{
    accept::Acceptor,
    certificate::{Certificate, CertificateError, Files},
};
