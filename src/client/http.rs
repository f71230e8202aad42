//! HTTP clients of servers, with TLS if the address says so.

use std::time::Duration;

use awc::{
    Connector,
    error::{ConnectError, SendRequestError},
    http::header,
};

use super::Address;
use crate::trust::{explain, trust};

/// Returns an HTTP client for the server at `server`, with a timeout for the whole response. It
/// sends the name and password of the address, if there are any, and does not follow redirects.
pub fn http_client(server: &Address, timeout: Duration) -> awc::Client {
    let connector = Connector::new();
    let mut builder = awc::Client::builder();
    if let Some(authorization) = server.authorization() {
        builder = builder.add_default_header((header::AUTHORIZATION, authorization));
    }
    for header in server.headers() {
        builder = builder.add_default_header(header.pair());
    }
    let connector = if server.is_tls() { connector.rustls_0_23(trust()) } else { connector };
    builder.connector(connector).disable_redirects().timeout(timeout).finish()
}

/// Returns what is wrong with the server's certificate, or `None` if a request failed for another
/// reason.
pub fn untrusted(error: &SendRequestError) -> Option<String> {
    let SendRequestError::Connect(ConnectError::Io(error)) = error else { return None };
    explain(error)
}
