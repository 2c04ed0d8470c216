//! The machine's drives, as sysfs shows them.

use std::path::{Path, PathBuf};

/// Bytes of the unit in which sysfs counts, whatever the sector of the device.
const SECTOR_BYTES: u64 = 512;

/// Drives that are made by software.
const NO_HARDWARE: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "nbd", "sr"];

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Drive {
    /// `sda`
    pub(super) name: String,
    /// Its size; 0 without a medium.
    pub(super) bytes: u64,
    /// Whether the medium can be changed.
    pub(super) is_removable: bool,
    /// Whether it cannot be written.
    pub(super) is_read_only: bool,
    /// Whether it is connected by USB, as all virtual media of BMCs are.
    pub(super) is_usb: bool,
    /// Whether it has turning discs.
    pub(super) is_rotational: bool,
    /// As the device says it; empty if it does not.
    pub(super) model: String,
    /// Likewise.
    pub(super) vendor: String,
    /// Likewise.
    pub(super) serial: String,
    /// World wide name in hexadecimal digits, without `0x`; of NAA 6 names all 32.
    pub(super) wwn: String,
    /// `0:1:0:0`: host, channel, target, unit; empty if it is no SCSI device.
    pub(super) hctl: String,
    /// What udev calls it in `/dev/disk/by-path`, without the folder.
    pub(super) by_path: String,
}

impl Drive {
    /// All drives with hardware behind them, in the order of their names.
    pub(super) fn all() -> Vec<Self> {
        Self::below(Path::new("/sys"))
    }

    fn below(sys: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(sys.join("block"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names
            .filter(|name| {
                !NO_HARDWARE
                    .iter()
                    .any(|software| name.starts_with(software))
            })
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| Self::read(sys, name))
            .collect()
    }

    fn read(sys: &Path, name: String) -> Self {
        let folder = sys.join("block").join(&name);
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let text = |file: &str| {
            let text = std::fs::read(folder.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let first = |files: &[&str]| {
            let texts = files.iter().map(|file| text(file));
            texts
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        };
        let device = folder.join("device").canonicalize().unwrap_or_default();
        let last = device
            .file_name()
            .map(|last| last.to_string_lossy().into_owned());
        let hctl = last
            .filter(|last| last.split(':').count() == 4)
            .unwrap_or_default();
        let serial = match first(&["serial", "device/serial"]) {
            empty if empty.is_empty() => {
                unit_serial(&std::fs::read(folder.join("device/vpd_pg80")).unwrap_or_default())
            }
            serial => serial,
        };
        Self {
            bytes: text("size")
                .parse::<u64>()
                .unwrap_or(0)
                .saturating_mul(SECTOR_BYTES),
            is_removable: text("removable") == "1",
            is_read_only: text("ro") == "1",
            is_usb: real
                .components()
                .any(|part| is_usb(&part.as_os_str().to_string_lossy())),
            is_rotational: text("queue/rotational") == "1",
            model: text("device/model"),
            vendor: text("device/vendor"),
            serial,
            wwn: digits_of(&first(&["wwid", "device/wwid"])),
            by_path: by_path(&real, &hctl, sys),
            hctl,
            name,
        }
    }

    /// Its device file.
    pub(super) fn device(&self) -> PathBuf {
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    /// Whether it may be the virtual floppy.
    pub(super) fn is_floppy_like(&self) -> bool {
        self.is_removable || self.is_usb || self.name.starts_with("fd")
    }

    /// Why it must not be written, if so.
    pub(super) fn why_not(&self) -> Option<&'static str> {
        if self.is_usb {
            Some("connected by USB")
        } else if self.is_removable || self.name.starts_with("fd") {
            Some("removable")
        } else if self.is_read_only {
            Some("read-only")
        } else if self.bytes == 0 {
            Some("without a medium")
        } else if self.model.to_ascii_lowercase().contains("virtual media") {
            Some("virtual media")
        } else {
            None
        }
    }
}

fn is_usb(part: &str) -> bool {
    let number = part.strip_prefix("usb");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// SPC-4 7.8.15: the page's header has four bytes, the last two its length.
fn unit_serial(page: &[u8]) -> String {
    let text = page.get(4..).unwrap_or_default();
    String::from_utf8_lossy(text)
        .trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .to_owned()
}

/// `naa.600508b1001c…`, `eui.0025385b…`, `0x5000c500…`: the digits.
fn digits_of(wwid: &str) -> String {
    let lower = wwid.to_ascii_lowercase();
    let digits = ["naa.", "eui.", "uuid.", "0x"]
        .iter()
        .find_map(|start| lower.strip_prefix(start));
    let digits: String = digits
        .unwrap_or_default()
        .chars()
        .filter(|c| *c != '-')
        .collect();
    match digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => digits,
        false => String::new(),
    }
}

/// As udev's `path_id` makes it, for what servers have: NVMe, SATA ports, SCSI, virtio.
fn by_path(real: &Path, hctl: &str, sys: &Path) -> String {
    let parts: Vec<String> = real
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let Some(at) = parts.iter().rposition(|part| is_pci_slot(part)) else {
        return String::new();
    };
    let slot = parts.get(at).cloned().unwrap_or_default();
    let below = parts.get(at + 1..).unwrap_or_default();
    let name = below.last().cloned().unwrap_or_default();
    if let Some((_, space)) = name
        .strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
    {
        return format!("pci-{slot}-nvme-{space}");
    }
    if let Some(port) = below.iter().find(|part| is_numbered(part, "ata")) {
        let number = sys.join("class/ata_port").join(port).join("port_no");
        let number = std::fs::read_to_string(number).unwrap_or_default();
        return format!("pci-{slot}-ata-{}", number.trim());
    }
    let Some((host, rest)) = hctl.split_once(':') else {
        return format!("pci-{slot}");
    };
    // udev counts the hosts of an adapter from 0.
    let adapter: PathBuf = parts.iter().take(at + 1).collect();
    let hosts = std::fs::read_dir(adapter).into_iter().flatten().flatten();
    let hosts = hosts.filter_map(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .strip_prefix("host")?
            .parse::<u32>()
            .ok()
    });
    let first = hosts.min().unwrap_or(0);
    let host = host.parse::<u32>().unwrap_or(0).saturating_sub(first);
    format!("pci-{slot}-scsi-{host}:{rest}")
}

fn is_numbered(part: &str, word: &str) -> bool {
    let number = part.strip_prefix(word);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// `0000:03:00.0`
fn is_pci_slot(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.len() == 12
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b':',
            10 => *byte == b'.',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A part of `/sys` as a server shows it: Smart Array volume, NVMe disk, virtual floppy.
    fn sys() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let array = "devices/pci0000:00/0000:00:01.0/0000:03:00.0/host2/target2:1:0/2:1:0:0";
        write(&format!("{array}/model"), "LOGICAL VOLUME  \n");
        write(&format!("{array}/vendor"), "HP      \n");
        write(
            &format!("{array}/wwid"),
            "naa.600508b1001c4d41a6bd9c5c6a3a7b01\n",
        );
        write(&format!("{array}/vpd_pg80"), "\0\x01\0\x0ePDNLH0BRH7S0AB");
        write(&format!("{array}/block/sda/size"), "2147483648\n");
        write(&format!("{array}/block/sda/removable"), "0\n");
        write(&format!("{array}/block/sda/ro"), "0\n");
        write(&format!("{array}/block/sda/queue/rotational"), "1\n");
        let nvme = "devices/pci0000:80/0000:80:03.1/0000:84:00.0/nvme/nvme0";
        write(&format!("{nvme}/model"), "SAMSUNG MZ1LB960\n");
        write(&format!("{nvme}/serial"), "S436NA0M\n");
        write(&format!("{nvme}/nvme0n1/size"), "1875385008\n");
        write(&format!("{nvme}/nvme0n1/wwid"), "eui.34333630 \n");
        let usb = "devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host5/target5:0:0/5:0:0:0";
        write(&format!("{usb}/block/sdb/size"), "200\n");
        write(&format!("{usb}/block/sdb/removable"), "1\n");
        write("devices/virtual/block/loop0/size", "8\n");
        let path = |path: &str| root.path().join(path);
        fs::create_dir_all(path("block")).unwrap();
        for (name, folder, device) in [
            ("sda", format!("{array}/block/sda"), "../../../2:1:0:0"),
            ("nvme0n1", format!("{nvme}/nvme0n1"), "../../nvme0"),
            ("sdb", format!("{usb}/block/sdb"), "../../../5:0:0:0"),
            ("loop0", "devices/virtual/block/loop0".to_owned(), ".."),
        ] {
            symlink(path(&folder), path("block").join(name)).unwrap();
            symlink(device, path(&folder).join("device")).unwrap();
        }
        root
    }

    #[test]
    fn drives_are_read() {
        let root = sys();
        let drives = Drive::below(root.path());
        let names: Vec<&str> = drives.iter().map(|drive| drive.name.as_str()).collect();
        assert_eq!(names, ["nvme0n1", "sda", "sdb"]);
        let [nvme, sda, floppy] = &drives[..] else {
            panic!()
        };
        assert_eq!(nvme.by_path, "pci-0000:84:00.0-nvme-1");
        assert_eq!(
            (nvme.serial.as_str(), nvme.wwn.as_str()),
            ("S436NA0M", "34333630")
        );
        assert_eq!(sda.by_path, "pci-0000:03:00.0-scsi-0:1:0:0");
        assert_eq!(sda.hctl, "2:1:0:0");
        assert_eq!(sda.serial, "PDNLH0BRH7S0AB");
        assert_eq!(sda.wwn, "600508b1001c4d41a6bd9c5c6a3a7b01");
        assert_eq!(
            (sda.model.as_str(), sda.vendor.as_str()),
            ("LOGICAL VOLUME", "HP")
        );
        assert_eq!(sda.bytes, 1 << 40);
        assert!(sda.is_rotational && sda.why_not().is_none() && !sda.is_floppy_like());
        assert_eq!(floppy.why_not(), Some("connected by USB"));
        assert!(floppy.is_floppy_like());
    }
}
