//! The data path against `qemu-img` and what the machine can do at most.
//!
//! `cargo bench --bench disk [-- [--rounds N] [--gib N] [--shm FOLDER] [--disk FOLDER] [ROW...]]`
//! needs Debian's packages tgt, qemu-utils, qemu-block-extra, pigz and zstd. ROW is the beginning
//! of a row's name; without one all are run.
//!
//! Every round runs all competitors of a row one after the other, in an order that rotates; a
//! ratio is the median of the ratios within the rounds, so that a machine that is busy for a
//! while does not decide. Every competitor is a process of its own, ours is this program again,
//! and gets a fresh tgtd: earlier large writes make one faster.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

mod measure;
mod ours;
mod rows;
mod tgt;

use std::path::PathBuf;

/// What the command line says.
pub(crate) struct Settings {
    rounds: usize,
    bytes: u64,
    shm: PathBuf,
    disk: PathBuf,
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if words.first().is_some_and(|word| word == "ours") {
        return ours::run(&words[1..]);
    }
    let mut settings = Settings {
        rounds: 5,
        bytes: 4 << 30,
        shm: "/dev/shm".into(),
        disk: std::env::current_dir().unwrap().join("target"),
    };
    let (mut wanted, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value after the option");
        match word.as_str() {
            "--rounds" => settings.rounds = value().parse().unwrap(),
            "--gib" => settings.bytes = value().parse::<u64>().unwrap() << 30,
            "--shm" => settings.shm = value().into(),
            "--disk" => settings.disk = value().into(),
            _ => wanted.push(word),
        }
    }
    for (name, row) in rows::ROWS {
        if wanted.is_empty() || wanted.iter().any(|start| name.starts_with(start.as_str())) {
            row(name, &settings);
        }
    }
}
