//! The hand-off between threads that fill outboxes and threads that flush them, in every interleaving: the real
//! `src/outbox`, with a model checker's locks and atomics.
//!
//! ```text
//! cargo test --test outbox_model [-- WORD…]     only scenarios whose names hold one of the words
//! ```
//!
//! A lost wake-up shows as a worker that waits for ever, which the model checker reports as a deadlock.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends by panicking, and says what it tried")]

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flamenco_webupdates::{clock, disconnect, farm, frame, membership, options, slots};
use loom::{model::Builder, thread};

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "it is a part of the library, with its unit tests left out"
)]
#[path = "../../src/outbox/mod.rs"]
mod outbox;
mod server;
mod sync;

use self::{
    disconnect::Disconnect,
    outbox::{Home, OutboxLimits, Taker, Workers},
    server::{LIMITS, Registry, Worker, block_on, close, frame as text_frame, send, texts},
};

/// A scenario that takes longer is too big.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Each with the number of times that a thread is made to wait where it could go on: all orders with no more are tried. Most races
/// need one or two.
const SCENARIOS: [(&str, usize, fn()); 18] = [
    ("push_and_flush_to_empty", 4, push_and_flush_to_empty),
    ("two_fill_one_outbox", 3, two_fill_one_outbox),
    ("a_socket_blocks_and_takes_more", 3, a_socket_blocks_and_takes_more),
    ("the_log_grows_while_the_flusher_goes_around", 4, the_log_grows_while_the_flusher_goes_around),
    (
        "an_attached_outbox_is_pushed_to_in_the_middle_of_a_round",
        4,
        an_attached_outbox_is_pushed_to_in_the_middle_of_a_round,
    ),
    ("an_attached_outbox_is_answered_by_another_thread", 3, an_attached_outbox_is_answered_by_another_thread),
    ("an_attached_outbox_blocks_detaches_and_attaches_again", 3, an_attached_outbox_blocks_detaches_and_attaches_again),
    ("an_attached_outbox_leaves_the_room", 4, an_attached_outbox_leaves_the_room),
    ("an_attached_outbox_leaves_the_room_and_comes_back", 4, an_attached_outbox_leaves_the_room_and_comes_back),
    ("a_client_is_attached_while_it_is_pushed_to", 4, a_client_is_attached_while_it_is_pushed_to),
    ("a_client_moves_from_polling_while_it_is_pushed_to", 4, a_client_moves_from_polling_while_it_is_pushed_to),
    ("an_outbox_is_closed", 3, an_outbox_is_closed),
    ("all_are_closed", 4, all_are_closed),
    ("an_outbox_is_dropped", 3, an_outbox_is_dropped),
    ("a_client_that_does_not_read_is_evicted", 4, a_client_that_does_not_read_is_evicted),
    ("two_workers_share_the_log", 3, two_workers_share_the_log),
    ("the_registry_fails_in_the_middle_of_a_broadcast", 4, the_registry_fails_in_the_middle_of_a_broadcast),
    ("the_registry_waits_for_the_worker", 4, the_registry_waits_for_the_worker),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, preemptions, scenario) in SCENARIOS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            explore(name, preemptions, scenario);
        }
    }
}

fn explore(name: &str, preemptions: usize, scenario: fn()) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    let max_time = *builder.max_duration.get_or_insert(MAX_TIME);
    builder.max_branches = 10_000;
    builder.checkpoint_interval = 1000;
    let orders = Arc::new(AtomicU64::new(0));
    let (counted, began) = (orders.clone(), clock::now());
    print!("{name}: ");
    io::stdout().flush().unwrap();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    let elapsed = clock::now().duration_since(began);
    println!("{} orders, {:.1} s", orders.load(Ordering::Relaxed), elapsed.as_secs_f64());
    assert!(elapsed < max_time, "{name} was cut short");
}

/// A worker's clients, whose sockets have so much room, and the registry in which all are seated.
fn server(sockets: &[Option<usize>]) -> (Worker, Registry) {
    let workers = Arc::new(Workers::new());
    let worker = Worker::new(&workers, sockets);
    worker.attach();
    let registry = Registry::new(&workers, worker.outboxes());
    (worker, registry)
}

/// As [`server`]; all are in the room that has the log, and are attached to it.
fn attached(sockets: &[Option<usize>]) -> (Worker, Registry) {
    let (worker, registry) = server(sockets);
    (0..sockets.len()).for_each(|member| registry.join(member as u32));
    (worker, registry)
}

/// What each source delivers to a client, in order.
type Delivered<'a> = &'a [&'a [&'a str]];

/// Pushes two frames to the first client, in a thread of its own.
fn publish_two(mut registry: Registry) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        registry.broadcast_to(&[0], "a");
        registry.broadcast_to(&[0], "bb");
    })
}

fn push_and_flush_to_empty() {
    let (mut worker, registry) = server(&[None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb"]]];
    let publishing = publish_two(registry);
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

fn two_fill_one_outbox() {
    let (mut worker, registry) = server(&[None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb"], &["1", "22"]]];
    let (workers, outbox) = (worker.workers.clone(), worker.clients[0].outbox.clone());
    let publishing = publish_two(registry);
    let answering = thread::spawn(move || {
        send(&workers, &outbox, "1");
        send(&workers, &outbox, "22");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    answering.join().unwrap();
    worker.assert_delivered(delivered);
}

/// The socket is full in the middle of a frame, and may be writable again before the outbox learns that it was full.
fn a_socket_blocks_and_takes_more() {
    let (mut worker, registry) = server(&[Some(4)]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb"]]];
    let (workers, pipe, home) = (worker.workers.clone(), worker.clients[0].pipe.clone(), worker.home(0));
    let publishing = publish_two(registry);
    let reading = thread::spawn(move || pipe.drain(&workers, home));
    worker.flush_until(delivered);
    publishing.join().unwrap();
    reading.join().unwrap();
    worker.assert_delivered(delivered);
}

fn the_log_grows_while_the_flusher_goes_around() {
    let (mut worker, mut registry) = attached(&[None, None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb", "ccc"]], &[&["a", "bb", "ccc"]]];
    let publishing = thread::spawn(move || {
        for text in ["a", "bb", "ccc"] {
            registry.broadcast(text);
        }
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

/// A frame for one attached outbox keeps its place among the broadcasts.
fn an_attached_outbox_is_pushed_to_in_the_middle_of_a_round() {
    let (mut worker, mut registry) = attached(&[None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "x", "bbbb", "yy"]]];
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast_to(&[0], "x");
        registry.broadcast("bbbb");
        registry.broadcast_to(&[0], "yy");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

fn an_attached_outbox_is_answered_by_another_thread() {
    let (mut worker, mut registry) = attached(&[None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bbbb"], &["1"]]];
    let (workers, outbox) = (worker.workers.clone(), worker.clients[0].outbox.clone());
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast("bbbb");
    });
    let answering = thread::spawn(move || send(&workers, &outbox, "1"));
    worker.flush_until(delivered);
    publishing.join().unwrap();
    answering.join().unwrap();
    worker.assert_delivered(delivered);
}

/// It detaches from the log when it is blocked for a round, is pushed to, and attaches again.
fn an_attached_outbox_blocks_detaches_and_attaches_again() {
    let (mut worker, mut registry) = attached(&[Some(1), None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb", "x", "ccc"]], &[&["a", "bb", "ccc"]]];
    let (workers, pipe, home) = (worker.workers.clone(), worker.clients[0].pipe.clone(), worker.home(0));
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast("bb");
        registry.broadcast_to(&[0], "x");
        registry.broadcast("ccc");
    });
    let reading = thread::spawn(move || pipe.drain(&workers, home));
    worker.flush_until(delivered);
    publishing.join().unwrap();
    reading.join().unwrap();
    worker.assert_delivered(delivered);
}

/// It still gets what was published before, though it is detached.
fn an_attached_outbox_leaves_the_room() {
    let (mut worker, mut registry) = attached(&[None, None]);
    let delivered: &[Delivered<'_>] = &[&[&["a"]], &[&["a", "bb"]]];
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.leave(0);
        registry.broadcast("bb");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

fn an_attached_outbox_leaves_the_room_and_comes_back() {
    let (mut worker, mut registry) = attached(&[None, None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "cc"]], &[&["a", "bbbb", "cc"]]];
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.leave(0);
        registry.broadcast("bbbb");
        registry.join(0);
        registry.broadcast("cc");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

/// Its transport gets to serve it while it is seated and pushed to.
fn a_client_is_attached_while_it_is_pushed_to() {
    let workers = Arc::new(Workers::new());
    let worker = Worker::new(&workers, &[None]);
    attach_while_it_is_pushed_to(worker);
}

/// A push just before may have marked its slot at the worker that served its polls.
fn a_client_moves_from_polling_while_it_is_pushed_to() {
    let workers = Arc::new(Workers::new());
    let (poller, worker) = (workers.claim().unwrap(), Worker::new(&workers, &[None]));
    worker.clients[0].outbox.set_home(Home { worker: poller, slot: 7 }, Taker::Polls);
    attach_while_it_is_pushed_to(worker);
}

fn attach_while_it_is_pushed_to(mut worker: Worker) {
    let mut registry = Registry::new(&worker.workers, worker.outboxes());
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb", "ccc"]]];
    let publishing = thread::spawn(move || {
        registry.broadcast_to(&[0], "a");
        registry.join(0);
        registry.broadcast("bb");
        registry.broadcast("ccc");
    });
    worker.attach();
    worker.clients[0].write();
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

/// All that comes before is written, and the worker sees that it closes.
fn an_outbox_is_closed() {
    let (mut worker, mut registry) = attached(&[None]);
    let (workers, outbox) = (worker.workers.clone(), worker.clients[0].outbox.clone());
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast_to(&[0], "bb");
        registry.broadcast("ccc");
    });
    let closing = thread::spawn(move || close(&workers, &outbox, Disconnect::ServerShutdown));
    worker.flush_until_ended(0);
    closing.join().unwrap();
    publishing.join().unwrap();
    assert_beginning(&texts(&worker.clients[0].wire), &["a", "bb", "ccc"]);
}

/// As the server does when it stops: what was published before is written.
fn all_are_closed() {
    let (mut worker, mut registry) = attached(&[None, None]);
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast_to(&[1], "bb");
        registry.workers.close_all(Disconnect::ServerShutdown);
    });
    (0..2).for_each(|slot| worker.flush_until_ended(slot));
    publishing.join().unwrap();
    worker.assert_delivered(&[&[&["a"]], &[&["a", "bb"]]]);
}

/// Whichever thread drops it, the worker notices.
fn an_outbox_is_dropped() {
    let (mut worker, mut registry) = attached(&[None]);
    let (workers, outbox) = (worker.workers.clone(), worker.clients[0].outbox.clone());
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast_to(&[0], "bb");
        registry.broadcast("ccc");
    });
    let dropping = thread::spawn(move || {
        outbox.drop_all(Disconnect::SessionFailed).into_iter().for_each(|home| workers.mark(home));
    });
    worker.flush_until_ended(0);
    dropping.join().unwrap();
    publishing.join().unwrap();
    assert_beginning(&texts(&worker.clients[0].wire), &["a", "bb", "ccc"]);
}

/// A client that takes nothing is over its limits once it is blocked, and the worker sees that.
fn a_client_that_does_not_read_is_evicted() {
    let (mut worker, mut registry) = attached(&[Some(0), None]);
    registry.limits = OutboxLimits { bytes: 0, ..LIMITS };
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast("bb");
        registry.broadcast("ccc");
        registry
    });
    worker.flush_until(&[&[], &[&["a", "bb", "ccc"]]]);
    let mut registry = publishing.join().unwrap();
    registry.broadcast_to(&[0], "it is blocked by now");
    worker.flush_until_ended(0);
    assert_eq!(worker.clients[0].ended, Some(Disconnect::TooSlow));
}

/// What one of them has taken the other one may still lack.
fn two_workers_share_the_log() {
    let workers = Arc::new(Workers::new());
    let (mut worker, mut other) = (Worker::new(&workers, &[None]), Worker::new(&workers, &[None]));
    worker.attach();
    other.attach();
    let outboxes = [worker.outboxes(), other.outboxes()].concat();
    let mut registry = Registry::new(&workers, outboxes);
    (0..2).for_each(|member| registry.join(member));
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb"]]];
    let flushing = thread::spawn(move || {
        other.flush_until(delivered);
        other
    });
    let publishing = thread::spawn(move || {
        registry.broadcast("a");
        registry.broadcast("bb");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
    flushing.join().unwrap().assert_delivered(delivered);
}

/// It fails after it has appended and pushed, before it has marked, and tries again; the second time to another room.
fn the_registry_fails_in_the_middle_of_a_broadcast() {
    let (mut worker, mut registry) = server(&[None, None, None]);
    registry.join(0);
    // Detached: it has something waiting.
    send(&worker.workers, &worker.clients[1].outbox, "first");
    registry.join(1);
    let delivered: &[Delivered<'_>] = &[&[&["a"]], &[&["first", "a"]], &[&["bb"]]];
    let publishing = thread::spawn(move || {
        let frame = text_frame("a");
        registry.seq += 1;
        registry.append_and_push(&frame);
        registry.restart();
        registry.append_and_push(&frame);
        registry.seq += 1;
        let frame = text_frame("bb");
        registry.push(2, &frame);
        registry.restart();
        registry.push(2, &frame);
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

/// The registry waits while it is too far ahead, and goes on when the worker has come around or sleeps.
fn the_registry_waits_for_the_worker() {
    let (mut worker, mut registry) = server(&[None]);
    let delivered: &[Delivered<'_>] = &[&[&["a", "bb", "end"]]];
    let publishing = thread::spawn(move || {
        for text in ["a", "bb"] {
            let is_ahead = registry.workers.published(2 << 20);
            registry.broadcast_to(&[0], text);
            if is_ahead {
                block_on(registry.workers.caught_up());
            }
        }
        registry.broadcast_to(&[0], "end");
    });
    worker.flush_until(delivered);
    publishing.join().unwrap();
    worker.assert_delivered(delivered);
}

fn assert_beginning(wire: &[&str], all: &[&str]) {
    assert!(all.starts_with(wire), "{wire:?}");
}
