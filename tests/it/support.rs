//! What several tests need.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the parts that `tests/run.sh boot` unpacks.
pub(crate) fn boot_part(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("FLOWRUN_TEST_BOOT") else {
        panic!("FLOWRUN_TEST_BOOT must name a folder with a kernel and loaders: tests/run.sh boot");
    };
    Path::new(&folder).join(name)
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
