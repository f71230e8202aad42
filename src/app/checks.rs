//! Refuses options with which the server could start but not work, or would admit requests that it
//! must not.

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    time::Duration,
};

use super::{ServeError, secrets::Secrets};
use crate::{
    config::ServeOptions,
    ingest::relay::Api,
    options::ListenAddress,
    transport::{AllowedOrigin, AuthScope},
};

/// How long the check of the Manager may take at the start.
const MANAGER_CHECK: Duration = Duration::from_secs(2);

/// Returns everything that `serve` would refuse with these options, as far as it shows without
/// opening a port.
pub fn check(options: &ServeOptions) -> Vec<ServeError> {
    actix_rt::System::new().block_on(run(options))
}

async fn run(options: &ServeOptions) -> Vec<ServeError> {
    let secrets = Secrets::read(options).err();
    let manager = &options.manager_port.listen;
    let listeners = [&options.transport.listen[..], manager].concat();
    let refusals = [check_token(options, manager), check_auth(options), check_manager(options, &listeners).await];
    secrets.into_iter().chain(refusals.into_iter().filter_map(Result::err)).collect()
}

/// Refuses a Manager's port that other machines reach without a token.
pub(super) fn check_token(options: &ServeOptions, manager: &[ListenAddress]) -> Result<(), ServeError> {
    let exposed = tcp(manager).find(|address| !address.ip().is_loopback());
    match exposed.filter(|_| options.manager_port.token_file.is_none()) {
        None => Ok(()),
        Some(address) => Err(ServeError::NoToken(address)),
    }
}

/// Returns the addresses that other machines may reach.
fn tcp(addresses: &[ListenAddress]) -> impl Iterator<Item = SocketAddr> {
    addresses.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    })
}

/// Refuses options that would expose users' log-ins to strangers, and logs what the auth service
/// decides about.
pub(super) fn check_auth(options: &ServeOptions) -> Result<(), ServeError> {
    let Some(url) = &options.transport.auth.url else { return Ok(()) };
    if url.authorization().is_some() {
        return Err(ServeError::AuthUrlWithUser);
    }
    if options.transport.allow_origin.contains(&AllowedOrigin::Any) {
        return Err(ServeError::AnyOriginWithUsers);
    }
    match options.transport.auth.scope {
        AuthScope::All => log::info!("--auth-url is asked about every request but for /healthz"),
        AuthScope::Sessions => {
            log::info!("--auth-url is asked about Socket.IO sessions only; what --manager passes on is open");
        }
    }
    Ok(())
}

/// Refuses an address that can never be a Manager's. An address that does not answer is accepted,
/// because the Manager may start later.
pub(super) async fn check_manager(options: &ServeOptions, listeners: &[ListenAddress]) -> Result<(), ServeError> {
    let Some(manager) = &options.relay.manager else { return Ok(()) };
    let mut addresses = manager.host_and_port().to_socket_addrs().into_iter().flatten();
    let leads_to = |address: SocketAddr, listener: SocketAddr| {
        let ip = listener.ip();
        // Only a local address can be bound.
        let is_this_machine = || TcpListener::bind((address.ip(), 0)).is_ok();
        address.port() == listener.port() && (address.ip() == ip || ip.is_unspecified() && is_this_machine())
    };
    if addresses.any(|address| tcp(listeners).any(|listener| leads_to(address, listener))) {
        return Err(ServeError::ManagerIsMyself(manager.clone().into()));
    }
    match actix_rt::time::timeout(MANAGER_CHECK, Api::new(manager.clone()).version()).await {
        Ok(Err(error)) if error.is_permanent() => {
            Err(ServeError::Manager { address: manager.clone().into(), error: error.into() })
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
    }
}
