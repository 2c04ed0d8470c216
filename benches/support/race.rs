//! Competitors of a benchmark, the race between them, and what it prints.
//!
//! Every round runs all competitors one after the other in an order that rotates, and a ratio is
//! the median of the ratios within the rounds, so that a machine that is busy for a while does not
//! decide. Each competitor is a process of its own; ours is the benchmark again.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Says how much memory this process had at most.
pub(crate) fn peak() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", line.unwrap().split_whitespace().nth(1).unwrap());
}

pub(crate) struct Competitor {
    name: &'static str,
    command: Vec<String>,
    seconds: Vec<f64>,
    peak_kib: u64,
}

impl Competitor {
    pub(crate) fn new(name: &'static str, command: &str) -> Self {
        Self {
            name,
            command: command.split(' ').map(str::to_owned).collect(),
            seconds: Vec::new(),
            peak_kib: 0,
        }
    }

    pub(crate) fn shell(name: &'static str, script: &str) -> Self {
        Self {
            command: vec!["sh".into(), "-ec".into(), script.into()],
            ..Self::new(name, "")
        }
    }

    pub(crate) fn ours(name: &'static str, what: &str, folder: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::new(
            name,
            &format!("{} {what} {}", program.display(), folder.display()),
        )
    }

    fn run(&mut self, folder: &Path) {
        fs::remove_file(folder.join("out")).ok();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(folder);
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        command.env("PATH", path).stderr(Stdio::null());
        let started = Instant::now();
        let output = command.output().unwrap();
        self.seconds.push(started.elapsed().as_secs_f64());
        assert!(output.status.success(), "{:?}", self.command);
        if let Ok(kib) = String::from_utf8_lossy(&output.stdout).trim().parse() {
            self.peak_kib = self.peak_kib.max(kib);
        }
    }
}

pub(crate) fn race(all: &mut [Competitor], folder: &Path, rounds: usize) {
    for round in 0..rounds {
        for turn in 0..all.len() {
            let at = (round + turn) % all.len();
            all[at].run(folder);
        }
    }
}

/// Seconds, and ratios to the first competitor.
pub(crate) fn report(title: &str, all: &[Competitor]) {
    println!(
        "\n{title}: median seconds, and ratio to {} [least, most]",
        all[0].name
    );
    for one in all {
        let ratios: Vec<f64> = one
            .seconds
            .iter()
            .zip(&all[0].seconds)
            .map(|(own, base)| own / base)
            .collect();
        let (least, middle, most) = spread(ratios);
        let memory = match one.peak_kib {
            0 => String::new(),
            kib => format!("  peak {:.1} MiB", kib as f64 / 1024.0),
        };
        println!(
            "  {:<22} {:>8.4}  {middle:>6.3} [{least:.3}, {most:.3}]{memory}",
            one.name,
            spread(one.seconds.clone()).1
        );
    }
}

fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    )
}

/// A file of bytes that do not repeat.
pub(crate) fn noise(path: &Path, mib: usize) {
    let mut random = File::open("/dev/urandom").unwrap();
    let mut file = File::create(path).unwrap();
    for _ in 0..mib {
        let mut part = std::io::Read::by_ref(&mut random);
        std::io::copy(&mut std::io::Read::take(&mut part, 1 << 20), &mut file).unwrap();
    }
}
