//! Browsers that come and go as fast as they can.

use std::{net::SocketAddr, time::Duration};

use flamenco_webupdates::clock;
use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    browser::{Browser, Incoming},
    events::{self, InOrder},
    eventually, run,
    server::Server,
    sized,
};

#[test]
fn rooms_and_sessions_return_to_zero_and_nothing_stalls() {
    let length = Duration::from_secs(sized(5, 60));
    run(Duration::from_secs(120), || async move {
        let server = Server::start(&[]);
        let (stop, stopped) = watch::channel(None);
        let mut churning = JoinSet::new();
        for _ in 0..20 {
            churning.spawn(churn(server.browsers, stopped.clone()));
        }
        let watching = tokio::spawn(watch(server.browsers, stopped));
        let mut manager = server.manager().await;
        let (begun, mut slowest, mut number) = (clock::now(), Duration::ZERO, 0);
        while clock::now() - begun < length {
            number += 1;
            let sent = clock::now();
            manager.publish(&events::job(number)).await;
            slowest = slowest.max(clock::now() - sent);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.send(Some(number)).unwrap();
        let sessions: u64 = churning.join_all().await.into_iter().sum();
        watching.await.unwrap();
        let empty = || async {
            let stats = server.stats().await;
            stats["sessions"]["total"] == 0 && stats["rooms"].as_object().unwrap().is_empty()
        };
        eventually("no room and no session is left", Duration::from_secs(5), empty).await;
        println!("{sessions} sessions in {length:?}; {number} events, of which the slowest took {slowest:?}");
        assert!(slowest < Duration::from_secs(1), "it stalled for {slowest:?}");
    });
}

/// Opens sessions, joins and leaves, and goes: politely, or not at all. Returns how many sessions.
async fn churn(address: SocketAddr, stopped: watch::Receiver<Option<u64>>) -> u64 {
    let mut sessions = 0;
    while stopped.borrow().is_none() {
        let mut browser = Browser::connect(address).await;
        browser.subscribe(1, "subscribe", "allWorkers", |_| ()).await;
        browser.send(r#"42["/subscription",{"op":"subscribe","type":"allLastRendered"}]"#).await;
        browser.subscribe(2, "unsubscribe", "allWorkers", |_| ()).await;
        if sessions % 2 == 0 {
            browser.send("41").await;
            browser.send("1").await;
        } else if sessions % 3 == 0 {
            browser.reset();
        }
        sessions += 1;
    }
    sessions
}

/// Receives every event in order up to the last one, while other clients come and go.
async fn watch(address: SocketAddr, mut stopped: watch::Receiver<Option<u64>>) {
    let mut browser = Browser::connect(address).await;
    let mut seen = InOrder::default();
    while *stopped.borrow() != Some(seen.last()) {
        tokio::select! {
            incoming = browser.next() => {
                let Incoming::Text(text) = incoming else { panic!("it ended after {seen:?}") };
                seen.took(events::number(text, "/jobs").unwrap());
            }
            changed = stopped.changed() => changed.unwrap(),
        }
    }
}
