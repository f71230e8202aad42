//! What stands in `contrib/` goes with this server.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    metrics::scrape,
    server::{BINARY, Server},
};

fn contrib(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split(|char| !is_part(char)).filter(|word| word.starts_with("webupdates_")).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_name_metrics_that_exist() {
    // A Manager that is away, so that its state is told too.
    let server = Server::start(&["--manager", "http://127.0.0.1:1", "--demo"]);
    server.until("an event", |stats| stats["sources"]["demo"]["events"].as_u64() > Some(0)).await;
    let metrics = scrape(&server).await;
    let exist: BTreeSet<&str> = metrics.keys().filter_map(|key| key.split('{').next()).collect();
    for name in ["alerts.yml", "grafana-dashboard.json"] {
        let text = fs::read_to_string(contrib(name)).unwrap();
        let named = named(&text);
        assert!(named.len() > 5, "{name} was read");
        let missing: Vec<_> = named.difference(&exist).collect();
        assert!(missing.is_empty(), "{name} names {missing:?}; there are {exist:?}");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(contrib("grafana-dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert!(panel["title"].is_string() && panel["targets"][0]["expr"].is_string(), "{panel}");
    }
}

/// The output of a tool; `None` where it is not installed.
fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    let run = Command::new(name).args(arguments).stdin(Stdio::null()).output();
    if run.is_err() {
        eprintln!("left out: {name} is not installed");
    }
    run.ok()
}

fn passes(output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_takes_the_alerts() {
    let rules = contrib("alerts.yml");
    tool("promtool", &["check", "rules", rules.to_str().unwrap()]).iter().for_each(passes);
    let text = fs::read_to_string(rules).unwrap();
    let alerts = text.matches("- alert: ").count();
    assert!(alerts > 0);
    for part in ["        expr: ", "        labels: {severity: ", "          summary: "] {
        assert_eq!(text.matches(part).count(), alerts, "{part:?}");
    }
}

#[test]
fn systemd_takes_the_units() {
    let unit = fs::read_to_string(contrib("flamenco-webupdates.service")).unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unit");
    fs::create_dir_all(&folder).unwrap();
    let here = folder.join("flamenco-webupdates.service");
    // It verifies that the program is there.
    fs::write(&here, unit.replace("/usr/local/bin/flamenco-webupdates", BINARY)).unwrap();
    let socket = folder.join("flamenco-webupdates.socket");
    fs::copy(contrib("flamenco-webupdates.socket"), &socket).unwrap();
    for unit in [here, socket] {
        let unit = unit.to_str().unwrap();
        tool("systemd-analyze", &["verify", unit]).iter().for_each(|output| {
            passes(output);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains(unit), "{said}");
        });
    }
}
