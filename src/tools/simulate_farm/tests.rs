use std::collections::HashSet;
use std::time::Duration;

use super::stream::{Pace, print};
use super::*;
use ::farm::decode::decode_event;

fn settings(seed: u64) -> Settings {
    Settings { workers: 6, jobs: 4, seed, start: "2026-01-01T08:00:00Z".parse().unwrap() }
}

fn printed(settings: Settings, pace: Pace, seconds: u64) -> (String, Vec<Duration>) {
    let (mut out, mut waits) = (Vec::new(), Vec::new());
    print(settings, pace, Some(Duration::from_secs(seconds)), &mut out, |until| waits.push(until)).unwrap();
    (String::from_utf8(out).unwrap(), waits)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let stream = |seed| printed(settings(seed), Pace::Flat, 120).0;
    assert_eq!(stream(7), stream(7));
    assert_ne!(stream(7), stream(8));
}

#[test]
fn what_is_printed_does_not_depend_on_the_pace() {
    let (flat, waits) = printed(settings(7), Pace::Flat, 60);
    assert!(waits.is_empty());
    let (own, waits) = printed(settings(7), Pace::OwnTime, 60);
    assert_eq!(flat, own);
    assert_eq!(waits.len(), flat.lines().count() - 1, "the shutdown comes at once");
    assert!(waits.is_sorted());
}

#[test]
fn a_rate_spaces_events_evenly_and_fixes_their_number() {
    let (stream, waits) = printed(settings(7), Pace::PerSecond(100.0), 2);
    assert_eq!(waits.len(), 201);
    assert_eq!(waits[150], Duration::from_millis(1500));
    assert!(stream.ends_with("{\"type\":\"manager-shutdown\"}}\n"), "{stream}");
}

#[test]
fn every_line_is_an_event_with_an_id_of_its_own() {
    let (stream, _) = printed(settings(1), Pace::Flat, 300);
    let mut ids = HashSet::new();
    for line in stream.lines() {
        let incoming = decode_event(line.as_bytes()).unwrap();
        assert!(!incoming.dropped_previous_status, "{line}");
        assert_eq!(incoming.event.unknown_status(), None, "{line}");
        assert!(ids.insert(incoming.id.unwrap().as_str().to_owned()), "{line}");
    }
    assert!(ids.len() > 1000);
}

#[test]
fn a_farm_that_lives_on_stays_small() {
    let mut farm = Farm::new(settings(3));
    let limit = Duration::from_secs(3600);
    let mut events = 0_u64;
    while farm.next().is_some_and(|(due, _)| due < limit) {
        events += 1;
        assert!(farm.jobs.len() < 60, "{} jobs", farm.jobs.len());
        assert!(farm.agenda.len() < 150, "{} things noted", farm.agenda.len());
    }
    assert!(events > 25_000, "only {events} events in an hour");
    assert!(farm.tags.len() <= 5);
}

#[test]
fn a_farm_of_one_worker_or_without_jobs_lives_too() {
    let lone = Farm::new(Settings { workers: 1, ..settings(5) })
        .take(5000)
        .filter(|(_, event)| event.json().contains(r#""status":"completed""#));
    assert!(lone.count() > 20);
    assert!(Farm::new(Settings { jobs: 0, ..settings(5) }).take(500).all(|(_, event)| !event.json().contains("job")));
}
