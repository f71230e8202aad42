//! The tables of tests in the documentation are true: each test that they name exists.

use std::{collections::BTreeSet, fs, path::Path};

/// Returns the tests that the table with this heading names in its last column, as file and name, each checked to exist.
fn named(document: &str, heading: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(document)).unwrap();
    let mut tests = Vec::new();
    for (_, table) in text.match_indices(heading).map(|(at, _)| text.split_at(at)) {
        for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            let (_, last) = row.trim_end_matches([' ', '|']).rsplit_once(" | ").unwrap();
            // Some have a word about the test behind it.
            for cell in last.split("; ").filter(|cell| cell.starts_with('`')) {
                let (file, name) = cell.trim_start_matches('`').split_once("` ").unwrap_or_else(|| panic!("{row}"));
                let path = if file.starts_with("src/") { root.join(file) } else { root.join("tests").join(file) };
                let code = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
                let marker = match name.strip_prefix('"') {
                    Some(title) => format!("'{}'", title.split('"').next().unwrap()),
                    None => format!("fn {}()", name.split(' ').next().unwrap()),
                };
                assert!(code.contains(&marker), "{file} has no {marker}");
                tests.push((file.to_owned(), marker));
            }
        }
    }
    tests
}

#[test]
fn each_known_failure_has_a_test_of_its_own() {
    let tests = named("docs/reliability.md", "| CVE |");
    assert!(tests.len() >= 17, "the table was read");
    assert_eq!(tests.iter().collect::<BTreeSet<_>>().len(), tests.len(), "none stands there twice");
}

#[test]
fn requirements_of_http_have_tests() {
    let tests = named("docs/http.md", "| section |");
    assert!(tests.len() >= 60, "the tables were read: {}", tests.len());
}

#[test]
fn threats_have_tests() {
    let tests = named("docs/security.md", "| attacker |");
    assert!(tests.len() >= 20, "the table was read: {}", tests.len());
}
