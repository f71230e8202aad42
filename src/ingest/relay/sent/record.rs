//! The published entities of one kind.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use super::{
    REMEMBERED,
    version::{Deletable, Versioned},
};
use crate::{
    ingest::{recent_map::RecentMap, relay::snapshot::Listing},
    slots::Shrink,
};

/// The last published update of each entity of one kind.
#[derive(Debug, Clone)]
pub(super) struct Record<K, T> {
    published: HashMap<K, Published<T>>,
    deleted: RecentMap<K, ()>,
    /// The number of the last comparison that has begun.
    comparison: u32,
}

#[derive(Debug, Clone)]
struct Published<T> {
    fields: T,
    /// The comparison since whose start the update counts.
    comparison: u32,
}

/// What a list has and the record lacked, and the reverse.
#[derive(Debug)]
pub(super) struct Difference<K, T> {
    /// Updates to publish, recorded already, in the list's order.
    pub(super) changed: Vec<T>,
    /// Entities that no longer exist, still recorded, in the order of their ids.
    pub(super) vanished: Vec<K>,
}

impl<K: Eq + Hash, T> Default for Record<K, T> {
    fn default() -> Self {
        Self { published: HashMap::new(), deleted: RecentMap::new(REMEMBERED), comparison: 0 }
    }
}

impl<K: Copy + Eq + Hash + Ord, T: Clone> Record<K, T> {
    pub(super) fn get(&self, id: K) -> Option<&T> {
        self.published.get(&id).map(|published| &published.fields)
    }

    pub(super) fn set(&mut self, id: K, fields: T) {
        self.published.insert(id, Published { fields, comparison: self.comparison });
    }

    /// Removes an entity, which may return.
    pub(super) fn remove(&mut self, id: K) {
        self.published.remove(&id);
        self.published.shrink_if_sparse();
    }

    /// Removes an entity, which does not return. Returns its last update.
    pub(super) fn delete(&mut self, id: K) -> Option<T> {
        self.deleted.set(id, ());
        let published = self.published.remove(&id);
        self.published.shrink_if_sparse();
        published.map(|published| published.fields)
    }

    /// Records an update. Returns whether it is to be published: it is neither older than the
    /// published one nor of a deleted entity.
    pub(super) fn admit(&mut self, id: K, update: &T) -> bool
    where
        T: Versioned + Deletable,
    {
        if update.is_deletion() {
            self.delete(id);
            return true;
        }
        let is_new = self.get(id).is_none_or(|published| !update.version().is_before(&published.version()));
        let is_admitted = is_new && self.deleted.get(&id).is_none();
        if is_admitted {
            self.set(id, update.clone());
        }
        is_admitted
    }

    /// Makes updates from now on count as newer than the list of this comparison.
    pub(super) fn begin_comparison(&mut self) {
        self.comparison += 1;
    }

    /// Compares the record with the Manager's list. `id` returns the id of an entity, if it has
    /// one. `update` returns the update to publish for a listed entity, given the published one, or
    /// `None` if a page shows both in the same way.
    pub(super) fn compare(
        &mut self,
        listing: Listing<T>,
        id: impl Fn(&T) -> Option<K>,
        update: impl Fn(T, Option<&T>) -> Option<T>,
    ) -> Difference<K, T> {
        let listed: HashSet<K> = listing.items.iter().filter_map(&id).collect();
        let mut changed = Vec::new();
        for item in listing.items {
            let Some(id) = id(&item).filter(|&id| !self.is_newer_than_list(id)) else { continue };
            if let Some(update) = update(item, self.get(id)) {
                self.set(id, update.clone());
                changed.push(update);
            }
        }
        let vanished = if listing.is_complete { self.vanished(&listed) } else { Vec::new() };
        Difference { changed, vanished }
    }

    /// Returns whether the record has an update or a deletion that the list may lack.
    fn is_newer_than_list(&self, id: K) -> bool {
        match self.published.get(&id) {
            Some(published) => published.comparison == self.comparison,
            None => self.deleted.get(&id).is_some(),
        }
    }

    /// Returns entities that were published before the comparison began and are not listed.
    fn vanished(&self, listed: &HashSet<K>) -> Vec<K> {
        let older = self.published.iter().filter(|(_, published)| published.comparison != self.comparison);
        let mut vanished: Vec<K> = older.map(|(&id, _)| id).filter(|id| !listed.contains(id)).collect();
        vanished.sort_unstable();
        vanished
    }
}
