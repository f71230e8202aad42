//! A queue of frames, the first of which may be partly written.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::BodyRoom;
use crate::{farm::Entity, frame::Frame};

/// The number of frames for which an empty queue keeps memory, so that a quiet farm never
/// allocates.
const KEPT_CAPACITY: usize = 8;

/// The number of vacant places that are tolerated before they are removed.
const MAX_VACANT: usize = 64;

/// The waiting frames.
///
/// INVARIANT: neither the first nor the last place is vacant.
#[derive(Debug, Default, Clone)]
pub(super) struct Queue {
    /// A place is vacant if a later frame superseded its frame.
    frames: VecDeque<Option<Arc<Frame>>>,
    /// Bytes of all frames, including the written part of the first.
    bytes: usize,
    /// Bytes of the first frame that are already written.
    written: usize,
    /// The number of chat messages among the frames.
    chats: u32,
    /// When the client last took bytes. Updated only while frames wait.
    progress: Option<Instant>,
    /// The place of the newest state of each entity. Present only while the client lags.
    newest: Option<Box<Newest>>,
}

#[derive(Debug, Default, Clone)]
struct Newest {
    /// Places are counted from the first frame at the time this index was built.
    places: HashMap<Entity, u64>,
    /// The number of frames that have left since.
    gone: u64,
    vacant: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the number of waiting bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes - self.written
    }

    /// Returns the age of the oldest frame. A partly written chat message is passed over, because
    /// it cannot be dropped and must not make the client overdue.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let oldest = self.frames.iter().flatten().nth(usize::from(self.is_within_chat()));
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest.published()))
    }

    /// Returns the age of the oldest frame, or the time for which the client has taken nothing,
    /// whichever is longer. Because newer states replace older ones, the oldest frame may be recent
    /// although the client has stopped reading long ago.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.age(now).max(self.took_nothing_for(now))
    }

    /// Returns for how long the client has taken nothing although frames wait.
    pub(super) fn took_nothing_for(&self, now: Instant) -> Duration {
        self.progress.map_or(Duration::ZERO, |progress| now.saturating_duration_since(progress))
    }

    /// Records that the client takes nothing for now.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.progress.get_or_insert(now);
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        if let (Some(newest), Some(entity)) = (&mut self.newest, frame.entity()) {
            newest.places.insert(entity, newest.gone + self.frames.len() as u64);
        }
        self.bytes += frame.websocket().len();
        self.chats += u32::from(frame.is_chat());
        self.frames.push_back(Some(frame));
    }

    /// Adds the frame at the end and removes the frame that it supersedes, if that waits. Returns
    /// whether it did. A frame that is partly written stays.
    pub(super) fn replace(&mut self, frame: &Arc<Frame>) -> bool {
        let Some(entity) = frame.entity() else { return false };
        let newest = self.newest.get_or_insert_with(|| Box::new(Newest::of(&self.frames)));
        let Some(place) = newest.places.get(&entity).and_then(|place| place.checked_sub(newest.gone)) else {
            return false;
        };
        if place == 0 && self.written > 0 {
            return false;
        }
        let Some(vacated) = self.frames.get_mut(place as usize) else { return false };
        // Everything that may fail happens before the first change.
        let Some((merged, size)) = vacated.as_ref().map(|older| (older.superseded_by(frame), older.websocket().len()))
        else {
            return false;
        };
        *vacated = None;
        newest.vacant += 1;
        self.bytes -= size;
        self.push(merged);
        self.drop_vacant_front();
        self.close_vacant();
        true
    }

    /// Drops all chat messages that are not partly written, and returns their number. If no other
    /// frame waits then, the client no longer counts as blocked.
    pub(super) fn drop_chat(&mut self) -> u64 {
        let kept = u32::from(self.is_within_chat());
        let dropped = self.chats - kept;
        if dropped > 0 {
            let mut is_kept = self.written > 0;
            self.frames.retain(|frame| {
                let frame = frame.as_ref().filter(|frame| std::mem::take(&mut is_kept) || !frame.is_chat());
                frame.is_some()
            });
            self.chats = kept;
            self.bytes = self.frames.iter().flatten().map(|frame| frame.websocket().len()).sum();
            if self.newest.is_some() {
                self.newest = Some(Box::new(Newest::of(&self.frames)));
            }
        }
        if self.frames.len() == kept as usize {
            self.progress = None;
        }
        u64::from(dropped)
    }

    /// Returns whether the first frame is a partly written chat message.
    fn is_within_chat(&self) -> bool {
        self.written > 0 && matches!(self.frames.front(), Some(Some(first)) if first.is_chat())
    }

    /// Copies frames to the end of `scratch`, until that holds `limit` bytes or more.
    pub(super) fn copy_to(&self, scratch: &mut Vec<u8>, limit: usize) {
        let mut skip = self.written;
        for frame in self.frames.iter().flatten() {
            if scratch.len() >= limit {
                break;
            }
            scratch.extend_from_slice(&frame.websocket()[skip..]);
            skip = 0;
        }
    }

    /// Moves frames to the end of a polling body, as many as fit, but at least one. Returns whether
    /// there was one.
    pub(super) fn take_polling(&mut self, body: &mut Vec<u8>, room: BodyRoom, now: Instant) -> bool {
        if self.frames.is_empty() {
            return false;
        }
        body.reserve(self.bytes.min(room.bytes) + 16);
        let mut size = 0;
        for frame in self.frames.iter().flatten().take(room.packets) {
            let more = size + frame.websocket().len();
            if size > 0 && more > room.bytes {
                break;
            }
            body.extend_from_slice(frame.polling());
            size = more;
        }
        self.advance(size, now);
        true
    }

    /// Adds a frame of which the client already has `written` bytes. If that is not 0, the queue
    /// must be empty.
    pub(super) fn resume(&mut self, frame: &Arc<Frame>, written: usize) {
        debug_assert!(written == 0 || self.frames.is_empty(), "a frame that is partly written comes first");
        self.push(frame.clone());
        self.written += written;
    }

    /// Removes written bytes, and returns how many of them were not in this queue.
    pub(super) fn advance(&mut self, bytes: usize, now: Instant) -> usize {
        let mut left = self.written + bytes;
        while let Some(Some(frame)) = self.frames.front() {
            let size = frame.websocket().len();
            if size > left {
                break;
            }
            left -= size;
            self.bytes -= size;
            self.chats -= u32::from(frame.is_chat());
            self.pop();
            self.drop_vacant_front();
        }
        if self.frames.is_empty() {
            *self = Self { frames: std::mem::take(&mut self.frames), ..Self::default() };
            self.frames.shrink_to(KEPT_CAPACITY);
            left
        } else {
            self.written = left;
            self.progress = Some(now);
            0
        }
    }

    fn pop(&mut self) {
        self.frames.pop_front();
        if let Some(newest) = &mut self.newest {
            newest.gone += 1;
        }
    }

    fn drop_vacant_front(&mut self) {
        while let Some(None) = self.frames.front() {
            self.pop();
            if let Some(newest) = &mut self.newest {
                newest.vacant -= 1;
            }
        }
    }

    /// Removes vacant places when most are vacant, so that memory stays proportional to the waiting
    /// frames.
    fn close_vacant(&mut self) {
        let vacant = self.newest.as_ref().map_or(0, |newest| newest.vacant);
        if vacant > MAX_VACANT && vacant * 2 > self.frames.len() {
            self.frames.retain(Option::is_some);
            self.newest = Some(Box::new(Newest::of(&self.frames)));
        }
    }
}

impl Newest {
    fn of(frames: &VecDeque<Option<Arc<Frame>>>) -> Self {
        let places = frames.iter().enumerate().filter_map(|(place, frame)| {
            let entity = frame.as_ref()?.entity()?;
            Some((entity, place as u64))
        });
        Self { places: places.collect(), gone: 0, vacant: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{clock, farm::EventKind, farm::FarmEvent};

    fn job(number: u8, status: &str, previous: &str) -> Arc<Frame> {
        let json = format!(
            r#"{{"id":"00000000-0000-0000-0000-0000000000{number:02x}","name":"j","updated":"2026-11-23T08:00:00Z","status":"{status}","previous_status":"{previous}","type":"t","priority":50,"refresh_tasks":false}}"#
        );
        Frame::event(clock::now(), &Arc::new(FarmEvent::parse(EventKind::JobUpdate, &json).unwrap()))
    }

    fn log(number: u32) -> Arc<Frame> {
        let json = format!(r#"{{"task_id":"00000000-0000-0000-0000-000000000001","log":"{number}"}}"#);
        Frame::event(clock::now(), &Arc::new(FarmEvent::parse(EventKind::TaskLogUpdate, &json).unwrap()))
    }

    fn chat(number: u32) -> Arc<Frame> {
        let json = format!(r#"{{"name":"n","text":"{number}"}}"#);
        Frame::event(clock::now(), &Arc::new(FarmEvent::parse(EventKind::ChatMessage, &json).unwrap()))
    }

    fn written(queue: &mut Queue) -> Vec<u8> {
        let mut out = Vec::new();
        queue.copy_to(&mut out, usize::MAX);
        queue.advance(out.len(), clock::now());
        out
    }

    fn bytes(frames: &[&Arc<Frame>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame.websocket()).copied().collect()
    }

    #[test]
    fn a_newer_state_takes_its_own_place_and_the_older_ones_previous_status() {
        let mut queue = Queue::default();
        let (between, other) = (log(1), job(2, "active", "queued"));
        queue.push(job(1, "active", "queued"));
        queue.push(between.clone());
        queue.push(other.clone());
        assert!(queue.replace(&job(1, "completed", "active")));
        assert_eq!(written(&mut queue), bytes(&[&between, &other, &job(1, "completed", "queued")]));
        assert_eq!((queue.bytes(), queue.frames.len()), (0, 0));
    }

    #[test]
    fn a_partly_written_frame_stays() {
        let mut queue = Queue::default();
        let first = job(1, "active", "queued");
        queue.push(first.clone());
        queue.advance(1, clock::now());
        let newer = job(1, "completed", "active");
        assert!(!queue.replace(&newer));
        queue.push(newer.clone());
        assert_eq!(written(&mut queue), bytes(&[&first, &newer])[1..]);
    }

    #[test]
    fn logs_are_never_replaced() {
        let mut queue = Queue::default();
        queue.push(log(1));
        assert!(!queue.replace(&log(2)));
    }

    #[test]
    fn a_client_that_takes_nothing_grows_old_however_young_its_frames_are() {
        let mut queue = Queue::default();
        let start = clock::now();
        queue.push(job(1, "active", "queued"));
        queue.blocked(start);
        assert!(queue.replace(&job(1, "completed", "active")));
        assert_eq!(queue.waited(start + Duration::from_secs(11)), Duration::from_secs(11));
    }

    #[test]
    fn a_flood_of_states_keeps_the_queue_small() {
        let mut queue = Queue::default();
        queue.push(job(0, "active", "queued"));
        for round in 0..10_000 {
            let frame = job((round % 7) as u8 + 1, "active", "active");
            if !queue.replace(&frame) {
                queue.push(frame);
            }
        }
        assert!(queue.frames.len() <= 8 + 2 * MAX_VACANT, "{}", queue.frames.len());
        assert_eq!(queue.frames.iter().flatten().count(), 8);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Log(u32),
        Chat(u32),
        DropChat,
        Job(u8),
        Write(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u32>().prop_map(Step::Log),
            any::<u32>().prop_map(Step::Chat),
            Just(Step::DropChat),
            (0..6_u8).prop_map(Step::Job),
            (0..700_usize).prop_map(Step::Write)
        ]
    }

    proptest! {
        /// Compared with a plain list: logs stay, and the newest state of each job is at the place
        /// of its last update.
        #[test]
        fn bytes_on_the_wire_are_those_of_a_plain_list(steps in prop::collection::vec(step(), 0..300)) {
            let mut queue = Queue::default();
            let mut model: Vec<Arc<Frame>> = Vec::new();
            let mut model_written = 0;
            for step in steps {
                match step {
                    Step::Log(number) => {
                        let frame = log(number);
                        queue.push(frame.clone());
                        model.push(frame);
                    }
                    Step::Chat(number) => {
                        let frame = chat(number);
                        queue.push(frame.clone());
                        model.push(frame);
                    }
                    Step::DropChat => {
                        let before = model.len();
                        let mut is_partly_written = model_written > 0;
                        model.retain(|frame| std::mem::take(&mut is_partly_written) || !frame.is_chat());
                        prop_assert_eq!(queue.drop_chat(), (before - model.len()) as u64);
                    }
                    Step::Job(number) => {
                        let frame = job(number, "active", "active");
                        if !queue.replace(&frame) {
                            queue.push(frame.clone());
                        }
                        let fixed = usize::from(model_written > 0);
                        let older = model.iter().skip(fixed).position(|other| other.entity() == frame.entity());
                        older.map(|place| model.remove(place + fixed));
                        model.push(frame);
                    }
                    Step::Write(size) => {
                        let mut out = Vec::new();
                        queue.copy_to(&mut out, size);
                        out.truncate(size);
                        queue.advance(out.len(), clock::now());
                        let expected = bytes(&model.iter().collect::<Vec<_>>());
                        prop_assert_eq!(&out[..], &expected[model_written..model_written + out.len()]);
                        model_written += out.len();
                        while model.first().is_some_and(|first| first.websocket().len() <= model_written) {
                            model_written -= model.remove(0).websocket().len();
                        }
                    }
                }
                let waiting: usize = model.iter().map(|frame| frame.websocket().len()).sum();
                prop_assert_eq!(queue.bytes(), waiting - model_written);
                prop_assert!(!matches!(queue.frames.front(), Some(None)));
                prop_assert!(!matches!(queue.frames.back(), Some(None)));
            }
            prop_assert_eq!(written(&mut queue), bytes(&model.iter().collect::<Vec<_>>())[model_written..].to_vec());
        }
    }
}
