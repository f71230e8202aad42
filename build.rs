//! What `--version` says about the build: commit, compiler, target and features.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let mut features: Vec<_> = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-")))
        .collect();
    features.sort();
    for (name, value) in [
        ("COMMIT", commit()),
        ("COMPILER", compiler),
        ("TARGET", env::var("TARGET").ok()),
        ("FEATURES", Some(features.join(", "))),
    ] {
        println!("cargo::rustc-env=BUILD_{name}={}", value.unwrap_or_else(|| "unknown".to_owned()));
    }
}

/// Returns the commit of a release: from git, or from the file that `cargo package` adds. A
/// development build has none, because each commit would build everything again.
fn commit() -> Option<String> {
    if env::var("PROFILE").as_deref() != Ok("release") {
        return Some("none, a development build".to_owned());
    }
    if let Ok(packaged) = fs::read_to_string(".cargo_vcs_info.json") {
        let (_, rest) = packaged.split_once("\"sha1\": \"")?;
        return rest.split('"').next().map(str::to_owned);
    }
    // A copy without its repository may lie in somebody else's.
    if !Path::new(".git").exists() {
        return None;
    }
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    output("git", &["rev-parse", "HEAD"])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
