//! ISO images, read by xorriso and isoinfo.

use super::{noise, run, show, text, tool};
use flowrun::error::Kind;
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::image::loader::{Grub, Isolinux};
use flowrun::image::source::is_zero;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A medium with a 20 MiB ramdisk from a file, and what must be found on it.
struct Medium {
    folder: TempDir,
    spec: IsoSpec,
    kernel: Vec<u8>,
    ramdisk: Vec<u8>,
}

impl Medium {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = noise(1, 300_001);
        let ramdisk = noise(2, 20 << 20);
        let path = folder.path().join("ramdisk");
        fs::write(&path, &ramdisk).unwrap();
        let spec = IsoSpec {
            volume_id: "VMEDIA_BOOT_ISO".into(),
            kernel: Source::Bytes(kernel.clone()),
            ramdisk: Source::File(path),
            kernel_params: "boot_method=vmedia console=ttyS0,115200n8 quiet".into(),
            isolinux: None,
            grub: None,
            files: vec![("notes/Read Me.txt".into(), Source::Bytes(b"hello".to_vec()))],
        };
        Self {
            folder,
            spec,
            kernel,
            ramdisk,
        }
    }

    fn write(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        let iso = Iso::plan(&self.spec).unwrap();
        iso.write(&mut file).unwrap();
        assert_eq!(iso.bytes(), file.metadata().unwrap().len());
        path
    }
}

const CONFIG: &str = "default boot\n\nlabel boot\nkernel /vmlinuz\nappend initrd=/initrd text \
                      boot_method=vmedia console=ttyS0,115200n8 quiet --\n";

#[test]
fn iso_is_what_xorriso_and_isoinfo_call_a_bootable_medium() {
    let medium = Medium::new();
    let iso = medium.write("boot.iso");
    let iso = show(&iso);
    let output = run(
        "xorriso",
        "xorriso",
        &["-indev", &iso, "-toc", "-report_el_torito", "plain"],
    );
    assert!(output.status.success());
    let report = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for wanted in [
        "Boot record  : El Torito",
        "Volume id    : 'VMEDIA_BOOT_ISO'",
        "El Torito cat path : /isolinux/boot.cat",
        "El Torito img path :   1  /isolinux/isolinux.bin",
    ] {
        assert!(report.contains(wanted), "no {wanted:?} in\n{report}");
    }
    for bad in ["WARNING", "SORRY", "FAILURE", "FATAL"] {
        assert!(!report.contains(bad), "{report}");
    }
    let image = report
        .lines()
        .find(|line| line.starts_with("El Torito boot img :   1"))
        .unwrap();
    // Number, platform, bootable, emulation, load segment, header type, load size in sectors.
    let fields: Vec<&str> = image.split_whitespace().skip(6).collect();
    assert_eq!(fields[..4], ["BIOS", "y", "none", "0x0000"], "{image}");
    assert_eq!(fields[5], "4", "{image}");

    let descriptors = text("genisoimage", "isoinfo", &["-d", "-i", &iso]);
    for wanted in [
        "CD-ROM is in ISO 9660 format",
        "Volume id: VMEDIA_BOOT_ISO",
        "El Torito VD version 1 found",
        "Joliet with UCS level 3 found",
        "Rock Ridge signatures version 1 found",
        "Boot media 0 (No Emulation Boot)",
    ] {
        assert!(
            descriptors.contains(wanted),
            "no {wanted:?} in\n{descriptors}"
        );
    }
    let listing = text("genisoimage", "isoinfo", &["-l", "-R", "-i", &iso]);
    for wanted in [
        "vmlinuz",
        "initrd",
        "isolinux.cfg",
        "Read Me.txt",
        "20971520",
    ] {
        assert!(listing.contains(wanted), "no {wanted:?} in\n{listing}");
    }
}

#[test]
fn iso_files_read_back_equal_in_every_tree() {
    let medium = Medium::new();
    let iso = medium.write("boot.iso");
    let iso_text = show(&iso);
    let expected: [(&str, &str, &[u8]); 4] = [
        ("/vmlinuz", "/VMLINUZ.;1", &medium.kernel),
        ("/initrd", "/INITRD.;1", &medium.ramdisk),
        (
            "/isolinux/isolinux.cfg",
            "/ISOLINUX/ISOLINUX.CFG;1",
            CONFIG.as_bytes(),
        ),
        ("/notes/Read Me.txt", "/NOTES/READ_ME.TXT;1", b"hello"),
    ];
    for (path, plain, bytes) in expected {
        for (tree, name) in [("-R", path), ("-J", path), ("", plain)] {
            let mut args = vec!["-i", &iso_text, "-x", name];
            args.extend(Some(tree).filter(|tree| !tree.is_empty()));
            let found = tool("genisoimage", "isoinfo", &args);
            assert!(found == bytes, "{tree} {name}: {} bytes", found.len());
        }
        let out = medium.folder.path().join("extracted");
        let out_text = show(&out);
        tool(
            "xorriso",
            "xorriso",
            &[
                "-osirrox", "on", "-indev", &iso_text, "-extract", path, &out_text,
            ],
        );
        assert!(fs::read(&out).unwrap() == bytes, "{path}");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn iso_without_a_loader_boots_our_program() {
    let medium = Medium::new();
    let iso = medium.write("boot.iso");
    // Follow the boot record as firmware does: descriptor 17, catalogue, default entry.
    let bytes = fs::read(&iso).unwrap();
    let word = |at: usize| {
        let field: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(field)).unwrap()
    };
    let catalog = word(17 * 2048 + 0x47) * 2048;
    assert_eq!(bytes[catalog + 0x20], 0x88, "the default entry is bootable");
    let program = word(catalog + 0x28) * 2048;
    let program = &bytes[program..program + 2048];
    assert_eq!(program[510..512], [0x55, 0xaa]);
    let message = b"without a BIOS boot loader";
    assert!(
        program[..440]
            .windows(message.len())
            .any(|at| at == message)
    );
    // Nothing but our program: no table was patched into it.
    assert_eq!(
        program[..9],
        [0xfa, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb]
    );
}

#[test]
fn iso_gives_isolinux_its_boot_info_table() {
    let mut medium = Medium::new();
    let bin = noise(3, 40_961);
    medium.spec.isolinux = Some(Isolinux {
        bin: Source::Bytes(bin.clone()),
        ldlinux: Some(Source::Bytes(b"com32".to_vec())),
    });
    let iso = medium.write("boot.iso");
    let iso = show(&iso);
    let report = text(
        "xorriso",
        "xorriso",
        &["-indev", &iso, "-report_el_torito", "plain"],
    );
    assert!(report.contains("boot-info-table"), "{report}");
    let stored = tool(
        "genisoimage",
        "isoinfo",
        &["-R", "-i", &iso, "-x", "/isolinux/isolinux.bin"],
    );
    // The table takes bytes 8 to 63: descriptor sector, own sector, length, checksum of the rest.
    let word = |at: usize| u32::from_le_bytes(stored[at..at + 4].try_into().unwrap());
    assert_eq!(word(8), 16);
    assert!(report.contains(&format!("{:>10}", word(12))), "{report}");
    assert_eq!(word(16), 40_961);
    let mut padded = bin[64..].to_vec();
    padded.resize(padded.len().next_multiple_of(4), 0);
    let sum = padded
        .chunks(4)
        .map(|four| u32::from_le_bytes(four.try_into().unwrap()))
        .fold(0_u32, u32::wrapping_add);
    assert_eq!(word(20), sum);
    assert_eq!(stored[..8], bin[..8]);
    assert!(stored[64..] == bin[64..]);
    let ldlinux = tool(
        "genisoimage",
        "isoinfo",
        &["-J", "-i", &iso, "-x", "/isolinux/ldlinux.c32"],
    );
    assert_eq!(ldlinux, b"com32");
}

#[test]
fn iso_gives_uefi_a_system_partition_that_fsck_accepts() {
    let mut medium = Medium::new();
    // As large as the signed loaders of distributions, and past what FAT12 was made for.
    for (shim, grub) in [
        (None, 700_001),
        (Some(1_000_003), 4_000_001),
        (None, 18 << 20),
    ] {
        let efi = noise(4, grub);
        let shim = shim.map(|size| noise(5, size));
        medium.spec.grub = Some(Grub {
            efi: Source::Bytes(efi.clone()),
            shim: shim.clone().map(Source::Bytes),
        });
        let iso = show(&medium.write("boot.iso"));
        let report = text(
            "xorriso",
            "xorriso",
            &["-indev", &iso, "-report_el_torito", "plain"],
        );
        assert!(report.contains("/boot/efi.img"), "{report}");
        let entry = report.lines().find(|line| line.contains(" UEFI "));
        assert!(
            entry.is_some_and(|line| line.contains("y   none")),
            "{report}"
        );
        let image = tool(
            "genisoimage",
            "isoinfo",
            &["-R", "-i", &iso, "-x", "/boot/efi.img"],
        );
        let path = show(&medium.folder.path().join("esp"));
        fs::write(&path, image).unwrap();
        tool("dosfstools", "fsck.vfat", &["-n", &path]);
        let read = |name: &str| tool("mtools", "mtype", &["-i", &path, name]);
        let first = shim.as_ref().unwrap_or(&efi);
        assert!(read("::/EFI/BOOT/BOOTX64.EFI") == *first);
        if shim.is_some() {
            assert!(read("::/EFI/BOOT/grubx64.efi") == efi);
        }
    }
}

/// Writes a file in which zeros stay holes.
struct Sparse(fs::File);

impl Write for Sparse {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !is_zero(buffer) {
            return self.0.write(buffer);
        }
        self.0
            .seek(SeekFrom::Current(buffer.len().try_into().unwrap()))?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let end = self.0.stream_position()?;
        self.0.set_len(end)
    }
}

/// Only what a boot loader loads is bounded by 4 GiB.
#[test]
fn iso_holds_a_file_of_more_than_4_gib() {
    let mut medium = Medium::new();
    let path = medium.folder.path().join("large");
    let file = fs::File::create(&path).unwrap();
    let bytes = (4 << 30) + 5;
    file.set_len(bytes).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", bytes - 3).unwrap();
    medium.spec.files = vec![("large".into(), Source::File(path))];
    let iso = medium.folder.path().join("boot.iso");
    let mut out = Sparse(fs::File::create(&iso).unwrap());
    Iso::plan(&medium.spec).unwrap().write(&mut out).unwrap();
    let iso = show(&iso);
    let listing = text("xorriso", "xorriso", &["-indev", &iso, "-lsl", "/"]);
    assert!(listing.contains(&format!(" {bytes} ")), "{listing}");
    for (offset, wanted) in [(0, &b"start"[..]), (bytes - 3, b"end")] {
        let part = medium.folder.path().join("part");
        let cut = [offset.to_string(), wanted.len().to_string(), show(&part)];
        let cut = cut.each_ref().map(String::as_str);
        let image = ["-osirrox", "on", "-indev", &iso, "-extract_cut", "/large"];
        tool("xorriso", "xorriso", &[&image[..], &cut[..]].concat());
        assert_eq!(fs::read(&part).unwrap(), wanted);
        fs::remove_file(part).unwrap();
    }
}

#[test]
fn iso_is_the_same_byte_for_byte_each_time() {
    let medium = Medium::new();
    let first = fs::read(medium.write("first.iso")).unwrap();
    let second = fs::read(medium.write("second.iso")).unwrap();
    assert!(first == second);
}

#[test]
fn iso_refuses_parameters_of_two_lines() {
    let mut medium = Medium::new();
    medium.spec.kernel_params = "quiet\nlabel other".into();
    let error = Iso::plan(&medium.spec).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("must be one line"), "{error}");
}
