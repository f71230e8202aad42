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
    // A Manager and a broker that are away, so that their metrics exist too.
    let server = Server::start(&["--manager", "http://127.0.0.1:1", "--mqtt-publish", "mqtt://127.0.0.1:1", "--demo"]);
    server.until("an event", |stats| stats["sources"]["demo"]["events"].as_u64() > Some(0)).await;
    let metrics = scrape(&server).await;
    let mut exist: BTreeSet<&str> = metrics.keys().filter_map(|key| key.split('{').next()).collect();
    let families: Vec<_> = exist.iter().filter_map(|name| name.strip_suffix("_bucket")).collect();
    exist.extend(families);
    for name in ["contrib/alerts.yml", "contrib/grafana-dashboard.json", "docs/reliability.md", "docs/flamenco.md"] {
        let text = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let named = named(&text);
        assert!(!named.is_empty(), "{name} was read");
        // The metrics of servers that share a stream are compared in tests/cluster.
        let is_of_here = |name: &&&str| !name.starts_with("webupdates_backplane_");
        let missing: Vec<_> = named.difference(&exist).filter(is_of_here).collect();
        assert!(missing.is_empty(), "{name} names {missing:?}; there are {exist:?}");
    }
    // An alert on a label that no metric has would never fire.
    let alerts = fs::read_to_string(contrib("alerts.yml")).unwrap();
    let labels = labels(&alerts);
    assert!(labels.len() >= 6, "{labels:?}");
    // Prometheus adds the label `job` to what it scrapes.
    for (label, value) in labels.into_iter().filter(|&(label, _)| label != "job") {
        let pair = format!("{label}=\"{value}\"");
        assert!(metrics.keys().any(|key| key.contains(&pair)), "no metric has {pair}");
    }
}

/// The labels that selectors compare, `name="one"` or `name=~"one|two"`, with each value.
fn labels(text: &str) -> BTreeSet<(&str, &str)> {
    let selectors = text.match_indices('{').filter_map(|(at, _)| text[at + 1..].split_once('}'));
    let mut labels = BTreeSet::new();
    for (label, value) in
        selectors.flat_map(|(selector, _)| selector.split(", ")).filter_map(|term| term.split_once('='))
    {
        let value = value.trim_start_matches('~');
        if let Some(values) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
            labels.extend(values.split('|').map(|value| (label, value)));
        }
    }
    labels
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
    tool(&promtool(), &["check", "rules", rules.to_str().unwrap()]).iter().for_each(passes);
    let text = fs::read_to_string(rules).unwrap();
    let alerts = text.matches("- alert: ").count();
    assert!(alerts > 0);
    for part in ["        expr: ", "        labels: {severity: ", "          summary: "] {
        assert_eq!(text.matches(part).count(), alerts, "{part:?}");
    }
}

/// Feeds Prometheus with the metrics of a server that is down, and so on, and expects the alerts.
#[test]
fn alerts_fire() {
    let faults = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/operations/alerts.yml");
    tool(&promtool(), &["test", "rules", faults.to_str().unwrap()]).iter().for_each(passes);
    // Every alert is expected to fire once at least.
    let faults = fs::read_to_string(faults).unwrap();
    for (_, alert) in
        fs::read_to_string(contrib("alerts.yml")).unwrap().lines().filter_map(|line| line.split_once("- alert: "))
    {
        assert!(faults.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "no fault fires {alert}");
    }
}

/// The program that `./test` fetches, or an installed one.
fn promtool() -> String {
    std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned())
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
