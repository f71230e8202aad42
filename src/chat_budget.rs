//! Limits the total volume of chat, so that a few clients cannot fill the outboxes of all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The number of seconds for which an unused budget accumulates.
const BURST: f64 = 2.0;

/// One address may use this fraction of the budget.
const SHARE: f64 = 0.5;

/// This fraction of what can accumulate is left to addresses that have used less than half of their
/// share lately, so that a few busy addresses do not silence all others.
const RESERVE: f64 = 0.25;

/// The maximum number of addresses tracked at once. Further addresses share the common budget only.
const MAX_ADDRESSES: usize = 1000;

/// The chat budget, in bytes, of all clients together and of each address.
#[derive(Debug)]
pub struct ChatBudget {
    /// Bytes per second; 0 means no limit.
    rate: f64,
    state: Mutex<Spent>,
}

#[derive(Debug)]
struct Spent {
    all: Bucket,
    /// Addresses that chatted recently.
    addresses: HashMap<IpAddr, Bucket>,
}

/// A token bucket of bytes.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl ChatBudget {
    /// Creates a budget of `rate` bytes per second; 0 means no limit.
    pub fn new(rate: usize, now: Instant) -> Self {
        let rate = rate as f64;
        let all = Bucket { left: rate * BURST, at: now };
        Self { rate, state: Mutex::new(Spent { all, addresses: HashMap::new() }) }
    }

    /// Takes `bytes` from the common budget and from that of `client`. Returns whether both had
    /// enough.
    pub fn take(&self, client: IpAddr, bytes: usize, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Spent { all, addresses } = &mut *state;
        let own_rate = self.rate * SHARE;
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, bucket| bucket.refilled(own_rate, now).left < own_rate * BURST);
        }
        let full = Bucket { left: own_rate * BURST, at: now };
        let own = addresses.get(&client).map_or(full, |bucket| bucket.refilled(own_rate, now));
        *all = all.refilled(self.rate, now);
        let bytes = bytes as f64;
        let own_left = own.left - bytes;
        let reserve = if own_left < full.left / 2.0 { self.rate * BURST * RESERVE } else { 0.0 };
        if own_left < 0.0 || all.left - bytes < reserve {
            return false;
        }
        all.left -= bytes;
        if addresses.len() < MAX_ADDRESSES || addresses.contains_key(&client) {
            addresses.insert(client, Bucket { left: own_left, ..own });
        }
        true
    }
}

impl Bucket {
    fn refilled(self, rate: f64, now: Instant) -> Self {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        Self { left: (self.left + gained).min(rate * BURST), at: self.at.max(now) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn an_address_has_half_of_the_budget() {
        let now = clock::now();
        let budget = ChatBudget::new(1000, now);
        assert!(budget.take(address(1), 1000, now));
        assert!(!budget.take(address(1), 1, now), "its two seconds are used up");
        let later = now + Duration::from_millis(100);
        assert!(budget.take(address(1), 50, later));
        assert!(!budget.take(address(1), 1, later));
    }

    #[test]
    fn those_who_talk_all_the_time_do_not_silence_the_others() {
        let now = clock::now();
        let budget = ChatBudget::new(1000, now);
        let mut taken = [0, 0];
        for step in 0..100 {
            let now = now + Duration::from_millis(100 * step);
            for talker in [0, 1] {
                while budget.take(address(talker), 10, now) {
                    taken[talker as usize] += 10;
                }
            }
            assert!(budget.take(address(2), 5, now), "{step}");
            assert!(!budget.take(address(0), 10, now));
        }
        let all: i32 = taken.iter().sum();
        assert!((10_000..=11_500).contains(&all), "{taken:?}");
        // Many that have not talked yet are held to the budget of all.
        let others = (10..1000).filter(|&other| budget.take(address(other), 100, now)).count();
        assert!(others <= 5, "{others}");
    }

    #[test]
    fn nothing_is_saved_up_for_long_and_none_is_no_limit() {
        let now = clock::now();
        let budget = ChatBudget::new(1000, now);
        assert!(!budget.take(address(1), 1001, now + Duration::from_secs(3600)));
        assert!(ChatBudget::new(0, now).take(address(1), usize::MAX, now));
    }

    #[test]
    fn addresses_that_chat_take_bounded_memory() {
        let now = clock::now();
        let budget = ChatBudget::new(1_000_000, now);
        for number in 0..10 * MAX_ADDRESSES as u32 {
            budget.take(address(number), 1, now);
        }
        assert_eq!(budget.state.lock().unwrap().addresses.len(), MAX_ADDRESSES);
        assert!(budget.take(address(u32::MAX), 1, now + Duration::from_secs(10)));
        assert_eq!(budget.state.lock().unwrap().addresses.len(), 1);
    }
}
