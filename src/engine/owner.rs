//! Who owns a run: a process, named so that its death can be told.

use crate::clock;
use crate::journal::RunStatus;
use std::time::Duration;

/// How long a silent owner on another machine keeps its runs.
pub const LEASE: Duration = Duration::from_secs(30);

/// How often an owner says that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// This process as `host/pid/start`; the start time tells a reused pid apart.
#[must_use]
pub fn this_process() -> String {
    let pid = std::process::id();
    format!("{}/{pid}/{}", host(), start_of(pid).unwrap_or_default())
}

/// Whether the owner may still be working.
#[must_use]
pub fn is_alive(owner: &str, alive_ms: u64) -> bool {
    let mut parts = owner.split('/');
    let (Some(their_host), Some(pid), Some(start)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if their_host == host() {
        return pid
            .parse()
            .ok()
            .and_then(start_of)
            .is_some_and(|now| now == start);
    }
    let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    clock::unix_ms().saturating_sub(alive_ms) < lease
}

/// How a run is shown: one whose owner died still says `running` in the journal, and is `dead`.
#[must_use]
pub fn status_of(status: RunStatus, owner: &str, alive_ms: u64) -> &'static str {
    if status == RunStatus::Running && !is_alive(owner, alive_ms) {
        return "dead";
    }
    status.as_str()
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.replace('/', "-")
    }
}

/// Clock ticks after boot at which the process started: field 22 of `/proc/PID/stat`.
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_living_from_the_dead() {
        let me = this_process();
        assert!(is_alive(&me, 0));
        let (prefix, _) = me.rsplit_once('/').unwrap();
        assert!(
            !is_alive(&format!("{prefix}/1"), clock::unix_ms()),
            "a reused pid"
        );
        assert!(is_alive("elsewhere/1/1", clock::unix_ms()));
        assert!(!is_alive("elsewhere/1/1", clock::unix_ms() - 31_000));
    }
}
