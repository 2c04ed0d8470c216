//! Whole-disk images on larger disks, and images in every packing.

use super::lun::FileLun;
use super::{MIB, begins_alike, file_system, noise, part, run, show, text, tool, verified};
use flowrun::disk::{WholeDisk, WholeDiskWritten, WriteOptions, write_whole_disk_image};
use flowrun::error::{Kind, Result};
use flowrun::image::source::ImageSource;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

async fn write(lun: &FileLun, image: &Path, configdrive: &[u8]) -> Result<WholeDiskWritten> {
    let source = Arc::new(ImageSource::open(image, None)?);
    let whole = WholeDisk {
        configdrive: configdrive.to_vec(),
        identity: uuid::Uuid::new_v4(),
    };
    let done = write_whole_disk_image(lun, source, &whole, &WriteOptions::default()).await?;
    verified(lun, &done.written.manifest).await;
    Ok(done)
}

/// A disk image with boot code and these partitions as sfdisk makes them.
fn disk_image(folder: &TempDir, script: &str) -> PathBuf {
    let image = folder.path().join("disk.img");
    let file = File::create(&image).unwrap();
    file.set_len(128 * MIB).unwrap();
    file.write_all_at(&noise(1, 440), 0).unwrap();
    file.write_all_at(&noise(2, 5_000_000), 20 * MIB).unwrap();
    let command = format!(
        "printf '{script}' | /usr/sbin/sfdisk -q --no-reread {}",
        show(&image)
    );
    tool("bash", "bash", &["-c", &command]);
    image
}

fn sfdisk(lun: &FileLun) -> serde_json::Value {
    let json = tool("fdisk", "sfdisk", &["--json", &show(lun.path())]);
    let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
    parsed["partitiontable"].clone()
}

#[tokio::test]
async fn the_second_gpt_moves_to_the_end_and_a_config_drive_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk_image(&folder, "label: gpt\\n2048,32768,U\\n,,L\\n");
    for configdrive in [Vec::new(), noise(3, 300_001)] {
        let lun = FileLun::full_of_old_data(&folder.path().join("disk"), 256 * MIB, 512);
        let done = write(&lun, &image, &configdrive).await.unwrap();
        let said = text("gdisk", "sgdisk", &["-v", &show(lun.path())]);
        assert!(said.contains("No problems found"), "{said}");
        let table = sfdisk(&lun);
        assert_eq!(
            table["id"].as_str().unwrap().to_lowercase(),
            done.disk_identifier
        );
        assert_eq!(table["lastlba"], 256 * MIB / 512 - 34);
        let partitions = table["partitions"].as_array().unwrap();
        let at = part(&folder, lun.path(), "content", MIB, 126 * MIB);
        assert!(begins_alike(
            &at,
            &part(&folder, &image, "image", MIB, 126 * MIB)
        ));
        if configdrive.is_empty() {
            assert_eq!(partitions.len(), 2);
            continue;
        }
        let last = &partitions[2];
        assert_eq!(
            (&last["name"], &last["size"]),
            (&"config-2".into(), &(64 * 2048).into())
        );
        let start = last["start"].as_u64().unwrap() * 512;
        assert_eq!((start % MIB, start > 256 * MIB - 67 * MIB), (0, true));
        let drive = fs::read(part(&folder, lun.path(), "drive", start, 64 * MIB)).unwrap();
        assert!(drive.starts_with(&configdrive));
        assert!(drive[configdrive.len()..].iter().all(|byte| *byte == 0));
    }
    // On a disk of its own size nothing moves.
    let lun = FileLun::empty(&folder.path().join("disk"), 128 * MIB, 512);
    write(&lun, &image, &[]).await.unwrap();
    assert!(begins_alike(lun.path(), &image));
    let error = write(&lun, &image, b"config").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test]
async fn msdos_images_take_a_config_drive_while_a_slot_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let id = "label: dos\\nlabel-id: 0x12ab34cd\\n";
    let image = disk_image(&folder, &format!("{id}2048,32768,83,*\\n"));
    let lun = FileLun::full_of_old_data(&folder.path().join("disk"), 256 * MIB, 512);
    let done = write(&lun, &image, &[]).await.unwrap();
    assert_eq!(done.disk_identifier, "0x12ab34cd");
    assert!(begins_alike(&image, lun.path()));
    let done = write(&lun, &image, b"config").await.unwrap();
    assert_eq!(done.disk_identifier, "0x12ab34cd");
    let table = sfdisk(&lun);
    assert_eq!(table["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(table["partitions"][0]["bootable"], true);
    assert!(
        run("fdisk", "sfdisk", &["--verify", &show(lun.path())])
            .status
            .success()
    );
    let boot = fs::read(lun.path()).unwrap();
    assert!(
        boot[..440] == fs::read(&image).unwrap()[..440],
        "boot code stays"
    );

    let full = disk_image(
        &folder,
        &format!("{id}2048,2048\\n,2048\\n,2048\\n,2048\\n"),
    );
    let error = write(&lun, &full, b"config").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test]
async fn an_image_for_other_sectors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk_image(&folder, "label: gpt\\n2048,32768,U\\n");
    let lun = FileLun::empty(&folder.path().join("disk"), 256 * MIB, 4096);
    let error = write(&lun, &image, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.message().contains("512") && error.message().contains("4096"),
        "{error}"
    );
}

#[tokio::test]
async fn packed_images_are_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let image = file_system(&folder, "ext4", 40 * MIB);
    for (tool_name, package, suffix, more) in [
        ("gzip", "gzip", "gz", "-1"),
        ("xz", "xz-utils", "xz", "-0"),
        ("zstd", "zstd", "zst", "-1"),
    ] {
        tool(package, tool_name, &["-k", "-q", more, &show(&image)]);
        let packed = folder.path().join(format!("ext4.raw.{suffix}"));
        let lun = FileLun::full_of_old_data(&folder.path().join("disk"), 48 * MIB, 512);
        let done = write(&lun, &packed, &[]).await.unwrap();
        assert!(begins_alike(&image, lun.path()), "{suffix}");
        assert!(
            done.written.data_bytes < 20 * MIB,
            "{suffix}: zeros were sent"
        );
        // Two in a row are one, as the tools take them.
        let twice = folder.path().join("twice");
        let one = fs::read(&packed).unwrap();
        fs::write(&twice, [&one[..], &one[..]].concat()).unwrap();
        let large = FileLun::empty(&folder.path().join("disk"), 96 * MIB, 512);
        let done = write(&large, &twice, &[]).await.unwrap();
        assert_eq!(done.written.image_bytes, 80 * MIB, "{suffix}");
        // Larger than the disk, cut, damaged.
        let error = write(&lun, &twice, &[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit, "{suffix}: {error}");
        fs::write(&twice, &one[..one.len() * 2 / 3]).unwrap();
        let error = write(&large, &twice, &[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{suffix}: {error}");
        let mut damaged = one.clone();
        damaged[one.len() / 2] ^= 0x40;
        fs::write(&twice, damaged).unwrap();
        let error = write(&large, &twice, &[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{suffix}: {error}");
    }
    let qcow2 = folder.path().join("inner.qcow2");
    tool(
        "qemu-utils",
        "qemu-img",
        &["convert", "-O", "qcow2", &show(&image), &show(&qcow2)],
    );
    tool("gzip", "gzip", &["-1", &show(&qcow2)]);
    let error = ImageSource::open(&folder.path().join("inner.qcow2.gz"), None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}
