//! Imports inside the server's crate point down only: each module names the ones it may use, and uses no other. The crates of
//! the workspace are kept apart by their manifests; what those may name is checked here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The modules that each module may use, from the ground up.
const MAY_USE: [(&str, &[&str]); 31] = [
    ("options", &[]),
    ("chat_budget", &[]),
    ("forwarded", &[]),
    ("http", &["options", "slots", "stats"]),
    ("slots", &[]),
    ("sync", &[]),
    ("system", &[]),
    ("disconnect", &[]),
    ("faults", &["farm"]),
    ("membership", &["farm", "slots"]),
    ("last_rendered", &["farm", "options", "slots"]),
    ("frame", &["farm", "protocol"]),
    ("history", &["farm", "frame", "options", "slots"]),
    ("outbox", &["disconnect", "farm", "frame", "membership", "options", "slots", "sync"]),
    ("room_budget", &["slots"]),
    (
        "session_state",
        &["chat_budget", "disconnect", "farm", "frame", "membership", "options", "protocol", "room_budget", "stats"],
    ),
    ("stats", &["disconnect", "farm"]),
    ("log_budget", &["session_state"]),
    ("log_format", &["options"]),
    ("interest", &["farm", "slots", "stats"]),
    (
        "actors",
        &[
            "disconnect",
            "farm",
            "faults",
            "frame",
            "history",
            "interest",
            "last_rendered",
            "log_budget",
            "membership",
            "outbox",
            "protocol",
            "session_state",
            "slots",
            "stats",
        ],
    ),
    ("service_manager", &["actors", "system"]),
    ("tls", &[]),
    ("proxy", &["client", "forwarded", "http", "options", "stats"]),
    (
        "transport",
        &[
            "actors",
            "client",
            "disconnect",
            "faults",
            "forwarded",
            "frame",
            "http",
            "log_budget",
            "options",
            "outbox",
            "protocol",
            "proxy",
            "session_state",
            "slots",
            "stats",
            "system",
            "tls",
        ],
    ),
    ("backplane", &["actors", "client", "disconnect", "farm", "history", "interest", "options", "slots", "stats"]),
    (
        "ingest",
        &[
            "actors",
            "backplane",
            "client",
            "disconnect",
            "farm",
            "faults",
            "history",
            "interest",
            "options",
            "slots",
            "stats",
        ],
    ),
    (
        "manager_port",
        &[
            "actors",
            "backplane",
            "disconnect",
            "farm",
            "faults",
            "forwarded",
            "history",
            "http",
            "ingest",
            "options",
            "outbox",
            "stats",
            "system",
            "tls",
        ],
    ),
    (
        "config",
        &[
            "backplane",
            "client",
            "history",
            "http",
            "ingest",
            "last_rendered",
            "log_format",
            "manager_port",
            "options",
            "outbox",
            "proxy",
            "session_state",
            "transport",
        ],
    ),
    (
        "app",
        &[
            "actors",
            "backplane",
            "client",
            "config",
            "disconnect",
            "history",
            "ingest",
            "interest",
            "log_budget",
            "manager_port",
            "options",
            "outbox",
            "proxy",
            "service_manager",
            "session_state",
            "stats",
            "system",
            "tls",
            "transport",
        ],
    ),
    ("main", &["app", "client", "config", "log_format", "system"]),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            // A folder with a manifest is a crate of its own.
            if !path.join("Cargo.toml").exists() && path.file_name().is_none_or(|name| name != "tools") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The top-level module that a source file is part of.
fn module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).expect("it was found there").components().next().expect("a file has a name");
    Path::new(first.as_os_str()).file_stem().expect("it has a name").to_string_lossy().into_owned()
}

/// The top-level modules that code names after `crate::` or the crate's own name. Tests are left out: they may look around.
fn used(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or(code);
    let lines: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join(" ");
    let mut used = BTreeSet::new();
    for prefix in ["crate::", "flamenco_webupdates::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => used.extend(heads(list)),
                None => used.extend(heads(rest).into_iter().next()),
            }
        }
    }
    used
}

/// The first name of each path of an import list, up to the brace that closes it.
fn heads(list: &str) -> Vec<String> {
    let mut heads = vec![String::new()];
    let (mut depth, mut in_head) = (0, true);
    for character in list.chars() {
        match character {
            '{' => depth += 1,
            '}' | ';' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(String::new());
                in_head = true;
            }
            ' ' => {}
            _ if depth == 0 && in_head && (character.is_alphanumeric() || character == '_') => {
                heads.last_mut().expect("there is one").push(character);
            }
            _ => in_head = false,
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let from = module(&src, &file);
        if from == "lib" || file.ends_with("tests.rs") {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == from).unwrap_or_else(|| panic!("{from} has no line above"));
        for name in used(&fs::read_to_string(&file).expect("it is readable")) {
            if name != from && name != "clock" && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the crates below the server may depend on: no runtime, no sockets.
const PURE: [(&str, &[&str]); 2] = [
    ("src/protocol", &["base64", "bytes", "serde", "serde_json", "thiserror", "url", "uuid"]),
    ("src/farm", &["arrayvec", "jiff", "serde", "serde_json", "thiserror", "uuid"]),
];

#[test]
fn pure_crates_know_no_runtime() {
    for (folder, allowed) in PURE {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).expect("it is readable").parse().expect("it is TOML");
        let dependencies = manifest["dependencies"].as_table().expect("it is a table");
        let wrong: Vec<_> = dependencies.keys().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{folder} depends on {wrong:?}");
    }
}

#[test]
fn a_list_of_imports_is_taken_apart() {
    let code =
        "use crate::{\n    farm::{Room, ids},\n    clock, stats::Stats,\n};\n// crate::app\nuse crate::frame::Frame;";
    let names: Vec<_> = used(code).into_iter().collect();
    assert_eq!(names, ["clock", "farm", "frame", "stats"]);
}

#[test]
fn one_file_knows_the_deprecated_crate() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files.retain(|file| fs::read_to_string(file).expect("it is readable").contains("use actix_web_actors"));
    assert_eq!(files, [src.join("transport/frames.rs")]);
}
