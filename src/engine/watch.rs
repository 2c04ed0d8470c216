//! Tells a script that computes for ever from one that waits.
//!
//! A waiting script sits in a call, and the call ends at its deadline. A looping one makes no
//! calls: when a deadline passed or the run was cancelled and no call is under way for
//! [`GRACE`], the script is taken off its thread.

use crate::clock;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a script may compute after it should have ended.
const GRACE: Duration = Duration::from_millis(1500);

/// What a run's script is busy with.
#[derive(Debug)]
pub struct Watch(Mutex<State>);

#[derive(Debug)]
struct State {
    calls: usize,
    idle_since: Instant,
    cancelled_at: Option<Instant>,
    deadlines: HashMap<String, Instant>,
}

/// A call under way; dropping it ends it.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Watch);

impl Default for Watch {
    fn default() -> Self {
        Self(Mutex::new(State {
            calls: 0,
            idle_since: clock::instant(),
            cancelled_at: None,
            deadlines: HashMap::new(),
        }))
    }
}

impl Watch {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn call_begins(&self) -> Busy<'_> {
        self.state().calls += 1;
        Busy(self)
    }

    /// A step or clean-up begins that must end at `deadline_ms`.
    pub fn bounded(&self, path: &str, deadline_ms: u64) {
        let left = Duration::from_millis(deadline_ms.saturating_sub(clock::unix_ms()));
        let at = clock::instant() + left;
        self.state().deadlines.insert(path.to_owned(), at);
    }

    /// That step or clean-up ended.
    pub fn released(&self, path: &str) {
        self.state().deadlines.remove(path);
    }

    /// The run was cancelled just now; clean-ups are not affected.
    pub fn cancelled(&self) {
        self.state().cancelled_at.get_or_insert_with(clock::instant);
    }

    /// The script answered the cancel by unwinding.
    pub fn unwinding(&self) {
        self.state().cancelled_at = None;
    }

    /// The bounded path that should have ended, or "" for the cancelled run, if the script has
    /// been computing since for longer than the grace.
    pub fn overdue(&self) -> Option<String> {
        let state = self.state();
        if state.calls > 0 {
            return None;
        }
        let now = clock::instant();
        let late = |since: Instant| now >= since.max(state.idle_since) + GRACE;
        state
            .deadlines
            .iter()
            .find(|(_, at)| late(**at))
            .map(|(path, _)| path.clone())
            .or_else(|| {
                state
                    .cancelled_at
                    .filter(|at| late(*at))
                    .map(|_| String::new())
            })
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.calls -= 1;
        state.idle_since = clock::instant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_script_is_never_overdue() {
        let watch = Watch::default();
        watch.bounded("write image", clock::unix_ms());
        let busy = watch.call_begins();
        watch.0.lock().unwrap().idle_since -= GRACE * 2;
        assert_eq!(watch.overdue(), None);
        drop(busy);
        assert_eq!(watch.overdue(), None, "the grace begins when the call ends");
        let mut state = watch.0.lock().unwrap();
        state.idle_since -= GRACE * 2;
        state.deadlines.values_mut().for_each(|at| *at -= GRACE * 2);
        drop(state);
        assert_eq!(watch.overdue().as_deref(), Some("write image"));
        watch.released("write image");
        assert_eq!(watch.overdue(), None);
    }
}
