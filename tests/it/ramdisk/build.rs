//! What `flowrun ramdisk build` makes, read by other tools.

use super::build;
use crate::image::{show, text, tool};
use crate::support::{boot_part, kernel_release};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A Debian package of kernel and modules, its modules compressed as newer ones are.
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
    let script = "cd \"$1\" && find tree/usr -name '*.ko' -exec xz -0 --check=crc32 {} + && \
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

#[test]
fn equal_inputs_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let first = build(folder.path(), "a.iso", &options());
    let again = build(folder.path(), "b.iso", &options());
    assert_eq!(first["sha256"], again["sha256"]);
    let sum = text("coreutils", "sha256sum", &[folder.path().join("a.iso")]);
    assert_eq!(sum.split_whitespace().next(), first["sha256"].as_str());
    let contents = &first["contents"];
    assert_eq!(contents["kernel_release"], kernel_release());
    assert_eq!(contents["compression"], "zstd");
    for (module, expected) in [
        ("usb_storage", "packed"),
        ("scsi_mod", "packed"),
        ("hpsa", "missing"),
        ("vmd", "missing"),
    ] {
        assert_eq!(presence(contents, module), expected, "{module}");
    }

    // The same kernel from a package.
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
    let parts = show(&folder.path().join("parts"));
    let files = ["--files".to_owned(), parts];
    build(folder.path(), "a.iso", &[&options()[..], &files].concat());

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
