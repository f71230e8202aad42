//! One outbox, as those who fill and empty it see it.

use super::*;
use crate::clock;

const ROOM: BodyRoom = BodyRoom { bytes: 8, packets: 2 };
const LIMITS: Limits = Limits { bytes: 100, age: Duration::from_secs(10), lag: Duration::from_secs(1) };

fn frame(published: Instant, text: &str) -> Arc<Frame> {
    Frame::text(published, |out| out.extend_from_slice(text.as_bytes()))
}

fn attached(workers: &Workers) -> (Outbox, Home) {
    let home = Home { worker: workers.claim().unwrap(), slot: 7 };
    let outbox = Outbox::new();
    assert!(!outbox.attach(home, Taker::Stream));
    (outbox, home)
}

#[test]
fn a_broadcast_is_taken_once() {
    let outbox = Outbox::new();
    let now = clock::now();
    assert_eq!(outbox.push(1, &frame(now, "a"), &LIMITS), Push::Queued);
    assert_eq!(outbox.push(1, &frame(now, "a"), &LIMITS), Push::Dropped);
    assert_eq!(outbox.push(3, &frame(now, "c"), &LIMITS), Push::Queued);
    assert_eq!(outbox.push(2, &frame(now, "b"), &LIMITS), Push::Dropped);
    let mut written = Vec::new();
    assert_eq!(outbox.copy_to(&mut written, 100), Waiting::Frames);
    assert_eq!(written, b"\x81\x01a\x81\x01c");
}

#[test]
fn its_slot_is_marked_once_until_it_is_empty() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    assert_eq!(outbox.push(1, &frame(now, "a"), &LIMITS), Push::QueuedUnseen(home));
    assert_eq!(outbox.push(2, &frame(now, "b"), &LIMITS), Push::Queued);
    assert_eq!(outbox.copy_to(&mut Vec::new(), 100), Waiting::Frames);
    assert_eq!(outbox.push(3, &frame(now, "c"), &LIMITS), Push::Queued);
    assert_eq!(outbox.advance(6, now), Next::Again);
    assert_eq!(outbox.advance(3, now), Next::Done);
    assert_eq!(outbox.push(4, &frame(now, "d"), &LIMITS), Push::QueuedUnseen(home));
}

#[test]
fn who_reads_is_never_evicted_and_who_does_not_is() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    let long = frame(now, &"x".repeat(90));
    assert_eq!(outbox.push(1, &long, &LIMITS), Push::QueuedUnseen(home));
    assert_eq!(outbox.push(2, &long, &LIMITS), Push::Queued, "the flusher has not come by yet");
    outbox.advance(92, now);
    outbox.block(now);
    let later = now + LIMITS.lag;
    assert_eq!(outbox.push(3, &frame(later, "too much"), &LIMITS), Push::Queued, "it took something a second ago");
    let later = later + Duration::from_millis(1);
    assert_eq!(outbox.push(4, &frame(later, "x"), &LIMITS), Push::Evicted(Some(home)));
    assert_eq!(outbox.push(5, &frame(later, "x"), &LIMITS), Push::Dropped);
    assert_eq!(outbox.copy_to(&mut Vec::new(), 100), Waiting::Drop(Disconnect::TooSlow));
    assert_eq!(outbox.backlog(), 0);
}

#[test]
fn who_reads_slowly_is_bounded_too() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    let long = frame(now, &"x".repeat(98));
    outbox.push(1, &long, &LIMITS);
    outbox.block(now);
    for seq in 2..=READER_SHARE as Seq {
        assert_eq!(outbox.push(seq, &long, &LIMITS), Push::Queued);
    }
    assert_eq!(outbox.push(100, &long, &LIMITS), Push::Evicted(Some(home)));
}

#[test]
fn who_takes_nothing_for_too_long_is_evicted() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "a"), &LIMITS);
    outbox.block(now);
    assert_eq!(outbox.evict_overdue(now + LIMITS.age, &LIMITS), None);
    assert_eq!(outbox.evict_overdue(now + LIMITS.age + Duration::from_millis(1), &LIMITS), Some(home));
}

#[test]
fn who_polls_is_blocked_between_two_polls() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    let poll = |now| {
        let mut body = Vec::new();
        (outbox.take_polling(&mut body, ROOM, now), String::from_utf8(body).unwrap())
    };
    assert_eq!(poll(now), (Waiting::Nothing, String::new()));
    assert_eq!(outbox.push(1, &frame(now, "6aa"), &LIMITS), Push::QueuedUnseen(home), "a poll waits");
    assert_eq!(poll(now), (Waiting::Frames, "3:6aa".to_owned()));
    for (seq, text) in [(2, "6bbbbbbbbb"), (3, "6c"), (4, "6d"), (5, "6e")] {
        assert_eq!(outbox.push(seq, &frame(now, text), &LIMITS), Push::Queued);
    }
    assert_eq!(poll(now), (Waiting::Frames, "10:6bbbbbbbbb".to_owned()), "one at least");
    assert_eq!(poll(now), (Waiting::Frames, "2:6c2:6d".to_owned()));
    let later = now + LIMITS.age + Duration::from_millis(1);
    assert_eq!(outbox.evict_overdue(now + LIMITS.age, &LIMITS), None);
    assert_eq!(outbox.evict_overdue(later, &LIMITS), Some(home));
}

#[test]
fn who_does_not_come_back_is_overdue_from_the_first_that_waits() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "6"), &LIMITS);
    outbox.take_polling(&mut Vec::new(), ROOM, now);
    let much_later = now + LIMITS.age * 3;
    assert_eq!(outbox.evict_overdue(much_later, &LIMITS), None, "nothing waits");
    assert_eq!(outbox.push(2, &frame(much_later, "6"), &LIMITS), Push::Queued);
    assert_eq!(outbox.evict_overdue(much_later + LIMITS.age * 2, &LIMITS), Some(home));
}

#[test]
fn what_waits_is_sent_before_it_closes() {
    let (outbox, _) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "a"), &LIMITS);
    assert_eq!(outbox.close(Disconnect::ServerShutdown), None, "its slot is marked already");
    assert_eq!(outbox.push(2, &frame(now, "b"), &LIMITS), Push::Dropped);
    assert_eq!(outbox.copy_to(&mut Vec::new(), 100), Waiting::Frames);
    assert_eq!(outbox.advance(3, now), Next::Again);
    assert_eq!(outbox.copy_to(&mut Vec::new(), 100), Waiting::Close(Disconnect::ServerShutdown));
}

#[test]
fn what_was_pushed_before_there_was_a_home_waits_for_it() {
    let workers = Workers::new();
    let home = Home { worker: workers.claim().unwrap(), slot: 0 };
    let outbox = Outbox::new();
    assert_eq!(outbox.push(1, &frame(clock::now(), "a"), &LIMITS), Push::Queued);
    assert!(outbox.attach(home, Taker::Stream));
}
