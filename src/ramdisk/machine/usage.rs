//! What a deployment takes of the machine: memory and processor.

use super::LOOK_PAUSE;
use std::convert::Infallible;
use std::fmt;
use std::fs::read_to_string;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ticks a second in `/proc`, whatever the kernel's own: USER_HZ of proc(5).
const TICKS: u32 = 100;

/// The most memory that was in use. All of the kernel and its caches are in it, as far as they
/// cannot be given up.
#[derive(Debug, Default)]
pub(super) struct Usage {
    most_kib: AtomicU64,
}

impl Usage {
    /// Looks again and again.
    pub(super) async fn watch(&self) -> Infallible {
        loop {
            let text = read_to_string("/proc/meminfo").unwrap_or_default();
            let free = number(&text, "MemAvailable:");
            let used = number(&text, "MemTotal:").zip(free);
            let used = used.map_or(0, |(total, free)| total.saturating_sub(free));
            self.most_kib.fetch_max(used, Ordering::Relaxed);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// As a line of the log.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [memory, own, stat] = ["meminfo", "self/status", "self/stat"]
            .map(|name| read_to_string(format!("/proc/{name}")).unwrap_or_default());
        let total = number(&memory, "MemTotal:").unwrap_or(0) >> 10;
        let most = self.most_kib.load(Ordering::Relaxed) >> 10;
        let own = number(&own, "VmHWM:").unwrap_or(0) >> 10;
        let [user, kernel] = processor(&stat).unwrap_or_default();
        write!(
            f,
            "used at most {most} of {total} MiB memory, {own} MiB of them this program's; \
             its processor time is {user:.1} s, and {kernel:.1} s of the kernel"
        )
    }
}

/// The number of a line that begins so, as in `MemTotal:  757920 kB`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Seconds in user mode and in the kernel; fields 14 and 15 of proc_pid_stat(5), which follow a
/// name that may have anything in it.
fn processor(stat: &str) -> Option<[f64; 2]> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || {
        let ticks: u32 = fields.next()?.parse().ok()?;
        Some(f64::from(ticks) / f64::from(TICKS))
    };
    Some([seconds()?, seconds()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc() {
        let memory = "MemTotal:         757920 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n";
        assert_eq!(number(memory, "MemAvailable:"), Some(600));
        assert_eq!(number(memory, "Mem"), None);
        let stat = "1 (a) init) S 0 0 0 0 -1 4194560 1 0 0 0 250 30 0 0 20 0 1 0";
        assert_eq!(processor(stat), Some([2.5, 0.3]));
        assert_eq!(processor("1 (init) S"), None);
    }

    #[test]
    fn a_process_of_this_machine_takes_some() {
        let line = Usage::default().to_string();
        assert!(line.starts_with("used at most 0 of "), "{line}");
        assert!(!line.contains(" 0 MiB"), "{line}");
    }
}
