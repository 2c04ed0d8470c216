//! A host with a kernel and boot loaders, whose operator gives no ISO: the lab makes it of them.

use super::parts::run;
use super::site::processor;
use crate::flow::{FLOW, newest_run, root, run as flowrun, text, told};
use crate::support::{boot_part, disk_holds, kernel_release};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lays `boot` and `lib` over this machine's, for a command and what that starts.
const LAY: &str = "mount --bind \"$0/boot\" /boot && \
    mount -t overlay overlay -o \"lowerdir=$0/lib:/usr/lib\" /usr/lib";

/// Where Debian's packages have them, below `/usr/lib`.
const LOADERS: [(&str, &str); 4] = [
    ("isolinux.bin", "ISOLINUX"),
    ("ldlinux.c32", "syslinux/modules/bios"),
    ("mbr.bin", "syslinux/mbr"),
    ("gcdx64.efi", "grub/x86_64-efi/monolithic"),
];

fn copy(file: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
}

/// Makes `unshare` give a command mounts of its own: as anybody, or, where that is not allowed as
/// in a chroot, as root.
fn own_mounts() -> &'static [&'static str] {
    const AS_ANYBODY: &[&str] = &["--user", "--map-root-user", "--mount"];
    let tried = Command::new("unshare")
        .args(AS_ANYBODY)
        .arg("true")
        .output();
    match tried.unwrap().status.success() {
        true => AS_ANYBODY,
        false => &["--mount"],
    }
}

/// The host, in a folder.
struct Host(tempfile::TempDir);

impl Host {
    /// It has boot loaders, and no kernel.
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.path("boot")).unwrap();
        for (file, folder) in LOADERS {
            copy(&boot_part(file), &host.path("lib").join(folder));
        }
        // The program without what debuggers need, as it is released.
        let program = host.path("flowrun");
        let built = env!("CARGO_BIN_EXE_flowrun");
        run("strip", &["-o", program.to_str().unwrap(), built]);
        host
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn modules(&self) -> PathBuf {
        let folder = format!("lib/modules/{}/kernel", kernel_release());
        self.path(&folder)
    }

    /// Installs the kernel, but for one module.
    fn install_kernel_without(&self, module: &str) {
        let kernel = format!("boot/vmlinuz-{}", kernel_release());
        fs::copy(boot_part("vmlinuz"), self.path(&kernel)).unwrap();
        for entry in fs::read_dir(boot_part("")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if path.extension().is_some_and(|ext| ext == "ko") && name != module {
                copy(&path, &self.modules());
            }
        }
    }

    /// As the documentation has it, with a machine that is not the usual one.
    fn deploy(&self) -> Output {
        self.deploy_after("true", "15m")
    }

    /// The same, after something else was changed on this host; waits so long for the machine.
    fn deploy_after(&self, change: &str, patience: &str) -> Output {
        let script = format!("{LAY} && {change} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(own_mounts()).args(["sh", "-c", &script]);
        command.arg(self.0.path()).arg(self.path("flowrun"));
        command.args([FLOW, "--node", "vm-1", "--lab-dir"]);
        command
            .arg(self.path("lab"))
            .args(["--lab-vm", "disk=nvme"]);
        command.args(["--lab-vm", "vm-1:memory_mib=512"]);
        let patience = format!("callback_timeout={patience}");
        command.args(["--param", &patience]);
        command.current_dir(root()).output().unwrap()
    }
}

/// What the host lacks is told with what to install, before anything takes long.
fn is_completed_step_by_step(host: &Host) {
    let lacks = |output: &Output, parts: [&str; 2]| told(output, 2, &parts);
    let firmware = host.deploy_after("mount -t tmpfs tmpfs /usr/share/OVMF", "15m");
    let needed = "needs /usr/share/OVMF/OVMF_CODE_4M.fd";
    lacks(&firmware, [needed, "apt-get install ovmf"]);
    let kernel = ["no kernel with modules is installed", "linux-image"];
    lacks(&host.deploy(), kernel);
    host.install_kernel_without("usb-storage.ko");
    let driver = format!(
        "a virtual machine needs usb_storage, which kernel {} has not",
        kernel_release()
    );
    lacks(&host.deploy(), [&driver, "--lab-deploy-iso"]);
    copy(&boot_part("usb-storage.ko"), &host.modules());
}

/// When a machine was not waited for, what it showed until then is told.
fn shows_the_machine(host: &Host) {
    let output = host.deploy_after("true", "5s");
    let parts = ["did not call", "whose newest lines are", "  screen "];
    told(&output, 1, &parts);
    let screen = fs::read(host.path("lab/nodes/vm-1/screen.png")).unwrap();
    assert!(screen.starts_with(b"\x89PNG"));
}

/// What the machine printed is in its run's log, and what the ramdisk sent.
fn is_in_the_log(host: &Host) {
    let lab = host.path("lab");
    let lab = lab.to_str().unwrap();
    let id = newest_run(lab).unwrap()["id"].take();
    let log = flowrun(&["logs", id.as_str().unwrap(), "--lab-dir", lab]);
    let lines = ["console : [", "Linux version", "info  : ramdisk: ["];
    told(&log, 0, &lines);
}

#[test]
fn a_machine_with_nvme_and_512_mib_by_the_kernel_of_this_host() {
    let host = Host::new();
    is_completed_step_by_step(&host);

    let _processor = processor();
    shows_the_machine(&host);
    let output = host.deploy();
    let console = fs::read(host.path("lab/nodes/vm-1/console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    assert!(output.status.success(), "{}\n{console}", text(&output));
    let seen = ["hashed by the ramdisk", "boot 2    from disk", "NVMe"];
    told(&output, 0, &seen);
    is_in_the_log(&host);
    let disk = host.path("lab/nodes/vm-1/disk.raw");
    disk_holds(&disk, &host.path("lab/images/lab-image.raw"), "raw").unwrap();
    assert!(console.contains("disk: nvme0n1 of 4096 MiB"), "{console}");
    let (_, memory) = console.split_once("used at most ").unwrap();
    let total = memory.split(' ').nth(2).unwrap();
    assert!((400..512).contains(&total.parse().unwrap()), "{memory}");
}
