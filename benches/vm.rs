//! The same disk image written to one virtual machine through three deploy ramdisks: ours, the
//! kernel's own target (LIO), and tgtd; rates, and what the emulated machine computed for it.
//!
//! `cargo bench --bench vm [-- MIB [ROUNDS [DEPLOY_ISO]]]`; it needs what
//! `tests/run.sh packages boot` prepares, and `FLOWRUN_TEST_BOOT`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and stops at the first surprise"
)]
#![allow(dead_code, reason = "of the tests' machinery a part is used")]

#[path = "../tests/it/flow/site.rs"]
mod flow;
#[path = "../tests/it/vm/parts.rs"]
mod parts;
#[path = "../tests/it/vm/site.rs"]
mod site;
#[path = "../tests/it/support.rs"]
mod support;

/// What the tests' machinery calls by this name.
mod image {
    use std::io::Read;

    pub(crate) fn noise(_seed: u64, length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        random.read_exact(&mut noise).unwrap();
        noise
    }
}

use flowrun::clock;
use parts::{Exporter, classic_iso, parts};
use serde_json::Value;
use site::{VmSite, Wanted};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let number =
        |at: usize, standard: usize| words.get(at).map_or(standard, |word| word.parse().unwrap());
    let (mib, rounds) = (number(0, 256), number(1, 3));
    let own = || parts().deploy_iso.clone();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.raw");
    fs::write(&image, image::noise(0, mib << 20)).unwrap();
    let isos = [
        ("ours", words.get(2).map_or_else(own, PathBuf::from)),
        ("LIO", classic_iso(folder.path(), Exporter::Lio)),
        ("tgtd", classic_iso(folder.path(), Exporter::Tgtd)),
    ];
    println!("{mib} MiB; MB/s written and verified, processor seconds of the machine meanwhile");
    for round in 1..=rounds {
        for (name, iso) in &isos {
            let (write, read, usage) = deploy(iso, &image);
            println!("round {round}  {name:<5} written {write}  verified {read}  {usage}");
        }
    }
}

/// One deployment; the image has no system, so it ends when the disk is verified. The last is what
/// our ramdisk says of itself.
fn deploy(iso: &Path, image: &Path) -> (String, String, String) {
    let site = VmSite::start("ilo5", iso);
    site.configure(&Wanted {
        capabilities: "boot_mode:bios",
        root_device: "",
        instance_info: format!("image_source = {image:?}\nimage_type = \"whole-disk\""),
    });
    let mut run = site.flow("deploy").spawn().unwrap();
    let mut samples = Vec::new();
    while run.try_wait().unwrap().is_none() {
        if let Some(seconds) = site
            .machine()
            .and_then(|process| processor_seconds(&process))
        {
            samples.push((clock::unix_ms(), seconds));
        }
        flow::pause(Duration::from_millis(50));
    }
    let id = site.lab.newest_run().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = site.configured(&["show", "--json", &id]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let bytes = fs::metadata(image).unwrap().len();
    let entries = shown["entries"].as_array().unwrap();
    let console = site.console();
    let usage = console.lines().find(|line| line.contains("used at most"));
    let [write, read] = ["disk.write_whole_disk_image", "disk.verify"].map(|name| {
        let entry = entries.iter().find(|entry| entry["name"] == name);
        let entry = entry.unwrap_or_else(|| panic!("no {name}: {}", site.console()));
        let [from, to] = ["t0_ms", "t1_ms"].map(|at| entry[at].as_u64().unwrap());
        let used = |at| {
            let before = samples.iter().rev().find(|(time, _)| *time <= at);
            before.map_or(0.0, |(_, seconds)| *seconds)
        };
        let rate = bytes as f64 / 1e3 / (to - from) as f64;
        format!("{rate:6.1} MB/s, {:5.2} s", used(to) - used(from))
    });
    (write, read, usage.unwrap_or_default().trim().to_owned())
}

/// User and system time of a process.
fn processor_seconds(process: &Path) -> Option<f64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}
