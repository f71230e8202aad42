//! Moving from polling to a WebSocket.

use std::{cell::Cell, rc::Rc, time::Duration};

use crate::{
    browser::{Browser, WebSocket, numbers},
    server::Server,
};

/// Moves as a client of the line does: it pauses its polling first.
async fn upgrade(browser: &mut Browser, socket: &mut WebSocket) -> Vec<u64> {
    browser.begin_poll().await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    let got = numbers(&browser.polled().await);
    socket.send("5").await;
    got
}

#[actix_rt::test]
async fn the_waiting_poll_is_released_and_all_goes_on_over_the_websocket() {
    let server = Server::start(&["--workers", "2"]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    browser.begin_poll().await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    assert_eq!(browser.polled().await, ["6"]);
    // What comes now waits for whichever transport asks first.
    server.publish([1]).await;
    socket.send("5").await;
    assert_eq!(numbers(&[socket.next().await.unwrap()]), [1]);
    browser.assert_unknown().await;
    let posted = browser.try_post(b"1:2").await;
    assert_eq!((posted.status, posted.code()), (400, Some(1)));
    server.publish([2]).await;
    assert_eq!(numbers(&[socket.next().await.unwrap()]), [2]);
    // No other WebSocket takes it over again.
    let late = browser.try_websocket().await.err().unwrap();
    assert_eq!((late.status, late.code()), (400, Some(1)));
    // A second one changes nothing.
    socket.send("5").await;
    socket.send("2").await;
    assert_eq!(socket.next().await.as_deref(), Some("3"));
    server
        .until("the move", |stats| stats["sessions"] == serde_json::json!({ "total": 1, "websocket": 1, "polling": 0 }))
        .await;
    drop(socket);
    server.until_ended("transport-close", 1).await;
}

#[actix_rt::test]
async fn a_poll_that_waits_when_the_websocket_takes_over_is_answered_with_nothing() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    browser.begin_poll().await;
    browser.post(&["2"]).await;
    assert_eq!(browser.polled().await, ["3"]);
    browser.begin_poll().await;
    // It does not even probe.
    socket.send("5").await;
    socket.send("2ws").await;
    assert_eq!(socket.next().await.as_deref(), Some("3ws"));
    // It came before, or it did not.
    let late = browser.answer().await;
    assert!(late.status == 400 || late.text() == "1:6", "{late:?}");
    server.publish([1]).await;
    assert_eq!(numbers(&[socket.next().await.unwrap()]), [1]);
}

#[actix_rt::test]
async fn polls_during_the_probe_work_as_before() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    for number in 0..10 {
        server.publish([number]).await;
        assert_eq!(numbers(&browser.poll().await), [number]);
    }
    // One with nothing to bring is released soon, again and again.
    for _ in 0..3 {
        assert_eq!(browser.poll().await, ["6"]);
    }
    drop(socket);
    browser.begin_poll().await;
    browser.post(&["2"]).await;
    let answer = browser.polled().await;
    if answer == ["6"] {
        assert_eq!(browser.poll().await, ["3"]);
    } else {
        assert_eq!(answer, ["3"]);
    }
    let mut socket = browser.websocket().await;
    upgrade(&mut browser, &mut socket).await;
    socket.send("2").await;
    assert_eq!(socket.next().await.as_deref(), Some("3"));
}

#[actix_rt::test]
async fn a_failed_probe_disturbs_no_client() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    for first in ["2", "2prob", "3probe", "40", "42[\"a\"]", "1", "6", "x", "", "2probe2probe"] {
        let mut socket = browser.websocket().await;
        socket.send(first).await;
        assert_eq!(socket.next().await, None, "{first:?}");
        browser.assert_alive().await;
    }
    for (first, payload) in [(0x82, &b"\x04x"[..]), (0x88, &[3, 232]), (0xc1, b"2probe"), (0x81, b"\xff"), (0x83, b"")]
    {
        let mut socket = browser.websocket().await;
        socket.send_frame(first, payload).await;
        assert_eq!(socket.next_frame().await, None, "{first:x}");
        browser.assert_alive().await;
    }
    let silent = browser.websocket().await;
    let busy = browser.try_websocket().await.err().unwrap();
    assert_eq!((busy.status, busy.code()), (400, Some(3)));
    browser.assert_alive().await;
    drop(silent);
    server.publish([1]).await;
    assert_eq!(numbers(&browser.poll().await), [1]);
    assert_eq!(server.stats().await["sessions"], serde_json::json!({ "total": 1, "websocket": 0, "polling": 1 }));
}

#[actix_rt::test]
async fn a_probing_websocket_answers_pings_and_ends_with_its_session() {
    let server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    socket.send_frame(0x89, b"still there?").await;
    assert_eq!(socket.next_frame().await, Some((0x8a, b"still there?".to_vec())));
    socket.send("2probe").await;
    assert_eq!(socket.next().await.as_deref(), Some("3probe"));
    browser.post(&["1"]).await;
    browser.assert_closed().await;
    assert_eq!(socket.next().await, None);
    let unknown = browser.try_websocket().await.err().unwrap();
    assert_eq!((unknown.status, unknown.code()), (400, Some(1)));
    server.until_ended("transport-close", 1).await;
}

#[actix_rt::test]
async fn a_stop_during_the_move_closes_the_websocket() {
    let mut server = Server::start(&[]);
    let mut browser = Browser::open(&server).await;
    let mut socket = browser.websocket().await;
    assert_eq!(upgrade(&mut browser, &mut socket).await, [0; 0]);
    server.publish([1]).await;
    server.end_stdin();
    assert_eq!(numbers(&[socket.next().await.unwrap()]), [1]);
    assert_eq!(socket.next_frame().await, Some((0x88, 1001_u16.to_be_bytes().to_vec())));
    drop(socket);
    server.stopped().await;
}

/// Requests and WebSockets come to any worker thread, and each browser moves at another moment while events come all the time.
#[actix_rt::test]
async fn nothing_is_lost_while_many_move_under_load() {
    const BROWSERS: usize = 500;
    // A busy machine is no slow browser: nothing takes the place of anything else.
    let server = Rc::new(Server::start(&["--workers", "2", "--outbox-lag", "60s"]));
    let farm = Rc::new(Farm::default());
    let browsers: Vec<_> =
        (0..BROWSERS).map(|index| actix_rt::spawn(move_under_load(index, server.clone(), farm.clone()))).collect();
    let mut next = 0;
    // One that fails never moves: then its failure is what is shown.
    while farm.moved.get() < BROWSERS && !browsers.iter().any(|browser| browser.is_finished()) {
        farm.next.set(next + 3);
        server.publish(next..next + 3).await;
        next += 3;
        let total = server.stats().await["sessions"]["total"].as_u64().unwrap();
        assert!(total <= farm.opened.get(), "{total} sessions, of {}: one that moves counts once", farm.opened.get());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    farm.last.set(Some(next));
    server.publish([next]).await;
    for browser in browsers {
        let got = browser.await.unwrap();
        let expected: Vec<_> = (got[0]..=next).collect();
        assert!(got == expected, "lost, doubled or out of order: {got:?}");
    }
}

#[derive(Default)]
struct Farm {
    opened: Cell<u64>,
    moved: Cell<usize>,
    /// The first number of which nothing is published yet.
    next: Cell<u64>,
    /// The last number that is published, once it is known.
    last: Cell<Option<u64>>,
}

/// Returns all numbers that it got.
async fn move_under_load(index: usize, server: Rc<Server>, farm: Rc<Farm>) -> Vec<u64> {
    tokio::time::sleep(Duration::from_millis(3 * index as u64)).await;
    farm.opened.set(farm.opened.get() + 1);
    let mut browser = Browser::open(&server).await;
    let joined_before = farm.next.get();
    let mut got = browser.early.clone();
    while got.len() < index % 7 {
        got.extend(numbers(&browser.poll().await));
    }
    let mut socket = browser.websocket().await;
    if index.is_multiple_of(2) {
        browser.reconnect().await;
        got.extend(numbers(&browser.poll().await));
    }
    got.extend(upgrade(&mut browser, &mut socket).await);
    farm.moved.set(farm.moved.get() + 1);
    loop {
        got.extend(numbers(&[socket.next().await.unwrap()]));
        if farm.last.get().is_some() && farm.last.get() == got.last().copied() {
            assert!(got[0] <= joined_before, "{} was published after it joined, {} came first", joined_before, got[0]);
            return got;
        }
    }
}
