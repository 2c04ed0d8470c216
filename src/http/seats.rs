//! How many connections there may be, together and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    together: usize,
    per_address: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One seat; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    pub(super) fn new(together: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            together,
            per_address,
            taken: Mutex::default(),
        })
    }

    /// A seat for this address, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = network_of(address);
        let mut taken = self.taken();
        let together: usize = taken.values().sum();
        let own = taken.get(&address).copied().unwrap_or(0);
        if together >= self.together || own >= self.per_address {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Seat {
            seats: Arc::clone(self),
            address,
        })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// What one client can choose its addresses from: of IPv6 it has a /64.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() >> 64 << 64;
            std::net::Ipv6Addr::from_bits(bits).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_come_back() {
        let seats = Seats::new(3, 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = seats.take(ip("10.0.0.1"));
        let _second = seats.take(ip("::ffff:10.0.0.1"));
        assert!(seats.take(ip("10.0.0.1")).is_none(), "the same address");
        let _third = seats.take(ip("2001:db8::1"));
        assert!(seats.take(ip("10.0.0.2")).is_none(), "no seat is left");
        drop(first);
        assert!(seats.take(ip("10.0.0.1")).is_some());
        assert_eq!(network_of(ip("2001:db8::1:2")), ip("2001:db8::"));
    }
}
