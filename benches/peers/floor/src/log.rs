//! The frames everybody is to get, one after the other in one buffer. Offsets count from the first byte ever.

use crate::frame;

#[derive(Default)]
pub struct Log {
    bytes: Vec<u8>,
    start: u64,
}

impl Log {
    pub fn append(&mut self, frames: &[u8]) {
        self.bytes.extend_from_slice(frames);
    }

    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub fn since(&self, cursor: u64) -> &[u8] {
        &self.bytes[(cursor - self.start) as usize..]
    }

    /// Where the frame that starts at `cursor` ends.
    pub fn frame_end(&self, cursor: u64) -> u64 {
        cursor + frame::length(self.since(cursor)) as u64
    }

    /// Forgets everything: to be called when every client has everything.
    pub fn clear(&mut self) {
        self.start = self.end();
        self.bytes.clear();
    }
}
