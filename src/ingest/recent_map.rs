//! A map that drops entries that have not been used for long.

use std::{collections::HashMap, hash::Hash};

/// Holds at least the `generation` entries that were set last, and at most twice as many.
#[derive(Debug, Clone)]
pub(super) struct RecentMap<K, V> {
    generation: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> RecentMap<K, V> {
    pub(super) fn new(generation: usize) -> Self {
        Self { generation, young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn set(&mut self, key: K, value: V) {
        self.young.insert(key, value);
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_latest_and_no_more_than_twice_as_many() {
        let mut recent = RecentMap::new(100);
        for number in 0..1000 {
            recent.set(number, number);
            assert!(recent.young.len() + recent.old.len() <= 200);
            for last in (number - 99).max(0)..=number {
                assert_eq!(recent.get(&last), Some(&last));
            }
        }
        assert_eq!(recent.get(&0), None);
        recent.clear();
        assert_eq!(recent.get(&999), None);
    }
}
