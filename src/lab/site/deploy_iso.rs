//! The deploy ISO of virtual machines: unlike a simulated server they run what is on it.

use crate::config::BootLoadersSection;
use crate::error::{Error, Kind, Result};
use crate::image::loader::{Grub, Isolinux};
use crate::lab::files::make_private_dir;
use crate::lab::vm;
use crate::ramdisk::build::{BuildOptions, Contents, KernelSource, Presence, build};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Said to the kernel: emulated, it may lose the timer interrupt that it tests at boot, and panic.
const APPEND: &str = "no_timer_check";

/// What the kernel drives a machine's media and network with.
const NEEDED: [&str; 5] = [
    "xhci_pci",
    "usb_storage",
    "sd_mod",
    "virtio_pci",
    "virtio_net",
];

/// What an operator does whose host has not all that an ISO is made of.
const ADVICE: &str = "on Debian and Ubuntu: apt-get install linux-image-amd64 isolinux syslinux-common \
    grub-efi-amd64-bin; or give an ISO with --lab-deploy-iso: `flowrun ramdisk build --append \
    no_timer_check` makes it, also of a kernel's package";

/// The one that was given; else one of this program, the host's kernel and its boot loaders, built
/// anew when the program is newer. Blocks for seconds.
///
/// # Errors
/// `unsupported` if QEMU is not installed; `not_found` if the host has no kernel, boot loaders, or
/// modules that a machine needs; `io` if a file cannot be written.
pub(super) fn prepare(folder: &Path, given: Option<&Path>) -> Result<PathBuf> {
    // Told first: an ISO takes seconds.
    vm::check_installed()?;
    if let Some(path) = given {
        return fs::canonicalize(path).map_err(|e| Error::io(path, "find the deploy ISO", &e));
    }
    make(folder, &BootLoadersSection::default()).map_err(|e| match e.kind() {
        Kind::NotFound => e.advise(ADVICE),
        _ => e,
    })
}

fn make(folder: &Path, loaders: &BootLoadersSection) -> Result<PathBuf> {
    let path = folder.join("vm-deploy.iso");
    let program = std::env::current_exe().map_err(|e| Error::io(&path, "find this program", &e))?;
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    if changed(&path).is_some_and(|made| changed(&program).is_some_and(|newest| made > newest)) {
        return Ok(path);
    }
    let (isolinux, grub) = (Isolinux::installed(loaders)?, Grub::installed(loaders)?);
    let ramdisk = build(&BuildOptions {
        kernel: KernelSource::Host,
        init: program,
        firmware: None,
        ca: None,
        append: APPEND.to_owned(),
    })?;
    has_drivers(&ramdisk.contents)?;
    make_private_dir(folder)?;
    let failed = |e: &std::io::Error| Error::io(&path, "write the deploy ISO", e);
    let new = folder.join("vm-deploy.iso.new");
    let mut file = BufWriter::new(File::create(&new).map_err(|e| failed(&e))?);
    ramdisk.iso(Some(isolinux), Some(grub))?.write(&mut file)?;
    file.into_inner().map_err(|e| failed(e.error()))?;
    fs::rename(&new, &path).map_err(|e| failed(&e))?;
    Ok(path)
}

/// A kernel for clouds lacks some: it would boot, see no floppy, and tell nobody.
fn has_drivers(contents: &Contents) -> Result<()> {
    let lacks = |name: &&str| {
        let mut modules = contents.modules.iter();
        modules.any(|module| module.name == *name && module.presence == Presence::Missing)
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(lacks).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (release, names) = (&contents.kernel_release, missing.join(", "));
    let message = format!("a virtual machine needs {names}, which kernel {release} has not");
    Err(Error::new(Kind::NotFound, message))
}
