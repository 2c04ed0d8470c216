//! Partition images.

use super::lun::FileLun;
use super::{MIB, begins_alike, blkid, file_system, part, run, show, text, tool, verified};
use flowrun::disk::inspect::Label;
use flowrun::disk::plan::{BootMode, LayoutSpec, Planned, Role};
use flowrun::disk::{
    FileSystemKind, PartitionImage, PartitionsWritten, WriteOptions, write_partition_image,
};
use flowrun::error::{Kind, Result};
use flowrun::image::iso::Source;
use flowrun::image::loader::DiskLoader;
use flowrun::image::source::ImageSource;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn wanted(boot_mode: BootMode, local_boot: bool) -> PartitionImage {
    PartitionImage {
        layout: LayoutSpec {
            boot_mode,
            local_boot,
            label: None,
            root_bytes: 256 * MIB,
            swap_bytes: 64 * MIB,
            ephemeral_bytes: 128 * MIB,
            configdrive_bytes: 0,
        },
        ephemeral_format: FileSystemKind::Ext4,
        preserve_ephemeral: false,
        configdrive: Vec::new(),
        loader: None,
        identity: uuid::Uuid::new_v4(),
    }
}

async fn write(lun: &FileLun, image: &Path, wanted: &PartitionImage) -> Result<PartitionsWritten> {
    let source = Arc::new(ImageSource::open(image, None)?);
    let done = write_partition_image(lun, source, wanted, &WriteOptions::default()).await?;
    verified(lun, &done.written.manifest).await;
    Ok(done)
}

fn find(done: &PartitionsWritten, role: Role) -> Planned {
    *done.partitions.iter().find(|p| p.role == role).unwrap()
}

fn cut(
    folder: &TempDir,
    lun: &FileLun,
    done: &PartitionsWritten,
    role: Role,
) -> std::path::PathBuf {
    let planned = find(done, role);
    part(
        folder,
        lun.path(),
        &format!("{role:?}"),
        planned.offset,
        planned.bytes,
    )
}

/// What sfdisk reads from the disk: label, and a line of type and size each.
fn table(lun: &FileLun) -> serde_json::Value {
    let json = tool("fdisk", "sfdisk", &["--json", &show(lun.path())]);
    let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        run("fdisk", "sfdisk", &["--verify", &show(lun.path())])
            .status
            .code(),
        Some(0)
    );
    parsed["partitiontable"].clone()
}

fn types(table: &serde_json::Value) -> Vec<String> {
    let partitions = table["partitions"].as_array().unwrap();
    let short = |p: &serde_json::Value| p["type"].as_str().unwrap().chars().take(8).collect();
    partitions.iter().map(short).collect()
}

#[tokio::test]
async fn a_bios_disk_has_what_ironic_puts_there() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext4", 200 * MIB);
    let lun = FileLun::empty(&folder.path().join("disk"), 640 * MIB, 512);
    // Remains of other systems: a GPT at both ends, swap and md where partitions will be.
    tool("gdisk", "sgdisk", &["-n", "1:2048:+64M", &show(lun.path())]);
    lun.put(640 * MIB - 65_536, &[0xfc, 0x4e, 0x2b, 0xa9]);
    let mut wanted = wanted(BootMode::Bios, true);
    wanted.configdrive = b"config-2".repeat(70_000);
    let done = write(&lun, &image, &wanted).await.unwrap();
    let table = table(&lun);
    assert_eq!(table["label"], "dos");
    assert_eq!(table["id"], done.disk_identifier);
    assert_eq!(types(&table), ["83", "82", "83", "83"]);
    let root = &table["partitions"][3];
    assert_eq!(
        (&root["size"], &root["bootable"]),
        (&(512 * 1024).into(), &true.into())
    );
    assert_eq!(blkid(lun.path()).matches("PTTYPE=dos").count(), 1);

    let ephemeral = cut(&folder, &lun, &done, Role::Ephemeral);
    tool("e2fsprogs", "e2fsck", &["-f", "-n", &show(&ephemeral)]);
    assert!(blkid(&ephemeral).contains("LABEL=ephemeral0\n"));
    let swap = blkid(&cut(&folder, &lun, &done, Role::Swap));
    assert!(
        swap.contains("TYPE=swap\n") && swap.contains("LABEL=swap1\n"),
        "{swap}"
    );
    assert!(
        swap.contains(&format!("FSSIZE={}\n", 64 * MIB)) || !swap.contains("FSSIZE"),
        "{swap}"
    );
    let configdrive = fs::read(cut(&folder, &lun, &done, Role::ConfigDrive)).unwrap();
    assert!(configdrive.starts_with(&wanted.configdrive));

    let root = cut(&folder, &lun, &done, Role::Root);
    assert!(begins_alike(&image, &root));
    tool("e2fsprogs", "e2fsck", &["-f", "-n", &show(&root)]);
    let uuid = done.root_uuid.unwrap();
    assert!(blkid(&root).contains(&format!("UUID={uuid}\n")));
    // The root partition keeps its size, and the file system can grow into it.
    assert_eq!(fs::metadata(&root).unwrap().len(), 256 * MIB);
    tool("e2fsprogs", "resize2fs", &["-f", &show(&root)]);
}

/// A BIOS starts an image from the disk only if the image has a boot sector of its own.
#[tokio::test]
async fn what_a_bios_could_not_start_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext4", 200 * MIB);
    let lun = FileLun::empty(&folder.path().join("disk"), 640 * MIB, 512);
    let mut wanted = wanted(BootMode::Bios, true);
    wanted.loader = Some(DiskLoader::Bios(Source::Bytes(vec![0x90; 440])));
    let refused = async |wanted: &PartitionImage, words: &str| {
        let error = write(&lun, &image, wanted).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(error.advice().unwrap().contains("netboot"), "{error:?}");
        let disk = fs::read(lun.path()).unwrap();
        assert!(disk.iter().all(|byte| *byte == 0), "nothing is written");
    };
    refused(&wanted, "boot sector").await;
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x55, 0xAA], 510).unwrap();
    wanted.layout.label = Some(Label::Gpt);
    refused(&wanted, "msdos").await;
    wanted.layout.label = None;
    write(&lun, &image, &wanted).await.unwrap();
    assert!(fs::read(lun.path()).unwrap().starts_with(&[0x90; 440]));
}

#[tokio::test]
async fn mkswap_agrees_on_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext4", 16 * MIB);
    let lun = FileLun::empty(&folder.path().join("disk"), 640 * MIB, 512);
    let done = write(&lun, &image, &wanted(BootMode::Bios, false))
        .await
        .unwrap();
    let ours = cut(&folder, &lun, &done, Role::Swap);
    let theirs = folder.path().join("theirs");
    fs::File::create(&theirs)
        .unwrap()
        .set_len(64 * MIB)
        .unwrap();
    let uuid = text(
        "util-linux",
        "blkid",
        &["-p", "-o", "value", "-s", "UUID", &show(&ours)],
    );
    let args = [
        "-q",
        "-p",
        "4096",
        "-L",
        "swap1",
        "-U",
        uuid.trim(),
        &show(&theirs),
    ];
    tool("util-linux", "mkswap", &args);
    assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap());
}

#[tokio::test]
async fn uefi_disks_start_with_an_efi_system_partition() {
    for block in [512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let image = file_system(&folder, "ext3", 64 * MIB);
        let lun = FileLun::full_of_old_data(&folder.path().join("disk"), 640 * MIB, block);
        let mut wanted = wanted(BootMode::Uefi, true);
        wanted.layout.ephemeral_bytes = 0;
        let done = write(&lun, &image, &wanted).await.unwrap();
        let efi = cut(&folder, &lun, &done, Role::EfiSystem);
        tool("dosfstools", "fsck.vfat", &["-n", &show(&efi)]);
        let probed = blkid(&efi);
        for line in ["VERSION=FAT32", "LABEL=efi-part"] {
            assert!(probed.contains(line), "{probed}");
        }
        assert!(probed.contains(&format!(
            "UUID={}\n",
            done.efi_system_uuid.as_ref().unwrap()
        )));
        assert!(begins_alike(&image, &cut(&folder, &lun, &done, Role::Root)));
        if block == 4096 {
            continue; // the tools take the sector size from a device, not from a file
        }
        let table = table(&lun);
        assert_eq!(table["label"], "gpt");
        let id = table["id"].as_str().unwrap().to_lowercase();
        assert_eq!(id, done.disk_identifier);
        assert_eq!(types(&table), ["C12A7328", "0657FD6D", "0FC63DAF"]);
        let said = text("gdisk", "sgdisk", &["-v", &show(lun.path())]);
        assert!(said.contains("No problems found"), "{said}");
    }
}

#[tokio::test]
async fn gpt_in_bios_mode_has_a_place_for_grub() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext2", 16 * MIB);
    let lun = FileLun::empty(&folder.path().join("disk"), 640 * MIB, 512);
    let mut wanted = wanted(BootMode::Bios, true);
    wanted.layout.label = Some(Label::Gpt);
    wanted.layout.ephemeral_bytes = 64 * MIB;
    wanted.ephemeral_format = FileSystemKind::Vfat;
    let done = write(&lun, &image, &wanted).await.unwrap();
    assert_eq!(
        types(&table(&lun)),
        ["21686148", "0FC63DAF", "0657FD6D", "0FC63DAF"]
    );
    let ephemeral = cut(&folder, &lun, &done, Role::Ephemeral);
    tool("dosfstools", "fsck.vfat", &["-n", &show(&ephemeral)]);
    assert!(
        blkid(&ephemeral).contains("LABEL=EPHEMERAL0\n")
            || blkid(&ephemeral).contains("LABEL=ephemeral0\n")
    );
}

#[tokio::test]
async fn the_ephemeral_file_system_may_be_xfs() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext4", 16 * MIB);
    let lun = FileLun::empty(&folder.path().join("disk"), 900 * MIB, 512);
    let mut wanted = wanted(BootMode::Bios, true);
    // mkfs.xfs refuses less than 300 MiB.
    wanted.layout.ephemeral_bytes = 320 * MIB;
    wanted.ephemeral_format = FileSystemKind::Xfs;
    let done = write(&lun, &image, &wanted).await.unwrap();
    let ephemeral = cut(&folder, &lun, &done, Role::Ephemeral);
    tool("xfsprogs", "xfs_repair", &["-n", &show(&ephemeral)]);
    let probed = blkid(&ephemeral);
    assert!(
        probed.contains("TYPE=xfs\n") && probed.contains("LABEL=ephemeral0\n"),
        "{probed}"
    );
}

#[tokio::test]
async fn the_ephemeral_partition_outlives_a_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let lun = FileLun::empty(&folder.path().join("disk"), 640 * MIB, 512);
    let mut wanted = wanted(BootMode::Bios, true);
    let first = file_system(&folder, "ext4", 64 * MIB);
    let done = write(&lun, &first, &wanted).await.unwrap();
    let before = cut(&folder, &lun, &done, Role::Ephemeral);
    let kept = folder.path().join("kept");
    // Somebody uses it.
    tool(
        "e2fsprogs",
        "debugfs",
        &[
            "-w",
            "-R",
            &format!("write {} noise", show(&first)),
            &show(&before),
        ],
    );
    let planned = find(&done, Role::Ephemeral);
    lun.put(planned.offset, &fs::read(&before).unwrap());
    fs::rename(&before, &kept).unwrap();

    wanted.preserve_ephemeral = true;
    wanted.identity = uuid::Uuid::new_v4();
    let second = file_system(&folder, "ext3", 48 * MIB);
    let again = write(&lun, &second, &wanted).await.unwrap();
    assert_eq!(again.disk_identifier, done.disk_identifier);
    assert_eq!(again.partitions, done.partitions);
    assert!(
        fs::read(cut(&folder, &lun, &again, Role::Ephemeral)).unwrap() == fs::read(&kept).unwrap()
    );
    assert!(begins_alike(
        &second,
        &cut(&folder, &lun, &again, Role::Root)
    ));

    let before = fs::read(lun.path()).unwrap();
    wanted.layout.swap_bytes += MIB;
    let error = write(&lun, &second, &wanted).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(
        fs::read(lun.path()).unwrap() == before,
        "a refused write writes nothing"
    );
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let lun = FileLun::empty(&folder.path().join("disk"), 256 * MIB, 512);
    let mut wanted = wanted(BootMode::Bios, false);
    wanted.layout.ephemeral_bytes = 0;
    wanted.layout.swap_bytes = 0;
    let image = file_system(&folder, "ext4", 96 * MIB);
    for (root, sizes) in [
        (64 * MIB, [96 * MIB, 64 * MIB]),
        (300 * MIB, [301 * MIB, 255 * MIB]),
    ] {
        wanted.layout.root_bytes = root;
        let error = write(&lun, &image, &wanted).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        for size in sizes {
            assert!(error.message().contains(&size.to_string()), "{error}");
        }
    }
    // A stream tells its size when it is too late; the partition is not left all the same.
    tool("gzip", "gzip", &["-1", "-k", &show(&image)]);
    wanted.layout.root_bytes = 64 * MIB;
    let packed = folder.path().join("ext4.raw.gz");
    let error = write(&lun, &packed, &wanted).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit, "{error}");
    wanted.layout.root_bytes = 128 * MIB;
    let done = write(&lun, &packed, &wanted).await.unwrap();
    assert!(begins_alike(&image, &cut(&folder, &lun, &done, Role::Root)));
    assert_eq!(done.written.image_bytes, 96 * MIB);
}
