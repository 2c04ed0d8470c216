//! Persistent reservations of the unit (SPC-5 section 5.14). They outlive connections, and are
//! forgotten with the target.
//!
//! Whoever uses the disk holds a permit meanwhile, and a change waits for all permits. So when a
//! PREEMPT is answered, nothing of the preempted initiator can reach the disk any more.

use super::registry::Port;
use crate::iscsi::scsi::reservation::{
    CAPABILITIES, Kind, Registrant, ReserveOut, change, encode_keys, encode_reservation,
    encode_status, read,
};
use crate::iscsi::scsi::{Cdb, Sense};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// Initiator ports that may be registered.
const MAX_REGISTERED: usize = 64;

/// Who is registered, who holds the unit, and who is still to be told of a change.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    state: RwLock<State>,
    /// Unit attentions, the newest of each port, oldest port first.
    news: Mutex<VecDeque<(Port, Sense)>>,
}

#[derive(Debug, Default)]
struct State {
    /// PRGENERATION.
    generation: u32,
    registered: Vec<(Port, u64)>,
    reservation: Option<Reservation>,
}

#[derive(Debug, Clone)]
struct Reservation {
    /// Who made it; where all registrants hold it that says nothing.
    holder: Port,
    kind: Kind,
}

/// The unit stays as it is for its holder.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    _state: RwLockReadGuard<'a, State>,
}

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// RESERVATION CONFLICT.
    Conflict,
    Sense(Sense),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Sense(sense)
    }
}

impl Reservations {
    /// Lets a command of a port reach the disk; `None` if a reservation forbids it.
    pub(super) fn permit(&self, port: &Port, cdb: Cdb) -> Option<Permit<'_>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let is_read = matches!(cdb, Cdb::Read { .. } | Cdb::Hash { .. });
        state
            .allows(port, is_read)
            .then_some(Permit { _state: state })
    }

    /// PERSISTENT RESERVE IN.
    pub(super) fn report(&self, action: u8) -> Result<Bytes, Sense> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match action {
            read::KEYS => {
                let keys = state.registered.iter().map(|(_, key)| *key);
                Ok(encode_keys(state.generation, &keys.collect::<Vec<_>>()))
            }
            read::RESERVATION => {
                let held = state.reservation.as_ref();
                let held = held.map(|held| (state.key_of(held), held.kind));
                Ok(encode_reservation(state.generation, held))
            }
            read::FULL_STATUS => {
                let registrants = state.registered.iter().map(|(port, key)| Registrant {
                    name: &port.0,
                    isid: port.1,
                    key: *key,
                    holds: state.held_by(port),
                });
                let registrants: Vec<_> = registrants.collect();
                Ok(encode_status(state.generation, &registrants))
            }
            read::CAPABILITIES => Ok(Bytes::from_static(&CAPABILITIES)),
            _ => Err(Sense::INVALID_FIELD_IN_CDB),
        }
    }

    /// PERSISTENT RESERVE OUT. Waits for the disk operations that are under way.
    pub(super) fn change(
        &self,
        port: &Port,
        action: u8,
        kind: u8,
        list: ReserveOut,
    ) -> Result<(), Refusal> {
        let kind = || Kind::from_code(kind).ok_or(Sense::INVALID_FIELD_IN_CDB);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let told = match action {
            change::REGISTER => state.register(port, list, false)?,
            change::REGISTER_AND_IGNORE => state.register(port, list, true)?,
            change::RESERVE => state.reserve(port, list.key, kind()?)?,
            change::RELEASE => state.release(port, list.key, kind()?)?,
            change::CLEAR => state.clear(port, list.key)?,
            change::PREEMPT | change::PREEMPT_AND_ABORT => state.preempt(port, list, kind()?)?,
            _ => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
        };
        drop(state);
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        for (other, sense) in told {
            news.retain(|(port, _)| *port != other);
            if news.len() >= MAX_REGISTERED {
                news.pop_front();
            }
            news.push_back((other, sense));
        }
        Ok(())
    }

    /// What a port must be told before its next command.
    pub(super) fn take_news(&self, port: &Port) -> Option<Sense> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let at = news.iter().position(|(other, _)| other == port)?;
        news.remove(at).map(|(_, sense)| sense)
    }
}

/// Other ports, and what they are to be told.
type Told = Vec<(Port, Sense)>;

impl State {
    fn allows(&self, port: &Port, is_read: bool) -> bool {
        let Some(held) = &self.reservation else {
            return true;
        };
        (is_read && held.kind.allows_reads())
            || self.holds(port)
            || (held.kind.admits_registrants() && self.key(port).is_some())
    }

    fn holds(&self, port: &Port) -> bool {
        self.held_by(port).is_some()
    }

    /// The reservation, if the port holds it.
    fn held_by(&self, port: &Port) -> Option<Kind> {
        let held = self.reservation.as_ref()?;
        let is_holder = if held.kind.is_held_by_all() {
            self.key(port).is_some()
        } else {
            held.holder == *port
        };
        is_holder.then_some(held.kind)
    }

    fn key(&self, port: &Port) -> Option<u64> {
        let mut registered = self.registered.iter();
        let (_, key) = registered.find(|(other, _)| other == port)?;
        Some(*key)
    }

    /// The key by which a reservation is known; 0 if all hold it.
    fn key_of(&self, held: &Reservation) -> u64 {
        if held.kind.is_held_by_all() {
            return 0;
        }
        self.key(&held.holder).unwrap_or(0)
    }

    fn check_key(&self, port: &Port, key: u64) -> Result<(), Refusal> {
        match self.key(port) {
            Some(registered) if registered == key => Ok(()),
            _ => Err(Refusal::Conflict),
        }
    }

    fn register(&mut self, port: &Port, list: ReserveOut, ignore: bool) -> Result<Told, Refusal> {
        if !ignore && self.key(port).unwrap_or(0) != list.key {
            return Err(Refusal::Conflict);
        }
        let mut told = Vec::new();
        if list.other == 0 {
            let held = self.holds(port);
            self.registered.retain(|(other, _)| other != port);
            // Where all hold it, it ends with the last of them.
            let all = self
                .reservation
                .as_ref()
                .is_some_and(|held| held.kind.is_held_by_all() && !self.registered.is_empty());
            if held && !all {
                told = self.end_reservation(port);
            }
        } else if let Some((_, key)) = self.registered.iter_mut().find(|(p, _)| p == port) {
            *key = list.other;
        } else {
            if self.registered.len() >= MAX_REGISTERED {
                return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
            }
            self.registered.push((port.clone(), list.other));
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(told)
    }

    fn reserve(&mut self, port: &Port, key: u64, kind: Kind) -> Result<Told, Refusal> {
        self.check_key(port, key)?;
        match &self.reservation {
            None => {
                let holder = port.clone();
                self.reservation = Some(Reservation { holder, kind });
            }
            Some(held) if held.kind == kind && self.holds(port) => {}
            Some(_) => return Err(Refusal::Conflict),
        }
        Ok(Vec::new())
    }

    fn release(&mut self, port: &Port, key: u64, kind: Kind) -> Result<Told, Refusal> {
        self.check_key(port, key)?;
        match &self.reservation {
            Some(held) if self.holds(port) && held.kind == kind => Ok(self.end_reservation(port)),
            Some(_) if self.holds(port) => Err(Sense::INVALID_RELEASE.into()),
            _ => Ok(Vec::new()),
        }
    }

    /// Ends the reservation; registrants that could use the unit by it learn of it.
    fn end_reservation(&mut self, port: &Port) -> Told {
        match self.reservation.take() {
            Some(held) if held.kind.admits_registrants() => {
                self.others(port, Sense::RESERVATIONS_RELEASED)
            }
            _ => Vec::new(),
        }
    }

    fn clear(&mut self, port: &Port, key: u64) -> Result<Told, Refusal> {
        self.check_key(port, key)?;
        let told = self.others(port, Sense::RESERVATIONS_PREEMPTED);
        self.registered.clear();
        self.reservation = None;
        self.generation = self.generation.wrapping_add(1);
        Ok(told)
    }

    fn preempt(&mut self, port: &Port, list: ReserveOut, kind: Kind) -> Result<Told, Refusal> {
        self.check_key(port, list.key)?;
        let held = self.reservation.as_ref();
        let by_all = held.is_some_and(|held| held.kind.is_held_by_all());
        let takes_over = held.is_some_and(|held| self.key_of(held) == list.other);
        if list.other == 0 && !by_all {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        // Zero means all who hold the unit together.
        let is_out =
            |other: &Port, key: u64| *other != *port && (list.other == 0 || key == list.other);
        let mut told = Vec::new();
        let known = self.registered.iter().any(|(_, key)| *key == list.other);
        if !known && !takes_over {
            return Err(Refusal::Conflict);
        }
        self.registered.retain(|(other, key)| {
            let out = is_out(other, *key);
            if out {
                told.push((other.clone(), Sense::REGISTRATIONS_PREEMPTED));
            }
            !out
        });
        if takes_over {
            let holder = port.clone();
            self.reservation = Some(Reservation { holder, kind });
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(told)
    }

    fn others(&self, port: &Port, sense: Sense) -> Told {
        let others = self.registered.iter().filter(|(other, _)| other != port);
        others.map(|(other, _)| (other.clone(), sense)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Cdb = Cdb::Write {
        lba: 0,
        blocks: 1,
        force: false,
    };

    #[test]
    fn who_is_preempted_is_out_and_learns_of_it() {
        let reservations = Reservations::default();
        let [old, new] = ["old", "new"].map(|name| Port::new((name.to_owned(), [0; 6])));
        let change = |port: &Port, action, key, other| {
            reservations.change(port, action, 5, ReserveOut { key, other })
        };
        let may_write = |port: &Port| reservations.permit(port, WRITE).is_some();
        assert_eq!(
            change(&old, change::RESERVE, 1, 0),
            Err(Refusal::Conflict),
            "not registered"
        );
        for (port, key) in [(&old, 1), (&new, 2)] {
            change(port, change::REGISTER, 0, key).unwrap();
        }
        change(&old, change::RESERVE, 1, 0).unwrap();
        assert!(may_write(&old) && may_write(&new));
        change(&new, change::PREEMPT_AND_ABORT, 2, 1).unwrap();
        assert!(!may_write(&old) && may_write(&new));
        assert_eq!(
            reservations.take_news(&old),
            Some(Sense::REGISTRATIONS_PREEMPTED)
        );
        assert_eq!(reservations.take_news(&old), None);
        assert_eq!(
            change(&old, change::CLEAR, 1, 0),
            Err(Refusal::Conflict),
            "no more"
        );
        change(&new, change::REGISTER, 2, 0).unwrap();
        assert!(may_write(&old), "the reservation goes with its holder");
    }

    #[test]
    fn a_change_waits_for_what_is_under_way() {
        let reservations = Reservations::default();
        let port = Port::default();
        let permit = reservations.permit(&port, WRITE);
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                let list = ReserveOut { key: 0, other: 1 };
                reservations.change(&port, change::REGISTER, 0, list)
            });
            while reservations.state.try_read().is_ok() {
                std::thread::yield_now();
            }
            assert!(!changing.is_finished());
            drop(permit);
            changing.join().unwrap().unwrap();
        });
    }
}
