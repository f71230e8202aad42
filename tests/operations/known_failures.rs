//! What `docs/reliability.md` says of known failures is so: each names a test that exists, and no two the same.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn each_has_a_test_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let (_, table) = docs.split_once("| CVE |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut tests = BTreeSet::new();
    for row in rows {
        let (_, named) = row.rsplit_once(" | `").unwrap();
        let (file, name) = named.split_once("` ").unwrap();
        let path = if file.starts_with("src/") { root.join(file) } else { root.join("tests").join(file) };
        let code = fs::read_to_string(&path).unwrap();
        let marker = match name.strip_prefix('"') {
            Some(title) => format!("'{}'", title.split('"').next().unwrap()),
            None => format!("fn {}()", name.split(' ').next().unwrap()),
        };
        assert!(code.contains(&marker), "{file} has no {marker}");
        assert!(tests.insert((file, marker)), "{name} stands there twice");
    }
    assert!(tests.len() >= 17, "the table was read");
}
