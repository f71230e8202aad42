//! Actors that fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flamenco_webupdates::clock;
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    browser::{Browser, Incoming},
    events::{self, InOrder},
    eventually, run,
    server::Server,
    sized,
};

const BATCH: u64 = 25;

/// What of the numbered worker updates is on its way: started to be handed over, and answered.
#[derive(Default)]
struct Published {
    started: AtomicU64,
    answered: AtomicU64,
    done: AtomicBool,
}

#[test]
fn ten_registry_panics_mid_fan_out_lose_and_double_nothing() {
    let (watchers, churners, total) = sized((200, 20, 2000), (1000, 100, 5000));
    run(Duration::from_secs(300), || async move {
        let server = Server::start(&[]);
        let begun = clock::now();
        let ready = Arc::new(Barrier::new(watchers + 1));
        let mut watching = JoinSet::new();
        for _ in 0..watchers {
            watching.spawn(watch(server.browsers, ready.clone(), total));
        }
        ready.wait().await;
        let published = Arc::new(Published::default());
        let mut churning = JoinSet::new();
        for _ in 0..churners {
            churning.spawn(churn(server.browsers, published.clone()));
        }
        let publishing = tokio::spawn(publish(server.manager().await, published.clone(), total));
        fail_ten_times(&server, watchers).await;
        assert!(!publishing.is_finished(), "the panics come while events are handed over");
        publishing.await.unwrap();
        while let Some(watched) = watching.join_next().await {
            watched.unwrap();
        }
        published.done.store(true, Ordering::Release);
        let mut rounds = 0;
        while let Some(churned) = churning.join_next().await {
            rounds += churned.unwrap();
        }
        let stats = server.stats().await;
        assert_eq!((&stats["restarts"], &stats["poisoned"]), (&10.into(), &0.into()));
        assert_eq!(stats["disconnects"]["session-failed"], 0);
        println!(
            "{watchers} browsers got {total} job and {total} worker updates in order through 10 panics of the registry, while \
             {churners} others joined and left {rounds} times; {:?}",
            begun.elapsed()
        );
        assert!(rounds > churners as u64, "the churners did churn");
    });
}

/// Takes all numbered job updates, and its end.
async fn watch(address: std::net::SocketAddr, ready: Arc<Barrier>, total: u64) {
    let mut browser = Browser::connect(address).await;
    ready.wait().await;
    let mut seen = InOrder::default();
    while seen.last() < total {
        match browser.next().await {
            Incoming::Text(text) => seen.took(events::number(text, "/jobs").expect("a job update")),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    assert_eq!(seen.first(), Some(1));
}

/// Joins and leaves the workers' room; now and then under a new session. Returns how often.
async fn churn(address: std::net::SocketAddr, published: Arc<Published>) -> u64 {
    let mut rounds = 0;
    while !published.done.load(Ordering::Acquire) {
        let mut browser = Browser::connect(address).await;
        let (mut jobs, mut workers) = (InOrder::default(), Vec::new());
        let mut took = |text: &str| match events::number(text, "/workers") {
            Some(number) => workers.push(number),
            None => jobs.took(events::number(text, "/jobs").expect("a job or worker update")),
        };
        let mut required = Vec::new();
        for _ in 0..5 {
            rounds += 1;
            browser.subscribe(2 * rounds, "subscribe", "allWorkers", &mut took).await;
            let from = published.started.load(Ordering::Acquire) + 1;
            browser.subscribe(0, "subscribe", "allJobs", &mut took).await;
            let to = published.answered.load(Ordering::Acquire);
            browser.subscribe(2 * rounds + 1, "unsubscribe", "allWorkers", &mut took).await;
            required.extend(from..=to);
        }
        assert!(workers.is_sorted_by(|a, b| a < b), "doubled or out of order: {workers:?}");
        for number in required {
            assert!(workers.binary_search(&number).is_ok(), "{number} is lost: {workers:?}");
        }
    }
    rounds
}

/// Hands over job and worker updates of the numbers 1 to `total`.
async fn publish(mut manager: crate::support::http::Connection, published: Arc<Published>, total: u64) {
    for first in (1..=total).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(total + 1);
        published.started.store(numbers.end - 1, Ordering::Release);
        let both = |number| format!("{},{}", events::job(number), events::worker(number));
        manager.publish(&events::batch(numbers.clone(), both)).await;
        published.answered.store(numbers.end - 1, Ordering::Release);
    }
}

/// One after the other, each in the middle of another broadcast: in turn one that all follow, and one that is pushed to some.
async fn fail_ten_times(server: &Server, watchers: usize) {
    let mut manager = server.manager().await;
    for failure in 1..=10_u64 {
        let (kind, after) = match failure % 2 {
            0 => ("worker-update", failure / 2),
            _ => ("job-update", watchers as u64 / 2),
        };
        let fault = format!(r#"{{"actor":"room-registry","when":"mid-fan-out","kind":"{kind}","after":{after}}}"#);
        manager.arm(&fault).await;
        let failed = || async { server.stats().await["restarts"] == failure };
        eventually("the registry fails", Duration::from_secs(20), failed).await;
        // The answer comes after the broadcast was tried again: one that fails twice is dropped.
        assert!(server.stats().await["rooms"].is_object());
    }
}

#[test]
fn a_poison_broadcast_is_dropped_named_and_counted() {
    run(Duration::from_secs(60), || async {
        for actor in ["room-registry", "job-updates"] {
            let server = Server::start(&[]);
            let mut browser = Browser::connect(server.browsers).await;
            let mut manager = server.manager().await;
            manager.arm(&format!(r#"{{"actor":"{actor}","when":"always-on-event","event_id":"event-2"}}"#)).await;
            manager.publish(&events::batch(1..=3, events::job)).await;
            for expected in [1, 3] {
                let Incoming::Text(text) = browser.next().await else { panic!("no event") };
                assert_eq!(events::number(text, "/jobs"), Some(expected));
            }
            let stats = server.stats().await;
            assert_eq!((&stats["restarts"], &stats["poisoned"]), (&2.into(), &1.into()), "{actor}");
            let dropped = || async { server.log().contains("dropped") };
            eventually("the log to name what was dropped", Duration::from_secs(20), dropped).await;
            let log = server.log();
            let line = log.lines().find(|line| line.contains("dropped")).unwrap_or_else(|| panic!("{log}"));
            assert!(line.contains(r#"job-update event (id "event-2")"#), "{line}");
            assert!(!log.contains("xxxx"), "no content is logged");
        }
    });
}

#[test]
fn a_publisher_that_fails_loses_nothing() {
    run(Duration::from_secs(60), || async {
        let server = Server::start(&[]);
        let mut browser = Browser::connect(server.browsers).await;
        browser.subscribe(0, "subscribe", "allWorkers", |_| ()).await;
        let mut manager = server.manager().await;
        manager.arm(r#"{"actor":"job-updates","when":"next-publish"}"#).await;
        manager.arm(r#"{"actor":"worker-updates","when":"next-publish"}"#).await;
        manager.publish(&events::batch(1..=100, |n| format!("{},{}", events::job(n), events::worker(n)))).await;
        let (mut jobs, mut workers) = (InOrder::default(), InOrder::default());
        while jobs.last() < 100 || workers.last() < 100 {
            let Incoming::Text(text) = browser.next().await else { panic!("no event") };
            match events::number(text, "/workers") {
                Some(number) => workers.took(number),
                None => jobs.took(events::number(text, "/jobs").unwrap()),
            }
        }
        assert_eq!((jobs.first(), workers.first()), (Some(1), Some(1)));
        assert_eq!(server.stats().await["restarts"], 2);
    });
}

#[test]
fn a_session_that_fails_closes_that_client_only() {
    run(Duration::from_secs(60), || async {
        let server = Server::start(&[]);
        let mut other = Browser::connect(server.browsers).await;
        let mut unlucky = Browser::connect(server.browsers).await;
        server.manager().await.arm(r#"{"actor":"session","when":"next-publish"}"#).await;
        unlucky.send("2").await;
        assert!(matches!(unlucky.next().await, Incoming::End { .. }));
        server.manager().await.publish(&events::job(1)).await;
        assert!(matches!(other.next().await, Incoming::Text(text) if events::number(text, "/jobs") == Some(1)));
        other.send("2probe").await;
        assert_eq!(other.next().await, Incoming::Text("3probe"));
        let gone = || async {
            let stats = server.stats().await;
            stats["sessions"]["total"] == 1 && stats["rooms"]["Jobs"] == 1
        };
        eventually("the session that failed is gone", Duration::from_secs(5), gone).await;
        let stats = server.stats().await;
        assert_eq!((&stats["disconnects"]["session-failed"], &stats["restarts"]), (&1.into(), &0.into()));
    });
}

#[test]
fn beyond_the_restart_budget_the_process_ends_with_code_3() {
    run(Duration::from_secs(60), || async {
        let mut server = Server::start(&[]);
        let mut manager = server.manager().await;
        for _ in 0..20 {
            manager.arm(r#"{"actor":"room-registry","when":"next-publish"}"#).await;
        }
        // Each event takes two of them: it is tried twice and dropped.
        let body = events::batch(1..=6, events::job);
        let head = "POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let _ = manager.request(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
        let status = server.ended_within(Duration::from_secs(5)).await.expect("the server gives up");
        assert_eq!(status.code(), Some(3));
        eventually("its log is read", Duration::from_secs(5), || async { server.log().contains("error:") }).await;
        let log = server.log();
        assert!(
            log.contains("error: room-registry failed more than 10 times within 10 s and is not restarted again"),
            "{log}"
        );
        assert_eq!(log.lines().filter(|line| line.contains("panic at")).count(), 11, "one line for each panic\n{log}");
    });
}

#[test]
fn healthz_is_red_while_the_registry_does_not_answer() {
    run(Duration::from_secs(60), || async {
        let server = Server::start(&[]);
        assert_eq!(server.healthz().await.status, 200);
        let mut manager = server.manager().await;
        manager.arm(r#"{"actor":"room-registry","when":"next-publish","stall_ms":2500}"#).await;
        let publishing = tokio::spawn(async move { manager.publish(&events::job(1)).await });
        let red = || async { server.healthz().await.status == 503 };
        eventually("it is red", Duration::from_secs(5), red).await;
        publishing.await.unwrap();
        assert_eq!(server.healthz().await.status, 200);
    });
}

#[test]
fn tasks_that_fail_are_started_again() {
    run(Duration::from_secs(60), || async {
        for task in ["flusher", "sweep"] {
            let server = Server::start(&[]);
            let mut browser = Browser::connect(server.browsers).await;
            browser.subscribe(0, "subscribe", "allWorkers", |_| ()).await;
            let mut manager = server.manager().await;
            manager.arm(&format!(r#"{{"actor":"{task}","when":"next-publish"}}"#)).await;
            // The flusher fails with the first of these in its hands.
            for number in 1..=100 {
                manager.publish(&events::worker(number)).await;
            }
            let failed = || async { server.stats().await["restarts"] == 1 };
            eventually(&format!("the {task} fails"), Duration::from_secs(20), failed).await;
            let mut workers = InOrder::default();
            while workers.last() < 100 {
                let Incoming::Text(text) = browser.next().await else { panic!("no event") };
                if let Some(number) = events::number(text, "/workers") {
                    workers.took(number);
                }
            }
            assert_eq!(workers.first(), Some(1));
            let said = || async { server.log().contains(&format!("{task} failed and is restarted")) };
            eventually("its log is read", Duration::from_secs(5), said).await;
        }
    });
}

#[test]
fn a_worker_whose_thread_ends_ends_the_process_with_code_3() {
    run(Duration::from_secs(60), || async {
        let mut server = Server::start(&[]);
        let mut browser = Browser::connect(server.browsers).await;
        server.manager().await.arm(r#"{"actor":"sweep","when":"end-thread"}"#).await;
        assert!(matches!(browser.next().await, Incoming::End { .. }), "its page comes back to the next process");
        let status = server.ended_within(Duration::from_secs(5)).await.expect("it cannot go on");
        assert_eq!(status.code(), Some(3));
        let said = || async { server.log().contains("has ended and cannot be restarted") };
        eventually("its log is read", Duration::from_secs(5), said).await;
    });
}

/// What the flusher had in hand was the order to close all connections.
#[test]
fn a_flusher_that_fails_when_the_server_stops_closes_all_connections_all_the_same() {
    run(Duration::from_secs(60), || async {
        let mut server = Server::start(&["--workers", "1", "--shutdown-timeout", "40s"]);
        let mut browser = Browser::connect(server.browsers).await;
        server.manager().await.arm(r#"{"actor":"flusher","when":"next-publish"}"#).await;
        server.terminate();
        assert_eq!(browser.next().await, Incoming::Close(1001));
        drop(browser);
        let status = server.ended_within(Duration::from_secs(20)).await.expect("nobody is left");
        assert_eq!(status.code(), Some(0));
        let said = || async { server.log().contains("flusher failed and is restarted") };
        eventually("its log is read", Duration::from_secs(5), said).await;
    });
}

#[test]
fn a_demo_that_fails_begins_anew() {
    run(Duration::from_secs(60), || async {
        let server = Server::start(&["--demo"]);
        server.manager().await.arm(r#"{"actor":"demo","when":"next-publish"}"#).await;
        let failed = || async { server.stats().await["restarts"] == 1 };
        eventually("the demo fails", Duration::from_secs(20), failed).await;
        let before = server.stats().await["sources"]["demo"]["events"].as_u64();
        let goes_on = || async { server.stats().await["sources"]["demo"]["events"].as_u64() > before };
        eventually("the demo goes on", Duration::from_secs(20), goes_on).await;
    });
}

#[test]
fn a_reader_of_stdin_that_fails_ends_the_process_with_code_3() {
    run(Duration::from_secs(60), || async {
        let mut server = Server::start(&["--events-from-stdin"]);
        server.manager().await.arm(r#"{"actor":"stdin","when":"next-publish"}"#).await;
        server.write_stdin(&format!("{}\n", events::job(1)));
        let status = server.ended_within(Duration::from_secs(5)).await.expect("it cannot go on");
        assert_eq!(status.code(), Some(3));
        let said = || async { server.log().contains("error: stdin has ended and cannot be restarted") };
        eventually("its log is read", Duration::from_secs(5), said).await;
    });
}
