//! A ramdisk that hangs must not hold the server for ever.
//!
//! A thread looks whether the program still comes round; if not, it switches the machine off. It
//! also feeds the machine's own watchdog, which resets the machine when not even that thread runs:
//! the kernel hangs. Source: Linux, Documentation/watchdog/watchdog-api.rst.

use crate::clock;
use crate::ramdisk::deploy::Log;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The machine's watchdog, once its driver is there.
const DEVICE: &str = "/dev/watchdog";

/// How often it is fed; the drivers wait for half a minute and more.
const FEEDING: Duration = Duration::from_secs(5);

/// How often the program says that it comes round.
const BEAT: Duration = Duration::from_secs(1);

/// How long the program may be at one thing: a driver that looks for its disks, a virtual drive
/// that fails, all of which the kernel gives up some time.
const STUCK: Duration = Duration::from_secs(10 * 60);

/// What disarms a watchdog: the "magic close".
const DISARM: &[u8] = b"V";

/// Watches the program.
#[derive(Debug, Clone)]
pub(super) struct Watchdog(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    beat: Instant,
    device: Option<File>,
    ended: bool,
}

impl Watchdog {
    /// Begins. `stuck` is called if the program hangs.
    pub(super) fn start(log: &Arc<dyn Log>, stuck: impl FnOnce() + Send + 'static) -> Self {
        let watchdog = Self(Arc::new(Mutex::new(State {
            beat: clock::instant(),
            device: None,
            ended: false,
        })));
        let watching = watchdog.clone();
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let told = Arc::clone(log);
        let thread = thread.spawn(move || {
            while watching.look(Path::new(DEVICE), told.as_ref()) {
                std::thread::park_timeout(FEEDING);
            }
            if !watching.state().ended {
                let seconds = STUCK.as_secs();
                told.line(&format!(
                    "the ramdisk hangs since {seconds} seconds: switching off"
                ));
                // From here on the machine's watchdog is not fed: it has the last word.
                stuck();
            }
        });
        if let Err(error) = thread {
            log.line(&format!("no watchdog: {error}"));
        }
        watchdog
    }

    /// Says again and again that the program comes round. It has to be polled by the task whose
    /// hanging matters.
    pub(super) async fn beat(&self) {
        loop {
            self.state().beat = clock::instant();
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Disarms the machine's watchdog: a restart takes longer than it would wait.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        if let Some(mut device) = state.device.take() {
            drop(device.write_all(DISARM));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds the machine's watchdog; false if the program hangs, or has ended.
    fn look(&self, path: &Path, log: &dyn Log) -> bool {
        let mut state = self.state();
        if state.ended || clock::instant().saturating_duration_since(state.beat) > STUCK {
            return false;
        }
        if state.device.is_none()
            && let Ok(device) = OpenOptions::new().write(true).open(path)
        {
            log.line("watchdog: armed");
            state.device = Some(device);
        }
        if let Some(device) = &mut state.device {
            drop(device.write_all(b"."));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Silent;

    impl Log for Silent {
        fn line(&self, _: &str) {}
    }

    fn watchdog(beat: Instant) -> Watchdog {
        Watchdog(Arc::new(Mutex::new(State {
            beat,
            device: None,
            ended: false,
        })))
    }

    #[test]
    fn the_device_is_fed_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        let now = watchdog(clock::instant());
        assert!(now.look(&path, &Silent), "its driver may come later");
        std::fs::write(&path, "").unwrap();
        assert!(now.look(&path, &Silent) && now.look(&path, &Silent));
        now.end();
        assert!(!now.look(&path, &Silent));
        assert_eq!(std::fs::read(&path).unwrap(), b"..V");
    }

    #[test]
    fn who_does_not_come_round_is_not_fed_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let Some(long_ago) = clock::instant().checked_sub(STUCK + BEAT) else {
            return;
        };
        let hanging = watchdog(long_ago);
        assert!(!hanging.look(&path, &Silent));
        assert!(!hanging.state().ended);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[tokio::test]
    async fn the_beat_is_that_of_its_task() {
        let Some(long_ago) = clock::instant().checked_sub(STUCK) else {
            return;
        };
        let watchdog = watchdog(long_ago);
        let polled = watchdog.clone();
        tokio::select! {
            () = polled.beat() => {}
            () = tokio::task::yield_now() => {}
        }
        assert!(watchdog.state().beat > long_ago);
    }
}
