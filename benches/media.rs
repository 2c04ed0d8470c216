//! Boot ISOs and floppies against the tools that others use for them.
//!
//! `cargo bench --bench media [-- FOLDER [ROUNDS]]`; FOLDER defaults to `/dev/shm`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

#[path = "support/race.rs"]
mod race;

use flowrun::image::artifact::ArtifactStore;
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::image::vfat::{VfatSpec, make_vfat};
use race::{Competitor, noise, peak, race, report};
use std::fs::{self, File};
use std::path::Path;

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
        files: vec![("token".to_owned(), Source::Bytes(vec![b't'; 200]))],
        ..VfatSpec::default()
    };
    for _ in 0..FLOPPIES {
        let image = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(folder.join("out"))
            .unwrap();
        make_vfat(&spec, image).unwrap();
    }
    peak();
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
