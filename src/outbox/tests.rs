//! One outbox, as seen by the code that fills and empties it.

use super::*;
use crate::{
    clock,
    farm::{EventKind, FarmEvent},
};

const ROOM: BodyRoom = BodyRoom { bytes: 8, packets: 2 };
const LIMITS: OutboxLimits = OutboxLimits { bytes: 100, age: Duration::from_secs(10), lag: Duration::from_secs(1) };

fn frame(published: Instant, text: &str) -> Arc<Frame> {
    Frame::text(published, |out| out.extend_from_slice(text.as_bytes()))
}

fn attached(workers: &Workers) -> (Outbox, Home) {
    let home = Home { worker: workers.claim().unwrap(), slot: 7 };
    let outbox = Outbox::new();
    assert!(!outbox.set_home(home, Taker::Stream));
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
fn only_a_client_that_does_not_read_is_evicted() {
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
fn a_slow_reader_has_limits_too() {
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
fn a_client_that_takes_nothing_for_too_long_is_evicted() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "a"), &LIMITS);
    outbox.block(now);
    assert_eq!(outbox.evict_overdue(now + LIMITS.age, &LIMITS).evicted, None);
    assert_eq!(outbox.evict_overdue(now + LIMITS.age + Duration::from_millis(1), &LIMITS).evicted, Some(home));
}

#[test]
fn a_polling_client_is_blocked_between_two_polls() {
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
    assert_eq!(outbox.evict_overdue(now + LIMITS.age, &LIMITS).evicted, None);
    assert_eq!(outbox.evict_overdue(later, &LIMITS).evicted, Some(home));
}

#[test]
fn a_client_that_does_not_return_is_overdue_from_its_oldest_frame() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "6"), &LIMITS);
    outbox.take_polling(&mut Vec::new(), ROOM, now);
    let much_later = now + LIMITS.age * 3;
    assert_eq!(outbox.evict_overdue(much_later, &LIMITS).evicted, None, "nothing waits");
    assert_eq!(outbox.push(2, &frame(much_later, "6"), &LIMITS), Push::Queued);
    assert_eq!(outbox.evict_overdue(much_later + LIMITS.age * 2, &LIMITS).evicted, Some(home));
}

fn chat(published: Instant, text: &str) -> Arc<Frame> {
    let json = format!(r#"{{"name":"n","text":"{text}"}}"#);
    Frame::event(published, &Arc::new(FarmEvent::parse(EventKind::ChatMessage, &json).unwrap()))
}

/// However little it reads, and whether it has a part of a message or not.
#[test]
fn nobody_is_evicted_for_chat() {
    let now = clock::now();
    for (taker, written) in [(Taker::Stream, 0), (Taker::Stream, 5), (Taker::Polls, 0)] {
        let (outbox, home) = attached(&Workers::new());
        outbox.set_home(home, taker);
        outbox.push(1, &chat(now, "first"), &LIMITS);
        outbox.advance(written, now);
        outbox.block(now);
        let mut left_out = 0;
        for second in 1..100 {
            let later = now + Duration::from_secs(second);
            let pushed = outbox.push(1 + second, &chat(later, "and so on"), &LIMITS);
            if let Push::LeftOut(messages) = pushed {
                left_out += messages;
            } else {
                assert_eq!(pushed, Push::Queued);
            }
            let overdue = outbox.evict_overdue(later, &LIMITS);
            assert_eq!(overdue.evicted, None);
            left_out += overdue.left_out;
        }
        assert!(left_out > 50, "{left_out}");
    }
}

#[test]
fn chat_in_front_of_an_event_does_not_make_it_overdue() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    outbox.push(1, &chat(now, "a"), &LIMITS);
    // The client has a part of it.
    outbox.advance(5, now);
    outbox.block(now);
    assert_eq!(outbox.push(2, &chat(at(1), "b"), &LIMITS), Push::Queued);
    assert_eq!(outbox.evict_overdue(at(7), &LIMITS), Overdue { evicted: None, left_out: 1 });
    assert_eq!(outbox.push(3, &frame(at(20), "event"), &LIMITS), Push::Queued);
    assert_eq!(outbox.push(4, &chat(at(26), "c"), &LIMITS), Push::LeftOut(1), "it would wait behind what is late");
    assert_eq!(outbox.evict_overdue(at(30), &LIMITS), Overdue::default(), "the event has waited for 10 s");
    let mut written = Vec::new();
    assert_eq!(outbox.copy_to(&mut written, 1000), Waiting::Frames);
    let whole = [chat(now, "a").websocket(), frame(now, "event").websocket()].concat();
    assert_eq!(written, whole[5..]);
    outbox.block(at(30));
    assert_eq!(outbox.evict_overdue(at(31), &LIMITS).evicted, Some(home));
}

#[test]
fn a_client_between_two_polls_gets_all_chat() {
    let (now, limits) = (clock::now(), OutboxLimits { bytes: 1 << 20, ..LIMITS });
    let outbox = Outbox::new();
    outbox.block(now);
    let text = "x".repeat(CHAT_SHARE / 4);
    for seq in 1..=8 {
        assert_eq!(outbox.push(seq, &chat(now, &text), &limits), Push::Queued, "message {seq}");
    }
    let later = chat(now + 2 * LIMITS.lag, &text);
    assert_eq!(outbox.push(9, &later, &limits), Push::LeftOut(1), "it has taken nothing for too long");
}

#[test]
fn chat_makes_room_for_events() {
    let (outbox, home) = attached(&Workers::new());
    let now = clock::now();
    outbox.push(1, &frame(now, "a"), &LIMITS);
    outbox.block(now);
    let late = now + LIMITS.lag + Duration::from_millis(1);
    assert_eq!(outbox.push(2, &chat(late, "hi"), &LIMITS), Push::Queued);
    assert_eq!(outbox.push(3, &frame(late, &"x".repeat(80)), &LIMITS), Push::LeftOut(1));
    assert_eq!(outbox.backlog(), 3 + 82);
    assert_eq!(outbox.push(4, &chat(late, "hi"), &LIMITS), Push::LeftOut(1));
    assert_eq!(outbox.push(5, &frame(late, &"x".repeat(80)), &LIMITS), Push::Evicted(Some(home)));
}

#[test]
fn waiting_frames_are_sent_before_the_close() {
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
fn frames_pushed_before_there_is_a_home_wait_for_it() {
    let workers = Workers::new();
    let home = Home { worker: workers.claim().unwrap(), slot: 0 };
    let outbox = Outbox::new();
    assert_eq!(outbox.push(1, &frame(clock::now(), "a"), &LIMITS), Push::Queued);
    assert!(outbox.set_home(home, Taker::Stream));
}

#[test]
fn of_54_combinations_33_are_legal() {
    let (log, reason) = (Arc::new(Log::new()), Disconnect::TooSlow);
    let home = Home { worker: Workers::new().claim().unwrap(), slot: 7 };
    let mut legal = 0;
    for phase in [Phase::Open, Phase::Closing(reason), Phase::Closed(reason)] {
        for place in [Place::Outside, Place::Detached(log.clone(), 1), Place::Attached(log.clone(), 1, 0)] {
            for taker in [Taker::Polls, Taker::Stream] {
                for attention in [Attention::Idle, Attention::Marked, Attention::Blocked] {
                    let place = place.clone();
                    let state = OutboxState { phase, place, taker, attention, home: Some(home), ..OutboxState::new() };
                    legal += u32::from(state.is_legal());
                }
            }
        }
    }
    assert_eq!(legal, 33);
}
