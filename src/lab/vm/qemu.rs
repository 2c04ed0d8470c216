//! The machine as QEMU is told it, and what has to be installed for it.
//!
//! Each choice has a reason. TCG always: a `/dev/kvm` that opens is not one that runs a stock
//! kernel. One processor: TCG runs more of them slower. It has RDRAND: without, the kernel's
//! first random numbers come after ten seconds and more. Disks and NIC as a distribution's kernel
//! has drivers for; the virtual drives on USB, as an iLO's are. A reset ends the process: only a
//! cold start with another boot order makes a one-time boot exact, since SeaBIOS resets once more
//! after a warm one.

use super::{DiskBus, Parts, VmOptions};
use crate::error::{Error, Kind, Result};
use crate::ilo::model::BootMode;
use crate::lab::host::BootSource;
use crate::ramdisk::deploy::{DONE_PORT, ISCSI_PORT};
use std::path::{Path, PathBuf};

pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// UEFI firmware and its empty variables, where distributions put them.
const UEFI: [[&str; 2]; 3] = [
    [
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ],
    [
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ],
    [
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ],
];

/// What the processors of ProLiants have and QEMU's plainest one does not. Linux hangs early where
/// there is `xsave` without `xsaveopt` (QEMU 7.2, Linux 6.1). SSE 4.2 is left out: QEMU computes
/// its CRC32C bit by bit, at a third of the speed of tables.
const CPU: &str = "qemu64,+rdrand,+ssse3,+sse4.1,+popcnt,+aes,+xsave,+xsaveopt,+avx";

/// Where programs are looked for beside `PATH`.
const MORE_PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// What a machine needs of the system it runs on.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    code: &'static Path,
    pub(super) variables: &'static Path,
}

impl Installed {
    /// Looks for it all.
    ///
    /// # Errors
    /// `unsupported` that names every missing package.
    pub(super) fn find() -> Result<Self> {
        let mut missing = Vec::new();
        for (program, package) in [(PROGRAM, "qemu-system-x86"), ("setpriv", "util-linux")] {
            if !is_there(program) {
                missing.push((program.to_owned(), package));
            }
        }
        let pairs = UEFI.iter().map(|pair| pair.map(Path::new));
        let found = pairs
            .clone()
            .find(|pair| pair.iter().all(|file| file.is_file()));
        if found.is_none() {
            missing.push((UEFI[0][0].to_owned(), "ovmf"));
        }
        match found {
            Some([code, variables]) if missing.is_empty() => Ok(Self { code, variables }),
            _ => {
                let (what, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
                let message = format!(
                    "a virtual machine needs {}, not found here",
                    what.join(", ")
                );
                Err(Error::new(Kind::Unsupported, message).hint(format!(
                    "on Debian and Ubuntu: apt-get install {}",
                    packages.join(" ")
                )))
            }
        }
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(MORE_PLACES.map(PathBuf::from));
    places
        .map(|place| place.join(program))
        .any(|file| file.is_file())
}

/// One start of the machine.
pub(super) struct Start<'a> {
    pub(super) options: &'a VmOptions,
    pub(super) installed: &'a Installed,
    pub(super) mode: BootMode,
    pub(super) source: BootSource,
    /// The media that are inserted, by the names of their exports.
    pub(super) media: &'a [&'static str],
    /// Where QEMU finds its monitor's listener and the media's.
    pub(super) monitor: &'a Path,
    pub(super) exports: &'a Path,
    /// Where the machine keeps its disk and its UEFI variables.
    pub(super) disk: &'a Path,
    pub(super) variables: &'a Path,
}

impl Start<'_> {
    /// QEMU's arguments. There is no secret in them: others see a process's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let VmOptions { name, uuid, .. } = self.options;
        let Parts { disk, memory_mib } = self.options.parts;
        let serial = self.options.serial();
        let disk = match disk {
            DiskBus::Sata => format!("ide-hd,bus=ide.0,wwn={}", self.options.wwn()),
            DiskBus::Nvme => "nvme".to_owned(),
        };
        let fixed = format!(
            "-no-user-config -nodefaults -display none -machine q35 -accel tcg -cpu {CPU} -smp 1 -m {memory_mib} \
             -action reboot=shutdown,shutdown=pause -uuid {uuid} -device VGA \
             -chardev file,id=serial,path=/dev/stdout -serial chardev:serial \
             -chardev file,id=firmware,path=/dev/stderr \
             -device isa-debugcon,iobase=0x402,chardev=firmware \
             -device {disk},drive=disk,serial={serial},bootindex=1 \
             -device qemu-xhci,id=usb"
        );
        let mut arguments: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-name", name.clone());
        add(
            "-smbios",
            format!("type=1,manufacturer=HPE,product=ProLiant lab,serial={serial}"),
        );
        add("-qmp", format!("unix:{}", commas(self.monitor)));
        // Of the disk's cache nothing is flushed: the host outlives the machine.
        let disk = "if=none,id=disk,format=raw,discard=unmap,cache=unsafe,file=";
        add("-drive", format!("{disk}{}", commas(self.disk)));
        if self.mode == BootMode::Uefi {
            let flash = "if=pflash,format=raw,unit";
            add(
                "-drive",
                format!(
                    "{flash}=0,readonly=on,file={}",
                    self.installed.code.display()
                ),
            );
            add(
                "-drive",
                format!("{flash}=1,file={}", commas(self.variables)),
            );
        }
        self.add_media(&mut add);
        let address = self.options.address;
        let forward = |port: u16| format!(",hostfwd=tcp:{address}:{port}-:{port}");
        add(
            "-netdev",
            format!("user,id=net{}{}", forward(ISCSI_PORT), forward(DONE_PORT)),
        );
        add(
            "-device",
            format!(
                "virtio-net-pci,netdev=net,romfile=,mac={}",
                self.options.mac
            ),
        );
        arguments
    }

    /// The virtual drives that have a medium.
    fn add_media(&self, add: &mut impl FnMut(&str, String)) {
        for medium in self.media {
            let server = format!("server.type=unix,server.path={}", commas(self.exports));
            let drive = format!("driver=nbd,node-name={medium},export={medium},read-only=on");
            add("-blockdev", format!("{drive},{server}"));
        }
        if self.media.contains(&super::CDROM) {
            let order = match self.source {
                BootSource::Cdrom => ",bootindex=0",
                BootSource::Disk => "",
            };
            add("-device", "usb-bot,id=vcd,bus=usb.0".to_owned());
            add(
                "-device",
                format!("scsi-cd,bus=vcd.0,scsi-id=0,lun=0,drive=cdrom{order}"),
            );
        }
        if self.media.contains(&super::FLOPPY) {
            add(
                "-device",
                "usb-storage,bus=usb.0,drive=floppy,removable=on".to_owned(),
            );
        }
    }
}

/// A path as QEMU's option parser takes it.
fn commas(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
