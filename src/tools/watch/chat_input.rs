//! Chat messages from the keyboard.

use std::io::{self, BufRead, BufReader, Read};
use std::thread;

use tokio::sync::mpsc;

/// The number of lines that wait to be sent; further input waits.
const WAITING: usize = 16;
/// Longest line in bytes; what is longer is sent in pieces.
const MAX_LINE: u64 = 4096;

/// Lines of `input`, read on a thread of their own: a read from a terminal cannot be given up, and a runtime would wait
/// for it when the program ends. The thread ends with the process.
pub(super) fn lines(input: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    thread::Builder::new().name("chat-input".to_owned()).spawn(move || {
        let mut input = BufReader::new(input);
        while let Some(line) = next_line(&mut input) {
            if !line.is_empty() && sender.blocking_send(line).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// No lines, ever.
pub(super) fn none() -> mpsc::Receiver<String> {
    mpsc::channel(1).1
}

/// `None` at the end of the input, also when it ends with an error.
fn next_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE).read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_trimmed_bounded_and_without_empty_ones() {
        let long = "x".repeat(5000);
        let mut lines = lines(io::Cursor::new(format!("hello \r\n\n  čao\n{long}\nlast"))).unwrap();
        let mut received = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            received.push(line);
        }
        assert_eq!(received, ["hello", "čao", &long[..4096], &long[4096..], "last"]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_it() {
        let mut lines = lines(io::Cursor::new(b"a\xff\nb")).unwrap();
        assert_eq!(lines.blocking_recv().as_deref(), Some("a\u{fffd}"));
        assert_eq!(lines.blocking_recv().as_deref(), Some("b"));
        assert_eq!(lines.blocking_recv(), None);
    }
}
