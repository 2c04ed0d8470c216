//! Runs and their calls on disk: what was started, what came back, who owns it.
//!
//! One SQLite file (WAL) in the state directory. One thread owns the connection and commits what
//! is waiting in one transaction, so that many runs share a flush. A row of a run is written only
//! while its `fence` is the newest one: an owner that lost its run cannot write any more.

mod boot_iso;
mod edit;
mod event;
mod learned;
mod look;
mod node;
mod record;
mod retention;
mod run;
mod store;

pub use edit::Edit;
pub use learned::{Learned, lay_over};
pub use look::{Counts, RunFilter};
pub use record::{
    Bundle, Entry, EntryState, ExpectedCallback, LogLine, NodeLock, NodeOwner, Pin, RunRecord,
    RunStatus, Takeover,
};
pub use run::NewRun;
pub use store::Journal;

/// Changes a recorded argument behind a run's back; answers the rows changed.
#[cfg(test)]
pub(crate) fn edit_for_test(state_dir: &std::path::Path, run: &str, key: &str) -> usize {
    let db = rusqlite::Connection::open(state_dir.join("journal.db")).unwrap();
    db.execute(
        "UPDATE entry SET args_hash = 'x' WHERE run = ? AND key = ?",
        [run, key],
    )
    .unwrap()
}
