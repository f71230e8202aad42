//! HTTP to servers, over TLS where their address says so.

use std::time::Duration;

use awc::{
    Connector,
    error::{ConnectError, SendRequestError},
};

use super::Address;
use crate::tls;

/// Asks the server at `server`, whose whole answer may take `timeout`. A redirect is an answer.
pub fn http_client(server: &Address, timeout: Duration) -> awc::Client {
    let connector = Connector::new();
    let connector = if server.is_tls() { connector.rustls_0_23(tls::trust()) } else { connector };
    awc::Client::builder().connector(connector).disable_redirects().timeout(timeout).finish()
}

/// What a failed request says about the server's certificate; `None` if it failed for another reason.
pub fn untrusted(error: &SendRequestError) -> Option<String> {
    let SendRequestError::Connect(ConnectError::Io(error)) = error else { return None };
    tls::explain(error)
}
