//! Our media, really booted: SeaBIOS and OVMF in qemu start a Debian kernel from the ISO, and a
//! small ramdisk says on the serial console what it was told.

use super::{run, text};
use crate::support::{archive, boot_iso, boot_part as part};
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::image::loader::Grub;
use flowrun::image::vfat::{VfatSpec, make_vfat};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The order in which Linux takes what it needs for a floppy that is a USB stick; and what says
/// whether Secure Boot is on.
const MODULES: [&str; 19] = [
    "usb-common",
    "usbcore",
    "xhci-hcd",
    "xhci-pci",
    "scsi_common",
    "scsi_mod",
    "usb-storage",
    "crct10dif_common",
    "crct10dif_generic",
    "crc-t10dif",
    "crc64",
    "crc64-rocksoft",
    "t10-pi",
    "sd_mod",
    "nls_cp437",
    "nls_ascii",
    "fat",
    "vfat",
    "efivarfs",
];

/// Finds the floppy as Ironic's ramdisk does, by its label, and says what is on it.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
echo "@cmdline $(cat /proc/cmdline)"
for m in $(cat /order); do insmod /$m.ko delay_use=0 2>/dev/null || insmod /$m.ko; done
until dev=$(findfs LABEL=ir-vfd-dev 2>/dev/null); do sleep 0.1; done
mount -t vfat -o ro $dev /mnt
cd /mnt
for f in *; do echo "@file $f $(sha256sum <$f)"; done
echo "@parameters $(cat parameters.txt | tr '\n' '|')"
mount -t efivarfs vars /sys/firmware/efi/efivars
if [ ! -d /sys/firmware/efi ]; then echo "@firmware BIOS"
elif tail -c1 /sys/firmware/efi/efivars/SecureBoot-* | grep -q $'\001'; then echo "@firmware UEFI secure"
else echo "@firmware UEFI"; fi
echo "@end"
poweroff -f
"#;

/// The archive of busybox and the modules.
fn ramdisk(folder: &Path) -> PathBuf {
    let mut files = vec![
        ("init".to_owned(), INIT.as_bytes().to_vec()),
        ("bin/busybox".to_owned(), fs::read(part("busybox")).unwrap()),
        ("order".to_owned(), MODULES.join("\n").into_bytes()),
    ];
    for module in MODULES.map(|name| format!("{name}.ko")) {
        let bytes = fs::read(part(&module)).unwrap();
        files.push((module, bytes));
    }
    archive(folder, &files)
}

/// Boots the ISO with the floppy in a USB drive and returns what the console showed.
fn boot(folder: &TempDir, iso: &Path, floppy: &Path, firmware: &[String]) -> String {
    let console = folder.path().join("console");
    let fixed = "--kill-after=5 300 qemu-system-x86_64 -no-user-config -nodefaults -display none \
        -machine q35 -m 512 -accel tcg -no-reboot -nic none -device ide-cd,drive=cd,bootindex=0 \
        -device qemu-xhci,id=usb -device usb-storage,bus=usb.0,drive=floppy,removable=on";
    let mut arguments: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
    for (id, path) in [("cd", iso), ("floppy", floppy)] {
        let drive = "if=none,format=raw,readonly=on";
        arguments.push("-drive".to_owned());
        arguments.push(format!("{drive},id={id},file={}", path.display()));
    }
    arguments.push("-serial".to_owned());
    arguments.push(format!("file:{}", console.display()));
    arguments.extend_from_slice(firmware);
    // The machine switches itself off; a status of 124 says that it did not.
    let output = run("qemu-system-x86", "timeout", &arguments);
    let shown = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{complaint}\n{shown}",
        output.status
    );
    shown
}

/// UEFI firmware of Debian's package ovmf: its code and a copy of its variables.
fn ovmf(folder: &TempDir, code: &str, variables: &str) -> Vec<String> {
    let copy = folder.path().join("variables");
    let original = format!("/usr/share/OVMF/{variables}");
    if let Err(error) = fs::copy(&original, &copy) {
        panic!("{original} (Debian package ovmf): {error}");
    }
    let flash = "if=pflash,format=raw,unit";
    vec![
        "-drive".to_owned(),
        format!("{flash}=0,readonly=on,file=/usr/share/OVMF/{code}"),
        "-drive".to_owned(),
        format!("{flash}=1,file={}", copy.display()),
    ]
}

const PARAMETERS: &str = "root=UUID=1be26c0b-03f2-4d2e-ae87-c02d7f33c781 ro console=ttyS0 quiet \
     no_timer_check boot_method=vmedia";

fn spec(folder: &TempDir) -> IsoSpec {
    boot_iso(ramdisk(folder.path()), PARAMETERS)
}

/// Boots what `spec` says and compares what the ramdisk saw with what the media were made from.
fn boots(folder: &TempDir, spec: &IsoSpec, firmware: &[String], name: &str) {
    let iso = folder.path().join("boot.iso");
    let mut file = fs::File::create(&iso).unwrap();
    Iso::plan(spec).unwrap().write(&mut file).unwrap();
    let floppy = folder.path().join("floppy");
    let token = super::noise(7, 900);
    let contents = VfatSpec {
        parameters: [("deployment_id", "1be26c0b"), ("iscsi_port", "3260")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        files: vec![("token".into(), Source::Bytes(token.clone()))],
        ..VfatSpec::default()
    };
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(true);
    make_vfat(&contents, options.open(&floppy).unwrap()).unwrap();
    let console = boot(folder, &iso, &floppy, firmware);
    let token_file = folder.path().join("token");
    fs::write(&token_file, token).unwrap();
    let sum = text("coreutils", "sha256sum", &[&token_file]);
    let sum = sum.split_whitespace().next().unwrap();
    let said = |what: &str| {
        // GRUB leaves the cursor's movements before the first line.
        let found = console
            .lines()
            .find_map(|line| Some(line.trim_end().split_once(what)?.1));
        found
            .unwrap_or_else(|| panic!("no {what:?} in:\n{console}"))
            .to_owned()
    };
    let line = said("@cmdline BOOT_IMAGE=/vmlinuz ");
    let line = line.strip_prefix("initrd=/initrd ").unwrap_or(&line);
    assert_eq!(line, format!("text {PARAMETERS} --"));
    assert_eq!(said("@firmware "), name);
    assert_eq!(
        said("@parameters "),
        "deployment_id=1be26c0b|iscsi_port=3260"
    );
    assert_eq!(said("@file token "), format!("{sum}  -"));
    said("@end");
}

#[test]
fn one_iso_boots_by_bios_and_by_uefi() {
    let folder = tempfile::tempdir().unwrap();
    let both = spec(&folder);
    boots(&folder, &both, &[], "BIOS");
    boots(
        &folder,
        &both,
        &ovmf(&folder, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        "UEFI",
    );
}

#[test]
fn an_iso_with_shim_boots_under_secure_boot() {
    let folder = tempfile::tempdir().unwrap();
    let mut signed = spec(&folder);
    signed.isolinux = None;
    signed.grub = Some(Grub {
        efi: Source::File(part("gcdx64.efi.signed")),
        shim: Some(Source::File(part("shimx64.efi.signed"))),
    });
    // Microsoft's keys are enrolled, as in servers; they are kept from the system by SMM.
    let mut firmware = ovmf(&folder, "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd");
    let secure = "driver=cfi.pflash01,property=secure,value=on";
    firmware.extend(["-machine", "smm=on", "-global", secure].map(str::to_owned));
    boots(&folder, &signed, &firmware, "UEFI secure");
}
