//! Where browsers come from, and how many come from one address.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actix_http::{RequestHead, header};
use ipnet::IpNet;

use crate::stats::Presence;

/// Proxies whose word is taken for where a request comes from: an address, or a network such as 10.0.0.0/8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| "no address or network such as 10.0.0.5, 10.0.0.0/8 or fd00::/8".to_owned())
    }
}

impl TrustedProxy {
    fn is(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// Where a request comes from: the last one that trusted proxies name and that is none of them. Anybody may write any header,
/// so what stands before that proves nothing.
pub(super) fn client(head: &RequestHead, peer: SocketAddr, trusted: &[TrustedProxy]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|proxy| proxy.is(address));
    let mut address = peer.ip().to_canonical();
    if trusted.is_empty() {
        return address;
    }
    let values: Vec<_> = head.headers().get_all(header::X_FORWARDED_FOR).collect();
    let mut hops = values.iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    while is_trusted(address) {
        match hops.next().and_then(hop) {
            Some(before) => address = before,
            None => break,
        }
    }
    address
}

/// An address as proxies write it, some of them with a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    Some(address.ok()?.to_canonical())
}

/// What counts as one address: with IPv6 a network of 64 bits, as one household or machine has it.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// How many sessions there are from each address.
#[derive(Default)]
pub(super) struct Addresses {
    sessions: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// One more, unless there are `limit` already. This machine itself is not held to it: it may be a proxy, or a load test.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Guest> {
        if address.is_loopback() {
            return Some(Guest(None));
        }
        let address = counted(address);
        {
            let mut sessions = self.lock();
            let count = sessions.entry(address).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(Guest(Some(Counted { addresses: self.clone(), address })))
    }

    fn leave(&self, address: IpAddr) {
        let mut sessions = self.lock();
        if let Some(count) = sessions.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&address);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

/// A session that is counted for its address.
#[derive(Debug)]
pub(super) struct Guest(#[expect(dead_code, reason = "it is there to be dropped")] Option<Counted>);

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

/// What a session takes of that which is limited, for as long as it lives, whatever carries it.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) _presence: Presence,
    pub(super) _guest: Guest,
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;

    fn from(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut head = RequestHead::default();
        for value in forwarded {
            head.headers.append(header::X_FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let trusted: Vec<TrustedProxy> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client(&head, peer.parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn only_the_word_of_trusted_proxies_is_taken() {
        let proxies = ["10.0.0.0/8", "fd00::1"];
        for (peer, forwarded, expected) in [
            ("192.0.2.1:99", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.5:99", &[], "10.0.0.5"),
            ("10.0.0.5:99", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.5:99", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.5:99", &["198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            ("10.0.0.5:99", &["1.1.1.1", "198.51.100.7,10.9.9.9"], "198.51.100.7"),
            ("10.0.0.5:99", &["198.51.100.7, unknown"], "10.0.0.5"),
            ("10.0.0.5:99", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.5:99", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.5:99", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("[fd00::1]:99", &["2001:db8::1"], "2001:db8::1"),
            ("[::ffff:10.0.0.5]:99", &["::ffff:198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(from(peer, forwarded, &proxies), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(from("10.0.0.5:99", &["198.51.100.7"], &[]), "10.0.0.5");
        assert!("10.0.0.0/33".parse::<TrustedProxy>().is_err());
    }

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
        assert_eq!(addresses.lock().len(), 3, "who left leaves nothing behind");
    }
}
