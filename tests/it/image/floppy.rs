//! Virtual floppies, read by mtools, fsck and blkid.

use super::{noise, show, text, tool};
use flowrun::image::vfat::{VfatSpec, make_vfat};
use std::fs;

/// Writes the image, has fsck and blkid look at it, and returns what blkid says.
fn checked(spec: &VfatSpec, path: &str) -> String {
    fs::write(path, make_vfat(spec).unwrap()).unwrap();
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
            ("token".into(), token.clone()),
            ("A longer Name.json".into(), b"{}".to_vec()),
            ("empty".into(), Vec::new()),
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
        60 << 20,
        0x03e0_0000,
    ] {
        let content = noise(5, size);
        let spec = VfatSpec {
            files: vec![("payload.bin".into(), content.clone())],
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
    let files: Vec<(String, Vec<u8>)> = (0..40)
        .map(|number| (format!("{number:02}-{}", "long".repeat(25)), vec![number]))
        .collect();
    let spec = VfatSpec {
        files: files.clone(),
        ..VfatSpec::default()
    };
    checked(&spec, &path);
    for (name, content) in files {
        let read = tool("mtools", "mtype", &["-i", &path, &format!("::/{name}")]);
        assert_eq!(read, content, "{name}");
    }
}
