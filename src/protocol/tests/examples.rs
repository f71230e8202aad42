//! The examples talk to each other.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Cargo builds the examples of a package along with its tests, beside them.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("the system knows which program this is");
    let path: PathBuf =
        test.ancestors().nth(2).expect("tests are in target/<profile>/deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing: run the whole package's tests, or `cargo build --examples`", path.display());
    Command::new(path)
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn client_and_server_exchange_an_event_and_its_acknowledgement() {
    let mut server = Killed(example("server").stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.trim_end().strip_prefix("listening ").unwrap();
    for (name, json) in [("hello", r#""world""#), ("/chat", r#"{"text":"čekaj 🎬"}"#)] {
        let client = example("client").args([address, name, json]).output().unwrap();
        assert!(client.status.success(), "{client:?}");
        let printed: String = String::from_utf8(client.stdout).unwrap();
        let printed: Vec<_> = printed.lines().collect();
        assert_eq!(printed.len(), 2, "{printed:?}");
        let echoed: serde_json::Value =
            serde_json::from_str(printed[0].strip_prefix(&format!("event {name} ")).unwrap()).unwrap();
        assert_eq!(echoed, serde_json::from_str::<serde_json::Value>(json).unwrap());
        assert_eq!(printed[1], r#"acknowledged "ok""#);
    }
}
