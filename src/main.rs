//! Arguments, logging, exit codes.

use std::{
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
use flamenco_webupdates::{
    app, config,
    log_format::{self, LogFormat},
};

// Windows keeps its own allocator: jemalloc's build supports it only in part.
#[cfg(not(windows))]
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
When the server is ready, it prints one line: listening browsers=http://… manager=http://… (https://… with a certificate)
Logs go to stderr; RUST_LOG sets the level, e.g. RUST_LOG=debug.
Exit codes: 0 shut down on request, 2 could not start, 3 exited because a part of it kept failing.")]
    Serve(Box<config::ServeOptions>),
    /// Check or print a configuration of `serve`
    #[command(subcommand)]
    Config(ConfigTool),
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
        /// Folder for the pages, which must exist
        folder: Option<PathBuf>,
    },
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
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    start_log(if let Tool::Serve(options) = &arguments.command { options.log.log_format } else { LogFormat::Text });
    panic::set_hook(Box::new(log_panic));
    match arguments.command {
        Tool::Serve(options) => serve(*options),
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

fn start_log(format: LogFormat) {
    let levels = env_logger::Env::default().default_filter_or("info,actix_server=warn,actix_http=off");
    let mut log = env_logger::Builder::from_env(levels);
    // The MQTT library logs the packets that it refuses. What matters is in the errors that it returns.
    log.filter_module("rumqttc", log::LevelFilter::Off);
    if format == LogFormat::Json {
        log.format(log_format::json);
    }
    log.init();
}

fn serve(options: config::ServeOptions) -> ExitCode {
    let format = options.log.log_format;
    let fail = |code, error: &dyn std::error::Error| match format {
        LogFormat::Text => fail(code, error),
        LogFormat::Json => {
            log::error!("{error}");
            ExitCode::from(code)
        }
    };
    let ready = |browsers, manager| {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening browsers={browsers} manager={manager}")?;
        stdout.flush()
    };
    match actix_rt::System::new().block_on(app::serve(options, ready)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ app::ServeError::GivenUp(_)) => fail(EXIT_GIVEN_UP, &error),
        Err(error) => fail(EXIT_USAGE, &error),
    }
}

/// Reports what `serve` would refuse.
fn check(options: config::ServeOptions) -> ExitCode {
    let errors = actix_rt::System::new().block_on(app::check(&options));
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
        Some(folder) => clap_mangen::generate_to(Arguments::command(), folder),
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

fn done(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

/// Parses the command line. If it names a configuration file, parses it again with that file's
/// values as defaults.
fn parse(arguments: Vec<OsString>) -> Result<Arguments, config::FileError> {
    let parse = |command: clap::Command| {
        let matches = command.try_get_matches_from(&arguments).unwrap_or_else(|error| without_password(error).exit());
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    };
    let first = parse(Arguments::command());
    let (options, path): (_, &[&str]) = match &first.command {
        Tool::Serve(options) => (options, &["serve"]),
        Tool::Config(ConfigTool::Check(options)) => (options, &["config", "check"]),
        Tool::Config(ConfigTool::Example)
        | Tool::Watch(_)
        | Tool::Record(_)
        | Tool::Replay(_)
        | Tool::SimulateFarm(_)
        | Tool::SimulateBrowsers(_)
        | Tool::Completions { .. }
        | Tool::Man { .. } => return Ok(first),
    };
    let Some(file) = &options.config else { return Ok(first) };
    let mut command = Arguments::command();
    let subcommand = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).expect(SERVE));
    *subcommand = config::with_file(subcommand.clone(), file)?;
    Ok(parse(command))
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

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    // If stderr is closed, nothing can be reported.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}
