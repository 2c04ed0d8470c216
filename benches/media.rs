//! Boot ISOs and floppies against the tools that others use for them.
//!
//! `cargo bench --bench media [-- FOLDER [ROUNDS]]`; FOLDER defaults to `/dev/shm`. Every round
//! runs all competitors one after the other in an order that rotates, and a ratio is the median
//! of the ratios within the rounds, so that a machine that is busy for a while does not decide.
//! Each competitor is a process of its own; ours is this program again.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

use flowrun::image::artifact::ArtifactStore;
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::image::vfat::{VfatSpec, make_vfat};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const FLOPPIES: usize = 100;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["iso", folder] => write_iso(Path::new(folder)),
        ["artifact", folder] => keep_iso(Path::new(folder)),
        ["floppies", folder] => write_floppies(Path::new(folder)),
        [] => compare(Path::new("/dev/shm"), 9),
        [folder] => compare(Path::new(folder), 9),
        [folder, rounds] => compare(Path::new(folder), rounds.parse().unwrap()),
        _ => panic!("usage: media [FOLDER [ROUNDS]]"),
    }
}

fn spec(folder: &Path) -> IsoSpec {
    IsoSpec {
        volume_id: "BENCH".to_owned(),
        kernel: Source::File(folder.join("in/vmlinuz")),
        ramdisk: Source::File(folder.join("in/initrd")),
        kernel_params: "quiet".to_owned(),
        isolinux: None,
        grub: None,
        files: Vec::new(),
    }
}

fn write_iso(folder: &Path) {
    let mut file = File::create(folder.join("out")).unwrap();
    Iso::plan(&spec(folder)).unwrap().write(&mut file).unwrap();
    peak();
}

/// With the SHA-256 that names the artifact.
fn keep_iso(folder: &Path) {
    let store = ArtifactStore::open(&folder.join("artifacts")).unwrap();
    let spec = spec(folder);
    let kept = store.put(|out| Iso::plan(&spec)?.write(out)).unwrap();
    store.remove(&kept.sha256).unwrap();
    peak();
}

fn write_floppies(folder: &Path) {
    let spec = VfatSpec {
        parameters: [("deployment_id".to_owned(), "1be26c0b".to_owned())].into(),
        files: vec![("token".to_owned(), vec![b't'; 200])],
        ..VfatSpec::default()
    };
    for _ in 0..FLOPPIES {
        fs::write(folder.join("out"), make_vfat(&spec).unwrap()).unwrap();
    }
    peak();
}

/// Says how much memory this process had at most.
fn peak() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", line.unwrap().split_whitespace().nth(1).unwrap());
}

struct Competitor {
    name: &'static str,
    command: Vec<String>,
    seconds: Vec<f64>,
    peak_kib: u64,
}

impl Competitor {
    fn new(name: &'static str, command: &str) -> Self {
        Self {
            name,
            command: command.split(' ').map(str::to_owned).collect(),
            seconds: Vec::new(),
            peak_kib: 0,
        }
    }

    fn shell(name: &'static str, script: &str) -> Self {
        Self {
            command: vec!["sh".into(), "-ec".into(), script.into()],
            ..Self::new(name, "")
        }
    }

    fn ours(name: &'static str, what: &str, folder: &Path) -> Self {
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

fn compare(place: &Path, rounds: usize) {
    let folder = tempfile::tempdir_in(place).unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("in")).unwrap();
    noise(&folder.join("in/vmlinuz"), 12);
    for mib in [64, 1024] {
        noise(&folder.join("in/initrd"), mib);
        let mut all = [
            Competitor::shell("cat", "cat in/vmlinuz in/initrd >out"),
            Competitor::ours("Iso::write", "iso", folder),
            Competitor::new("genisoimage", "genisoimage -quiet -R -J -V BENCH -o out in"),
            Competitor::new(
                "xorriso",
                "xorriso -as mkisofs -quiet -R -J -V BENCH -o out in",
            ),
            Competitor::shell(
                "cat, sync, sha256sum",
                "cat in/vmlinuz in/initrd >out; sync out; sha256sum out >/dev/null",
            ),
            Competitor::ours("kept as an artifact", "artifact", folder),
        ];
        race(&mut all, folder, rounds);
        report(&format!("ISO of 12 MiB kernel and {mib} MiB ramdisk"), &all);
    }
    fs::write(folder.join("token"), vec![b't'; 200]).unwrap();
    fs::write(folder.join("parameters.txt"), "deployment_id=1be26c0b").unwrap();
    let tools = format!(
        "for i in $(seq {FLOPPIES}); do rm -f out; mkfs.vfat -C -n IR-VFD-DEV out 1440 >/dev/null; \
         mcopy -i out token parameters.txt ::; done"
    );
    let mut all = [
        Competitor::shell("mkfs.vfat and mcopy", &tools),
        Competitor::ours("make_vfat", "floppies", folder),
    ];
    race(&mut all, folder, rounds);
    report(&format!("{FLOPPIES} floppies of 1.44 MB"), &all);
}

fn race(all: &mut [Competitor], folder: &Path, rounds: usize) {
    for round in 0..rounds {
        for turn in 0..all.len() {
            let at = (round + turn) % all.len();
            all[at].run(folder);
        }
    }
}

/// Seconds, and ratios to the first competitor.
fn report(title: &str, all: &[Competitor]) {
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
fn noise(path: &Path, mib: usize) {
    let mut random = File::open("/dev/urandom").unwrap();
    let mut file = File::create(path).unwrap();
    for _ in 0..mib {
        let mut part = std::io::Read::by_ref(&mut random);
        std::io::copy(&mut std::io::Read::take(&mut part, 1 << 20), &mut file).unwrap();
    }
}
