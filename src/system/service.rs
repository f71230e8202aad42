//! The service of Windows: its installation, and the process that the service manager starts.
//!
//! ```text
//! service install ──▶ service manager ──▶ service run: StartPending ──ready──▶ Running
//!                                           stop ──▶ StopPending ──drained──▶ Stopped
//! ```

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::Path,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use windows_service::{
    Error, define_windows_service,
    service::{
        Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
        ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
        ServiceStartType, ServiceState, ServiceStatus, ServiceType,
    },
    service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle},
    service_dispatcher,
    service_manager::{ServiceManager, ServiceManagerAccess},
};

use super::Notification;

const NAME: &str = env!("CARGO_PKG_NAME");
const DISPLAY_NAME: &str = "Flamenco web updates";
const DESCRIPTION: &str = "Live updates of a Flamenco farm for browsers";

/// An account without rights on the machine or the network.
const ACCOUNT: &str = r"NT AUTHORITY\LocalService";

/// How long the service manager waits for the next report while the server starts or drains.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the uninstallation asks whether the service has stopped.
const POLL: Duration = Duration::from_millis(100);

/// How long the service manager waits before it starts a server again that has ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);

const ERROR_ACCESS_DENIED: i32 = 5;

/// The server's function, which returns its exit code.
static SERVE: OnceLock<fn() -> u8> = OnceLock::new();
/// Where the service reports its state. Empty in a process that is no service.
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();
/// The service manager asks the server to stop.
static STOP: Notify = Notify::const_new();

/// Why the service cannot be installed, uninstalled or run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("the service manager refuses: {}{}", Reason(.0), advice(.0))]
    Refused(#[from] Error),
    #[error("the path of this program is unknown: {0}")]
    Program(io::Error),
    #[error("the service has not stopped within {} s", PATIENCE.as_secs())]
    StillRunning,
}

/// The reason that Windows gives, which the library's text leaves out.
struct Reason<'a>(&'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Error::Winapi(error) = self.0 { error.fmt(f) } else { self.0.fmt(f) }
    }
}

fn advice(error: &Error) -> &'static str {
    match matches!(error, Error::Winapi(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED)) {
        true => "; run this command as an administrator",
        false => "",
    }
}

/// Installs a service that serves with a configuration file from the start of the machine on, and
/// starts it.
///
/// # Errors
///
/// The service manager refuses, because there is such a service or the caller is no administrator,
/// or it cannot start the service, which is then not installed.
pub fn install(configuration: &Path) -> Result<(), ServiceError> {
    let manager = ServiceManager::local_computer(
        None::<&str>,
        ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE,
    )?;
    let information = ServiceInfo {
        name: NAME.into(),
        display_name: DISPLAY_NAME.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: env::current_exe().map_err(ServiceError::Program)?,
        launch_arguments: vec!["service".into(), "run".into(), "--config".into(), configuration.into()],
        dependencies: Vec::new(),
        account_name: Some(ACCOUNT.into()),
        account_password: None,
    };
    let access = ServiceAccess::START | ServiceAccess::CHANGE_CONFIG | ServiceAccess::DELETE;
    let service = manager.create_service(&information, access)?;
    start(&service).inspect_err(|_| {
        // The installation can then be repeated.
        let _ = service.delete();
    })
}

fn start(service: &Service) -> Result<(), ServiceError> {
    service.set_description(DESCRIPTION)?;
    // Windows repeats the last action.
    let restart = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_AFTER };
    service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(PATIENCE),
        reboot_msg: None,
        command: None,
        actions: Some(vec![restart]),
    })?;
    Ok(service.start::<&str>(&[])?)
}

/// Stops the service and uninstalls it.
///
/// # Errors
///
/// The service manager refuses, because there is no such service or the caller is no administrator,
/// or the service does not stop.
pub fn uninstall() -> Result<(), ServiceError> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT)?;
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let service = manager.open_service(NAME, access)?;
    stop(&service)?;
    Ok(service.delete()?)
}

fn stop(service: &Service) -> Result<(), ServiceError> {
    let has_stopped = || Ok::<_, Error>(service.query_status()?.current_state == ServiceState::Stopped);
    if has_stopped()? {
        return Ok(());
    }
    service.stop()?;
    let asked = Instant::now();
    while !has_stopped()? {
        if asked.elapsed() > PATIENCE {
            return Err(ServiceError::StillRunning);
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Runs the server as the service that [`install`] installed, until it ends. The exit code that
/// `serve` returns becomes the service's own.
///
/// # Errors
///
/// The service manager did not start this process.
pub fn run(serve: fn() -> u8) -> Result<(), ServiceError> {
    SERVE.get_or_init(|| serve);
    Ok(service_dispatcher::start(NAME, service_main)?)
}

define_windows_service!(service_main, run_registered);

fn run_registered(_arguments: Vec<OsString>) {
    let (Some(serve), Ok(status)) = (SERVE.get(), service_control_handler::register(NAME, control)) else { return };
    STATUS.get_or_init(|| status);
    report(ServiceState::StartPending, ServiceExitCode::NO_ERROR);
    let code = match serve() {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(code.into()),
    };
    report(ServiceState::Stopped, code);
}

fn control(control: ServiceControl) -> ServiceControlHandlerResult {
    if matches!(control, ServiceControl::Stop | ServiceControl::Preshutdown) {
        STOP.notify_one();
    } else if !matches!(control, ServiceControl::Interrogate) {
        return ServiceControlHandlerResult::NotImplemented;
    }
    ServiceControlHandlerResult::NoError
}

/// Waits until the service manager asks the server to stop.
pub(super) async fn stopped() {
    STOP.notified().await;
}

/// Reports what the server does to the service manager. Does nothing if this process is no service.
pub(super) fn notify(notification: Notification) {
    match notification {
        Notification::Ready => report(ServiceState::Running, ServiceExitCode::NO_ERROR),
        Notification::Stopping => report(ServiceState::StopPending, ServiceExitCode::NO_ERROR),
        // The service manager does not watch its services.
        Notification::Watchdog => {}
    }
}

fn report(state: ServiceState, exit_code: ServiceExitCode) {
    let Some(status) = STATUS.get() else { return };
    let pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
    let accepted = match state == ServiceState::Running {
        true => ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN,
        false => ServiceControlAccept::empty(),
    };
    let reported = status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: accepted,
        exit_code,
        checkpoint: 0,
        wait_hint: if pending { PATIENCE } else { Duration::ZERO },
        process_id: None,
    });
    if let Err(error) = reported {
        log::warn!("cannot notify the service manager: {}", Reason(&error));
    }
}
