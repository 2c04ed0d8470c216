//! What the ramdisk tells: on every console that the kernel has, and kept to be sent along.

use crate::clock;
use crate::ramdisk::deploy::{Log, printable};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many of the newest lines are kept.
const KEPT_LINES: usize = 200;

/// The consoles, serial and screen.
#[derive(Debug)]
pub(super) struct Consoles {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    devices: Vec<File>,
    kept: VecDeque<String>,
    /// How many of the newest lines were not taken yet.
    untaken: usize,
}

impl Consoles {
    /// Opens all that the kernel was told to use; `/dev` and `/sys` have to be mounted.
    pub(super) fn open() -> Self {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let mut names: Vec<&str> = active.split_whitespace().collect();
        if names.is_empty() {
            names.push("console");
        }
        let open = |name: &&str| {
            OpenOptions::new()
                .write(true)
                .open(format!("/dev/{name}"))
                .ok()
        };
        let inner = Inner {
            devices: names.iter().filter_map(open).collect(),
            kept: VecDeque::new(),
            untaken: 0,
        };
        Self {
            began: clock::instant(),
            inner: Mutex::new(inner),
        }
    }

    /// Clears the screens and shows this instead.
    pub(super) fn screen(&self, text: &str) {
        let text = format!("\x1b[2J\x1b[H{}\r\n", text.replace('\n', "\r\n"));
        self.inner().write(&text);
    }

    /// The newest lines, oldest first.
    pub(super) fn newest(&self, count: usize) -> Vec<String> {
        self.inner().newest(count)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn newest(&self, count: usize) -> Vec<String> {
        let skipped = self.kept.len().saturating_sub(count);
        self.kept.iter().skip(skipped).cloned().collect()
    }

    fn keep(&mut self, line: String) {
        if self.kept.len() == KEPT_LINES {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
        self.untaken = (self.untaken + 1).min(KEPT_LINES);
    }

    fn take(&mut self) -> Vec<String> {
        let count = std::mem::take(&mut self.untaken);
        self.newest(count)
    }

    /// A console that does not take it, as one without a line, is no reason to stop.
    fn write(&mut self, text: &str) {
        for device in &mut self.devices {
            drop(device.write_all(text.as_bytes()));
        }
    }
}

impl Log for Consoles {
    fn line(&self, text: &str) {
        let elapsed = clock::instant().saturating_duration_since(self.began);
        let printable = printable(text);
        let time = elapsed.as_secs_f64();
        let mut inner = self.inner();
        inner.write(&format!("[{time:8.3}] flowrun: {printable}\r\n"));
        inner.keep(format!("[{time:8.3}] {printable}"));
    }

    fn take(&self) -> Vec<String> {
        self.inner().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_taken_once() {
        let mut inner = Inner {
            devices: Vec::new(),
            kept: VecDeque::new(),
            untaken: 0,
        };
        inner.keep("a".into());
        inner.keep("b".into());
        assert_eq!(inner.take(), ["a", "b"]);
        inner.keep("c".into());
        assert_eq!(inner.take(), ["c"]);
        assert!(inner.take().is_empty());
        assert_eq!(inner.newest(2), ["b", "c"]);
        for number in 0..KEPT_LINES + 5 {
            inner.keep(number.to_string());
        }
        let taken = inner.take();
        assert_eq!((taken.len(), taken[0].as_str()), (KEPT_LINES, "5"));
    }
}
