//! What several tests need.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

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
