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
        find tree/usr -name '*.ko' -exec xz --check=crc32 --lzma2=dict=2MiB {} + && tar -C tree -cf data.tar . && zstd -q -1 data.tar && echo 2.0 >debian-binary && \
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

#[test]
fn other_tools_find_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, root) = (folder.path().join("archive"), folder.path().join("root"));
    let (firmware, wanted) = firmware(folder.path());
    let parts = show(&folder.path().join("parts"));
    let more = ["--files", &parts, "--firmware", &firmware].map(str::to_owned);
    let built = build(folder.path(), "a.iso", &[&options()[..], &more].concat());

    // The initramfs, as zstd and cpio read it.
    let packed = folder.path().join("parts/initramfs");
    let unpacked = tool("zstd", "zstd", &[Path::new("-dc"), &packed]);
    fs::write(&archive, unpacked).unwrap();
    fs::create_dir(&root).unwrap();
    let script = "cd \"$1\" && \"$2\" cpio -id <../archive 2>/dev/null; find . -type f";
    let init = show(&boot_part("busybox"));
    let list = text("dash", "sh", &["-c", script, "sh", &show(&root), &init]);
    for path in ["./init", "./modules/index.json", "./etc/hosts"] {
        assert!(
            list.lines().any(|line| line == path),
            "no {path} in\n{list}"
        );
    }
    for (packed, original) in [
        ("init", "busybox"),
        ("modules/usb_storage.ko", "usb-storage.ko"),
    ] {
        let bytes = fs::read(root.join(packed)).unwrap();
        assert!(bytes == fs::read(boot_part(original)).unwrap(), "{packed}");
    }
    let packed_firmware = list.lines().filter(|path| path.contains("/firmware/"));
    assert_eq!(packed_firmware.count(), wanted.len(), "{list}");
    let told: Vec<Value> = wanted
        .iter()
        .map(|(path, bytes)| json!({ "path": path, "bytes": bytes.len() }))
        .collect();
    let contents = &built["contents"];
    assert_eq!(contents["firmware"], Value::from(told));
    assert_eq!(contents["firmware_missing"], 1, "tigon/tg357766.bin");
    for (path, bytes) in wanted {
        assert!(fs::read(root.join(&path)).unwrap() == bytes, "{path}");
    }
    for (size, file) in [
        (&built["bytes"], folder.path().join("a.iso")),
        (&contents["initramfs_bytes"], packed.clone()),
        (&contents["kernel_bytes"], boot_part("vmlinuz")),
        (&contents["unpacked_bytes"], archive),
    ] {
        assert_eq!(*size, file.metadata().unwrap().len(), "{}", file.display());
    }
    let index = fs::read(root.join("modules/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let needs = &index["usb_storage"]["needs"];
    let place = |name: &str| {
        needs
            .as_array()
            .unwrap()
            .iter()
            .position(|need| need == name)
    };
    assert!(
        place("usb_common").unwrap() < place("usbcore").unwrap(),
        "{needs}"
    );
    assert!(
        place("scsi_common").unwrap() < place("scsi_mod").unwrap(),
        "{needs}"
    );

    // The ISO, as xorriso reads it.
    let iso = show(&folder.path().join("a.iso"));
    let extracted = folder.path().join("initrd");
    let extract = [
        "-osirrox",
        "on",
        "-indev",
        &iso,
        "-extract",
        "/initrd",
        &show(&extracted),
    ];
    text("xorriso", "xorriso", &extract);
    assert!(fs::read(&extracted).unwrap() == fs::read(&packed).unwrap());
    let report = ["-indev", &iso, "-report_el_torito", "plain"];
    let report = text("xorriso", "xorriso", &report);
    assert!(
        report.contains("BIOS") && report.contains("UEFI"),
        "{report}"
    );
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
