//! Slots with stable numbers, stored as a dense list, and tables that free memory after a peak.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash},
};

/// The number of entries for which memory is always kept, so that small tables do not grow and
/// shrink all the time.
const KEPT: usize = 64;

/// Values under stable numbers. Walking them costs time proportional to the current number of
/// values, and memory is freed after a peak: the lowest free number is used first, so that the
/// highest ones stay free.
#[derive(Debug)]
pub struct Slots<T> {
    /// INVARIANT: the last entry is taken.
    entries: Vec<Option<Entry<T>>>,
    /// The numbers of all entries. INVARIANT: the entry `order[place]` knows its `place`.
    order: Vec<u32>,
    /// The free numbers between those of entries.
    vacant: BTreeSet<u32>,
    /// The number of slots visited, for tests.
    #[cfg(test)]
    visits: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    place: u32,
}

impl<T> Slots<T> {
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            order: Vec::new(),
            vacant: BTreeSet::new(),
            #[cfg(test)]
            visits: std::cell::Cell::new(0),
        }
    }

    /// Inserts a value and returns the number of its slot, which stays taken until
    /// [`remove`](Self::remove).
    pub fn insert(&mut self, value: T) -> u32 {
        let entry = Some(Entry { value, place: self.order.len() as u32 });
        let number = match self.vacant.pop_first() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.order.push(number);
        number
    }

    pub fn remove(&mut self, number: u32) -> Option<T> {
        let Entry { value, place } = self.entries.get_mut(number as usize)?.take()?;
        self.order.swap_remove(place as usize);
        if let Some(&moved) = self.order.get(place as usize) {
            self.entries[moved as usize].as_mut().expect("what is in the order is taken").place = place;
        }
        self.vacant.insert(number);
        while let Some(None) = self.entries.last() {
            self.entries.pop();
            self.vacant.pop_last();
        }
        self.order.shrink_if_sparse();
        self.entries.shrink_if_sparse();
        Some(value)
    }

    pub fn get(&self, number: u32) -> Option<&T> {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
        self.entries.get(number as usize)?.as_ref().map(|entry| &entry.value)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.entries.get_mut(number as usize)?.as_mut().map(|entry| &mut entry.value)
    }

    /// Returns the numbers of all taken slots, in no particular order.
    pub fn numbers(&self) -> &[u32] {
        &self.order
    }

    /// Returns all values with their numbers, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.order.iter().filter_map(|&number| Some((number, self.get(number)?)))
    }

    /// Returns how many slots were visited since the last call.
    #[cfg(test)]
    pub(crate) fn take_visits(&self) -> usize {
        self.visits.take()
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A table that frees memory.
pub trait Shrink {
    /// Frees the memory of a peak once the table holds much less. Called after each removal, it
    /// takes amortised constant time.
    fn shrink_if_sparse(&mut self);
}

macro_rules! impl_shrink {
    ($([$($generics:tt)*] $table:ty;)*) => {$(
        impl<$($generics)*> Shrink for $table {
            fn shrink_if_sparse(&mut self) {
                if is_sparse(self.len(), self.capacity()) {
                    self.shrink_to(2 * self.len());
                }
            }
        }
    )*};
}

impl_shrink! {
    [T] Vec<T>;
    [T] VecDeque<T>;
    [K: Eq + Hash, V, S: BuildHasher] HashMap<K, V, S>;
    [T: Eq + Hash, S: BuildHasher] HashSet<T, S>;
}

/// Halves the memory of a list that is refilled each time, if it held much less this time. After a
/// few rounds the memory matches the content, and a single small round costs little.
pub fn decay<T>(list: &mut Vec<T>, held: usize) {
    if is_sparse(held, list.capacity()) {
        list.shrink_to(list.capacity() / 2);
    }
}

/// Returns whether a table of this capacity holds so little that it should shrink.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_walk_visits_only_existing_values() {
        let mut slots = Slots::new();
        let numbers: Vec<u32> = (0..9000).map(|value| slots.insert(value)).collect();
        // The remaining values are spread over the whole table.
        for (&number, value) in numbers.iter().zip(0..) {
            if value % 900 != 0 {
                assert_eq!(slots.remove(number), Some(value));
            }
        }
        slots.take_visits();
        let mut left: Vec<_> = slots.iter().map(|(number, &value)| (number, value)).collect();
        assert_eq!(slots.take_visits(), 10);
        left.sort_unstable();
        assert_eq!(left, (0..10).map(|at| (at * 900, at * 900)).collect::<Vec<_>>());
    }

    #[test]
    fn memory_is_freed_after_a_peak_in_any_order_of_removal() {
        let orders: [fn(u32) -> u32; 3] = [|number| number, |number| 8999 - number, |number| number * 7 % 9000];
        for leaving in orders {
            let mut slots = Slots::new();
            (0..9000).for_each(|value| assert_eq!(slots.insert(value), value));
            // The last values are removed over time, and others are added.
            (0..8990).for_each(|number| assert!(slots.remove(leaving(number)).is_some()));
            let came: Vec<u32> = (0..10).map(|value| slots.insert(value)).collect();
            (8990..9000).for_each(|number| assert!(slots.remove(leaving(number)).is_some()));
            let held = (slots.order.capacity(), slots.entries.capacity(), slots.vacant.len());
            assert!(held.0 <= 2 * KEPT && held.1 <= 2 * KEPT && held.2 <= 20, "{held:?}");
            came.into_iter().for_each(|number| assert!(slots.remove(number).is_some()));
            assert_eq!((slots.entries.len(), slots.vacant.len()), (0, 0));
        }
    }

    #[test]
    fn tables_give_memory_back_after_a_peak() {
        let mut list: Vec<u32> = (0..10_000).collect();
        let mut queue: VecDeque<u32> = (0..10_000).collect();
        let mut map: HashMap<u32, u32> = (0..10_000).map(|number| (number, number)).collect();
        let mut set: HashSet<u32> = (0..10_000).collect();
        for number in 0..9990 {
            list.pop();
            list.shrink_if_sparse();
            queue.pop_front();
            queue.shrink_if_sparse();
            map.remove(&number);
            map.shrink_if_sparse();
            set.remove(&number);
            set.shrink_if_sparse();
        }
        let held = [list.capacity(), queue.capacity(), map.capacity(), set.capacity()];
        assert!(held.iter().all(|&capacity| capacity <= KEPT), "{held:?}");
    }

    #[test]
    fn the_memory_of_a_refilled_list_matches_its_content() {
        let mut list = Vec::with_capacity(10_000);
        for _ in 0..10 {
            decay(&mut list, 10);
        }
        list.extend(0..10);
        assert!(list.capacity() <= KEPT, "{}", list.capacity());
    }

    proptest! {
        #[test]
        fn slots_are_a_map(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..300)) {
            let (mut slots, mut model) = (Slots::new(), std::collections::BTreeMap::new());
            for (value, (is_insert, which)) in steps.into_iter().enumerate() {
                if is_insert || model.is_empty() {
                    let lowest_free = (0..).find(|number| !model.contains_key(number)).unwrap();
                    prop_assert_eq!(slots.insert(value), lowest_free);
                    model.insert(lowest_free, value);
                } else {
                    let number = *model.keys().nth(which.index(model.len())).unwrap();
                    prop_assert_eq!(slots.remove(number), model.remove(&number));
                    prop_assert_eq!(slots.remove(number), None);
                }
                let mut all: Vec<_> = slots.iter().map(|(number, &value)| (number, value)).collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.iter().map(|(&number, &value)| (number, value)).collect::<Vec<_>>());
            }
        }
    }
}
