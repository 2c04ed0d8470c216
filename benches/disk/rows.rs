//! What is compared.

use super::Settings;
use super::measure::{Competitor, Cost, race, run, run_on_one_core};
use super::tgt::{Disks, IQN, Tgt};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;

type Row = fn(&str, &Settings);

pub(crate) const ROWS: [(&str, Row); 9] = [
    ("raw to tgtd, tmpfs", raw_to_tmpfs),
    ("raw to tgtd, disk, flushed", raw_to_disk),
    ("raw to our own target, against plain TCP", raw_to_ours),
    ("sparse qcow2 to a thin tgtd", |name, settings| {
        sparse(name, settings, true);
    }),
    ("sparse qcow2 to a thick tgtd", |name, settings| {
        sparse(name, settings, false);
    }),
    ("64 disks at once", many),
    ("one compressed image to 20 disks", fan_out),
    ("qcow2 decoded on one core", qcow2),
    ("compressed raw decoded on one core", streams),
];

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn ours(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("ours").args(words);
    command
}

fn write(image: &Path, port: u16, luns: u32) -> Command {
    let (port, luns) = (port.to_string(), luns.to_string());
    ours(&["write", image.to_str().unwrap(), &port, IQN, &luns])
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// A file of bytes that do not repeat.
fn noise(path: &Path, bytes: u64) -> PathBuf {
    let random = File::open("/dev/urandom").unwrap();
    let mut file = File::create(path).unwrap();
    std::io::copy(&mut random.take(bytes), &mut file).unwrap();
    path.to_owned()
}

fn raw_to_tmpfs(title: &str, settings: &Settings) {
    raw_to_tgtd(title, settings, &settings.shm, "");
}

fn raw_to_disk(title: &str, settings: &Settings) {
    raw_to_tgtd(title, settings, &settings.disk, " -t writeback");
}

/// qemu-img flushes with `-t writeback` only.
fn raw_to_tgtd(title: &str, settings: &Settings, place: &Path, cache: &str) {
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let (bytes, image) = (
        settings.bytes,
        noise(&folder.path().join("raw"), settings.bytes),
    );
    let (source, disks) = (image.display(), Disks::new(place, 1, bytes));
    let peer = |how: &str| {
        let tgt = Tgt::start(&disks, false);
        let url = tgt.url(1);
        run_on_one_core(&[command(&format!(
            "qemu-img convert -n{how}{cache} -f raw -O raw {source} {url}"
        ))])
    };
    let all = vec![
        Competitor::new("qemu-img convert", || peer("")),
        Competitor::new("qemu-img convert -S 0 -W", || peer(" -S 0 -W")),
        Competitor::new("qemu-img convert -W -m 16", || peer(" -W -m 16")),
        Competitor::new("flowrun", || {
            let tgt = Tgt::start(&disks, false);
            run_on_one_core(&[write(&image, tgt.port, 1)])
        }),
    ];
    race(title, settings.rounds, gib(bytes), all);
}

/// Our target as a process of its own.
struct Served(Child, u16);

impl Served {
    fn start(kind: &str) -> Self {
        let mut child = ours(&["serve", kind])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self(child, line.trim().parse().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn raw_to_ours(title: &str, settings: &Settings) {
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let (bytes, image) = (
        settings.bytes,
        noise(&folder.path().join("raw"), settings.bytes),
    );
    let file = image.to_str().unwrap();
    let disks = Disks::new(&settings.shm, 1, bytes);
    let kinds = [
        ("a target that keeps nothing", format!("null:{bytes}")),
        (
            "a target over a tmpfs file",
            format!("file:{}", disks.path(1).display()),
        ),
    ];
    for (name, kind) in kinds {
        let all = vec![
            Competitor::new("TCP, default buffers", || {
                run(vec![ours(&["tcp", file, "0"])])
            }),
            Competitor::new("TCP, buffers of 128 KiB", || {
                run(vec![ours(&["tcp", file, "131072"])])
            }),
            Competitor::new("flowrun", || {
                let served = Served::start(&kind);
                run(vec![write(&image, served.1, 1)])
            }),
        ];
        race(
            &format!("{title}: {name}"),
            settings.rounds,
            gib(bytes),
            all,
        );
    }
}

/// 64 extents that hold three tenths of the disk.
fn sparse_image(folder: &Path, bytes: u64, format: &str) -> PathBuf {
    let raw = folder.join("sparse.raw");
    let mut file = File::create(&raw).unwrap();
    file.set_len(bytes).unwrap();
    let extent = bytes / 64;
    for n in 0..64 {
        file.seek(SeekFrom::Start(n * extent)).unwrap();
        let random = File::open("/dev/urandom").unwrap();
        std::io::copy(&mut random.take(extent * 3 / 10 / MIB * MIB), &mut file).unwrap();
    }
    convert(&raw, &folder.join("sparse.qcow2"), format)
}

fn convert(raw: &Path, image: &Path, format: &str) -> PathBuf {
    let (raw, to) = (raw.display(), image.display());
    let done = command(&format!(
        "qemu-img convert -f raw -O qcow2{format} {raw} {to}"
    ))
    .status();
    assert!(done.unwrap().success());
    image.to_owned()
}

fn sparse(title: &str, settings: &Settings, thin: bool) {
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let (bytes, image) = (
        settings.bytes,
        sparse_image(folder.path(), settings.bytes, ""),
    );
    let (source, disks) = (image.display(), Disks::new(&settings.shm, 1, bytes));
    let full = || {
        disks.fill();
        Tgt::start(&disks, thin)
    };
    let peer = |how: &str| {
        let tgt = full();
        let url = tgt.url(1);
        run_on_one_core(&[command(&format!(
            "qemu-img convert -n{how} -f qcow2 -O raw {source} {url}"
        ))])
    };
    let all = vec![
        Competitor::new("qemu-img convert", || peer("")),
        Competitor::new("qemu-img convert -W -m 16", || peer(" -W -m 16")),
        Competitor::new("flowrun", || {
            let tgt = full();
            run_on_one_core(&[write(&image, tgt.port, 1)])
        }),
    ];
    race(title, settings.rounds, gib(bytes * 3 / 10), all);
}

fn many(title: &str, settings: &Settings) {
    const DISKS: u32 = 64;
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let bytes = settings.bytes / u64::from(DISKS);
    let image = noise(&folder.path().join("raw"), bytes);
    let disks = Disks::new(&settings.shm, DISKS, bytes);
    let peer = |how: &str| {
        let tgt = Tgt::start(&disks, false);
        let source = image.display();
        let one = |lun| {
            let url = tgt.url(lun);
            command(&format!(
                "qemu-img convert -n{how} -f raw -O raw {source} {url}"
            ))
        };
        run_on_one_core(&(1..=DISKS).map(one).collect::<Vec<_>>())
    };
    let all = vec![
        Competitor::new("64 × qemu-img convert", || peer("")),
        Competitor::new("64 × qemu-img convert -W -m 16", || peer(" -W -m 16")),
        Competitor::new("flowrun, one process", || {
            let tgt = Tgt::start(&disks, false);
            run_on_one_core(&[write(&image, tgt.port, DISKS)])
        }),
    ];
    race(title, settings.rounds, gib(settings.bytes), all);
}

fn fan_out(title: &str, settings: &Settings) {
    const DISKS: u32 = 20;
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let bytes = settings.bytes / u64::from(DISKS) / MIB * MIB;
    let raw = system_files(&folder.path().join("raw"), bytes);
    let packed = convert(
        &raw,
        &folder.path().join("qcow2"),
        " -c -o compression_type=zstd",
    );
    let disks = Disks::new(&settings.shm, DISKS, bytes);
    let work = |image: &Path| {
        let tgt = Tgt::start(&disks, false);
        run_on_one_core(&[write(image, tgt.port, DISKS)])
    };
    let all = vec![
        Competitor::new("flowrun, the raw image", || work(&raw)),
        Competitor::new("flowrun, the image as zstd qcow2", || work(&packed)),
    ];
    race(title, settings.rounds, gib(settings.bytes), all);
}

/// The files of this system, each from a block of its own on as file systems lay them, until there
/// are enough bytes.
fn system_files(path: &Path, bytes: u64) -> PathBuf {
    let mut to = File::create(path).unwrap();
    while to.stream_position().unwrap() < bytes {
        append_files(Path::new("/usr"), &mut to, bytes);
    }
    to.set_len(bytes).unwrap();
    path.to_owned()
}

fn append_files(folder: &Path, to: &mut File, enough: u64) {
    let mut items: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
    items.sort_by_key(std::fs::DirEntry::path);
    for item in items {
        let at = to.stream_position().unwrap();
        if at >= enough {
            return;
        }
        let kind = item.file_type().unwrap();
        if kind.is_dir() {
            append_files(&item.path(), to, enough);
        } else if kind.is_file() {
            to.seek(SeekFrom::Start(at.next_multiple_of(4096))).unwrap();
            std::io::copy(&mut File::open(item.path()).unwrap(), to).unwrap();
        }
    }
}

/// Onto the file of a disk, whose memory is there.
fn decode(disks: &Disks, command: Command) -> Cost {
    disks.fill();
    run_on_one_core(&[command])
}

fn qcow2(title: &str, settings: &Settings) {
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let bytes = settings.bytes / 2;
    let raw = system_files(&folder.path().join("raw"), bytes);
    let disks = Disks::new(&settings.shm, 1, bytes);
    let disk = disks.path(1);
    for (name, how) in [
        ("zlib", " -c"),
        ("zstd", " -c -o compression_type=zstd"),
        ("plain", ""),
    ] {
        let image = convert(&raw, &folder.path().join("image"), how);
        let (from, to) = (image.display(), disk.display());
        let all = vec![
            Competitor::new("qemu-img convert", || {
                let peer = format!("qemu-img convert -n -f qcow2 -O raw {from} {to}");
                decode(&disks, command(&peer))
            }),
            Competitor::new("flowrun", || {
                let words = ["decode", image.to_str().unwrap(), disk.to_str().unwrap()];
                decode(&disks, ours(&words))
            }),
        ];
        race(
            &format!("{title}: {name}"),
            settings.rounds,
            gib(bytes),
            all,
        );
    }
}

fn streams(title: &str, settings: &Settings) {
    let folder = tempfile::tempdir_in(&settings.shm).unwrap();
    let bytes = settings.bytes / 2;
    let raw = system_files(&folder.path().join("raw"), bytes);
    let disks = Disks::new(&settings.shm, 1, bytes);
    let disk = disks.path(1);
    for (ending, pack, unpack) in [
        ("gz", "pigz -kf", "pigz -dcf"),
        ("zst", "zstd -qf", "zstd -dcqf"),
    ] {
        assert!(
            command(&format!("{pack} {}", raw.display()))
                .status()
                .unwrap()
                .success()
        );
        let image = folder.path().join(format!("raw.{ending}"));
        let (from, to) = (image.display(), disk.display());
        let all = vec![
            Competitor::new(unpack, || {
                let mut peer = Command::new("sh");
                peer.args(["-ec", &format!("exec {unpack} {from} 1<>{to}")]);
                decode(&disks, peer)
            }),
            Competitor::new("flowrun", || {
                let words = ["decode", image.to_str().unwrap(), disk.to_str().unwrap()];
                decode(&disks, ours(&words))
            }),
        ];
        race(
            &format!("{title}: {ending}"),
            settings.rounds,
            gib(bytes),
            all,
        );
    }
}
