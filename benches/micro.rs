//! What single steps cost: `cargo bench --bench micro`.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use flamenco_webupdates::{
    clock,
    farm::{EventKind, FarmEvent, Room, decode},
    frame::Frame,
    membership::Membership,
    outbox::{Home, Outbox, OutboxLimits, Taker, Workers},
    protocol::{Connection, EnginePacket, SocketPacket, engine_payload, write_ack},
};

const JOB_UPDATE: &str = r#"{"delete_requested_at":"2026-11-23T17:19:36.263210358Z","id":"2cffd0ea-1dac-44c0-b414-5a2ca7930d63","name":"shot_010_anim 🎬","previous_status":"queued","priority":50,"refresh_tasks":false,"status":"active","steps_completed":3,"steps_total":25,"type":"simple-blender-render","updated":"2026-11-23T17:19:36.263210358Z"}"#;
const SUBSCRIPTION: &str =
    r#"4217["/subscription",{"op":"subscribe","type":"job","uuid":"2cffd0ea-1dac-44c0-b414-5a2ca7930d63"}]"#;
const LIMITS: OutboxLimits = OutboxLimits { bytes: 1 << 20, age: Duration::from_secs(10), lag: Duration::from_secs(1) };

fn event() -> Arc<FarmEvent> {
    Arc::new(FarmEvent::parse(EventKind::JobUpdate, JOB_UPDATE).expect("it is valid"))
}

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packets");
    let body = format!(r#"{{"id":"a","type":"job-update","payload":{JOB_UPDATE}}}"#);
    group.bench_function("decode an event of the Manager", |b| {
        b.iter(|| decode::decode_event(black_box(body.as_bytes())))
    });
    let update = event();
    group.bench_function("encode a broadcast", |b| b.iter(|| Frame::event(clock::now(), black_box(&update))));
    group.bench_function("decode a subscription", |b| {
        b.iter(|| {
            let packet = EnginePacket::decode_text(black_box(SUBSCRIPTION)).expect("it is valid");
            Connection::new().receive(packet).expect("it is valid");
        });
    });
    group
        .bench_function("decode a Socket.IO event", |b| b.iter(|| SocketPacket::decode(black_box(&SUBSCRIPTION[1..]))));
    let SocketPacket::Event { ack: Some(ack), .. } = SocketPacket::decode(&SUBSCRIPTION[1..]).expect("it is valid")
    else {
        unreachable!("it is an event with an acknowledgement")
    };
    group.bench_function("encode an acknowledgement", |b| {
        b.iter_batched_ref(
            || Vec::with_capacity(64),
            |out| write_ack(out, black_box(ack), "ok"),
            BatchSize::SmallInput,
        );
    });
    let frame = Frame::event(clock::now(), &update);
    let packets: Vec<_> = (0..16).map(|_| frame.packet().expect("it is text")).collect();
    let mut payload = Vec::new();
    engine_payload::encode_text(&packets, &mut payload);
    group.bench_function("encode a polling body of 16", |b| {
        b.iter_batched_ref(
            Vec::new,
            |out| engine_payload::encode_text(black_box(&packets), out),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decode a polling body of 16", |b| {
        b.iter(|| engine_payload::Payload::decode(black_box(&payload), 100).expect("it is valid"));
    });
    group.finish();
}

fn membership(c: &mut Criterion) {
    let mut group = c.benchmark_group("membership");
    for members in [1_u32, 10_000, 100_000] {
        let mut rooms = Membership::default();
        for member in 0..members {
            rooms.join(member, Room::Jobs);
            rooms.join(member, Room::Chat);
        }
        group.bench_with_input(BenchmarkId::new("join and leave", members), &members, |b, &members| {
            b.iter(|| {
                rooms.join(black_box(members), Room::Jobs);
                rooms.leave(black_box(members), Room::Jobs);
            });
        });
        group.bench_with_input(BenchmarkId::new("route to all", members), &members, |b, _| {
            b.iter(|| rooms.members(black_box(Room::Jobs)).iter().map(|&member| u64::from(member)).sum::<u64>());
        });
    }
    group.finish();
}

fn outbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox");
    let frame = Frame::event(clock::now(), &event());
    for frames in [1_u64, 200] {
        group.bench_with_input(BenchmarkId::new("push, copy and drop", frames), &frames, |b, &frames| {
            let outbox = Outbox::new();
            let home = Home { worker: Workers::new().claim().expect("the first is free"), slot: 0 };
            outbox.set_home(home, Taker::Stream);
            let mut scratch = Vec::with_capacity(1 << 20);
            let mut seq = 0;
            b.iter(|| {
                for _ in 0..frames {
                    seq += 1;
                    outbox.push(seq, black_box(&frame), &LIMITS);
                }
                scratch.clear();
                outbox.copy_to(&mut scratch, 1 << 20);
                outbox.advance(scratch.len(), clock::now());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, packets, membership, outbox);
criterion_main!(benches);
