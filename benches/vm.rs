//! The same disk image written to one virtual machine through three deploy ramdisks: ours, the
//! kernel's own target (LIO), and tgtd; rates, and what the emulated machine computed for it.
//!
//! `cargo bench --bench vm [-- MIB [ROUNDS]]`; it needs what `tests/run.sh packages boot` prepares,
//! and `FLOWRUN_TEST_BOOT`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and stops at the first surprise"
)]
#![allow(dead_code, reason = "of the tests' machinery a part is used")]

#[path = "../tests/it/flow/site.rs"]
mod flow;
#[path = "../tests/it/vm/parts.rs"]
mod parts;
#[path = "support/race.rs"]
mod race;
#[path = "../tests/it/vm/site.rs"]
mod site;
#[path = "../tests/it/support.rs"]
mod support;

/// What the tests' machinery calls by this name.
mod image {
    pub(crate) use crate::race::noise;
}

use parts::{Exporter, classic_iso, parts};
use serde_json::Value;
use site::{VmSite, Wanted};
use std::fs;
use std::path::Path;

fn main() {
    let arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let numbers: Vec<u64> = arguments.map(|word| word.parse().unwrap()).collect();
    let (mib, rounds) = match numbers[..] {
        [] => (256, 3),
        [mib] => (mib, 3),
        [mib, rounds] => (mib, rounds),
        _ => panic!("usage: vm [MIB [ROUNDS]]"),
    };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.raw");
    fs::write(&image, race::noise(mib as usize)).unwrap();
    let isos = [
        ("ours", parts().deploy_iso.clone()),
        ("LIO", classic_iso(folder.path(), Exporter::Lio)),
        ("tgtd", classic_iso(folder.path(), Exporter::Tgtd)),
    ];
    println!("{mib} MiB; MB/s written and read back, processor seconds of the machine meanwhile");
    for round in 1..=rounds {
        for (name, iso) in &isos {
            let (write, read) = deploy(iso, &image);
            println!("round {round}  {name:<5} written {write}  read back {read}");
        }
    }
}
