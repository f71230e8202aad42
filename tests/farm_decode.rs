//! What a Manager may send, what it may not, and the errors that it gets then.

#![expect(clippy::panic, reason = "a test ends where its data are not what it was written for")]

use flamenco_webupdates::farm::FarmEvent;
use flamenco_webupdates::farm::decode::{BodyError, DecodeError, decode_body, decode_event};
use proptest::prelude::*;
use serde_json::{Value, json};

const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

/// A good event of `kind`, to be spoilt.
fn good(kind: &str) -> Value {
    let at = "2026-11-23T08:00:00.123456789+01:00";
    let payload = match kind {
        "new-job" => json!({"id": ID, "name": "a", "updated": at, "status": "queued", "type": "t", "priority": 50,
            "refresh_tasks": false, "steps_completed": 0, "steps_total": 3, "delete_requested_at": at, "was_deleted": false}),
        "job-update" => json!({"id": ID, "name": "a", "updated": at, "status": "active", "previous_status": "queued",
            "type": "t", "priority": 50, "refresh_tasks": false, "steps_completed": 0, "steps_total": 3,
            "delete_requested_at": at, "was_deleted": false}),
        "task-update" => json!({"id": ID, "job_id": ID, "name": "a", "updated": at, "status": "active",
            "previous_status": "queued", "activity": "", "worker": {"name": "w", "uuid": ID}, "steps_completed": 0,
            "steps_total": 3}),
        "task-log-update" => json!({"task_id": ID, "log": "line\nline\u{0}"}),
        "last-rendered" => json!({"job_id": ID, "thumbnail": {"base": "/b", "suffixes": ["a.jpg", "b.jpg"]}}),
        "new-worker" => json!({"id": ID, "name": "w", "updated": at, "last_seen": at, "status": "starting",
            "status_change": {"status": "asleep", "is_lazy": true}, "version": "3", "deleted_at": at, "can_restart": true}),
        "worker-update" => json!({"id": ID, "name": "w", "updated": at, "last_seen": at, "status": "starting",
            "previous_status": "offline", "status_change": {"status": "asleep", "is_lazy": true}, "version": "3",
            "deleted_at": at, "can_restart": true}),
        "worker-tag-update" => {
            json!({"tag": {"id": ID, "name": "GPU", "description": "fast"}, "was_deleted": true})
        }
        "life-cycle" => json!({"type": "manager-startup"}),
        "farm-status" => json!({"status": "idle"}),
        "chat-message" => json!({"name": "Zoë", "text": "hi"}),
        other => panic!("{other}"),
    };
    json!({"id": "e1", "type": kind, "payload": payload})
}

const KINDS: [&str; 11] = [
    "new-job",
    "job-update",
    "task-update",
    "task-log-update",
    "last-rendered",
    "new-worker",
    "worker-update",
    "worker-tag-update",
    "life-cycle",
    "farm-status",
    "chat-message",
];

/// Field and sentence with which `event` is refused.
fn refusal(event: &str) -> (String, String) {
    let error = decode_event(event.as_bytes()).expect_err(event);
    match &error {
        DecodeError::Invalid { field, .. } => (field.clone(), error.to_string()),
        DecodeError::NotJson { .. } => panic!("{error}: {event}"),
    }
}

fn json_of(event: &str) -> String {
    decode_event(event.as_bytes()).unwrap_or_else(|error| panic!("{error}: {event}")).event.json().to_owned()
}

#[test]
fn good_events_of_every_kind_pass() {
    for kind in KINDS {
        let event = good(kind);
        let incoming = decode_event(event.to_string().as_bytes()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(incoming.event.kind().as_str(), kind);
        assert_eq!(incoming.event.json(), event["payload"].to_string());
        assert_eq!(incoming.id.unwrap().as_str(), "e1");
        assert!(!incoming.dropped_previous_status);
    }
}

#[test]
fn exactly_the_starred_fields_are_required() {
    for (kind, required) in [
        ("new-job", "id updated status type priority refresh_tasks"),
        ("job-update", "id updated status type priority refresh_tasks"),
        ("task-update", "id job_id name updated status activity"),
        ("task-log-update", "task_id log"),
        ("last-rendered", "job_id thumbnail thumbnail.base thumbnail.suffixes"),
        ("new-worker", "id name updated status version status_change.status status_change.is_lazy"),
        ("worker-update", "id name updated status version status_change.status status_change.is_lazy"),
        ("worker-tag-update", "tag"),
        ("life-cycle", "type"),
        ("farm-status", "status"),
        ("chat-message", "name text"),
    ] {
        let required: Vec<&str> = required.split(' ').collect();
        for path in paths(&good(kind)["payload"]) {
            let mut event = good(kind);
            let (parent, name) = parent_of(&mut event["payload"], &path);
            parent.as_object_mut().unwrap().remove(name);
            if required.contains(&path.as_str()) {
                let expected = (format!("payload.{path}"), format!("payload.{path} is missing"));
                assert_eq!(refusal(&event.to_string()), expected, "{kind}");
            } else {
                assert_eq!(json_of(&event.to_string()), event["payload"].to_string(), "{kind} without {path}");
                let (parent, name) = parent_of(&mut event["payload"], &path);
                parent[name] = Value::Null;
                assert_eq!(json_of(&event.to_string()), event["payload"].to_string(), "{kind} with {path}: null");
            }
        }
    }
}

#[test]
fn every_field_of_the_wrong_type_is_named() {
    for kind in KINDS {
        for path in paths(&good(kind)["payload"]) {
            for (wrong, found) in [
                (json!({"x": 1}), "an object"),
                (json!([1]), "an array"),
                (json!("secret"), "a string"),
                (json!(1), "a number"),
                (json!(true), "a boolean"),
            ] {
                let mut event = good(kind);
                let (parent, name) = parent_of(&mut event["payload"], &path);
                let type_changes = std::mem::discriminant(&parent[name]) != std::mem::discriminant(&wrong);
                parent[name] = wrong;
                if !type_changes {
                    continue;
                }
                let (field, sentence) = refusal(&event.to_string());
                assert_eq!(field, format!("payload.{path}"), "{kind}");
                assert!(sentence.starts_with(&format!("payload.{path} is {found} where ")), "{kind}: {sentence}");
            }
        }
    }
}

/// Paths of all members in `value`, nested ones too.
fn paths(value: &Value) -> Vec<String> {
    let Some(members) = value.as_object() else { return Vec::new() };
    let nested = |(name, value): (&String, &Value)| {
        let below = paths(value).into_iter().map(|path| format!("{name}.{path}")).collect::<Vec<_>>();
        std::iter::once(name.clone()).chain(below).collect::<Vec<_>>()
    };
    members.iter().flat_map(nested).collect()
}

fn parent_of<'a>(value: &'a mut Value, path: &'a str) -> (&'a mut Value, &'a str) {
    match path.split_once('.') {
        Some((parent, rest)) => parent_of(&mut value[parent], rest),
        None => (value, path),
    }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let job = |change: fn(&mut Value)| {
        let mut event = good("job-update");
        change(&mut event);
        event.to_string()
    };
    let deep = |levels: usize| {
        let mut event = good("chat-message").to_string();
        event.insert_str(
            event.find(r#""name""#).unwrap(),
            &format!(r#""x":{}{},"#, "[".repeat(levels), "]".repeat(levels)),
        );
        event
    };
    assert!(decode_event(deep(63).as_bytes()).is_ok());
    let doubled = good("job-update").to_string().replacen(r#""priority":50"#, r#""priority":50,"prior\u0069ty":50"#, 1);
    for (event, field, sentence) in [
        ("null".to_owned(), "", "the value is null where an object is due"),
        ("[]".to_owned(), "", "the value is an array where an object is due"),
        ("{}".to_owned(), "type", "type is missing"),
        (r#"{"type":1}"#.to_owned(), "type", "type is a number where a string is due"),
        (r#"{"type":"jobs"}"#.to_owned(), "type", "type is not a kind of event that this server knows"),
        (r#"{"type":"/jobs"}"#.to_owned(), "type", "type is not a kind of event that this server knows"),
        (r#"{"type":"job-update"}"#.to_owned(), "payload", "payload is missing"),
        (r#"{"type":"job-update","type":"new-job"}"#.to_owned(), "type", "type is given more than once"),
        (
            r#"{"type":"chat-message","payload":"secret"}"#.to_owned(),
            "payload",
            "payload is a string where an object is due",
        ),
        (job(|job| job["payload"] = Value::Null), "payload", "payload is null where an object is due"),
        (job(|job| job["id"] = json!(7)), "id", "id is a number where a string is due"),
        (job(|job| job["id"] = json!("é".repeat(65))), "id", "id is longer than 128 bytes"),
        (job(|job| job["payload"]["id"] = json!("x")), "payload.id", "payload.id is not a UUID"),
        (
            job(|job| job["payload"]["id"] = json!("4b2c1f0e7c3f4f0f9a532f6d1b7f6c21")),
            "payload.id",
            "payload.id is not a UUID",
        ),
        (
            job(|job| job["payload"]["updated"] = json!("yesterday")),
            "payload.updated",
            "payload.updated is not an RFC 3339 time with at most nine digits of fraction",
        ),
        (
            job(|job| job["payload"]["delete_requested_at"] = json!("")),
            "payload.delete_requested_at",
            "payload.delete_requested_at is not an RFC 3339 time with at most nine digits of fraction",
        ),
        (
            job(|job| job["payload"]["priority"] = json!(1.5)),
            "payload.priority",
            "payload.priority is not a whole number of at most 64 bits",
        ),
        (
            job(|job| job["payload"]["steps_total"] = json!(1e2)),
            "payload.steps_total",
            "payload.steps_total is not a whole number of at most 64 bits",
        ),
        (
            job(|job| job["payload"]["status"] = Value::Null),
            "payload.status",
            "payload.status is null where a string is due",
        ),
        (doubled, "payload.priority", "payload.priority is given more than once"),
        (deep(64), "payload", "payload is nested deeper than 64 levels"),
        (deep(100_000), "payload", "payload is nested deeper than 64 levels"),
        (
            good("task-update").to_string().replace(&format!(r#""uuid":"{ID}""#), r#""uuid":"w1""#),
            "payload.worker.uuid",
            "payload.worker.uuid is not a UUID",
        ),
        (
            good("last-rendered").to_string().replace(r#""b.jpg""#, "2"),
            "payload.thumbnail.suffixes[1]",
            "payload.thumbnail.suffixes[1] is a number where a string is due",
        ),
        (good("worker-tag-update").to_string().replace(ID, "GPU"), "payload.tag.id", "payload.tag.id is not a UUID"),
    ] {
        assert_eq!(refusal(&event), (field.to_owned(), sentence.to_owned()), "{event:.300}");
    }
}

#[test]
fn invalid_json_is_reported_with_its_place() {
    for (bytes, sentence) in [
        (&b""[..], "not JSON: EOF while parsing a value at column 0"),
        (b"{\"type\":}", "not JSON: expected value at column 9"),
        (b"{\"type\":\"job-update\"", "not JSON: EOF while parsing an object at column 20"),
        (b"{}\n{}", "not JSON: trailing characters at line 2 column 1"),
        (b"{\"a\":\n\"\xff\"}", "not JSON: not UTF-8 at line 2 column 2"),
        (b"\xef\xbb\xbf{'a':1}", "not JSON: key must be a string at column 2"),
        (b"{}\xef\xbb\xbf", "not JSON: trailing characters at column 3"),
        (b"{'a':1}", "not JSON: key must be a string at column 2"),
        (b"{\"a\":\"\n\"}", "not JSON: control character (\\u0000-\\u001F) found while parsing a string at column 6"),
        (b"{\"a\":NaN}", "not JSON: expected value at column 6"),
        (b"{\"a\":01}", "not JSON: invalid number at column 7"),
    ] {
        assert_eq!(decode_event(bytes).unwrap_err().to_string(), sentence, "{}", bytes.escape_ascii());
        assert_eq!(decode_body(bytes).unwrap_err().to_string(), sentence);
        assert_eq!(decode_body(bytes).unwrap_err().index, None);
    }
}

#[test]
fn an_array_is_all_or_nothing() {
    let chat = good("chat-message").to_string();
    let index = |body: String| match decode_body(body.as_bytes()) {
        Err(BodyError { index, error: DecodeError::Invalid { field, .. } }) => (index, field),
        other => panic!("{other:?}"),
    };
    assert_eq!(decode_body(b"[]"), Ok(vec![]));
    assert_eq!(decode_body(chat.as_bytes()).unwrap().len(), 1);
    assert_eq!(decode_body(format!(" [{chat} ,\n{chat}]\n").as_bytes()).unwrap().len(), 2);
    assert_eq!(index(format!("[{chat},{{}}, 1]")), (Some(1), "type".to_owned()));
    assert_eq!(index(format!("[{chat},[{chat}]]")), (Some(1), String::new()));
    assert_eq!(index("{}".to_owned()), (None, "type".to_owned()));
}

#[test]
fn a_new_job_or_worker_had_no_status_before() {
    for kind in ["job", "worker"] {
        for (previous, dropped) in
            [(r#""previous_status": "queued" , "#, true), (r#""previous_status":null,"#, true), ("", false)]
        {
            let payload = |previous: &str| {
                let good = good(&format!("{kind}-update"))["payload"].to_string();
                let (before, after) = good.split_once(r#""previous_status""#).unwrap();
                let (_, after) = after.split_once(',').unwrap();
                format!("{before}{previous}\"X\":1.0,{after}")
            };
            let incoming =
                decode_event(format!(r#"{{"type":"new-{kind}","payload":{}}}"#, payload(previous)).as_bytes()).unwrap();
            assert_eq!(incoming.event.json(), payload(""));
            assert_eq!(incoming.dropped_previous_status, dropped);
            let (FarmEvent::NewJob(_) | FarmEvent::NewWorker(_)) = incoming.event else { panic!("{incoming:?}") };
        }
        let wrong = format!(r#"{{"type":"new-{kind}","payload":{}}}"#, good(&format!("{kind}-update"))["payload"]);
        let wrong = wrong.replace(r#""previous_status":"#, r#""previous_status":1,"y":"#);
        assert_eq!(refusal(&wrong).1, "payload.previous_status is a number where a string is due");
    }
}

#[test]
fn a_deleted_job_has_zero_values() {
    let payload = format!(
        r#"{{"id":"{ID}","priority":0,"refresh_tasks":false,"status":"","type":"","updated":"0001-01-01T00:00:00Z","was_deleted":true}}"#
    );
    let incoming = decode_event(format!(r#"{{"type":"job-update","payload":{payload}}}"#).as_bytes()).unwrap();
    assert_eq!(incoming.event.json(), payload);
    assert_eq!(incoming.event.unknown_status(), None);
}

#[test]
fn ids_are_texts_and_an_empty_one_is_none() {
    let with_id = |id: &str| {
        let event = good("farm-status").to_string().replace(r#""e1""#, id);
        decode_event(event.as_bytes()).unwrap().id.map(|id| id.as_str().to_owned())
    };
    assert_eq!(with_id(r#""\u0061 / 🎬""#), Some("a / 🎬".to_owned()));
    assert_eq!(with_id(&format!("\"{}\"", "x".repeat(128))), Some("x".repeat(128)));
    assert_eq!(with_id("null"), None);
    assert_eq!(with_id(r#""""#), None);
}

#[test]
fn half_characters_pass_wherever_there_is_a_text() {
    let half = r#""\ud800 \uDFFF\u0000""#;
    for kind in KINDS {
        for path in paths(&good(kind)["payload"]) {
            let mut event = good(kind);
            let (parent, name) = parent_of(&mut event["payload"], &path);
            if !parent[name].is_string()
                || [json!(ID), json!("2026-11-23T08:00:00.123456789+01:00")].contains(&parent[name])
            {
                continue;
            }
            parent[name] = json!("HALF");
            let payload = event["payload"].to_string().replace(r#""HALF""#, half);
            let event = event.to_string().replace(r#""HALF""#, half).replacen('{', r#"{"\ud800":1,"#, 1);
            assert_eq!(json_of(&event), payload, "{kind} {path}");
        }
    }
}

/// Any JSON value, spelled in ways that a reader and writer of values would not bring back.
fn odd_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0".to_owned()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        odd_text(),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[ {}]", items.join(" ,\t"))),
            prop::collection::vec((odd_text(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name} :{value}")).collect();
                format!("{{{} \r}}", members.join(",\n"))
            }),
        ]
    })
}

fn odd_text() -> impl Strategy<Value = String> {
    "\"([a-z{}\\[\\],:🎬é\u{2028}]|\\\\u[0-9a-fA-F]{4}|\\\\[\"\\\\/bfnrt]){0,12}\""
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_event(&bytes);
        let _ = decode_body(&bytes);
    }

    #[test]
    fn no_spoilt_event_makes_it_panic(kind in 0..KINDS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = good(KINDS[kind]).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_event(&bytes);
        let _ = decode_body(&bytes[..at]);
    }

    #[test]
    fn fields_of_a_newer_manager_survive_byte_for_byte(
        kind in 0..KINDS.len(),
        unknown in prop::collection::vec((odd_text(), odd_json()), 0..5),
        first in any::<bool>(),
    ) {
        let good = good(KINDS[kind]);
        let known = good["payload"].to_string();
        let known = known.trim_matches(['{', '}']);
        // A nested object at the end lost its bracket to the trimming.
        let known = format!("{known}{}", "}".repeat(known.matches('{').count() - known.matches('}').count()));
        let unknown: String = unknown.iter().map(|(name, value)| format!("\"x{} : {value} ,", &name[1..])).collect();
        let payload = match first {
            true => format!("{{ {unknown}{known}}}"),
            false => format!("{{{known},\n{unknown}\"x\":[]}}"),
        };
        let event = format!(r#"{{"payload":{payload},"type":"{}","later":{{}}}}"#, KINDS[kind]);
        prop_assert_eq!(json_of(&event), payload);
    }
}
