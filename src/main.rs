//! Arguments, logging, exit codes.

use std::{
    error::Error,
    ffi::OsString,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use env_logger::Target;
use flamenco_webupdates::{
    app,
    client::Address,
    config,
    log_format::{self, LogFormat},
};

// Windows keeps its own allocator: jemalloc's build supports it only in part.
#[cfg(all(feature = "jemalloc", not(windows)))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code when a subcommand fails.
const EXIT_FAILED: u8 = 1;
/// The exit code when the program cannot start as configured.
const EXIT_USAGE: u8 = 2;
/// The exit code when the server exits because a part of it kept failing.
const EXIT_GIVEN_UP: u8 = 3;

const SERVE: &str = "the subcommands exist";

/// Web-update server for render farms: pushes the live state of a Flamenco farm to browsers.
#[derive(Parser)]
#[command(version, long_version = LONG_VERSION, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Tool,
}

/// The version with what a report of a defect needs.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BUILD_COMMIT"),
    "\ncompiler: ",
    env!("BUILD_COMPILER"),
    "\ntarget: ",
    env!("BUILD_TARGET"),
    "\nfeatures: ",
    env!("BUILD_FEATURES"),
);

#[derive(Subcommand)]
enum Tool {
    /// Run the web-update server
    ///
    /// Browsers connect with Socket.IO v2 to the first address. The Manager publishes events at the
    /// second one, with POST /api/events, and reads the server's metrics there, with GET /api/stats.
    #[command(after_help = "\
When the server is ready, it prints one line: listening browsers=http://… manager=http://… (https://… with a certificate; several addresses with commas between them)
Logs go to stderr; RUST_LOG sets the level, e.g. RUST_LOG=debug.
Exit codes: 0 shut down on request, 2 could not start, 3 exited because a part of it kept failing.")]
    Serve(Box<config::ServeOptions>),
    /// Check or print a configuration of `serve`
    #[command(subcommand)]
    Config(ConfigTool),
    /// Install or uninstall the service of Windows
    #[cfg(windows)]
    #[command(subcommand)]
    Service(service::Tool),
    /// Check that a server is healthy, for containers and scripts
    ///
    /// Asks for /healthz and prints the answer.
    #[command(after_help = "Exit codes: 0 healthy, 1 not healthy, or not reached within 5 s.")]
    Health {
        /// Address of either port of the server
        #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
        url: Address,
    },
    Watch(watch::Options),
    Record(record::RecordOptions),
    Replay(record::ReplayOptions),
    SimulateFarm(simulate_farm::Options),
    SimulateBrowsers(Box<simulate_browsers::Options>),
    /// Print the completions for a shell
    Completions {
        /// The shell that reads them
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all subcommands to a folder
    Man {
        /// Folder for the pages; created if missing
        folder: Option<PathBuf>,
    },
}

impl Tool {
    /// Returns whether the subcommand opens a log file itself, because it has no stderr.
    fn logs_to_a_file(&self) -> bool {
        #[cfg(windows)]
        return matches!(self, Self::Service(service::Tool::Run(_)));
        #[cfg(not(windows))]
        false
    }
}

#[derive(Subcommand)]
enum ConfigTool {
    /// Report what `serve` would refuse with these options
    ///
    /// Takes the options of `serve`, reads the same environment, files and certificates, and asks the
    /// Manager for its version. It opens no port, so it can run beside a server.
    #[command(after_help = "Exit codes: 0 nothing to report, 2 `serve` would not start.")]
    Check(Box<config::ServeOptions>),
    /// Print a configuration file with every option and its default, commented out
    Example,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(error),
    };
    panic::set_hook(Box::new(log_panic));
    if let Tool::Serve(options) = &arguments.command {
        start_log(options.log.log_format, Target::Stderr);
    } else if !arguments.command.logs_to_a_file() {
        start_log(LogFormat::Text, Target::Stderr);
    }
    match arguments.command {
        Tool::Serve(options) => {
            let format = options.log.log_format;
            ExitCode::from(serve(*options, |error| match format {
                LogFormat::Text => print_error(error),
                LogFormat::Json => log::error!("{error}"),
            }))
        }
        Tool::Config(ConfigTool::Check(options)) => check(*options),
        Tool::Config(ConfigTool::Example) => {
            done(print(config::example(Arguments::command().find_subcommand("serve").expect(SERVE)).as_bytes()))
        }
        Tool::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), env!("CARGO_PKG_NAME"), &mut script);
            done(print(&script))
        }
        Tool::Man { folder } => done(man(folder)),
        #[cfg(windows)]
        Tool::Service(tool) => service::run(tool),
        Tool::Health { url } => match app::health(&url) {
            Ok(answer) => done(print(format!("{answer}\n").as_bytes())),
            Err(error) => fail(EXIT_FAILED, &error),
        },
        Tool::Watch(options) => match watch::run(&options) {
            Err(error @ watch::WatchError::Hopeless(..)) => fail(EXIT_USAGE, &error),
            result => done(result),
        },
        Tool::Record(options) => done(record::record(&options)),
        Tool::Replay(options) => done(record::replay(&options)),
        Tool::SimulateFarm(options) => done(simulate_farm::run(&options)),
        Tool::SimulateBrowsers(options) => match simulate_browsers::run(*options) {
            Ok(code) => code,
            Err(error) => fail(EXIT_USAGE, &error),
        },
    }
}

fn start_log(format: LogFormat, target: Target) {
    let levels = env_logger::Env::default().default_filter_or("info,actix_server=warn,actix_http=off");
    let mut log = env_logger::Builder::from_env(levels);
    // The MQTT library logs the packets that it refuses. What matters is in the errors that it returns.
    log.filter_module("rumqttc", log::LevelFilter::Off);
    if format == LogFormat::Json {
        log.format(log_format::json);
    }
    log.target(target).init();
}

/// Runs the server and returns the exit code. `report` gets the error that ended it.
fn serve(options: config::ServeOptions, report: impl FnOnce(&dyn Error)) -> u8 {
    let ready: app::OnReady = |browsers, manager| {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening browsers={browsers} manager={manager}")?;
        stdout.flush()
    };
    let Err(error) = app::serve(options, ready) else { return 0 };
    report(&error);
    if let app::ServeError::GivenUp(_) = error { EXIT_GIVEN_UP } else { EXIT_USAGE }
}

/// Reports what `serve` would refuse.
fn check(options: config::ServeOptions) -> ExitCode {
    let errors = app::check(&options);
    for error in &errors {
        fail(EXIT_USAGE, error);
    }
    match errors.is_empty() {
        true => done(print(b"the configuration is valid\n")),
        false => ExitCode::from(EXIT_USAGE),
    }
}

fn man(folder: Option<PathBuf>) -> io::Result<()> {
    match folder {
        Some(folder) => std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Arguments::command(), &folder))
            .map_err(|error| {
                let message = format!("cannot write manual pages to {}: {error}", folder.display());
                io::Error::new(error.kind(), message)
            }),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            print(&page)
        }
    }
}

/// Prints to stdout. A reader that has seen enough is no error.
fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn done(result: Result<(), impl Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

/// Parses the command line. If it names a configuration file, parses it again with that file's
/// values as defaults.
fn parse(arguments: Vec<OsString>) -> Result<Arguments, Box<dyn Error>> {
    let parse = |command: clap::Command| {
        let matches = command.try_get_matches_from(&arguments).map_err(without_password)?;
        Arguments::from_arg_matches(&matches)
    };
    let first = parse(Arguments::command())?;
    let (options, path): (_, &[&str]) = match &first.command {
        Tool::Serve(options) => (options, &["serve"]),
        Tool::Config(ConfigTool::Check(options)) => (options, &["config", "check"]),
        Tool::Config(ConfigTool::Example)
        | Tool::Health { .. }
        | Tool::Watch(_)
        | Tool::Record(_)
        | Tool::Replay(_)
        | Tool::SimulateFarm(_)
        | Tool::SimulateBrowsers(_)
        | Tool::Completions { .. }
        | Tool::Man { .. } => return Ok(first),
        #[cfg(windows)]
        Tool::Service(_) => return Ok(first),
    };
    let Some(file) = &options.config else { return Ok(first) };
    let mut command = Arguments::command();
    let subcommand = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).expect(SERVE));
    *subcommand = config::with_file(subcommand.clone(), file)?;
    Ok(parse(command)?)
}

/// Hides the name and password of an address in an error that quotes it: it may go to a log.
fn without_password(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
        // An address that is not valid cannot be taken apart: everything in front of the host goes.
        if let Some(ContextValue::String(quoted)) = error.get(kind)
            && let Some((user, host)) = quoted.rsplit_once('@')
        {
            let start = user.split_inclusive("//").next().filter(|start| start.ends_with("//")).unwrap_or_default();
            let hidden = ContextValue::String(format!("{start}…@{host}"));
            error.insert(kind, hidden);
        }
    }
    error
}

/// Logs a panic as one line without a backtrace, so that an actor that fails repeatedly does not
/// keep its thread busy with logging. A panic message may quote data from the Manager or a browser,
/// which must not be logged, so only constant messages are.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    match info.payload().downcast_ref::<&'static str>() {
        Some(text) => log::error!("panic at {place}: {text}"),
        None => log::error!("panic at {place}"),
    }
}

/// Ends the program as the error of [`parse`] demands. Help and version are such errors too.
fn refuse(error: Box<dyn Error>) -> ExitCode {
    match error.downcast::<clap::Error>() {
        Ok(error) => error.exit(),
        Err(error) => fail(EXIT_USAGE, error.as_ref()),
    }
}

fn fail(code: u8, error: &dyn Error) -> ExitCode {
    print_error(error);
    ExitCode::from(code)
}

fn print_error(error: &dyn Error) {
    // If stderr is closed, nothing can be reported.
    let _ = writeln!(io::stderr(), "error: {error}");
}

/// The service of Windows. It runs `serve` with a configuration file, in the folder of that file,
/// and logs to a file beside it.
#[cfg(windows)]
mod service {
    use std::{env, path::Path, sync::OnceLock};

    use flamenco_webupdates::system::{
        LogFile,
        service::{install, run as run_registered, uninstall},
    };

    use super::*;

    /// The maximum size of the log file, of which there may be two.
    const MAX_LOG: u64 = 10 << 20;

    /// The configuration file, for the thread that the service manager starts.
    static CONFIGURATION: OnceLock<PathBuf> = OnceLock::new();

    #[derive(Subcommand)]
    pub(super) enum Tool {
        /// Install a service that runs `serve` with a configuration file, and start it
        ///
        /// The service starts with Windows, runs as LocalService, and logs to a file beside its
        /// configuration: server.toml has server.log. Paths in the configuration are relative to its folder.
        /// It is refused if `config check` reports a mistake.
        Install(Options),
        /// Stop the service and uninstall it
        Uninstall,
        /// Run as the service; only the service manager can start it
        #[command(hide = true)]
        Run(Options),
    }

    #[derive(clap::Args)]
    pub(super) struct Options {
        /// TOML file with options of `serve`
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    }

    pub(super) fn run(tool: Tool) -> ExitCode {
        match tool {
            Tool::Install(Options { config }) => start_in_folder(&config).map_or_else(refuse, |(config, options)| {
                let checked = check(options);
                if checked != ExitCode::SUCCESS { checked } else { done(install(&config)) }
            }),
            Tool::Uninstall => done(uninstall()),
            Tool::Run(Options { config }) => {
                CONFIGURATION.get_or_init(|| config);
                done(run_registered(serve_as_service))
            }
        }
    }

    /// Changes to the folder of a configuration file, and returns its full path and the options.
    fn start_in_folder(file: &Path) -> Result<(PathBuf, config::ServeOptions), Box<dyn Error>> {
        let file = std::path::absolute(file)?;
        env::set_current_dir(file.parent().unwrap_or(&file))?;
        let arguments = [env!("CARGO_PKG_NAME"), "serve", "--config"].map(OsString::from);
        let parsed = parse(arguments.into_iter().chain([file.clone().into()]).collect())?;
        let super::Tool::Serve(options) = parsed.command else { unreachable!("these are arguments of `serve`") };
        Ok((file, *options))
    }

    fn serve_as_service() -> u8 {
        let configuration = CONFIGURATION.get().expect("the service runs with a configuration");
        let Ok(log) = LogFile::open(&configuration.with_extension("log"), MAX_LOG) else { return EXIT_FAILED };
        let options = start_in_folder(configuration);
        let format = options.as_ref().map_or(LogFormat::Text, |(_, options)| options.log.log_format);
        start_log(format, Target::Pipe(Box::new(log)));
        let report = |error: &dyn Error| log::error!("{error}");
        match options {
            Ok((_, options)) => match serve(options, report) {
                // The service manager starts a service again that ends without a report.
                EXIT_GIVEN_UP => std::process::exit(EXIT_GIVEN_UP.into()),
                code => code,
            },
            Err(error) => {
                report(error.as_ref());
                EXIT_USAGE
            }
        }
    }
}
