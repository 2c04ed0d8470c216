//! Disk images as qemu-img makes them, written onto a disk and compared by qemu-img.

use super::{noise, run, show, text, tool};
use crate::disk::lun::FileLun;
use flowrun::disk::{WholeDisk, WriteOptions, verify, write_whole_disk_image};
use flowrun::error::Kind;
use flowrun::image::source::{Format, ImageSource};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 24 * MIB;
/// The same for qemu-img.
const DISK_SIZE: &str = "24M";

/// A disk full of somebody's old data.
fn disk(folder: &TempDir) -> FileLun {
    FileLun::full_of_old_data(&folder.path().join("disk"), DISK_BYTES, 512)
}

/// A sparse raw image of an ext4 file system with files in it.
fn ext4(folder: &TempDir) -> String {
    let files = folder.path().join("files");
    fs::create_dir_all(files.join("etc")).unwrap();
    fs::write(files.join("etc/hostname"), "node-1\n").unwrap();
    fs::write(files.join("noise"), noise(6, 9_000_001)).unwrap();
    fs::write(files.join("text"), "the same line\n".repeat(300_000)).unwrap();
    let image = show(&folder.path().join("ext4.raw"));
    tool(
        "qemu-utils",
        "qemu-img",
        &["create", "-f", "raw", &image, DISK_SIZE],
    );
    let files = show(&files);
    tool(
        "e2fsprogs",
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-d", &files, &image],
    );
    image
}

/// The image in another form, made by `qemu-img convert` with these options.
fn convert(folder: &TempDir, from: &str, options: &[&str]) -> String {
    let to = show(&folder.path().join("converted"));
    let args = [&["convert", "-f", "raw"], options, &[from, &to]].concat();
    tool("qemu-utils", "qemu-img", &args);
    to
}

/// Writes the image and has qemu-img compare disk and image; returns the bytes sent as data.
async fn write_and_compare(folder: &TempDir, image: &str, format: Format) -> u64 {
    let lun = disk(folder);
    let source = Arc::new(ImageSource::open(Path::new(image), None).unwrap());
    assert_eq!(source.info().format, format);
    assert_eq!(source.info().virtual_bytes, Some(DISK_BYTES));
    let options = WriteOptions::default();
    let written = write_whole_disk_image(&lun, source, &WholeDisk::default(), &options)
        .await
        .unwrap();
    assert_eq!(written.data_bytes + written.zero_bytes, DISK_BYTES);
    assert_eq!(written.image_bytes, DISK_BYTES);
    verify(&lun, &written.manifest, &options).await.unwrap();
    let disk = show(lun.path());
    let name = match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    };
    let verdict = text(
        "qemu-utils",
        "qemu-img",
        &["compare", "-f", "raw", "-F", name, &disk, image],
    );
    assert_eq!(verdict, "Images are identical.\n");
    written.data_bytes
}

/// Has a place for every cluster, so nothing in it is a hole.
const PREALLOCATED: &str = "cluster_size=2M,preallocation=metadata";

const ZSTD: &str = "compression_type=zstd";

#[tokio::test]
async fn every_form_of_an_image_arrives_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let raw = ext4(&folder);
    let forms: [(Format, &[&str]); 9] = [
        (Format::Raw, &["-O", "raw"]),
        (Format::Raw, &["-O", "raw", "-S", "0"]),
        (Format::Qcow2, &["-O", "qcow2"]),
        (Format::Qcow2, &["-O", "qcow2", "-c"]),
        (Format::Qcow2, &["-O", "qcow2", "-o", "compat=0.10"]),
        (
            Format::Qcow2,
            &["-O", "qcow2", "-c", "-o", "cluster_size=4k"],
        ),
        (Format::Qcow2, &["-O", "qcow2", "-o", PREALLOCATED]),
        (Format::Qcow2, &["-O", "qcow2", "-c", "-o", ZSTD]),
        (
            Format::Qcow2,
            &["-O", "qcow2", "-c", "-o", "cluster_size=2M"],
        ),
    ];
    for (format, options) in forms {
        let image = convert(&folder, &raw, options);
        let sent = write_and_compare(&folder, &image, format).await;
        assert!(sent > 9_000_001, "{options:?}: {sent}");
        let whole = options.contains(&"0") || options.contains(&PREALLOCATED);
        assert!(
            whole || sent < DISK_BYTES,
            "{options:?}: {sent}: holes were sent"
        );
        // What arrived is a file system with our file in it.
        let disk = show(&folder.path().join("disk"));
        tool("e2fsprogs", "e2fsck", &["-f", "-n", &disk]);
        let hostname = text("e2fsprogs", "debugfs", &["-R", "cat /etc/hostname", &disk]);
        assert_eq!(hostname, "node-1\n");
    }
}

#[tokio::test]
async fn zero_clusters_overwrite_old_data() {
    let folder = tempfile::tempdir().unwrap();
    let image = show(&folder.path().join("zeros.qcow2"));
    tool(
        "qemu-utils",
        "qemu-img",
        &["create", "-q", "-f", "qcow2", &image, DISK_SIZE],
    );
    let io = [
        "-f",
        "qcow2",
        "-c",
        "write -P 0x5a 1M 9M",
        "-c",
        "write -z 3M 5M",
        "-c",
        "discard 9M 64k",
        "-c",
        "write -P 0xc3 25165312 512",
        &image,
    ];
    tool("qemu-utils", "qemu-io", &io);
    let sent = write_and_compare(&folder, &image, Format::Qcow2).await;
    assert!(sent < 20 * MIB, "{sent}");
}

#[tokio::test]
async fn an_empty_image_makes_an_empty_disk() {
    let folder = tempfile::tempdir().unwrap();
    for (format, name) in [(Format::Raw, "raw"), (Format::Qcow2, "qcow2")] {
        let image = show(&folder.path().join(name));
        tool(
            "qemu-utils",
            "qemu-img",
            &["create", "-q", "-f", name, &image, DISK_SIZE],
        );
        let sent = write_and_compare(&folder, &image, format).await;
        // qemu-img writes the first block of a raw file; we send the piece it lies in.
        assert!(sent <= 4 * MIB, "{sent}");
    }
}

#[test]
fn images_that_point_at_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| show(&folder.path().join(name));
    let data = format!("data_file={},data_file_raw=on", at("data"));
    let cases: [(&str, Vec<&str>, &str); 3] = [
        (
            "backing",
            vec!["-b", "/etc/passwd", "-F", "raw"],
            "backing file",
        ),
        (
            "old-backing",
            vec!["-o", "compat=0.10", "-b", "/etc/passwd", "-F", "raw"],
            "backing file",
        ),
        ("data-file", vec!["-o", &data], "data in another file"),
    ];
    for (name, options, wanted) in cases {
        let image = at(name);
        let args = [
            &["create", "-q", "-f", "qcow2"],
            &options[..],
            &[&image, "1M"],
        ]
        .concat();
        tool("qemu-utils", "qemu-img", &args);
        for format in [None, Some(Format::Qcow2)] {
            let error = ImageSource::open(Path::new(&image), format).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.message().contains(wanted), "{error}");
            assert_eq!(error.on(), image);
            assert!(error.advice().unwrap().contains("qemu-img convert"));
        }
    }
}

#[test]
fn images_that_are_not_read_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let image = show(&folder.path().join("image"));
    // QEMU's own LUKS needs more time to make than all other tests; the header tells it too.
    let cases: [(&[&str], u8, &str); 2] = [
        (
            &["-o", "extended_l2=on,cluster_size=128k"],
            0,
            "subclusters",
        ),
        (&[], 2, "encrypted"),
    ];
    for (options, encryption, wanted) in cases {
        let args = [&["create", "-q", "-f", "qcow2"], options, &[&image, "1M"]].concat();
        tool("qemu-utils", "qemu-img", &args);
        let file = File::options().write(true).open(&image).unwrap();
        file.write_all_at(&[encryption], 35).unwrap();
        let error = ImageSource::open(Path::new(&image), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.message().contains(wanted), "{error}");
    }
}

/// Nobody's file is taken for a raw disk by mistake; who says that it is one is believed.
#[test]
fn images_of_other_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let flat = &["-o", "subformat=monolithicFlat"][..];
    for (format, options) in [
        ("vmdk", &[][..]),
        ("vmdk", flat),
        ("vhdx", &[]),
        ("vpc", &[]),
        ("vdi", &[]),
        ("qed", &[]),
    ] {
        let image = show(&folder.path().join(format));
        let args = [&["create", "-q", "-f", format], options, &[&image, "8M"]].concat();
        tool("qemu-utils", "qemu-img", &args);
        tool("gzip", "gzip", &["-k", "-f", &image]);
        let packed = format!("{image}.gz");
        for path in [&image, &packed] {
            let path = Path::new(path);
            let error = ImageSource::open(path, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{error}");
            assert!(
                error.message().contains(&format!("a {format} image")),
                "{error}"
            );
            let raw = ImageSource::open(path, Some(Format::Raw)).unwrap();
            assert_eq!(raw.info().format, Format::Raw);
        }
    }
}

#[tokio::test]
async fn a_cut_image_is_an_error_and_never_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let raw = ext4(&folder);
    for options in [&["-O", "qcow2"][..], &["-O", "qcow2", "-c"]] {
        let image = convert(&folder, &raw, options);
        let length = fs::metadata(&image).unwrap().len();
        File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(length * 2 / 3)
            .unwrap();
        // qemu-img agrees that the image is damaged.
        assert!(
            !run("qemu-utils", "qemu-img", &["check", "-q", &image])
                .status
                .success()
        );
        let error = match ImageSource::open(Path::new(&image), None) {
            Err(error) => error,
            Ok(source) => {
                let lun = disk(&folder);
                write_whole_disk_image(
                    &lun,
                    Arc::new(source),
                    &WholeDisk::default(),
                    &WriteOptions::default(),
                )
                .await
                .unwrap_err()
            }
        };
        assert_eq!(error.kind(), Kind::Corrupt, "{options:?}: {error}");
    }
}
