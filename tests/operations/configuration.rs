//! The configuration file and its checks, completions, manual pages and the version.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Output};

use clap::Args;
use flamenco_webupdates::config::ServeOptions;

use crate::program::command;

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A file that is removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("webupdates-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs this check; it must fail. Returns what it reports.
fn refused(arguments: &[&str]) -> String {
    let output = run(&[&["config", "check"], arguments].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_mistake_of_a_file_is_reported_with_its_line() {
    let file = File::new(
        "mistakes.toml",
        "listen = \"127.0.0.1:8081\"\n\
         ping_interval = \"25s\"\n\
         max-session = 5\n\
         colour = \"blue\"\n\
         # a comment\n\
         max-sessions = \"many\"\n\
         manager = \"ftp://root:secret@farm\"\n\
         task-logs = \"maybe\"\n\
         ping-timeout = 1.5\n",
    );
    let reported = refused(&["--config", file.path()]);
    let path = file.path();
    let expected = [
        format!("error: {path}:2: `ping_interval` is not an option; did you mean `ping-interval`?"),
        format!("{path}:3: `max-session` is not an option; did you mean `max-sessions`?"),
        format!("{path}:4: `colour` is not an option; `config example` prints all of them"),
        format!("{path}:6: the value of `max-sessions` is not accepted: invalid digit found in string"),
    ];
    for (line, expected) in reported.lines().zip(&expected) {
        assert_eq!(line.trim_start(), expected);
    }
    let rest: Vec<_> = reported.lines().skip(expected.len()).map(str::trim_start).collect();
    let [manager, task_logs, ping_timeout] = rest[..] else { panic!("{reported}") };
    assert!(manager.starts_with(&format!("{path}:7: the value of `manager` is not accepted: ")), "{manager}");
    assert!(!reported.contains("secret"), "{reported}");
    let logs = "the value of `task-logs` is not accepted: it must be one of auto, subscribe, follow, off";
    assert_eq!(task_logs, format!("{path}:8: {logs}"));
    assert_eq!(
        ping_timeout,
        format!("{path}:9: `ping-timeout` must be a text, a number, a boolean, or a list of them")
    );

    let served = run(&["serve", "--config", path]);
    assert_eq!(served.status.code(), Some(2));
    assert_eq!(String::from_utf8(served.stderr).unwrap(), reported, "serve refuses the same");
}

#[test]
fn a_file_that_is_not_toml_is_reported_with_its_line() {
    let file = File::new("not.toml", "listen = \"127.0.0.1:8081\"\nmax-sessions 5\n");
    let reported = refused(&["--config", file.path()]);
    assert!(reported.starts_with(&format!("error: {}:2: not TOML: ", file.path())), "{reported}");
}

/// A mistake counts even if the command line sets the option, as the next restart may not.
#[test]
fn the_command_line_does_not_hide_a_mistake_of_the_file() {
    let file = File::new("hidden.toml", "listen = \"nowhere\"\n");
    let reported = refused(&["--config", file.path(), "--listen", "127.0.0.1:0"]);
    assert!(reported.contains(":1: the value of `listen` is not accepted"), "{reported}");
}

#[test]
fn everything_else_that_serve_refuses_is_reported_at_once() {
    let reported = refused(&[
        "--manager-listen",
        "0.0.0.0:8082",
        "--tls-cert",
        "/nowhere/cert.pem",
        "--auth-url",
        "http://auth.example/",
        "--allow-origin",
        "*",
        "--manager",
        "http://127.0.0.1:8081",
    ]);
    for part in
        ["--tls-cert needs --tls-key", "--manager-token-file", "--allow-origin '*'", "leads back to this server"]
    {
        assert!(reported.contains(part), "{part}: {reported}");
    }
    assert_eq!(reported.lines().filter(|line| line.starts_with("error: ")).count(), 4, "{reported}");
}

#[test]
fn a_valid_configuration_passes_beside_a_server_with_it() {
    let file =
        File::new("valid.toml", "max-sessions = 10\nallow-origin = [\"https://dashboard.example\"]\ndemo = true\n");
    assert_eq!(stdout(&["config", "check", "--config", file.path()]), "the configuration is valid\n");
}

#[test]
fn the_example_has_every_option_and_the_defaults_are_accepted() {
    let example = stdout(&["config", "example"]);
    let set: Vec<_> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|char: char| char.is_ascii_lowercase()))
        .collect();
    let names: BTreeSet<_> = set.iter().map(|line| line.split_once(" = ").unwrap().0.to_owned()).collect();
    let serve = ServeOptions::augment_args(clap::Command::new("serve"));
    let known = serve.get_arguments().filter_map(|argument| argument.get_long()).filter(|name| *name != "config");
    assert_eq!(names, known.map(str::to_owned).collect());
    assert_eq!(names.len(), set.len(), "each once");

    let untouched = File::new("example.toml", &example);
    stdout(&["config", "check", "--config", untouched.path()]);
    // A value in angle brackets stands for one that the operator has.
    let defaults: Vec<_> = set.iter().copied().filter(|line| !line.contains("\"<")).collect();
    assert!(defaults.len() > 40, "{defaults:?}");
    let defaults = File::new("defaults.toml", &defaults.join("\n"));
    stdout(&["config", "check", "--config", defaults.path()]);
    assert!(example.lines().all(|line| line.chars().count() <= 100), "it fits");
}

#[test]
fn completions_name_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("simulate-browsers") && script.contains("manager-listen"), "{shell}");
    }
    assert_eq!(run(&["completions", "cmd"]).status.code(), Some(2));
}

#[test]
fn manual_pages() {
    assert!(stdout(&["man"]).contains(".TH flamenco-webupdates 1"));
    let folder = std::env::temp_dir().join(format!("webupdates-{}-man", std::process::id()));
    stdout(&["man", folder.to_str().unwrap()]);
    let serve = fs::read_to_string(folder.join("flamenco-webupdates-serve.1")).unwrap();
    assert!(folder.join("flamenco-webupdates-config-check.1").exists());
    fs::remove_dir_all(&folder).unwrap();
    assert!(serve.contains("outbox\\-bytes") && serve.contains("[default: 1048576]"));

    let file = File::new("man-file", "");
    let refused = run(&["man", file.0.to_str().unwrap()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(&format!("cannot write manual pages to {}", file.0.display())), "{said}");
}

#[test]
fn the_long_version_names_commit_compiler_and_features() {
    let version = stdout(&["--version"]);
    let lines: Vec<_> = version.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let program = format!("flamenco-webupdates {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, [program.as_str(), "commit", "compiler", "target", "features"]);
    assert!(version.contains("compiler: rustc 1.") && version.contains("default, "), "{version}");
    assert_eq!(stdout(&["-V"]), format!("{program}\n"));
}

/// Starts a server with these options, which must fail. Returns what it reports.
fn not_started(arguments: &[&str]) -> String {
    let output = run(&[&["serve", "--manager-listen", "127.0.0.1:0"], arguments].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_address_that_cannot_be_listened_on_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let reported = not_started(&["--listen", &address]);
    assert!(reported.contains("is another server running there? --listen chooses another address"), "{reported}");
    // Addresses for documentation are no machine's (RFC 5737).
    let reported = not_started(&["--listen", "192.0.2.1:0"]);
    assert!(reported.contains("this machine does not have the address; --listen"), "{reported}");
    assert!(!reported.contains("another server"), "{reported}");
}

#[test]
fn a_manager_without_http_is_meant_as_http() {
    let reported = refused(&["--listen", "localhost:8081", "--manager", "127.0.0.1:8081"]);
    assert_eq!(
        reported,
        "error: --manager http://127.0.0.1:8081 leads back to this server: give the address of Flamenco Manager itself\n"
    );
}
