//! Counts sessions or connections by address.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{slots::Shrink, stats::Presence};

/// Returns the address that is counted. For IPv6 it is the /64 network, which one household or
/// machine has.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// The counts by address.
#[derive(Default)]
pub(crate) struct Addresses {
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// Adds one, unless the address has `limit` already. Loopback is exempt, because it may be a
    /// proxy or a load test.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Guest> {
        if address.is_loopback() {
            return Some(Guest(None));
        }
        let address = counted(address);
        {
            let mut counts = self.lock();
            let count = counts.entry(address).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(Guest(Some(Counted { addresses: self.clone(), address })))
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
                counts.shrink_if_sparse();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

/// One unit that is counted for its address, or for none.
#[derive(Debug, Default)]
pub(crate) struct Guest(#[expect(dead_code, reason = "it counts until it is dropped")] Option<Counted>);

#[derive(Debug)]
struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
    }
}

/// The permits of a session or connection, held as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    pub(crate) _presence: Option<Presence>,
    pub(crate) _guest: Guest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share() {
        let addresses = Arc::new(Addresses::default());
        let enter = |text: &str| addresses.enter(text.parse().unwrap(), 2);
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        let _other = enter("192.0.2.2").unwrap();
        drop(first);
        assert!(enter("192.0.2.1").is_some());

        let _v6 = [enter("2001:db8::1").unwrap(), enter("2001:db8::2:3:4:5").unwrap()];
        assert!(enter("2001:db8::6").is_none(), "the same network");
        assert!(enter("2001:db8:0:1::1").is_some());

        let _loopback: Vec<_> = (0..5).map(|_| enter("127.0.0.1").unwrap()).collect();
        assert_eq!(addresses.lock().len(), 3, "a closed connection leaves nothing behind");
    }
}
