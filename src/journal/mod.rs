//! Runs and their calls on disk: what was started, what came back, who owns it.
//!
//! One SQLite file (WAL) in the state directory. One thread owns the connection and commits what
//! is waiting in one transaction, so that many runs share a flush. A row of a run is written only
//! while its `fence` is the newest one: an owner that lost its run cannot write any more.

mod record;
mod run;
mod store;

pub use record::{
    Bundle, Entry, EntryState, LogLine, NodeLock, NodeOwner, RunRecord, RunStatus, Takeover,
};
pub use run::NewRun;
pub use store::Journal;
