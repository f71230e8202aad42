//! What differs between operating systems. The rest of the server names none.

mod listener;
#[cfg(any(windows, test))]
mod log_file;
#[cfg(windows)]
pub mod service;
mod signals;

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

#[cfg(any(windows, test))]
pub use self::log_file::LogFile;
pub(crate) use self::{listener::Listener, signals::Signals};

/// A notification to the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    Ready,
    Stopping,
    /// The server is healthy.
    Watchdog,
}

/// Sends a notification to systemd. Does nothing if systemd did not start this process.
#[cfg(unix)]
pub(crate) fn notify(notification: Notification) {
    use sd_notify::NotifyState;
    let state = match notification {
        Notification::Ready => NotifyState::Ready,
        Notification::Stopping => NotifyState::Stopping,
        Notification::Watchdog => NotifyState::Watchdog,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("cannot notify systemd: {error}");
    }
}

/// Sends a notification to the service manager of Windows. Does nothing if it did not start this
/// process.
#[cfg(windows)]
pub(crate) fn notify(notification: Notification) {
    service::notify(notification);
}

/// Returns how long systemd waits for [`Notification::Watchdog`]; `None` if it does not watch this
/// process.
pub(crate) fn watchdog() -> Option<Duration> {
    #[cfg(unix)]
    return sd_notify::watchdog_enabled();
    #[cfg(not(unix))]
    None
}

/// Raises the number of files that the process may open as far as the system allows, and returns
/// it; `None` if there is no limit.
#[cfg(unix)]
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if raised { maximum } else { current }
}

/// Returns `None`: sockets are limited by memory only.
#[cfg(not(unix))]
pub(crate) fn raise_open_files() -> Option<u64> {
    None
}

/// Returns the machine's own name, if it has one that is text.
pub(crate) fn machine_name() -> Option<String> {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").ok()
}

/// Limits the unsent bytes that the kernel accepts for a connection. Only Linux can do that;
/// elsewhere the send buffer is the limit.
pub(crate) fn limit_unsent(socket: &SockRef<'_>, bytes: u32) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket.set_tcp_notsent_lowat(bytes);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, bytes);
        Ok(())
    }
}

/// Limits how long sent bytes may stay unacknowledged. Only Linux can do that; elsewhere the
/// heartbeat ends a session whose client is gone.
pub(crate) fn limit_unacknowledged(socket: &SockRef<'_>, time: Duration) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket.set_tcp_user_timeout(Some(time));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, time);
        Ok(())
    }
}

/// Has the kernel probe the peer of a connection that is silent, and end the connection if no probe
/// is answered. Windows sends ten probes; older versions of it cannot send another number.
pub(crate) fn keep_alive(socket: &SockRef<'_>, silence: Duration, probing: Duration) -> std::io::Result<()> {
    let probes = if cfg!(windows) { 10 } else { 4 };
    let keep_alive = TcpKeepalive::new().with_time(silence).with_interval(probing / probes);
    #[cfg(not(windows))]
    let keep_alive = keep_alive.with_retries(probes);
    socket.set_tcp_keepalive(&keep_alive)
}

/// Lets a listener bind a port whose earlier connections have not timed out yet. Windows allows
/// that anyway; there the option would let two servers share a port.
pub(crate) fn allow_rebind(socket: &SockRef<'_>) -> std::io::Result<()> {
    #[cfg(unix)]
    return socket.set_reuse_address(true);
    #[cfg(not(unix))]
    {
        let _ = socket;
        Ok(())
    }
}
