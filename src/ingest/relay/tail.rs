//! Follows a growing file without I/O: decides what to read next, and splits what was read into
//! whole lines.

use serde::{Deserialize, Serialize};

/// Bytes before the next one that are read again each time. If they have changed, the file was
/// replaced.
const OVERLAP: usize = 64;

/// The maximum number of bytes read at once.
const MAX_READ: u64 = 256 * 1024;

/// The maximum number of bytes in one chunk of text.
const MAX_CHUNK: usize = 64 * 1024;

/// How many reads without new bytes pass before an incomplete line is published.
const PATIENCE: u32 = 5;

/// A file that another program writes, and how far it was read.
#[derive(Debug)]
pub(super) struct Tail {
    /// The end of what was published; `None` of its bytes while they are unknown.
    offset: u64,
    before: Option<Vec<u8>>,
    /// What was read after it: the beginning of an incomplete line.
    line: Vec<u8>,
    quiet: u32,
}

/// How far a file was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    offset: u64,
    /// The bytes right before it, by which a file that replaced this one is noticed.
    before: Vec<u8>,
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whole lines of text, as far as there are line ends.
    pub(super) chunks: Vec<String>,
    /// Whether more may be available already.
    pub(super) has_more: bool,
}

impl Tail {
    /// Starts at the end of a file of this size.
    pub(super) fn at_end(size: u64) -> Self {
        Self { offset: size, before: (size == 0).then(Vec::new), line: Vec::new(), quiet: 0 }
    }

    /// Goes on where another tail ended.
    pub(super) fn after(Position { offset, before }: Position) -> Self {
        Self { offset, before: Some(before), line: Vec::new(), quiet: 0 }
    }

    /// Returns how far the file was published, once it was read.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position { offset: self.offset, before: self.before.clone()? })
    }

    /// Returns the range to read: its start and maximum length.
    pub(super) fn next_read(&self) -> (u64, u64) {
        let overlap = self.overlap() as u64;
        (self.read() - overlap, overlap + MAX_READ)
    }

    /// Takes the bytes that were read in the range of [`next_read`](Self::next_read).
    pub(super) fn take(&mut self, bytes: &[u8]) -> Progress {
        let Some((before, new)) = bytes.split_at_checked(self.overlap()) else { return self.restart() };
        let Some(known) = &self.before else {
            self.before = Some(before.to_vec());
            return Progress { chunks: Vec::new(), has_more: !new.is_empty() };
        };
        if before != last(known, &self.line) {
            return self.restart();
        }
        if new.is_empty() {
            return self.nothing_came();
        }
        self.quiet = 0;
        self.line.extend_from_slice(new);
        let chunks = self.take_lines();
        Progress { chunks, has_more: new.len() as u64 >= MAX_READ }
    }

    /// Handles a file that ends before the start of the read, or no longer exists.
    pub(super) fn ended_before(&mut self) -> Progress {
        if self.read() == 0 { self.nothing_came() } else { self.restart() }
    }

    /// Returns the next byte to read.
    fn read(&self) -> u64 {
        self.offset + self.line.len() as u64
    }

    fn overlap(&self) -> usize {
        self.read().min(OVERLAP as u64) as usize
    }

    /// Starts over, because another file has replaced it: all of it is new.
    fn restart(&mut self) -> Progress {
        let mut chunks = self.take_lines();
        chunks.extend(self.take_rest());
        *self = Self::at_end(0);
        Progress { chunks, has_more: true }
    }

    fn nothing_came(&mut self) -> Progress {
        self.quiet = self.quiet.saturating_add(1);
        let chunks = if self.quiet >= PATIENCE { self.take_rest().into_iter().collect() } else { Vec::new() };
        Progress { chunks, has_more: false }
    }

    /// Returns all complete lines, in chunks that end at line ends, or at character boundaries if a
    /// line is longer than a chunk.
    fn take_lines(&mut self) -> Vec<String> {
        let mut chunks = Vec::new();
        let mut rest = self.line.as_slice();
        loop {
            let window = &rest[..rest.len().min(MAX_CHUNK)];
            let end = match window.iter().rposition(|&byte| byte == b'\n') {
                Some(end) => end + 1,
                None if window.len() < MAX_CHUNK => break,
                None => end_of_character(window),
            };
            let (chunk, after) = rest.split_at(end);
            chunks.push(String::from_utf8_lossy(chunk).into_owned());
            rest = after;
        }
        let length = self.line.len() - rest.len();
        self.publish(length);
        chunks
    }

    fn take_rest(&mut self) -> Option<String> {
        let rest = (!self.line.is_empty()).then(|| String::from_utf8_lossy(&self.line).into_owned());
        self.publish(self.line.len());
        rest
    }

    /// Moves the end of what was published over so many bytes that were read.
    fn publish(&mut self, length: usize) {
        self.before = self.before.take().map(|before| last(&before, &self.line[..length]));
        self.line.drain(..length);
        self.offset += length as u64;
    }
}

/// Returns the last bytes of these two parts of a file, as many as are read again.
fn last(before: &[u8], read: &[u8]) -> Vec<u8> {
    let mut bytes = [before, &read[read.len().saturating_sub(OVERLAP)..]].concat();
    bytes.drain(..bytes.len().saturating_sub(OVERLAP));
    bytes
}

/// Returns the last character boundary.
fn end_of_character(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        Ok(_) | Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from `file` what the tail requests until it has everything. Returns all chunks.
    fn read(tail: &mut Tail, file: &[u8]) -> Vec<String> {
        let mut chunks = Vec::new();
        for _ in 0..10_000 {
            let (from, length) = tail.next_read();
            let progress = match file.get(from as usize..) {
                Some(rest) if !rest.is_empty() => tail.take(&rest[..rest.len().min(length as usize)]),
                _ => tail.ended_before(),
            };
            chunks.extend(progress.chunks);
            if !progress.has_more {
                return chunks;
            }
        }
        panic!("the tail never finishes");
    }

    #[test]
    fn only_new_text_in_whole_lines() {
        let mut file = b"old 1\nold 2\n".to_vec();
        let mut tail = Tail::at_end(file.len() as u64);
        assert_eq!(read(&mut tail, &file), [""; 0]);
        file.extend_from_slice(b"new 1\nnew");
        assert_eq!(read(&mut tail, &file), ["new 1\n"]);
        assert_eq!(read(&mut tail, &file), [""; 0]);
        file.extend_from_slice(" 2 \u{1f3ac}\nnew 3\n".as_bytes());
        assert_eq!(read(&mut tail, &file), ["new 2 \u{1f3ac}\nnew 3\n"]);
    }

    #[test]
    fn a_log_that_starts_later_is_published_from_its_beginning() {
        let mut tail = Tail::at_end(0);
        assert_eq!(read(&mut tail, b""), [""; 0]);
        assert_eq!(read(&mut tail, b"first\n"), ["first\n"]);
        assert_eq!(read(&mut tail, b"first\nsecond\n"), ["second\n"]);
    }

    #[test]
    fn a_replaced_file_is_published_from_its_beginning() {
        let old = b"the log of the first attempt, which failed\nafter a while\n".repeat(10);
        for new in [&b""[..], b"x\n", b"the log of the second attempt\n", &b"a longer one\n".repeat(1000)] {
            let mut tail = Tail::at_end(0);
            read(&mut tail, &old);
            assert_eq!(read(&mut tail, new).concat().as_bytes(), new);
            let more = [new, b"and more\n"].concat();
            assert_eq!(read(&mut tail, &more), ["and more\n"]);
        }
    }

    #[test]
    fn chunks_are_bounded_and_nothing_is_lost() {
        let lines: String = (0..100_000).map(|number| format!("line {number} \u{e9}\u{1f3ac}\n")).collect();
        let one_line = "\u{1f3ac}".repeat(100_000) + "\n";
        for text in [lines, one_line] {
            let mut tail = Tail::at_end(0);
            let chunks = read(&mut tail, text.as_bytes());
            assert!(chunks.iter().all(|chunk| chunk.len() <= MAX_CHUNK));
            assert_eq!(chunks.concat(), text);
        }
    }

    #[test]
    fn nothing_is_lost_or_duplicated_whatever_the_pieces() {
        let text: String = (0..2000).map(|number| format!("{number} {}\n", "é🎬".repeat(number % 30))).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20 {
            let (mut tail, mut size, mut published) = (Tail::at_end(0), 0, String::new());
            while size < text.len() {
                size = (size + rng.usize(1..2000)).min(text.len());
                let chunks = read(&mut tail, &text.as_bytes()[..size]);
                published.extend(chunks);
                assert!(published.is_empty() || published.ends_with('\n'));
            }
            assert_eq!(published, text);
        }
    }

    #[test]
    fn another_tail_goes_on_at_any_position() {
        let text: String = (0..500).map(|number| format!("{number} {}\n", "é".repeat(number % 40))).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut tail, mut size, mut published) = (Tail::at_end(0), 0, String::new());
        while size < text.len() {
            size = (size + rng.usize(1..300)).min(text.len());
            published.extend(read(&mut tail, &text.as_bytes()[..size]));
            tail = Tail::after(tail.position().unwrap());
        }
        assert_eq!(published, text);
        let replaced = format!("{}\n", "x".repeat(2 * text.len()));
        assert_eq!(read(&mut tail, replaced.as_bytes()).concat(), replaced);
    }

    #[test]
    fn what_is_no_utf_8_is_replaced() {
        let mut tail = Tail::at_end(0);
        assert_eq!(read(&mut tail, b"a\xffb\n"), ["a\u{fffd}b\n"]);
        let binary = [0xff_u8; 3 * MAX_CHUNK];
        assert_eq!(read(&mut tail, &[&b"a\xffb\n"[..], &binary].concat()).len(), 3);
    }

    #[test]
    fn a_line_without_end_is_published_after_a_while() {
        let mut tail = Tail::at_end(0);
        assert_eq!(read(&mut tail, b"no end"), [""; 0]);
        let published: Vec<String> = (0..PATIENCE).flat_map(|_| read(&mut tail, b"no end")).collect();
        assert_eq!(published, ["no end"]);
        assert_eq!(read(&mut tail, b"no end of it\n"), [" of it\n"]);
    }
}
