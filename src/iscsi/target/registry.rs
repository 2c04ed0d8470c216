//! The sessions of a target: who is in, and who has to go.

use super::rule::InitiatorRule;
use crate::iscsi::proto::LoginStatus;
use crate::iscsi::proto::pdu::Isid;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An initiator port: its name and ISID.
pub(super) type Port = Arc<(String, Isid)>;

/// Decides who may log in.
#[derive(Debug)]
pub(super) struct Registry {
    rule: Option<InitiatorRule>,
    sessions: Arc<Mutex<Sessions>>,
}

#[derive(Debug, Default)]
struct Sessions {
    closed: bool,
    newest_fence: u64,
    last_tsih: u16,
    logins: u64,
    /// Initiator ports that had a session, newest last.
    seen: VecDeque<Port>,
    by_tsih: HashMap<u16, Entry>,
}

#[derive(Debug)]
struct Entry {
    port: Port,
    fence: u64,
    gate: Gate,
}

/// What a session must pass to touch the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    /// Shut: no disk operation may begin.
    pub(super) shut: CancellationToken,
    /// Disk operations that have begun.
    pub(super) running: TaskTracker,
}

impl Gate {
    /// Shuts the gate and waits until nobody is behind it.
    async fn close(&self) {
        self.shut.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// A session that is in; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) tsih: u16,
    pub(super) port: Port,
    pub(super) gate: Gate,
    /// The initiator port had a session since the target was started.
    pub(super) returns: bool,
    sessions: Arc<Mutex<Sessions>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        lock(&self.sessions).by_tsih.remove(&self.tsih);
    }
}

impl Registry {
    pub(super) fn new(rule: Option<InitiatorRule>) -> Self {
        let sessions = Arc::default();
        Self { rule, sessions }
    }

    /// Whether an initiator of this name may ask for the list of targets.
    pub(super) fn knows(&self, initiator_name: &str) -> bool {
        self.fence(initiator_name).is_some()
    }

    /// Lets a session in. Those that it replaces are out, and their disk operations have ended,
    /// before this returns: nothing of theirs can land on the disk afterwards.
    pub(super) async fn admit(
        &self,
        initiator_name: &str,
        isid: Isid,
    ) -> Result<Member, LoginStatus> {
        let (member, replaced) = self.enter(initiator_name, isid)?;
        for gate in replaced {
            gate.close().await;
        }
        Ok(member)
    }

    fn enter(&self, initiator_name: &str, isid: Isid) -> Result<(Member, Vec<Gate>), LoginStatus> {
        let fence = self.fence(initiator_name);
        let fence = fence.ok_or(LoginStatus::AUTHORIZATION_FAILURE)?;
        let mut sessions = lock(&self.sessions);
        if sessions.closed {
            return Err(LoginStatus::OUT_OF_RESOURCES);
        }
        if fence < sessions.newest_fence {
            return Err(LoginStatus::AUTHORIZATION_FAILURE);
        }
        sessions.newest_fence = fence;
        // RFC 7143 section 6.3.5: the same name and ISID replaces the session.
        let port = Port::new((initiator_name.to_owned(), isid));
        let is_replaced = |entry: &Entry| entry.fence < fence || entry.port == port;
        let replaced: Vec<Gate> = sessions
            .by_tsih
            .extract_if(|_, entry| is_replaced(entry))
            .map(|(_, entry)| entry.gate)
            .collect();
        let tsih = sessions.free_tsih().ok_or(LoginStatus::OUT_OF_RESOURCES)?;
        let gate = Gate::default();
        let entry = Entry {
            port: port.clone(),
            fence,
            gate: gate.clone(),
        };
        sessions.by_tsih.insert(tsih, entry);
        sessions.logins += 1;
        let returns = sessions.saw(&port);
        let sessions = Arc::clone(&self.sessions);
        let member = Member {
            tsih,
            port,
            gate,
            returns,
            sessions,
        };
        Ok((member, replaced))
    }

    /// Lets nobody in any more and no disk operation begin.
    pub(super) fn shut(&self) {
        let mut sessions = lock(&self.sessions);
        sessions.closed = true;
        for entry in sessions.by_tsih.values() {
            entry.gate.shut.cancel();
        }
    }

    /// As [`Self::shut`], and waits for the disk operations that have begun.
    pub(super) async fn close(&self) {
        self.shut();
        let entries = std::mem::take(&mut lock(&self.sessions).by_tsih);
        for entry in entries.into_values() {
            entry.gate.close().await;
        }
    }

    /// The status for a connection that wants to join a session.
    pub(super) fn refuse_to_join(&self, tsih: u16) -> LoginStatus {
        if lock(&self.sessions).by_tsih.contains_key(&tsih) {
            LoginStatus::TOO_MANY_CONNECTIONS
        } else {
            LoginStatus::SESSION_DOES_NOT_EXIST
        }
    }

    /// Sessions now, and sessions ever.
    pub(super) fn counts(&self) -> (u64, u64) {
        let sessions = lock(&self.sessions);
        (sessions.by_tsih.len() as u64, sessions.logins)
    }

    fn fence(&self, initiator_name: &str) -> Option<u64> {
        match &self.rule {
            Some(rule) => rule.fence(initiator_name),
            None => Some(0),
        }
    }
}

/// Initiator ports that are remembered.
const MAX_SEEN: usize = 256;

impl Sessions {
    /// Remembers an initiator port; tells whether it was known.
    fn saw(&mut self, port: &Port) -> bool {
        if self.seen.contains(port) {
            return true;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(port.clone());
        false
    }

    /// A TSIH that is not in use, nor was just now; 0 means none.
    fn free_tsih(&mut self) -> Option<u16> {
        let mut candidates = (1..=u16::MAX).map(|step| self.last_tsih.wrapping_add(step));
        let free = candidates.find(|tsih| *tsih != 0 && !self.by_tsih.contains_key(tsih))?;
        self.last_tsih = free;
        Some(free)
    }
}

fn lock(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    // Nothing that can panic happens under the lock.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "iqn.test:run";
    const A: Isid = [1; 6];
    const B: Isid = [2; 6];

    fn registry() -> Registry {
        Registry::new(Some(InitiatorRule::new(BASE)))
    }

    #[tokio::test]
    async fn a_newer_owner_replaces_the_older_one() {
        let registry = registry();
        let old = registry.admit("iqn.test:run:f1", A).await.unwrap();
        assert_eq!(registry.counts(), (1, 1));
        let new = registry.admit("iqn.test:run:f2", B).await.unwrap();
        assert!(old.gate.shut.is_cancelled());
        assert!(!new.gate.shut.is_cancelled());
        assert_eq!(registry.counts(), (1, 2));
        drop(old); // takes nothing of the new one with it
        assert_eq!(registry.counts(), (1, 2));
        // The fence holds even when nobody is in any more.
        drop(new);
        for name in ["iqn.test:run:f1", BASE, "iqn.test:other"] {
            let refused = registry.admit(name, A).await.unwrap_err();
            assert_eq!(refused, LoginStatus::AUTHORIZATION_FAILURE, "{name}");
        }
        assert!(registry.admit("iqn.test:run:f2", A).await.is_ok());
    }

    #[tokio::test]
    async fn a_running_disk_operation_is_waited_for() {
        let registry = registry();
        let old = registry.admit(BASE, A).await.unwrap();
        let running = old.gate.running.token();
        let mut newer = Box::pin(registry.admit("iqn.test:run:f1", A));
        assert!(futures_util::poll!(&mut newer).is_pending());
        drop(running);
        assert!(newer.await.is_ok());
    }

    #[tokio::test]
    async fn the_same_session_is_reinstated_and_others_stay() {
        let registry = Registry::new(None);
        let first = registry.admit("a", A).await.unwrap();
        let second = registry.admit("a", B).await.unwrap();
        let again = registry.admit("a", A).await.unwrap();
        assert!(first.gate.shut.is_cancelled());
        assert!(!second.gate.shut.is_cancelled());
        assert_eq!(
            registry.refuse_to_join(again.tsih),
            LoginStatus::TOO_MANY_CONNECTIONS
        );
        assert_eq!(
            registry.refuse_to_join(999),
            LoginStatus::SESSION_DOES_NOT_EXIST
        );
    }
}
