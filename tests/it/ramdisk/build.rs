//! What `flowrun ramdisk build` makes, read by other tools.

use super::{build, run_build};
use crate::flow::told;
use crate::image::{noise, show, text, tool};
use crate::support::{boot_part, kernel_release};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A Debian package of kernel and modules, the modules compressed in each of the ways in which
/// distributions have them.
fn package(folder: &Path, release: &str) -> String {
    let tree = folder.join("tree");
    let modules = tree.join(format!("usr/lib/modules/{release}/kernel"));
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::create_dir_all(&modules).unwrap();
    let kernel = tree.join(format!("boot/vmlinuz-{release}"));
    fs::copy(boot_part("vmlinuz"), kernel).unwrap();
    for entry in fs::read_dir(boot_part("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            fs::copy(&path, modules.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::write(
        modules.parent().unwrap().join("modules.builtin"),
        "kernel/drivers/pci/controller/vmd.ko\n",
    )
    .unwrap();
    let script = "cd \"$1\" && find tree/usr -name 'v*.ko' -exec gzip {} + && \
        find tree/usr -name 'n*.ko' -exec zstd -q --rm {} + && \
        find tree/usr -name '*.ko' -exec xz --check=crc32 --lzma2=dict=2MiB {} + && \
        tar -C tree -cf data.tar . && zstd -q -1 data.tar && echo 2.0 >debian-binary && \
        tar -czf control.tar.gz -T /dev/null && \
        ar rc kernel.deb debian-binary control.tar.gz data.tar.zst";
    text("dash", "sh", &["-c", script, "sh", &show(folder)]);
    show(&folder.join("kernel.deb"))
}

fn presence<'a>(contents: &'a Value, module: &str) -> &'a str {
    let modules = contents["modules"].as_array().unwrap();
    let found = modules.iter().find(|entry| entry["name"] == module);
    found.unwrap_or_else(|| panic!("no {module}"))["presence"]
        .as_str()
        .unwrap()
}

/// Options for the unpacked kernel, with a small program as `/init`.
fn options() -> Vec<String> {
    let parts = ["vmlinuz", "", "busybox"].map(|name| show(&boot_part(name)));
    let names = ["--kernel", "--modules", "--init"];
    let options = names.iter().zip(&parts);
    options
        .flat_map(|(name, value)| [(*name).to_owned(), value.clone()])
        .collect()
}

/// The size of a file as it is printed.
fn mebibytes(path: &Path) -> String {
    let bytes = u32::try_from(path.metadata().unwrap().len()).unwrap();
    format!("{:.1} MiB", f64::from(bytes) / f64::from(1 << 20))
}

/// A folder as `/lib/firmware`, of files that the driver tg3 names and of others, and what of it is
/// to be packed.
fn firmware(folder: &Path) -> (String, Vec<(String, Vec<u8>)>) {
    let all = [
        ("tigon/tg3.bin", true),
        ("tigon/tg3_tso.bin.xz", true),
        ("tigon/tg3_tso5.bin.zst", true),
        // The plain file is taken.
        ("tigon/tg3.bin.xz", false),
        ("tigon/tg4.bin", false),
        ("bnx2/bnx2-mips-06-6.2.3.fw", false),
    ];
    let place = folder.join("firmware");
    let mut wanted = Vec::new();
    for (number, (name, is_wanted)) in (1_u8..).zip(all) {
        let (path, bytes) = (
            place.join(name),
            noise(number.into(), 1000 + usize::from(number)),
        );
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &bytes).unwrap();
        if is_wanted {
            wanted.push((format!("lib/firmware/{name}"), bytes));
        }
    }
    (show(&place), wanted)
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let first = build(folder.path(), "a.iso", &options());
    let again = run_build(folder.path(), "b.iso", &options());
    let head = format!(
        "{}  {}  sha256 {}",
        show(&folder.path().join("b.iso")),
        mebibytes(&folder.path().join("b.iso")),
        first["sha256"].as_str().unwrap()
    );
    told(&again, 0, &[&head]);
    let sum = text("coreutils", "sha256sum", &[folder.path().join("a.iso")]);
    assert_eq!(sum.split_whitespace().next(), first["sha256"].as_str());
    let contents = &first["contents"];
    assert_eq!(contents["kernel_release"], kernel_release());
    assert_eq!(contents["compression"], "zstd");
    for (module, expected) in [
        ("usb_storage", "packed"),
        ("virtio_net", "packed"),
        ("nvme", "packed"),
        ("scsi_mod", "packed"),
        ("hpsa", "missing"),
        ("vmd", "missing"),
    ] {
        assert_eq!(presence(contents, module), expected, "{module}");
    }

    // The same kernel from a package, its modules unpacked.
    let init = show(&boot_part("busybox"));
    let package = package(folder.path(), &kernel_release());
    let options = ["--kernel-package", &package, "--init", &init].map(str::to_owned);
    let packaged = build(folder.path(), "c.iso", &options);
    assert_eq!(packaged["sha256"], first["sha256"]);
    assert_eq!(presence(&packaged["contents"], "vmd"), "built_in");
}

/// Unpacks the initramfs as zstd and cpio read it, and lists its files.
fn unpack(folder: &Path) -> String {
    let root = folder.join("root");
    let unpacked = tool(
        "zstd",
        "zstd",
        &[Path::new("-dc"), &folder.join("parts/initramfs")],
    );
    fs::write(folder.join("archive"), unpacked).unwrap();
    fs::create_dir(&root).unwrap();
    let script = "cd \"$1\" && \"$2\" cpio -id <../archive 2>/dev/null; find . -type f";
    let busybox = show(&boot_part("busybox"));
    text("dash", "sh", &["-c", script, "sh", &show(&root), &busybox])
}

/// These firmware files are in the initramfs and no others, and it is said so.
fn has_firmware(root: &Path, list: &str, contents: &Value, wanted: &[(String, Vec<u8>)]) {
    let packed = list.lines().filter(|path| path.contains("/firmware/"));
    assert_eq!(packed.count(), wanted.len(), "{list}");
    let entry = |(path, bytes): &(String, Vec<u8>)| json!({ "path": path, "bytes": bytes.len() });
    let said: Vec<Value> = wanted.iter().map(entry).collect();
    assert_eq!(contents["firmware"], Value::from(said));
    assert_eq!(contents["firmware_missing"], 1, "tigon/tg357766.bin");
    for (path, bytes) in wanted {
        assert!(fs::read(root.join(path)).unwrap() == *bytes, "{path}");
    }
}

/// What a module needs comes in the order in which Linux takes it.
fn is_in_order(root: &Path) {
    let index = fs::read(root.join("modules/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let needs = index["usb_storage"]["needs"].as_array().unwrap();
    let place = |name: &str| needs.iter().position(|need| need == name).unwrap();
    assert!(place("usb_common") < place("usbcore"), "{needs:?}");
    assert!(place("scsi_common") < place("scsi_mod"), "{needs:?}");
}

/// The ISO, as xorriso reads it.
fn iso_boots_this(folder: &Path) {
    let (iso, initrd) = (show(&folder.join("a.iso")), folder.join("initrd"));
    let read = ["-osirrox", "on", "-indev", &iso];
    let extract = ["-extract", "/initrd", &show(&initrd)];
    text("xorriso", "xorriso", &[&read[..], &extract].concat());
    let packed = fs::read(folder.join("parts/initramfs")).unwrap();
    assert!(fs::read(initrd).unwrap() == packed);
    let report = ["-indev", &iso, "-report_el_torito", "plain"];
    let report = text("xorriso", "xorriso", &report);
    let boots = report.contains("BIOS") && report.contains("UEFI");
    assert!(boots, "{report}");
}

#[test]
fn other_tools_find_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (firmware, wanted) = firmware(folder.path());
    let parts = show(&path("parts"));
    let more = ["--files", &parts, "--firmware", &firmware].map(str::to_owned);
    let built = build(folder.path(), "a.iso", &[&options()[..], &more].concat());
    let contents = &built["contents"];
    let (root, list) = (path("root"), unpack(folder.path()));
    for path in ["./init", "./modules/index.json", "./etc/hosts"] {
        let is_there = list.lines().any(|line| line == path);
        assert!(is_there, "no {path} in\n{list}");
    }
    for (packed, original) in [
        ("init", "busybox"),
        ("modules/usb_storage.ko", "usb-storage.ko"),
    ] {
        let bytes = fs::read(root.join(packed)).unwrap();
        assert!(bytes == fs::read(boot_part(original)).unwrap(), "{packed}");
    }
    has_firmware(&root, &list, contents, &wanted);
    for (size, file) in [
        (&built["bytes"], path("a.iso")),
        (&contents["initramfs_bytes"], path("parts/initramfs")),
        (&contents["kernel_bytes"], boot_part("vmlinuz")),
        (&contents["unpacked_bytes"], path("archive")),
    ] {
        assert_eq!(*size, file.metadata().unwrap().len(), "{}", file.display());
    }
    is_in_order(&root);
    iso_boots_this(folder.path());
}

#[test]
fn what_cannot_be_packed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| show(&folder.path().join(name));
    let (firmware, _) = firmware(folder.path());
    let fails = |exit: i32, option: &str, value: &str, parts: &[&str]| {
        let mut arguments = options();
        match arguments.iter().position(|argument| argument == option) {
            Some(at) => value.clone_into(&mut arguments[at + 1]),
            None => arguments.extend([option, value].map(str::to_owned)),
        }
        told(&run_build(folder.path(), "a.iso", &arguments), exit, parts);
        assert!(!folder.path().join("a.iso").exists());
    };
    let none = path("none");
    fails(2, "--firmware", &none, &[&none, "cannot list the firmware"]);
    // One level too deep.
    let inside = format!("{firmware}/tigon");
    fails(
        2,
        "--firmware",
        &inside,
        &[&inside, "none of the 4 firmware files"],
    );

    let (kernel, packed) = (path("vmlinuz"), path("vmlinuz.gz"));
    fs::copy(boot_part("vmlinuz"), kernel).unwrap();
    tool("gzip", "gzip", &[path("vmlinuz")]);
    fails(
        2,
        "--kernel",
        &packed,
        &[&packed, "not a Linux kernel for x86"],
    );

    // A module that was cut off while it was copied.
    let modules = folder.path().join("modules");
    fs::create_dir(&modules).unwrap();
    let module = modules.join("nvme.ko");
    fs::copy(boot_part("nvme.ko"), &module).unwrap();
    tool("xz", "xz", &["--check=crc32", &show(&module)]);
    let module = modules.join("nvme.ko.xz");
    let whole = fs::read(&module).unwrap();
    fs::write(&module, &whole[..whole.len() / 2]).unwrap();
    fails(
        1,
        "--modules",
        &show(&modules),
        &[&show(&module), "cannot read"],
    );
}
