//! Session ids from the operating system's generator of random numbers.

use uuid::Uuid;

use crate::protocol::SessionId;

/// Returns a session id that cannot be guessed: it is all that a polling request needs to take part in a session.
pub(super) fn random_sid() -> SessionId {
    SessionId::from_random(Uuid::new_v4().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Session ids were once made of a clock and a weak generator (CVE-2017-16031).
    #[test]
    fn session_ids_cannot_be_guessed() {
        let ids: Vec<u128> = (0..2000).map(|_| u128::from_str_radix(&random_sid().to_string(), 16).unwrap()).collect();
        let fixed = 0xf << 76 | 0x3 << 62;
        for bit in (0..128).map(|bit| 1 << bit).filter(|bit| fixed & bit == 0) {
            let set = ids.iter().filter(|id| *id & bit != 0).count();
            assert!((800..1200).contains(&set), "bit {bit:x} is set in {set} of {}", ids.len());
        }
        for pair in ids.windows(2) {
            let differ = (pair[0] ^ pair[1]).count_ones();
            assert!(differ > 24, "{:x} and {:x}", pair[0], pair[1]);
        }
    }
}
