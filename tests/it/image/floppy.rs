//! Virtual floppies, read by mtools, fsck and blkid.

use super::{noise, show, text, tool};
use flowrun::image::iso::Source;
use flowrun::image::vfat::{VfatSpec, make_vfat};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

/// Writes the image, has fsck and blkid look at it, and returns what blkid says.
fn checked(spec: &VfatSpec, path: &str) -> String {
    let image = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    make_vfat(spec, image).unwrap();
    // Status 0 is "no error"; -n repairs nothing.
    tool("dosfstools", "fsck.vfat", &["-n", path]);
    text("util-linux", "blkid", &["-p", "-o", "export", path])
}

#[test]
fn a_floppy_is_what_the_ramdisk_mounts_and_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = show(&folder.path().join("floppy.img"));
    let token = noise(4, 5000);
    let spec = VfatSpec {
        label: "ir-vfd-dev".into(),
        parameters: [
            ("iscsi_target_iqn", "iqn.2008-10.org.openstack:1be26c0b"),
            ("deployment_id", "1be26c0b"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        files: vec![
            ("token".into(), Source::Bytes(token.clone())),
            ("A longer Name.json".into(), Source::Bytes(b"{}".to_vec())),
            ("empty".into(), Source::Bytes(Vec::new())),
        ],
    };
    let known = checked(&spec, &path);
    for wanted in ["LABEL=ir-vfd-dev", "TYPE=vfat", "VERSION=FAT12"] {
        assert!(
            known.lines().any(|line| line == wanted),
            "{wanted}: {known}"
        );
    }
    let listing = text("mtools", "mdir", &["-i", &path, "-b", "::"]);
    let mut names: Vec<&str> = listing.lines().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "::/A longer Name.json",
            "::/empty",
            "::/parameters.txt",
            "::/token"
        ]
    );
    let read = |name: &str| tool("mtools", "mtype", &["-i", &path, name]);
    assert_eq!(
        String::from_utf8_lossy(&read("::/parameters.txt")),
        "deployment_id=1be26c0b\niscsi_target_iqn=iqn.2008-10.org.openstack:1be26c0b"
    );
    assert!(read("::/token") == token);
    assert_eq!(read("::/A longer Name.json"), b"{}");
    assert_eq!(read("::/empty"), b"");
}

#[test]
fn larger_files_make_a_key_that_fsck_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let path = show(&folder.path().join("key.img"));
    // The largest file of a floppy, one byte more, and the ends of each FAT and cluster size.
    for size in [
        1_457_664,
        1_457_665,
        2_047_000,
        2_049_000,
        15 << 20,
        16_384_000,
        0x03e0_0000,
        70 << 20,
    ] {
        let content = noise(5, size);
        let spec = VfatSpec {
            files: vec![("payload.bin".into(), Source::Bytes(content.clone()))],
            ..VfatSpec::default()
        };
        let known = checked(&spec, &path);
        assert!(known.contains("LABEL=ir-vfd-dev"), "{known}");
        let read = tool("mtools", "mtype", &["-i", &path, "::/payload.bin"]);
        assert!(read == content, "{size}");
        let bytes = fs::metadata(&path).unwrap().len();
        let spare = bytes - u64::try_from(size).unwrap();
        // A floppy has one size; a key is not larger than the files and the tables.
        assert!(
            bytes == 1_474_560 || spare < bytes / 64 + 8192,
            "{size}: {bytes}"
        );
    }
}

#[test]
fn many_long_names_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = show(&folder.path().join("names.img"));
    let files = (0..40).map(|number| {
        let name = format!("{number:02}-{}", "long".repeat(25));
        (name, Source::Bytes(vec![number]))
    });
    let spec = VfatSpec {
        files: files.collect(),
        ..VfatSpec::default()
    };
    checked(&spec, &path);
    for (number, (name, _)) in (0..).zip(spec.files) {
        let read = tool("mtools", "mtype", &["-i", &path, &format!("::/{name}")]);
        assert_eq!(read, [number], "{name}");
    }
}

/// Files that are mostly holes, so that the key is so, too.
#[test]
fn more_than_fat16_holds_becomes_fat32() {
    let folder = tempfile::tempdir().unwrap();
    let path = show(&folder.path().join("key.img"));
    let names = ["one.img", "two.img"];
    let sources = names.map(|name| {
        let source = folder.path().join(name);
        let file = File::create(&source).unwrap();
        file.set_len(1_100_000_007).unwrap();
        for mark in [0, 5000, 1_100_000_000] {
            file.write_all_at(name.as_bytes(), mark).unwrap();
        }
        (name.to_owned(), Source::File(source))
    });
    let spec = VfatSpec {
        parameters: [("a".to_owned(), "1".to_owned())].into(),
        files: sources.into(),
        ..VfatSpec::default()
    };
    let known = checked(&spec, &path);
    assert!(known.contains("VERSION=FAT32"), "{known}");
    let image = fs::metadata(&path).unwrap();
    assert!(image.len() < 2_220_000_000, "{}", image.len());
    assert!(image.blocks() * 512 < 20 << 20, "not sparse: {image:?}");
    let read = tool("mtools", "mtype", &["-i", &path, "::/parameters.txt"]);
    assert_eq!(read, b"a=1");
    for name in names {
        let compare = format!("mtype -i '{path}' ::/{name} | cmp - '{name}'");
        let compare = format!("cd '{}' && {compare}", show(folder.path()));
        tool("mtools", "sh", &["-ec", &compare]);
    }
}
