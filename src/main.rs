//! Arguments, logging, exit codes.

use std::{
    ffi::OsString,
    io::Write,
    panic::{self, PanicHookInfo},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use flamenco_webupdates::{
    app, config,
    tools::{simulate_browsers, simulate_farm, watch},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It could not do what it was asked for.
const EXIT_FAILED: u8 = 1;
/// Something is wrong with how it was started.
const EXIT_USAGE: u8 = 2;
/// It ended by itself because a part of it kept failing.
const EXIT_GIVEN_UP: u8 = 3;

/// Web-update server for render farms: tells every browser, live, what happens on a Flamenco farm.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Serve(Box<config::Options>),
    Watch(watch::Options),
    SimulateFarm(simulate_farm::Options),
    SimulateBrowsers(Box<simulate_browsers::Options>),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,actix_server=warn,actix_http=off"),
    )
    .init();
    panic::set_hook(Box::new(log_panic));
    let arguments = match parse(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    match arguments.command {
        Tool::Serve(options) => serve(*options),
        Tool::Watch(options) => match watch::run(&options) {
            Err(error @ watch::WatchError::Hopeless(..)) => fail(EXIT_USAGE, &error),
            result => done(result),
        },
        Tool::SimulateFarm(options) => done(simulate_farm::run(&options)),
        Tool::SimulateBrowsers(options) => match simulate_browsers::run(*options) {
            Ok(code) => code,
            Err(error) => fail(EXIT_USAGE, &error),
        },
    }
}

fn serve(options: config::Options) -> ExitCode {
    let ready = |browsers, manager| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "listening browsers={browsers} manager={manager}")?;
        stdout.flush()
    };
    match actix_rt::System::new().block_on(app::serve(options, ready)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ app::ServeError::GivenUp(_)) => fail(EXIT_GIVEN_UP, &error),
        Err(error) => fail(EXIT_USAGE, &error),
    }
}

fn done(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

/// Reads the command line; where it names a configuration file, again with the values of that as defaults.
fn parse(arguments: Vec<OsString>) -> Result<Arguments, config::FileError> {
    let parse = |command: clap::Command| {
        let matches = command.get_matches_from(&arguments);
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    };
    let first = parse(Arguments::command());
    let Tool::Serve(options) = &first.command else { return Ok(first) };
    let Some(path) = &options.config else { return Ok(first) };
    let mut command = Arguments::command();
    let serve = command.find_subcommand("serve").cloned().expect("serve is a subcommand");
    let serve = config::with_file(serve, path)?;
    command = command.mut_subcommand("serve", |_| serve);
    Ok(parse(command))
}

/// One line, and no backtrace: an actor that fails again and again must not keep its thread busy with the telling. The text
/// of a panic may quote what the Manager or a browser sent, which no log shall hold, so only fixed texts are told.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    match info.payload().downcast_ref::<&'static str>() {
        Some(text) => log::error!("panic at {place}: {text}"),
        None => log::error!("panic at {place}"),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    // Where stderr is closed nobody is there to be told.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
