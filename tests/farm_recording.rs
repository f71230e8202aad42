//! What a real Manager sent in four minutes is read whole, goes out byte for byte and to the right rooms.

#![expect(clippy::unwrap_used, reason = "a test ends where its data are not what it was written for")]

use flamenco_webupdates::farm::decode::{decode_body, decode_event};
use flamenco_webupdates::farm::payload::{Payload, TaskLogUpdate};
use flamenco_webupdates::farm::{Audience, EventKind, FarmEvent, Room};
use serde_json::Value;

const RECORDING: &str = include_str!("data/farm-3.9.ndjson");

/// Cuts the payload out of a recorded line without any JSON reader.
fn payload_text(line: &str) -> &str {
    let (_, payload) = line.split_once(r#","payload":"#).unwrap();
    payload.strip_suffix('}').unwrap()
}

fn lines() -> impl Iterator<Item = (&'static str, Value)> {
    RECORDING.lines().map(|line| (line, serde_json::from_str(line).unwrap()))
}

#[test]
fn every_event_is_read_and_goes_out_byte_for_byte() {
    assert_eq!(RECORDING.lines().count(), 446);
    for (line, value) in lines() {
        let incoming = decode_event(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(incoming.event.json(), payload_text(line));
        assert_eq!(incoming.event.kind().as_str(), value["type"]);
        assert_eq!(incoming.event.unknown_status(), None, "{line}");
        assert_eq!(incoming.id, None);
        assert!(!incoming.dropped_previous_status);
    }
}

#[test]
fn every_event_goes_under_its_name_to_its_rooms() {
    let room = |prefix: &str, id: &Value| format!("{prefix}{}", id.as_str().unwrap()).parse::<Room>().unwrap();
    for (line, value) in lines() {
        let payload = &value["payload"];
        let (name, audience) = match value["type"].as_str().unwrap() {
            "job-update" => ("/jobs", Audience::Room(Room::Jobs)),
            "task-update" => ("/task", Audience::Room(room("job-", &payload["job_id"]))),
            "task-log-update" => ("/tasklog", Audience::Room(room("tasklog-", &payload["task_id"]))),
            "last-rendered" => {
                ("/last-rendered", Audience::Rooms([room("job-", &payload["job_id"]), Room::LastRendered]))
            }
            "worker-update" => ("/workers", Audience::Room(Room::Workers)),
            "worker-tag-update" => ("/workertags", Audience::Room(Room::WorkerTags)),
            "life-cycle" => ("/lifecycle", Audience::Everyone),
            "farm-status" => ("/status", Audience::Everyone),
            other => panic!("{other}"),
        };
        let event = decode_event(line.as_bytes()).unwrap().event;
        assert_eq!((event.wire_name(), event.audience()), (name, audience), "{line}");
    }
}

#[test]
fn what_was_read_is_written_as_go_wrote_it() {
    for (line, value) in lines() {
        let event = decode_event(line.as_bytes()).unwrap().event;
        let written = match &event {
            FarmEvent::NewJob(job) | FarmEvent::JobUpdate(job) => serde_json::to_string(&job.fields),
            FarmEvent::TaskUpdate(task) => serde_json::to_string(&task.fields),
            FarmEvent::TaskLogUpdate(log) => {
                let chunk: Payload<TaskLogUpdate> = Payload::parse(&log.json).unwrap();
                assert_eq!(chunk.fields.task_id, log.fields.task_id);
                serde_json::to_string(&chunk.fields)
            }
            FarmEvent::LastRendered(image) => serde_json::to_string(&image.fields),
            FarmEvent::NewWorker(worker) | FarmEvent::WorkerUpdate(worker) => serde_json::to_string(&worker.fields),
            FarmEvent::WorkerTagUpdate(tag) => serde_json::to_string(&tag.fields),
            FarmEvent::LifeCycle(life_cycle) => serde_json::to_string(&life_cycle.fields),
            FarmEvent::FarmStatus(report) => serde_json::to_string(&report.fields),
            FarmEvent::ChatMessage(message) => serde_json::to_string(&message.fields),
            FarmEvent::Unread(_) => unreachable!("no event that is decoded is unread"),
        }
        .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value["payload"]);
        // Go escapes a few characters that need no escape; apart from that even the bytes are the same.
        if !event.json().contains(r"\u") {
            assert_eq!(written, event.json());
        }
    }
}

#[test]
fn the_whole_recording_may_come_as_one_array() {
    let array = format!("[{}]", RECORDING.lines().collect::<Vec<_>>().join(",\n"));
    let events = decode_body(array.as_bytes()).unwrap();
    for (incoming, line) in events.iter().zip(RECORDING.lines()) {
        assert_eq!(incoming.event.json(), payload_text(line));
    }
    assert_eq!(events.len(), 446);
}

#[test]
fn a_recorded_new_job_could_come_under_that_name() {
    let line = RECORDING.lines().find(|line| line.contains("shot_010_anim")).unwrap();
    let renamed = line.replace("job-update", "new-job");
    let incoming = decode_event(renamed.as_bytes()).unwrap();
    assert_eq!(incoming.event.kind(), EventKind::NewJob);
    assert_eq!(incoming.event.json(), payload_text(line));
}
