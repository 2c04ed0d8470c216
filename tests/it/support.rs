//! What several tests need.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use flowrun::image::iso::{IsoSpec, Source};
use flowrun::image::loader::{Grub, Isolinux};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the parts that `tests/run.sh boot` unpacks.
pub(crate) fn boot_part(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("FLOWRUN_TEST_BOOT") else {
        panic!("FLOWRUN_TEST_BOOT must name a folder with a kernel and loaders: tests/run.sh boot");
    };
    Path::new(&folder).join(name)
}

/// The release of the kernel among them, as its own modules have it.
pub(crate) fn kernel_release() -> String {
    let module = fs::read(boot_part("usbcore.ko")).unwrap();
    let module = String::from_utf8_lossy(&module);
    let (_, magic) = module.split_once("vermagic=").unwrap();
    magic.split(' ').next().unwrap().to_owned()
}

/// A medium that BIOS and UEFI boot, of the kernel and loaders among those parts.
pub(crate) fn boot_iso(ramdisk: PathBuf, kernel_params: &str) -> IsoSpec {
    let part = |name| Source::File(boot_part(name));
    IsoSpec {
        volume_id: "VMEDIA_BOOT_ISO".into(),
        kernel: part("vmlinuz"),
        ramdisk: Source::File(ramdisk),
        kernel_params: kernel_params.into(),
        isolinux: Some(Isolinux {
            bin: part("isolinux.bin"),
            ldlinux: Some(part("ldlinux.c32")),
        }),
        grub: Some(Grub {
            efi: part("gcdx64.efi"),
            shim: None,
        }),
        files: Vec::new(),
    }
}

/// Writes an executable file, and the folders it lies in.
pub(crate) fn write_program(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The `newc` archive that Linux unpacks, by busybox; of these files and the folders of a root.
pub(crate) fn archive(folder: &Path, files: &[(String, Vec<u8>)]) -> PathBuf {
    let root = folder.join("root");
    for name in ["bin", "proc", "sys", "dev", "mnt"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for (name, bytes) in files {
        write_program(&root.join(name), bytes);
    }
    let archive = folder.join("ramdisk");
    let script = "cd \"$1\" && \"$0\" find . | \"$0\" cpio -o -H newc >\"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(boot_part("busybox"));
    let output = command.arg(&root).arg(&archive).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    archive
}

/// Whether the disk is what sfdisk makes of the image on a disk of that size: a GPT has its second
/// copy at the end, and all else is the image and then zeros.
pub(crate) fn disk_holds(disk: &Path, image: &Path, format: &str) -> Result<(), String> {
    let folder = tempfile::tempdir_in(disk.parent().unwrap()).unwrap();
    let wanted = folder.path().join("wanted");
    let run = |program: &str, args: &[&str], files: &[&Path]| {
        let output = Command::new(program).args(args).args(files).output();
        let output = output.expect("tests/run.sh installs qemu-utils and fdisk");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        output.status.success().then_some(()).ok_or(said)
    };
    run(
        "qemu-img",
        &["convert", "-f", format, "-O", "raw"],
        &[image, &wanted],
    )?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(&wanted)
        .unwrap();
    file.set_len(disk.metadata().unwrap().len()).unwrap();
    let mut head = [0; 520];
    file.read_exact_at(&mut head, 0).unwrap();
    if head.ends_with(b"EFI PART") {
        run("sfdisk", &["-q", "--relocate", "gpt-bak-std"], &[&wanted])?;
        // Where the protective partition ends in cylinders: sfdisk never says, UEFI 2.10 §5.2.3
        // wants it on disks of less than 8 GB.
        let mut chs = [0; 3];
        let disk = File::open(disk).unwrap();
        disk.read_exact_at(&mut chs, 451).unwrap();
        file.write_all_at(&chs, 451).unwrap();
    }
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw"],
        &[&wanted, disk],
    )
}
