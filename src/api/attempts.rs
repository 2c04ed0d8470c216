//! How often one address may be wrong.

use crate::clock;
use crate::http::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong attempts in a row, and the time after which one more is forgiven.
const BURST: u32 = 30;
const FORGIVEN_AFTER: Duration = Duration::from_secs(2);
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 4096;

/// Wrong attempts by address.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Instant>>);

impl Attempts {
    /// Whether this address has been wrong too often to be told more now.
    pub(super) fn are_spent(&self, address: IpAddr) -> bool {
        let settled = self.lock().get(&network_of(address)).copied();
        let spent = FORGIVEN_AFTER * (BURST - 1);
        settled.is_some_and(|at| at.saturating_duration_since(clock::instant()) > spent)
    }

    /// This address was wrong. What is kept is when all will be forgiven.
    pub(super) fn add(&self, address: IpAddr) {
        let now = clock::instant();
        let mut settled = self.lock();
        if settled.len() >= MAX_ADDRESSES {
            settled.retain(|_, at| *at > now);
        }
        if settled.len() >= MAX_ADDRESSES {
            // Thousands of addresses are guessing: no memory is better than none left.
            settled.clear();
        }
        let at = settled.entry(network_of(address)).or_insert(now);
        *at = (*at).max(now) + FORGIVEN_AFTER;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_answered_until_it_was_wrong_too_often() {
        let attempts = Attempts::default();
        let guesser = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..BURST {
            assert!(!attempts.are_spent(guesser));
            attempts.add(guesser);
        }
        assert!(attempts.are_spent(guesser));
        assert!(!attempts.are_spent(IpAddr::from([10, 0, 0, 2])));
        for at in attempts.lock().values_mut() {
            *at -= FORGIVEN_AFTER * 2;
        }
        assert!(!attempts.are_spent(guesser), "time forgives");
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::default();
        for n in 0..10_000_u32 {
            attempts.add(IpAddr::from(n.to_be_bytes()));
        }
        assert!(attempts.lock().len() <= MAX_ADDRESSES);
    }
}
