//! What boots: a classic deploy ramdisk, and systems to deploy; of Debian's kernel, busybox and
//! boot loaders.

use crate::support::{archive, boot_iso, boot_part as part};
use flowrun::image::iso::Iso;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Of the deployed root file system.
pub(super) const ROOT_UUID: &str = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab";

/// What a system on a disk of a virtual machine takes, in the order in which Linux takes it.
const DISK: &[&str] = &[
    "scsi_common",
    "scsi_mod",
    "libata",
    "libahci",
    "ahci",
    "crct10dif_common",
    "crct10dif_generic",
    "crc-t10dif",
    "crc64",
    "crc64-rocksoft",
    "t10-pi",
    "sd_mod",
];
/// A USB floppy and the network.
const DEPLOY: &[&str] = &[
    "usb-common",
    "usbcore",
    "xhci-hcd",
    "xhci-pci",
    "usb-storage",
    "nls_cp437",
    "nls_ascii",
    "fat",
    "vfat",
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];
/// The kernel's iSCSI target.
const LIO: &[&str] = &[
    "crc32c_generic",
    "configfs",
    "target_core_mod",
    "iscsi_target_mod",
    "target_core_iblock",
];
/// Root and config drive.
const INSTANCE: &[&str] = &[
    "crc32c_generic",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
    "cdrom",
    "isofs",
];

/// On the kernel's command line of everything: TCG may lose the timer interrupt that Linux tests.
pub(super) const CONSOLE: &str = "console=ttyS0 no_timer_check";

/// `interface`, `ip` and so on, as udhcpc calls its script.
const BOUND: &str = "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev $interface && \
    ip route add default via $router dev $interface\nexit 0\n";

/// Who exports the disk in a classic ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exporter {
    Lio,
    Tgtd,
}

pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed; tests/run.sh: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

fn show(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A ramdisk of busybox, these modules and files.
fn busybox_archive(
    folder: &Path,
    init: &str,
    modules: &[&[&str]],
    more: Vec<(String, Vec<u8>)>,
) -> PathBuf {
    let modules: Vec<&str> = modules
        .iter()
        .flat_map(|list| list.iter().copied())
        .collect();
    let mut files = vec![
        ("init".to_owned(), init.as_bytes().to_vec()),
        ("bin/busybox".to_owned(), fs::read(part("busybox")).unwrap()),
        ("order".to_owned(), modules.join("\n").into_bytes()),
    ];
    for module in modules {
        let name = format!("{module}.ko");
        let bytes = fs::read(part(&name)).unwrap();
        files.push((name, bytes));
    }
    files.extend(more);
    archive(folder, &files)
}

/// A program of this machine with the libraries that it loads.
fn with_libraries(program: &str) -> Vec<(String, Vec<u8>)> {
    let path = ["/usr/sbin", "/usr/bin"].map(|place| Path::new(place).join(program));
    let path = path.iter().find(|path| path.exists());
    let path = path.unwrap_or_else(|| panic!("{program} is needed; tests/run.sh"));
    let listed = Command::new("ldd").arg(path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut files = vec![(format!("bin/{program}"), fs::read(path).unwrap())];
    for library in libraries {
        files.push((
            library.trim_start_matches('/').to_owned(),
            fs::read(library).unwrap(),
        ));
    }
    files
}

/// What most tests boot.
#[derive(Debug)]
pub(super) struct Parts {
    /// Our deploy ramdisk.
    pub(super) deploy_iso: PathBuf,
    pub(super) instance: Instance,
}

/// They are made once.
pub(super) fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        Parts {
            deploy_iso: our_iso(&folder),
            instance: Instance::make(&folder),
        }
    })
}

/// `[boot_loaders]` of a configuration.
pub(super) fn boot_loaders() -> String {
    format!(
        "[boot_loaders]\nisolinux = {:?}\nldlinux = {:?}\ngrub = {:?}\nmbr = {:?}\n",
        part("isolinux.bin"),
        part("ldlinux.c32"),
        part("gcdx64.efi"),
        part("mbr.bin"),
    )
}

/// What the documentation has operators build, of the few modules that the machine needs, and of
/// the program without what debuggers need.
fn our_iso(folder: &Path) -> PathBuf {
    let [init, config, iso] = ["init", "loaders.toml", "deploy.iso"].map(|name| folder.join(name));
    run("strip", &["-o", show(&init), env!("CARGO_BIN_EXE_flowrun")]);
    fs::write(&config, boot_loaders()).unwrap();
    let (kernel, modules) = (part("vmlinuz"), part(""));
    let arguments = [
        "ramdisk",
        "build",
        "--config",
        show(&config),
        "--kernel",
        show(&kernel),
        "--modules",
        show(&modules),
        "--init",
        show(&init),
        "--append",
        "no_timer_check",
        "--output",
        show(&iso),
    ];
    run(env!("CARGO_BIN_EXE_flowrun"), &arguments);
    iso
}

/// The ISO of a classic deploy ramdisk.
pub(super) fn classic_iso(folder: &Path, exporter: Exporter) -> PathBuf {
    let (modules, programs) = match exporter {
        Exporter::Lio => (vec![DISK, DEPLOY, LIO], &["curl"][..]),
        Exporter::Tgtd => (vec![DISK, DEPLOY], &["curl", "tgtd", "tgtadm"][..]),
    };
    let mut more = vec![("bound".to_owned(), BOUND.as_bytes().to_vec())];
    more.extend(programs.iter().flat_map(|name| with_libraries(name)));
    let place = folder.join(format!("{exporter:?}"));
    let ramdisk = busybox_archive(&place, include_str!("classic_init.sh"), &modules, more);
    let iso = folder.join(format!("{exporter:?}.iso"));
    let spec = boot_iso(ramdisk, &format!("{CONSOLE} boot_method=vmedia"));
    let mut file = fs::File::create(&iso).unwrap();
    Iso::plan(&spec).unwrap().write(&mut file).unwrap();
    iso
}

/// A system to deploy.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its root file system alone.
    pub(super) root: PathBuf,
    pub(super) ramdisk: PathBuf,
    /// A disk that boots by itself, by BIOS and by UEFI; qcow2.
    pub(super) disk: PathBuf,
    /// Names and contents of what lies in its `/data`.
    pub(super) data: Vec<(String, Vec<u8>)>,
    pub(super) config_drive: PathBuf,
}

/// What the config drive says.
pub(super) const META_DATA: &str = r#"{"hostname": "vm-1.example", "uuid": "83679162"}"#;

impl Instance {
    /// Makes it all in this folder.
    pub(super) fn make(folder: &Path) -> Self {
        let data: Vec<_> = [("small", 700), ("noise", 12 << 20)]
            .map(|(name, length)| (name.to_owned(), crate::image::noise(11, length)))
            .into();
        let place = folder.join("root");
        for name in ["bin", "sbin", "proc", "sys", "dev", "run", "data"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        fs::copy(part("busybox"), place.join("bin/busybox")).unwrap();
        crate::support::write_program(
            &place.join("sbin/init"),
            include_str!("instance_init.sh").as_bytes(),
        );
        for (name, bytes) in &data {
            fs::write(place.join("data").join(name), bytes).unwrap();
        }
        let root = folder.join("root.raw");
        let owner = [
            "-E",
            "root_owner=0:0",
            "-d",
            show(&place),
            show(&root),
            "24M",
        ];
        run(
            "mke2fs",
            &[
                &["-q", "-F", "-t", "ext4", "-m", "0", "-U", ROOT_UUID],
                &owner[..],
            ]
            .concat(),
        );
        let initrd = include_str!("instance_initrd.sh");
        let more = vec![("new/.keep".to_owned(), Vec::new())];
        let ramdisk = busybox_archive(&folder.join("initrd"), initrd, &[DISK, INSTANCE], more);
        Self {
            disk: whole_disk(folder, &root, &ramdisk),
            config_drive: config_drive(folder),
            root,
            ramdisk,
            data,
        }
    }

    pub(super) fn kernel(&self) -> PathBuf {
        part("vmlinuz")
    }
}

fn config_drive(folder: &Path) -> PathBuf {
    let (place, iso) = (folder.join("config"), folder.join("config.iso"));
    fs::create_dir_all(place.join("openstack/latest")).unwrap();
    fs::write(place.join("openstack/latest/meta_data.json"), META_DATA).unwrap();
    let arguments = [
        "-quiet",
        "-R",
        "-V",
        "config-2",
        "-o",
        show(&iso),
        show(&place),
    ];
    run("genisoimage", &arguments);
    iso
}

/// An MBR disk: a FAT volume with SYSLINUX, GRUB for UEFI, kernel and ramdisk; the root.
fn whole_disk(folder: &Path, root: &Path, ramdisk: &Path) -> PathBuf {
    const MIB: u64 = 1 << 20;
    let (raw, fat) = (folder.join("disk.raw"), folder.join("boot.fat"));
    drop(fs::remove_file(&fat));
    let kernel = format!("vmlinuz root=UUID={ROOT_UUID} ro {CONSOLE} then=poweroff");
    // Where the partition begins is told in sectors.
    let format = [
        "-C",
        "-F",
        "16",
        "-h",
        "2048",
        "-n",
        "BOOT",
        show(&fat),
        "20480",
    ];
    run("mkfs.vfat", &format);
    let syslinux = format!(
        "default l\nlabel l\n linux {}\n append {}\n initrd initrd\n",
        &kernel[..7],
        &kernel[8..]
    );
    let grub = format!("linux /{kernel}\ninitrd /initrd\nboot\n");
    for (name, text) in [("syslinux.cfg", syslinux), ("grub.cfg", grub)] {
        fs::write(folder.join(name), text).unwrap();
    }
    let at = show(&fat).to_owned();
    run(
        "mmd",
        &["-i", &at, "::EFI", "::EFI/BOOT", "::boot", "::boot/grub"],
    );
    for (file, place) in [
        (part("vmlinuz"), "::vmlinuz"),
        (ramdisk.to_owned(), "::initrd"),
        (folder.join("syslinux.cfg"), "::syslinux.cfg"),
        (folder.join("grub.cfg"), "::boot/grub/grub.cfg"),
        (part("gcdx64.efi"), "::EFI/BOOT/BOOTX64.EFI"),
    ] {
        run("mcopy", &["-i", &at, show(&file), place]);
    }
    run(show(&part("syslinux")), &["--install", &at]);
    let disk = fs::File::create(&raw).unwrap();
    let (boot, root) = (fs::read(&fat).unwrap(), fs::read(root).unwrap());
    let root_at = MIB + boot.len() as u64;
    disk.set_len(root_at + root.len() as u64).unwrap();
    disk.write_all_at(&boot, MIB).unwrap();
    disk.write_all_at(&root, root_at).unwrap();
    let table = format!(
        "label: dos\nstart=2048, size={}, type=ef, bootable\nstart={}, type=83\n",
        boot.len() / 512,
        root_at / 512
    );
    fs::write(folder.join("table"), table).unwrap();
    let script = "sfdisk -q --no-reread \"$1\" <\"$0\"";
    run(
        "sh",
        &["-c", script, show(&folder.join("table")), show(&raw)],
    );
    disk.write_all_at(&fs::read(part("mbr.bin")).unwrap(), 0)
        .unwrap();
    let qcow2 = folder.join("disk.qcow2");
    run(
        "qemu-img",
        &["convert", "-O", "qcow2", show(&raw), show(&qcow2)],
    );
    qcow2
}
