//! Descriptions of both ports for programs: OpenAPI of this one, AsyncAPI of the browsers'. The
//! payloads of events, which they share, are in a file of their own, and the labels come from the tables.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use crate::{
    disconnect::Disconnect,
    farm::EventKind,
    http::EmbeddedFile,
    stats::{Refused, Resumed, Source, SourceState},
};

pub(super) const OPENAPI: &str = "/api/openapi.json";
pub(super) const ASYNCAPI: &str = "/api/asyncapi.json";

/// The documents, made when the first request for one comes.
static FILES: LazyLock<[EmbeddedFile; 2]> = LazyLock::new(|| {
    [
        ("openapi.json", include_str!("documents/openapi.json")),
        ("asyncapi.json", include_str!("documents/asyncapi.json")),
    ]
    .map(|(name, text)| EmbeddedFile::new(name, complete(text).to_string().into(), false))
});

/// Returns whether a request is for a document. They hold nothing secret and need no token.
pub(super) fn is_document(path: &str) -> bool {
    [OPENAPI, ASYNCAPI].contains(&path)
}

pub(super) async fn document(request: HttpRequest) -> HttpResponse {
    let file = FILES.iter().find(|file| request.path().ends_with(file.name));
    file.map_or_else(super::not_found, |file| file.answer(&request))
}

/// Adds what the documents have in common.
fn complete(document: &str) -> Value {
    const WRITTEN: &str = "a unit test reads the documents";
    let mut document: Value = serde_json::from_str(document).expect(WRITTEN);
    let payloads: Map<String, Value> = serde_json::from_str(include_str!("documents/payloads.json")).expect(WRITTEN);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let schemas = document["components"]["schemas"].as_object_mut().expect(WRITTEN);
    schemas.extend(payloads);
    schemas.extend(labels().map(|(name, labels)| (name.to_owned(), json!({ "type": "string", "enum": labels }))));
    document
}

/// Returns the values of texts that come from tables.
fn labels() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let reasons = Resumed::ALL.into_iter().filter(|outcome| outcome.message().is_some());
    [
        ("EventKind", EventKind::ALL.map(EventKind::as_str).to_vec()),
        ("Refusal", Refused::ALL.map(Refused::as_str).to_vec()),
        ("CloseReason", Disconnect::ALL.map(Disconnect::as_str).to_vec()),
        ("ResumeResult", Resumed::ALL.map(Resumed::as_str).to_vec()),
        ("ResumeReason", reasons.map(Resumed::as_str).collect()),
        ("Source", Source::ALL.map(Source::as_str).to_vec()),
        ("SourceState", SourceState::ALL.map(SourceState::as_str).to_vec()),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
    };

    use super::*;
    use crate::{
        farm::{FarmEvent, ResumeRequest, Room, Route, SubscriptionRequest, decode},
        manager_port::resources,
    };

    const ID: &str = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21";

    fn read(name: &str) -> Value {
        let text = match name {
            OPENAPI => include_str!("documents/openapi.json"),
            _ => include_str!("documents/asyncapi.json"),
        };
        complete(text)
    }

    fn object(value: &Value) -> &Map<String, Value> {
        value.as_object().unwrap()
    }

    fn texts(value: &Value) -> BTreeSet<&str> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
    }

    fn kinds() -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Unread)
    }

    /// Returns the schema that `value` refers to.
    fn follow<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => document.pointer(place.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{place}")),
            None => value,
        }
    }

    /// Returns the payload's schema of each event kind, from the `Event` of the Manager's port.
    fn payloads(openapi: &Value) -> BTreeMap<&str, &Value> {
        let events = openapi["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap();
        let of = |event: &'_ Value| event["properties"]["type"]["const"].as_str().map(str::to_owned);
        events
            .iter()
            .map(|event| {
                let kind = of(event).unwrap();
                let kind = kinds().find(|known| known.as_str() == kind).unwrap().as_str();
                (kind, follow(openapi, &event["properties"]["payload"]))
            })
            .collect()
    }

    fn recording() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/farm-3.9.ndjson");
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_path_of_the_managers_port_is_described() {
        let openapi = read(OPENAPI);
        let described: BTreeMap<_, BTreeSet<String>> = object(&openapi["paths"])
            .iter()
            .map(|(path, methods)| (path.as_str(), object(methods).keys().map(|name| name.to_uppercase()).collect()))
            .collect();
        let served = resources().into_iter().map(|resource| {
            let methods = resource.allow.split(", ").filter(|method| *method != "HEAD");
            (resource.path, methods.map(str::to_owned).collect())
        });
        assert_eq!(described, served.collect());
    }

    #[test]
    fn every_event_kind_is_described() {
        let openapi = read(OPENAPI);
        assert_eq!(payloads(&openapi).into_keys().collect::<BTreeSet<_>>(), kinds().map(EventKind::as_str).collect());
    }

    #[test]
    fn each_room_has_the_events_that_are_sent_to_it() {
        let asyncapi = read(ASYNCAPI);
        let mut sent: BTreeMap<Option<String>, BTreeSet<&str>> = BTreeMap::new();
        for kind in kinds() {
            let rooms = match kind.route() {
                Route::Everyone => vec![None],
                Route::Room(room) => vec![Some(room.to_string())],
                Route::Job => vec![Some("job-{uuid}".to_owned())],
                Route::TaskLog => vec![Some("tasklog-{uuid}".to_owned())],
                Route::JobAnd(room) => vec![Some("job-{uuid}".to_owned()), Some(room.to_string())],
            };
            for room in rooms {
                sent.entry(room).or_default().insert(kind.wire_name());
            }
        }
        let channels = object(&asyncapi["channels"]).iter();
        let described = channels.filter(|(name, _)| !["requests", "acknowledgements"].contains(&name.as_str()));
        let described = described.map(|(_, channel)| {
            let messages = object(&channel["messages"]).values();
            let names = messages.map(|message| follow(&asyncapi, message)["name"].as_str().unwrap());
            (channel["address"].as_str().map(str::to_owned), names.collect())
        });
        assert_eq!(described.collect::<BTreeMap<_, BTreeSet<&str>>>(), sent);
        for name in Room::NAMES.split(", ").filter(|name| !name.contains(' ')) {
            let name = name.replace("<uuid>", "{uuid}");
            assert!(sent.contains_key(&Some(name.clone())), "{name}");
        }
    }

    #[test]
    fn a_message_has_the_payload_of_its_event_in_both_documents() {
        let (openapi, asyncapi) = (read(OPENAPI), read(ASYNCAPI));
        let payloads = payloads(&openapi);
        let messages = object(&asyncapi["components"]["messages"]);
        for kind in kinds() {
            let message = messages.values().find(|message| message["name"] == kind.wire_name()).unwrap();
            assert_eq!(follow(&asyncapi, &message["payload"]), payloads[kind.as_str()], "{kind}");
        }
    }

    #[test]
    fn rooms_are_subscribed_to_as_described() {
        let asyncapi = read(ASYNCAPI);
        let types = texts(&asyncapi["components"]["schemas"]["Subscription"]["properties"]["type"]["enum"]);
        let names = Room::NAMES.split(", ").filter(|name| !name.contains(' '));
        let rooms = names.map(|name| name.replace("<uuid>", ID).parse::<Room>().unwrap());
        assert_eq!(types, rooms.filter_map(|room| room.subscription().map(|(kind, _)| kind)).collect());
    }

    /// What the schema requires is what the decoder requires, and what it describes has the types that
    /// the decoder wants.
    #[test]
    fn the_decoder_takes_what_the_schemas_describe() {
        let openapi = read(OPENAPI);
        for (kind, schema) in payloads(&openapi) {
            let kind: EventKind = kind.parse().unwrap();
            let parse = |payload: &Map<String, Value>| FarmEvent::parse(kind, &json!(payload).to_string());
            let required = texts(&schema["required"]);
            for example in schema["examples"].as_array().unwrap() {
                let example = object(example);
                parse(example).unwrap();
                for name in object(&schema["properties"]).keys() {
                    let mut without = example.clone();
                    without.remove(name);
                    assert_eq!(parse(&without).is_err(), required.contains(name.as_str()), "{kind} without {name}");
                    let wrong = example.iter().map(|(key, value)| (key.clone(), value.clone()));
                    let wrong = wrong.chain([(name.clone(), json!([7]))]).collect();
                    let error = parse(&wrong).unwrap_err().to_string();
                    assert!(error.starts_with(name), "{kind} with a wrong {name}: {error}");
                }
            }
        }
    }

    #[test]
    fn examples_are_recorded_and_are_decoded() {
        let (openapi, asyncapi) = (read(OPENAPI), read(ASYNCAPI));
        let recorded: Vec<_> = recording().into_iter().map(|mut event| event["payload"].take()).collect();
        let mut found = 0;
        for (kind, schema) in payloads(&openapi) {
            for example in schema["examples"].as_array().unwrap() {
                let is_chat = kind == EventKind::ChatMessage.as_str();
                assert!(is_chat || recorded.contains(example), "{kind}: {example} is not in the recording");
                found += 1;
            }
        }
        assert!(found >= 11, "{found} examples");
        let events = openapi["components"]["schemas"]["Event"]["examples"].to_string();
        assert_eq!(decode::decode_body(events.as_bytes()).unwrap().len(), EventKind::ALL.len() - 1, "one of each");
        let examples = |name: &str| asyncapi["components"]["messages"][name]["examples"].as_array().unwrap().clone();
        for example in examples("subscription") {
            SubscriptionRequest::parse(&example["payload"].to_string()).unwrap();
        }
        for example in examples("resume") {
            ResumeRequest::parse(&example["payload"].to_string()).unwrap();
        }
    }

    #[test]
    fn the_recording_has_no_field_that_is_not_described() {
        let openapi = read(OPENAPI);
        let payloads = payloads(&openapi);
        let recording = recording();
        for event in &recording {
            let described = object(&payloads[event["type"].as_str().unwrap()]["properties"]);
            for name in object(&event["payload"]).keys() {
                assert!(described.contains_key(name), "{}: {name}", event["type"]);
            }
        }
        assert!(recording.len() > 400);
    }
}
