//! Tokens of v1 authentication: random, expiring, kept in memory as hashes.

use super::disk::random_name;
use crate::clock;
use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most tokens alive at once; the next one replaces the oldest.
const LIMIT: usize = 4096;

#[derive(Debug)]
pub(super) struct Tokens {
    life: Duration,
    /// By SHA-256, so that looking one up tells nothing by its duration.
    alive: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Tokens {
    pub(super) fn new(life: Duration) -> Self {
        let alive = Mutex::default();
        Self { life, alive }
    }

    /// Makes a token and says for how long it is valid.
    pub(super) fn issue(&self) -> io::Result<(Secret, Duration)> {
        let token = Secret::new(format!("AUTH_tk{}", random_name()?));
        let now = clock::instant();
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|_, end| *end > now);
        if alive.len() >= LIMIT {
            let oldest = alive.iter().min_by_key(|(_, end)| **end);
            let oldest = oldest.map(|(hash, _)| *hash);
            oldest.map(|hash| alive.remove(&hash));
        }
        alive.insert(hash(token.expose()), now + self.life);
        Ok((token, self.life))
    }

    /// Whether the token was issued here and has not expired.
    pub(super) fn is_valid(&self, token: &str) -> bool {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let end = alive.get(&hash(token));
        end.is_some_and(|end| *end > clock::instant())
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_good_until_they_expire() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let (token, _) = tokens.issue().unwrap();
        assert!(tokens.is_valid(token.expose()));
        assert!(!tokens.is_valid("AUTH_tk") && !tokens.is_valid(""));
        let (expired, _) = Tokens::new(Duration::ZERO).issue().unwrap();
        assert!(!tokens.is_valid(expired.expose()));
        let tokens = Tokens::new(Duration::ZERO);
        let (token, _) = tokens.issue().unwrap();
        assert!(!tokens.is_valid(token.expose()));
    }

    #[test]
    fn their_number_is_bounded() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let (first, _) = tokens.issue().unwrap();
        for _ in 0..LIMIT {
            tokens.issue().unwrap();
        }
        assert_eq!(tokens.alive.lock().unwrap().len(), LIMIT);
        assert!(!tokens.is_valid(first.expose()));
    }
}
