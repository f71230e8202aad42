//! `GET /metrics`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::server::{Browser, DEADLINE, Server};

pub(crate) const JOB: &str = r#"{"type":"job-update","payload":{"id":"4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21","name":"shot","updated":"2026-11-23T08:00:00Z","status":"active","type":"render","priority":50,"refresh_tasks":false}}"#;

/// A scrape: each line that is no comment, name and labels before the value.
pub(crate) async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let answer = server.manager_get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    assert!(answer.body.ends_with("# EOF\n"));
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap())
        .collect()
}

#[tokio::test]
async fn a_scrape_says_what_the_stats_say() {
    let server = Server::start(&[]);
    let mut browser = Browser::connect(server.browsers).await;
    // What is published while the worker is at this very browser goes along and begins no flush of its own.
    let mut published = 0;
    let timed = async {
        while scrape(&server).await["webupdates_publish_to_write_seconds_count"] == 0.0 {
            server.publish(&format!("[{JOB},{JOB}]")).await;
            for _ in 0..2 {
                assert!(browser.next().await.unwrap().starts_with("42[\"/jobs\""));
            }
            published += 2;
        }
    };
    tokio::time::timeout(DEADLINE, timed).await.expect("a flush that a broadcast began is timed");
    drop(browser);
    let _other = Browser::connect(server.browsers).await;
    server.until("one is gone", |stats| stats["sessions"]["total"] == 1).await;
    let (stats, metrics) = (server.stats().await, scrape(&server).await);
    let same = |metric: &str, figure: &Value| {
        assert_eq!(metrics.get(metric).copied(), figure.as_f64(), "{metric} in {metrics:#?}");
    };
    same("webupdates_deliveries_total", &stats["deliveries"]);
    same("webupdates_sent_bytes_total", &stats["bytes_out"]);
    same("webupdates_coalesced_total", &stats["coalesced"]);
    same("webupdates_unknown_status_total", &stats["unknown_status"]);
    same("webupdates_restarts_total", &stats["restarts"]);
    same("webupdates_poisoned_total", &stats["poisoned"]);
    same("webupdates_sessions{transport=\"websocket\"}", &stats["sessions"]["websocket"]);
    same("webupdates_sessions{transport=\"polling\"}", &stats["sessions"]["polling"]);
    same("webupdates_source_events_total{source=\"http\"}", &stats["sources"]["http"]["events"]);
    same("webupdates_room_members{room=\"Jobs\"}", &stats["rooms"]["Jobs"]);
    for (metric, label) in [("events", "type"), ("refused", "reason"), ("disconnects", "reason")] {
        let figures = stats[metric].as_object().unwrap();
        assert!(!figures.is_empty());
        for (name, figure) in figures {
            same(&format!("webupdates_{metric}_total{{{label}=\"{name}\"}}"), figure);
        }
    }
    assert_eq!(stats["deliveries"], published);
    assert_eq!(metrics["webupdates_rooms"], stats["rooms"].as_object().unwrap().len() as f64);
    assert_eq!(metrics["webupdates_registry_up"], 1.0);
    assert_eq!(metrics["webupdates_outbox_bytes"], 0.0);
    assert_eq!(metrics["webupdates_backlog_events"], 0.0);
    assert_eq!(metrics[&format!("webupdates_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    let flushes = metrics["webupdates_publish_to_write_seconds_count"];
    assert!((1.0..=f64::from(published)).contains(&flushes), "once for each flush, not {flushes} times");
    assert!(metrics["webupdates_publish_to_write_seconds_sum"] > 0.0);
}

/// What waits for a browser that does not read is seen.
#[tokio::test]
async fn waiting_bytes_are_reported() {
    let server = Server::start(&["--outbox-age", "1m", "--outbox-bytes", "100000000"]);
    let stalled = Browser::connect(server.browsers).await;
    let batch = format!("[{}]", vec![JOB; 10_000].join(","));
    let mut waiting = 0.0;
    for _ in 0..20 {
        server.publish(&batch).await;
        waiting = scrape(&server).await["webupdates_outbox_bytes"];
        if waiting > 0.0 {
            break;
        }
    }
    assert!(waiting > 0.0, "the kernel takes no 60 MB");
    drop(stalled);
    server.until("it is gone", |stats| stats["sessions"]["total"] == 0).await;
    assert_eq!(scrape(&server).await["webupdates_outbox_bytes"], 0.0);
}
