//! The documentation agrees with the program: options and their defaults, reasons, refusals, events, rooms, links.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and these have helpers"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use flamenco_webupdates::{
    config::ServeOptions,
    disconnect::Disconnect,
    farm::{EventKind, Room, Route},
    stats::Refused,
};

/// Options of other programs that the documentation uses.
const FOREIGN: [&str; 20] = [
    "bench",
    "example",
    "features",
    "lib",
    "list",
    "locked",
    "profile",
    "long",
    "nocapture",
    "now",
    "only",
    "quick",
    "release",
    "rounds",
    "sanitizer",
    "scenario",
    "seconds",
    "sort",
    "test",
    "workspace",
];

/// The pages that people read, by their path from the repository's root.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = BTreeMap::new();
    for folder in ["", "docs", "tests", "examples", "src/protocol", "benches/peers"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                pages.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    assert!(pages.len() > 10, "the pages were found");
    pages
}

fn page(name: &str) -> String {
    pages().remove(Path::new(name)).unwrap_or_else(|| panic!("{name} is missing"))
}

/// Returns the cells of each row below the table head `head`.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let (_, table) = page.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("no table {head}"));
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<_>> =
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(!rows.is_empty(), "{head} has rows");
    rows
}

fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('`')
        .and_then(|cell| cell.strip_suffix('`'))
        .unwrap_or_else(|| panic!("{cell} is not in backticks"))
}

/// Returns the words of `text` that begin with `--`.
fn options(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    let words = text.split(|char| !is_part(char));
    let names = words.filter_map(|word| word.strip_prefix("--"));
    names.filter(|name| name.starts_with(|char: char| char.is_ascii_lowercase())).collect()
}

fn serve() -> clap::Command {
    ServeOptions::augment_args(clap::Command::new("serve"))
}

fn of_serve() -> BTreeSet<String> {
    serve().get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

/// The options that the help lists, of a subcommand or of the program.
fn of_help(subcommand: &[&str]) -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_flamenco-webupdates")).args(subcommand).arg("--help").output().unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.flat_map(options).map(str::to_owned).collect()
}

/// Tables, code, headings and pictures may be wider.
#[test]
fn prose_is_at_most_100_columns_wide() {
    for (path, text) in pages() {
        let mut is_code = false;
        for (number, line) in (1..).zip(text.lines()) {
            is_code ^= line.trim_start().starts_with("```");
            let is_prose = !is_code && !line.starts_with(['|', '#', '!']);
            assert!(!is_prose || line.chars().count() <= 100, "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn options_in_the_documentation_exist() {
    let mut exist = of_serve();
    for subcommand in [&[][..], &["watch"], &["record"], &["replay"], &["simulate-farm"], &["simulate-browsers"]] {
        exist.extend(of_help(subcommand));
    }
    assert!(exist.len() > 60, "the help was read");
    let pages = pages();
    let named: BTreeSet<(&str, &Path)> = pages
        .iter()
        .flat_map(|(path, text)| options(text).into_iter().map(move |name| (name, path.as_path())))
        .collect();
    let unknown: Vec<_> = named.iter().filter(|(name, _)| !exist.contains(*name) && !FOREIGN.contains(name)).collect();
    assert!(unknown.is_empty(), "no help lists {unknown:#?}");
    let unused: Vec<_> = FOREIGN.iter().filter(|foreign| !named.iter().any(|(name, _)| name == *foreign)).collect();
    assert!(unused.is_empty(), "FOREIGN has {unused:?}, which no page names");
}

#[test]
fn every_option_of_serve_is_documented() {
    let pages = pages();
    let user = pages.iter().filter(|(path, _)| path.starts_with("docs") || path.ends_with("README.md"));
    let named: BTreeSet<&str> = user.flat_map(|(_, text)| options(text)).collect();
    let missing: Vec<_> = of_serve().into_iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "README and docs name no {missing:?}");
}

/// Reads an amount as documentation and options write it, in bytes, milliseconds or units.
fn amount(text: &str) -> u64 {
    let digits: String = text.chars().take_while(|char| char.is_ascii_digit() || *char == ' ').collect();
    let unit = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "KiB" | "KiB/s" => 1024,
        "MiB" => 1024 * 1024,
        _ => panic!("{text:?} is not an amount"),
    };
    digits.replace(' ', "").parse::<u64>().unwrap() * unit
}

#[test]
fn limits_have_the_defaults_that_the_documentation_states() {
    let serve = serve();
    let mut compared = 0;
    for row in table(&page("docs/reliability.md"), "| limit on | option | default | when exceeded | counted as |") {
        let [_, names, defaults, ..] = row.as_slice() else { panic!("{row:?}") };
        if !names.starts_with('`') {
            continue;
        }
        for (name, default) in names.split(", ").zip(defaults.split(", ")) {
            let name = unquoted(name);
            let argument = serve.get_arguments().find(|argument| argument.get_long() == name.strip_prefix("--"));
            let [value] = argument.unwrap_or_else(|| panic!("{name}")).get_default_values() else { panic!("{name}") };
            assert_eq!(amount(default), amount(value.to_str().unwrap()), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 18, "{compared} defaults were compared");
}

#[test]
fn close_reasons() {
    let rows = table(&page("docs/protocol.md"), "| reason | status | cause |");
    let documented: BTreeMap<_, _> = rows.iter().map(|row| (unquoted(&row[0]), row[1].clone())).collect();
    let status = |reason: Disconnect| reason.close_code().map_or_else(String::new, |code| code.to_string());
    assert_eq!(documented, Disconnect::ALL.map(|reason| (reason.as_str(), status(reason))).into());
    assert_eq!(rows.len(), documented.len(), "each once");
}

#[test]
fn refusals() {
    let rows = table(&page("docs/reliability.md"), "| refused | reason |");
    let documented: BTreeSet<_> = rows.iter().map(|row| unquoted(&row[0])).collect();
    assert_eq!(documented, Refused::ALL.map(Refused::as_str).into());
    assert_eq!(rows.len(), documented.len(), "each once");
}

/// Wherever a page says "refused" or "disconnects" before a label, there is such a label.
#[test]
fn labels_in_the_documentation_exist() {
    let disconnects = Disconnect::ALL.map(Disconnect::as_str);
    let refused = Refused::ALL.map(Refused::as_str);
    let mut found = 0;
    for (path, text) in pages() {
        let text = text.replace('\n', " ");
        for (marker, labels) in [("disconnects `", &disconnects[..]), ("refused `", &refused[..])] {
            for (at, _) in text.match_indices(marker) {
                let mut rest = &text[at + marker.len()..];
                if !rest.starts_with(|char: char| char.is_ascii_lowercase()) {
                    continue;
                }
                // A list of them: `one`, `two`.
                loop {
                    let (label, behind) = rest.split_once('`').unwrap();
                    assert!(labels.contains(&label), "{}: {marker}{label}`", path.display());
                    found += 1;
                    let Some(next) = behind.strip_prefix(", `") else { break };
                    rest = next;
                }
            }
        }
    }
    assert!(found > 20, "the labels were found");
}

#[test]
fn event_kinds() {
    let rows = table(&page("docs/protocol.md"), "| `type` | payload | note |");
    let documented: Vec<_> = rows.iter().map(|row| unquoted(&row[0])).collect();
    let known: Vec<_> =
        EventKind::ALL.iter().filter(|kind| **kind != EventKind::Unread).map(|kind| kind.as_str()).collect();
    assert_eq!(documented, known);
}

#[test]
fn statuses_of_posted_events() {
    let document = include_str!("../src/manager_port/documents/openapi.json");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let described = document["paths"]["/api/events"]["post"]["responses"].as_object().unwrap();
    let rows = table(&page("docs/protocol.md"), "| response | meaning |");
    let documented: BTreeSet<_> = rows.iter().map(|row| row[0].split(' ').next().unwrap()).collect();
    assert_eq!(documented, described.keys().map(String::as_str).collect());
}

#[test]
fn events_and_their_rooms() {
    let rows = table(&page("docs/protocol.md"), "| event | room | payload |");
    let documented: BTreeSet<_> = rows.iter().map(|row| (unquoted(&row[0]), row[1].clone())).collect();
    let known = EventKind::ALL.iter().filter(|kind| **kind != EventKind::Unread).map(|kind| {
        let rooms = match kind.route() {
            Route::Everyone => "all sessions".to_owned(),
            Route::Room(room) => format!("`{room}`"),
            Route::Job => "`job-<job_id>`".to_owned(),
            Route::TaskLog => "`tasklog-<task_id>`".to_owned(),
            Route::JobAnd(room) => format!("`job-<job_id>` and `{room}`"),
        };
        (kind.wire_name(), rooms)
    });
    assert_eq!(documented, known.collect());
}

#[test]
fn rooms_and_their_subscriptions() {
    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";
    let rows = table(&page("docs/protocol.md"), "| `type` | `uuid` | room |");
    let documented: BTreeSet<_> = rows
        .iter()
        .map(|row| (unquoted(&row[0]).to_owned(), !row[1].is_empty(), unquoted(&row[2]).to_owned()))
        .collect();
    let names = Room::NAMES.split(", ").filter(|name| !name.contains(' '));
    let known = names.filter_map(|name| {
        let room: Room = name.replace("<uuid>", ID).parse().unwrap();
        room.subscription().map(|(kind, id)| (kind.to_owned(), id.is_some(), name.to_owned()))
    });
    assert_eq!(documented, known.collect());
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char)).collect::<String>().replace(' ', "-")
}

/// A page without its code.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for (path, text) in pages() {
        for (at, _) in prose(&text).match_indices("](") {
            let text = prose(&text);
            let target = text[at + 2..].split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { root.join(&path) } else { root.join(&path).parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target} does not exist", path.display());
            if !fragment.is_empty() {
                let headings = fs::read_to_string(&file).unwrap();
                let mut headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
                let found = headings.any(|heading| anchor(heading.trim_start_matches('#').trim()) == fragment);
                assert!(found, "{}: {target} has no such heading", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed} links were followed");
}

/// Returns the text of all Rust sources below `folder`.
fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_program_has_the_messages_of_troubleshooting() {
    let mut program = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut program);
    let text = page("docs/troubleshooting.md");
    // The first cell of a row, if it is a message: a phrase in code.
    let messages: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(message, _)| message)
        .filter(|message| message.contains(' ') && !message.contains('`'))
        .collect();
    assert!(messages.len() > 10, "{messages:?}");
    let missing: Vec<_> = messages.into_iter().filter(|message| !program.contains(message)).collect();
    assert!(missing.is_empty(), "the program says none of {missing:?}");
}

#[test]
fn every_page_is_listed() {
    let pages = pages();
    let listed = |index: &str, path: &Path| pages[Path::new(index)].contains(&format!("({})", path.display()));
    let of_docs = |path: &Path| path.strip_prefix("docs").ok().map(Path::to_owned);
    let missing: Vec<_> = pages
        .keys()
        .filter(|path| match of_docs(path) {
            Some(page) if page == Path::new("SUMMARY.md") => false,
            Some(page) if page == Path::new("README.md") => !listed("README.md", path),
            Some(page) => !listed("docs/SUMMARY.md", &page) || !listed("docs/README.md", &page),
            None => path.components().count() == 1 && **path != *"README.md" && !listed("README.md", path),
        })
        .collect();
    assert!(missing.is_empty(), "README.md, docs/README.md and docs/SUMMARY.md lack {missing:?}");
}

/// `mdbook` makes a book of the pages in `docs`, and of nothing else.
#[test]
fn no_link_leads_out_of_the_book() {
    for (path, text) in pages().into_iter().filter(|(path, _)| path.starts_with("docs")) {
        let text = prose(&text);
        assert!(!text.contains("](../"), "{} links to a file outside docs: name its path as code", path.display());
    }
}

/// Returns all files below `folder`, by their path from the repository's root.
fn files_below(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path.strip_prefix(root).unwrap().to_owned()),
            }
        }
    }
    files
}

/// A path may leave out the folders that its place in the text implies, but not name a file that was moved.
#[test]
fn source_files_that_pages_name_exist() {
    let files: Vec<_> = ["src", "tests"].into_iter().flat_map(files_below).collect();
    let mut found = 0;
    for (path, text) in pages() {
        for name in
            text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && !name.contains(['*', ' ']))
        {
            // `a/{b,c}.rs` stands for several.
            let name = name.rsplit_once('}').map_or(name, |(_, rest)| rest);
            let exists = files.iter().any(|file| file.ends_with(name) || name.starts_with('.'));
            assert!(exists, "{}: {name} does not exist", path.display());
            found += 1;
        }
    }
    assert!(found > 50, "{found} files were found");
}

#[test]
fn the_table_of_locks_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = page("ARCHITECTURE.md");
    let head = "| lock | guards | may be taken while this is held | may take while held |";
    let listed: Vec<_> = table(&page, head).into_iter().map(|row| row[0].clone()).collect();
    for file in files_below("src").iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let is_server =
            !["src/protocol", "src/tools", "src/client", "src/faults.rs"].iter().any(|other| file.starts_with(other));
        let code = fs::read_to_string(root.join(file)).unwrap();
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
        let has_lock = ["Mutex<", "RwLock<"].iter().any(|lock| {
            code.lines().any(|line| {
                line.starts_with("    ") && line.contains(&format!(": {lock}")) || line.contains(&format!("({lock}"))
            })
        });
        if is_server && has_lock && !code.contains("tokio::sync::{Mutex") {
            let name = file.strip_prefix("src").unwrap().to_str().unwrap();
            assert!(
                listed.iter().any(|row| row.contains(name)),
                "{name} has a lock that ARCHITECTURE.md does not list"
            );
        }
    }
}
