//! How polling sessions live and end.

use std::time::Duration;

use flamenco_webupdates::clock;

use crate::{
    browser::{Browser, numbers, packets},
    server::{JOB, Request, Server},
};

#[actix_rt::test]
async fn events_come_in_order_whoever_answers() {
    let server = Server::start(&["--workers", "2"]);
    let mut browser = Browser::open(&server).await;
    let mut got = Vec::new();
    for round in 0..30 {
        if round % 3 == 0 {
            // Another connection, and so perhaps another thread.
            browser.reconnect().await;
        }
        if round % 2 == 0 {
            browser.begin_poll().await;
            server.publish(round * 5..round * 5 + 5).await;
            got.extend(numbers(&browser.polled().await));
        } else {
            server.publish(round * 5..round * 5 + 5).await;
        }
    }
    while got.len() < 150 {
        got.extend(numbers(&browser.poll().await));
    }
    assert_eq!(got, (0..150).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn a_request_waits_for_what_comes() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    browser.begin_poll().await;
    browser.post(&["2with data"]).await;
    assert_eq!(browser.polled().await, ["3with data"]);
    let job = format!("421[\"/subscription\",{{\"op\":\"subscribe\",\"type\":\"job\",\"uuid\":\"{JOB}\"}}]");
    browser.post(&["2", &job, "40/admin,", "41"]).await;
    assert_eq!(browser.poll().await, ["3", "431[\"ok\"]", "44/admin,\"Invalid namespace\""]);
    // It has left `/`: there are no events any more, until it enters again.
    server.publish([1]).await;
    browser.post(&["40"]).await;
    assert_eq!(browser.poll().await, ["40"]);
    server.publish([2]).await;
    assert_eq!(numbers(&browser.poll().await), [2]);
    browser.assert_alive().await;
}

#[actix_rt::test]
async fn binary_bodies_and_packets_are_consumed() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let event = "451-7[\"picture\",{\"_placeholder\":true,\"num\":0}]";
    let length = event.len() as u8;
    let framed = [
        &[0, length / 10, length % 10, 0xff][..],
        event.as_bytes(),
        &[1, 3, 0xff, 4, 0xca, 0xfe],
        &[0, 6, 0xff],
        b"2after",
    ]
    .concat();
    let answer = browser.try_post(&framed).await;
    assert_eq!(answer.status, 200);
    assert_eq!(browser.poll().await, ["437[\"binary data is not supported, ignoring request\"]", "3after"]);
    browser.post(&[event, "b4yv4=", "2again"]).await;
    assert_eq!(browser.poll().await, ["437[\"binary data is not supported, ignoring request\"]", "3again"]);
}

#[actix_rt::test]
async fn a_big_backlog_comes_in_several_answers() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let name = "é".repeat(20_000);
    server.publish_named(0..8, &name).await;
    let mut got = Vec::new();
    let mut answers = 0;
    while got.len() < 8 {
        got.extend(numbers(&browser.poll().await));
        answers += 1;
    }
    assert_eq!(got, (0..8).collect::<Vec<_>>());
    assert!((2..=8).contains(&answers), "{answers}");
}

#[actix_rt::test]
async fn a_python_client_gets_no_more_packets_at_once_than_it_takes() {
    let server = Server::start(&[]);
    for (agent, at_once) in
        [("python-requests/2.34.2", 15), ("Python/3.11 aiohttp/3.8.6", 15), ("Mozilla/5.0 Python", 40)]
    {
        let browser = Browser::open(&server).await;
        server.publish(0..40).await;
        let headers = [("user-agent", agent)];
        let url = browser.url();
        let answer = Request::new("GET", &url).headers(&headers).send(server.browsers).await;
        assert_eq!(numbers(&packets(&answer)), (0..at_once).collect::<Vec<_>>(), "{agent}");
    }
}

/// It takes the close packet for good.
#[actix_rt::test]
async fn a_python_client_is_refused_at_the_end() {
    let server = Server::start(&[]);
    for (published, last) in [(0, None), (1, Some(0)), (15, Some(14))] {
        let mut browser = Browser::open(&server).await;
        server.publish(0..published).await;
        browser.post(&["1"]).await;
        let url = browser.url();
        let get = Request::new("GET", &url).headers(&[("user-agent", "python-requests/2.34.2")]);
        if last.is_some() {
            let packets = packets(&get.send(server.browsers).await);
            assert_eq!((numbers(&packets).last().copied(), packets.len() as u64), (last, published));
        }
        let answer = get.send(server.browsers).await;
        assert_eq!((answer.status, answer.code()), (400, Some(1)), "{answer:?}");
    }
}

#[actix_rt::test]
async fn a_client_may_close() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    browser.begin_poll().await;
    browser.post(&["1"]).await;
    assert_eq!(browser.polled().await, ["1"]);
    browser.assert_unknown().await;
    let mut without_poll = Browser::open(&server).await;
    without_poll.post(&["1"]).await;
    server.until_ended("transport-close", 2).await;
}

#[actix_rt::test]
async fn a_client_that_goes_while_it_waits_is_gone() {
    let server = Server::start(&["--workers", "2"]);
    let mut browsers = Vec::new();
    for _ in 0..4 {
        let mut browser = Browser::open(&server).await;
        browser.begin_poll().await;
        browsers.push(browser);
    }
    drop(browsers);
    server.until_ended("transport-close", 4).await;
    assert_eq!(server.stats().await["rooms"], serde_json::json!({}));
}

#[actix_rt::test]
async fn a_silent_client_is_closed() {
    let server = Server::start(&["--ping-interval", "500ms", "--ping-timeout", "500ms"]);
    let mut waiting = Browser::open(&server).await;
    let _absent = Browser::open(&server).await;
    assert_eq!(waiting.poll().await, ["1"]);
    server.until_ended("ping-timeout", 2).await;
    waiting.assert_unknown().await;
}

#[actix_rt::test]
async fn a_client_that_does_not_come_is_evicted_and_one_that_comes_is_not() {
    let server = Server::start(&["--outbox-bytes", "5000", "--outbox-age", "1s"]);
    let mut coming = Browser::open(&server).await;
    let by_bytes = Browser::open(&server).await;
    let mut got = Vec::new();
    let mut number = 0;
    // More than the limit in all, and for longer than the limit.
    let until = clock::now() + Duration::from_secs(3);
    while clock::now() < until || number < 100 {
        server.publish([number]).await;
        number += 1;
        got.extend(numbers(&coming.poll().await));
    }
    assert_eq!(got, (0..number).collect::<Vec<_>>());
    server.until("an eviction", |stats| stats["disconnects"]["too-slow"] == 1).await;
    let mut gone = by_bytes;
    gone.assert_unknown().await;
    let _by_age = Browser::open(&server).await;
    server.publish([number]).await;
    assert_eq!(numbers(&coming.poll().await), [number]);
    server.until("another eviction", |stats| stats["disconnects"]["too-slow"] == 2).await;
    coming.assert_alive().await;
}

#[actix_rt::test]
async fn a_stop_closes_polls_politely() {
    let mut server = Server::start(&["--workers", "2"]);
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut browser = Browser::open(&server).await;
        browser.begin_poll().await;
        waiting.push(browser);
    }
    let mut between_polls = Browser::open(&server).await;
    let _never_back = Browser::open(&server).await;
    server.publish([1]).await;
    for browser in &mut waiting {
        assert_eq!(numbers(&browser.polled().await), [1]);
        browser.begin_poll().await;
    }
    let begun = clock::now();
    server.end_stdin();
    let last = between_polls.poll().await;
    assert_eq!(numbers(&last), [1]);
    let end = if last.last().unwrap() == "1" { vec!["1".to_owned()] } else { between_polls.poll().await };
    assert_eq!(end, ["1"]);
    for mut browser in waiting {
        assert_eq!(browser.polled().await, ["1"]);
    }
    server.stopped().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
