//! What the runs of this process did, in numbers.

use super::event::{Event, What};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the latency classes, in seconds: from a journal write to the power-on self test
/// of an old server.
pub const BOUNDS: [f64; 12] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 1800.0,
];

/// How long the calls of one primitive took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Latency {
    /// Calls that took no longer than the bound of the same place, and longer than the one before.
    pub counts: [u64; BOUNDS.len()],
    /// All calls, also those over every bound.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Seconds together.
    pub seconds: f64,
}

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    calls: BTreeMap<String, Latency>,
    written_bytes: u64,
    /// How far each run's writes have come: (run, step) → bytes.
    writing: HashMap<(String, String), u64>,
}

impl Meter {
    /// Latencies by primitive.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, Latency> {
        self.numbers().calls.clone()
    }

    /// Bytes of images that were put on disks, zeros included.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.numbers().written_bytes
    }

    pub(super) fn observe(&self, event: &Event) {
        match &event.what {
            What::CallFinished {
                name, ok, seconds, ..
            } => {
                let mut numbers = self.numbers();
                let latency = numbers.calls.entry(name.clone()).or_default();
                if let Some(at) = BOUNDS.iter().position(|bound| seconds <= bound)
                    && let Some(count) = latency.counts.get_mut(at)
                {
                    *count += 1;
                }
                latency.calls += 1;
                latency.failed += u64::from(!ok);
                latency.seconds += seconds;
            }
            What::Progress {
                step,
                what,
                done_bytes,
                ..
            } if what == "written" => {
                let mut numbers = self.numbers();
                let key = (event.run.clone(), step.clone());
                let before = numbers.writing.insert(key, *done_bytes).unwrap_or(0);
                // Less than before: a second image, or the same from its beginning.
                let more = done_bytes.checked_sub(before).unwrap_or(*done_bytes);
                numbers.written_bytes += more;
            }
            What::RunFinished { .. } => {
                self.numbers()
                    .writing
                    .retain(|(run, _), _| *run != event.run);
            }
            _ => {}
        }
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::RunStatus;

    fn tell(meter: &Meter, what: What) {
        meter.observe(&Event {
            t_ms: 0,
            run: "r".into(),
            node: "n".into(),
            what,
        });
    }

    fn call(seconds: f64, ok: bool) -> What {
        What::CallFinished {
            key: "s/ilo.info#1".into(),
            name: "ilo.info".into(),
            site: String::new(),
            ok,
            seconds,
        }
    }

    fn progress(what: &str, done_bytes: u64) -> What {
        What::Progress {
            step: "write image".into(),
            what: what.into(),
            done_bytes,
            total_bytes: 100,
        }
    }

    #[test]
    fn a_call_falls_into_one_class() {
        let meter = Meter::default();
        for (seconds, ok) in [(0.001, true), (0.3, true), (7200.0, false)] {
            tell(&meter, call(seconds, ok));
        }
        let latency = &meter.calls()["ilo.info"];
        assert_eq!((latency.calls, latency.failed), (3, 1));
        assert_eq!(
            latency.counts.iter().sum::<u64>(),
            2,
            "two hours are over every bound"
        );
        assert_eq!((latency.counts[0], latency.counts[4]), (1, 1));
    }

    #[test]
    fn bytes_count_once_and_again_when_written_again() {
        let meter = Meter::default();
        for what in [
            progress("written", 40),
            progress("verified", 99),
            progress("written", 100),
        ] {
            tell(&meter, what);
        }
        assert_eq!(meter.written_bytes(), 100);
        tell(&meter, progress("written", 30));
        assert_eq!(meter.written_bytes(), 130);
        tell(
            &meter,
            What::RunFinished {
                status: RunStatus::Done,
                seconds: 1.0,
                error: None,
                result: serde_json::Value::Null,
            },
        );
        assert!(meter.numbers().writing.is_empty());
    }
}
