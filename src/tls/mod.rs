//! TLS, both ways: the certificates that this program shows, and those that it trusts.

mod accept;
mod certificate;
mod trust;

pub use self::{
    accept::{Acceptor, accept_plain},
    certificate::{Certificate, CertificateError, Files},
    trust::{connect, explain, trust},
};
