//! A host with a kernel and boot loaders, whose operator gives no ISO: the lab makes it of them.

use super::parts::run;
use super::site::processor;
use crate::flow::{FLOW, root, text, told};
use crate::support::{boot_part, disk_holds, kernel_release};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lays `boot` and `lib` over this machine's, for a command and what that starts.
const LAY: &str = "mount --bind \"$0/boot\" /boot && \
    mount -t overlay overlay -o \"lowerdir=$0/lib:/usr/lib\" /usr/lib && exec \"$@\"";

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

    /// What the README tells operators to try, with a machine that is not the usual one.
    fn deploy(&self) -> Output {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", LAY]);
        command.arg(self.0.path()).arg(self.path("flowrun"));
        command.args([FLOW, "--node", "vm-1", "--lab-dir"]);
        command
            .arg(self.path("lab"))
            .args(["--lab-vm", "disk=nvme"]);
        command.args(["--lab-vm", "vm-1:memory_mib=512"]);
        command.args(["--param", "callback_timeout=15m"]);
        command.current_dir(root()).output().unwrap()
    }
}

#[test]
fn a_machine_with_nvme_and_512_mib_by_the_kernel_of_this_host() {
    let host = Host::new();
    told(
        &host.deploy(),
        2,
        &[
            "no kernel with modules is installed",
            "apt-get install linux-image",
        ],
    );
    host.install_kernel_without("usb-storage.ko");
    let lacking = format!(
        "a virtual machine needs usb_storage, which kernel {} has not",
        kernel_release()
    );
    told(&host.deploy(), 2, &[&lacking, "--lab-deploy-iso"]);
    copy(&boot_part("usb-storage.ko"), &host.modules());

    let _processor = processor();
    let output = host.deploy();
    let console = fs::read(host.path("lab/nodes/vm-1/console.log")).unwrap();
    let console = String::from_utf8_lossy(&console);
    assert!(output.status.success(), "{}\n{console}", text(&output));
    told(
        &output,
        0,
        &["hashed by the ramdisk", "boot 2    from disk", "NVMe"],
    );
    let disk = host.path("lab/nodes/vm-1/disk.raw");
    disk_holds(&disk, &host.path("lab/images/lab-image.raw"), "raw").unwrap();
    assert!(console.contains("disk: nvme0n1 of 4096 MiB"), "{console}");
    let (_, memory) = console.split_once("used at most ").unwrap();
    let memory: Vec<&str> = memory.split(' ').take(3).collect();
    let total: u32 = memory[2].parse().unwrap();
    assert!((400..512).contains(&total), "{memory:?}");
}
