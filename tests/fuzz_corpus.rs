//! What fuzzers found interesting, tried again: the oracles of the fuzz targets over the committed corpus.

use std::{fs, path::Path};

#[expect(unreachable_pub, reason = "it is a library for the fuzz targets")]
#[path = "../fuzz/src/lib.rs"]
mod oracles;

/// Gives every file of a target's corpus to its oracle, which fails if something does not hold.
fn replay(target: &str, oracle: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> =
        fs::read_dir(&folder).expect("the corpus is there").map(|file| file.expect("readable").path()).collect();
    assert!(files.len() > 5, "{} holds {} files", folder.display(), files.len());
    for file in files {
        // Shown only when the next line fails.
        eprintln!("{}", file.display());
        oracle(&fs::read(file).expect("readable"));
    }
}

#[test]
fn engine_packet() {
    replay("engine_packet", oracles::engine_packet);
}

#[test]
fn payload() {
    replay("payload", oracles::payload);
}

#[test]
fn socket_packet() {
    replay("socket_packet", oracles::socket_packet);
}

#[test]
fn subscription() {
    replay("subscription", oracles::subscription);
}

#[test]
fn ingest_json() {
    replay("ingest_json", oracles::ingest_json);
}

#[test]
fn session_model() {
    replay("session_model", oracles::session_model);
}
