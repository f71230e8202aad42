//! Limits the number of rooms that clients are in beyond the few that each may always join, so that
//! one address cannot fill the memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::slots::Shrink;

/// The number of rooms of a session that do not count. A page uses fewer.
const FREE: usize = 20;

/// One address may use this fraction of the budget.
const SHARE: usize = 5;

/// The budget of rooms for all clients together and for each address.
#[derive(Debug)]
pub struct RoomBudget {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By address, for addresses that use any.
    addresses: HashMap<IpAddr, usize>,
}

impl RoomBudget {
    pub fn new(max: usize) -> Self {
        Self { max, taken: Mutex::default() }
    }

    fn take(&self, client: IpAddr, rooms: usize) -> bool {
        let mut taken = self.lock();
        let own = taken.addresses.get(&client).copied().unwrap_or_default() + rooms;
        if own > self.max.div_ceil(SHARE) || taken.all + rooms > self.max {
            return false;
        }
        taken.all += rooms;
        taken.addresses.insert(client, own);
        true
    }

    fn give_back(&self, client: IpAddr, rooms: usize) {
        let mut taken = self.lock();
        taken.all -= rooms;
        if let Some(own) = taken.addresses.get_mut(&client) {
            *own -= rooms;
            if *own == 0 {
                taken.addresses.remove(&client);
                taken.addresses.shrink_if_sparse();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's share of the budget.
#[derive(Debug)]
pub struct RoomShare {
    budget: Arc<RoomBudget>,
    client: IpAddr,
    taken: usize,
}

impl RoomShare {
    pub fn new(budget: Arc<RoomBudget>, client: IpAddr) -> Self {
        Self { budget, client, taken: 0 }
    }

    /// Returns the client's address.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Changes the number of rooms that the session takes. Returns whether the budget allows it.
    pub fn resize(&mut self, rooms: usize) -> bool {
        let wanted = rooms.saturating_sub(FREE);
        match wanted.checked_sub(self.taken) {
            Some(0) => {}
            Some(more) if !self.budget.take(self.client, more) => return false,
            Some(_) => {}
            None => self.budget.give_back(self.client, self.taken - wanted),
        }
        self.taken = wanted;
        true
    }
}

impl Drop for RoomShare {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_fifth_and_gives_it_back() {
        let budget = Arc::new(RoomBudget::new(100));
        let session = |last: u8| RoomShare::new(budget.clone(), IpAddr::from([192, 0, 2, last]));
        let (mut one, mut same) = (session(1), session(1));
        assert!(one.resize(FREE + 15));
        assert!(same.resize(FREE + 5) && !same.resize(FREE + 6), "its fifth is taken");
        let mut others: Vec<_> = (2..=5).map(session).collect();
        assert!(others.iter_mut().all(|other| other.resize(FREE + 20)));
        assert!(!session(6).resize(FREE + 1), "all is taken");
        assert!(session(6).resize(FREE), "a few are for everybody");
        assert!(one.resize(FREE + 14) && same.resize(FREE + 6));
        drop((one, same, others));
        let taken = budget.lock();
        assert_eq!((taken.all, taken.addresses.len()), (0, 0));
    }
}
