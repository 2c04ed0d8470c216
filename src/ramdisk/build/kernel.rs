//! The kernel and its modules: files of the host, or a Debian package.

use crate::error::{Error, Kind, Result};
use crate::image::source::decompressed;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the kernel comes from.
#[derive(Debug, Clone)]
pub enum KernelSource {
    /// The newest one in `/boot` whose modules are in `/lib/modules`.
    Host,
    /// A bzImage and its folder of modules, as `/lib/modules/6.1.0-18-amd64` is.
    Files {
        /// The bzImage.
        kernel: PathBuf,
        /// The folder.
        modules: PathBuf,
    },
    /// A distribution's package, such as Debian's `linux-image-6.1.0-18-amd64_6.1.76-1_amd64.deb`.
    Package(PathBuf),
}

/// A kernel that is there.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The bzImage.
    pub(super) image: Vec<u8>,
    /// What `uname -r` says under it.
    pub(super) release: String,
    /// Module files by name.
    pub(super) modules: BTreeMap<String, PathBuf>,
    /// Names of what would be modules, and is built in.
    pub(super) built_in: BTreeSet<String>,
    /// Where a package was unpacked to.
    _unpacked: Option<TempDir>,
}

impl Kernel {
    /// Finds the kernel and lists its modules. Blocks.
    ///
    /// # Errors
    /// `not_found` or `io` for a file; `invalid` for one that is no kernel, no package, or not
    /// of the same release.
    pub(super) fn open(source: &KernelSource) -> Result<Self> {
        match source {
            KernelSource::Files { kernel, modules } => Self::of_files(kernel, modules, None),
            KernelSource::Host => {
                let (kernel, modules) = newest(Path::new("/"))?;
                Self::of_files(&kernel, &modules, None)
            }
            KernelSource::Package(package) => {
                let folder = unpack(package)?;
                let (kernel, modules) = newest(folder.path()).map_err(|e| {
                    e.advise("the package with the kernel and its modules is meant: linux-image-…")
                })?;
                Self::of_files(&kernel, &modules, Some(folder))
            }
        }
    }

    fn of_files(kernel: &Path, modules: &Path, unpacked: Option<TempDir>) -> Result<Self> {
        let image = std::fs::read(kernel).map_err(|e| unreadable(kernel, &e))?;
        let release = release_of(&image).ok_or_else(|| {
            Error::new(Kind::Invalid, "not a Linux kernel for x86 (bzImage)")
                .target(kernel.display().to_string())
        })?;
        let mut found = BTreeMap::new();
        list(modules, false, &mut found).map_err(|e| Error::io(modules, "list", &e))?;
        if found.is_empty() {
            return Err(
                Error::new(Kind::NotFound, "no kernel modules in this folder")
                    .target(modules.display().to_string()),
            );
        }
        let built_in = std::fs::read_to_string(modules.join("modules.builtin"));
        let built_in = built_in.unwrap_or_default();
        Ok(Self {
            image,
            release,
            modules: found,
            built_in: built_in
                .lines()
                .filter_map(|path| name_of(Path::new(path)))
                .collect(),
            _unpacked: unpacked,
        })
    }

    /// The bytes of a module as the kernel takes them.
    pub(super) fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.modules.get(name) else {
            return Ok(None);
        };
        let failed = |e: &std::io::Error| Error::io(path, "read", e);
        let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
        let (_, mut stream) = decompressed(file)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
        Ok(Some(bytes))
    }
}

fn unreadable(kernel: &Path, e: &std::io::Error) -> Error {
    let error = Error::io(kernel, "read", e);
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => error.hint(
            "Ubuntu lets root alone read its kernels: chmod +r it, or build with --kernel-package",
        ),
        _ => error,
    }
}

/// The release in a bzImage. Linux, Documentation/arch/x86/boot.rst: `header`, `kernel_version`.
fn release_of(image: &[u8]) -> Option<String> {
    image.get(0x202..0x206).filter(|magic| *magic == b"HdrS")?;
    let pointer = image.get(0x20e..)?.first_chunk::<2>()?;
    let start = usize::from(u16::from_le_bytes(*pointer)) + 0x200;
    let text = image
        .get(start..)?
        .split(|byte| matches!(byte, 0 | b' '))
        .next()?;
    let text = std::str::from_utf8(text.get(..text.len().min(200))?).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The newest kernel below a root that has modules.
fn newest(root: &Path) -> Result<(PathBuf, PathBuf)> {
    let boot = root.join("boot");
    let mut kernels = Vec::new();
    for entry in std::fs::read_dir(&boot).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(release) = name.strip_prefix("vmlinuz-") else {
            continue;
        };
        for folder in ["lib/modules", "usr/lib/modules"] {
            let modules = root.join(folder).join(release);
            if modules.is_dir() {
                kernels.push((version_order(release), entry.path(), modules));
            }
        }
    }
    // Newer distributions keep the kernel beside its modules.
    for folder in ["lib/modules", "usr/lib/modules"] {
        for entry in std::fs::read_dir(root.join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            let kernel = entry.path().join("vmlinuz");
            if kernel.is_file() {
                let release = entry.file_name().to_string_lossy().into_owned();
                kernels.push((version_order(&release), kernel, entry.path()));
            }
        }
    }
    kernels.sort();
    let (_, kernel, modules) = kernels.pop().ok_or_else(|| {
        Error::new(Kind::NotFound, "no kernel with modules is installed")
            .target(boot.display().to_string())
            .hint("apt-get download linux-image-amd64's dependency and give it as --kernel-package")
    })?;
    Ok((kernel, modules))
}

/// Numbers compare as numbers: 6.10 is newer than 6.9.
fn version_order(release: &str) -> Vec<(u64, String)> {
    let parts = release.split(|c: char| !c.is_ascii_alphanumeric());
    parts
        .map(|part| (part.parse().unwrap_or(0), part.to_owned()))
        .collect()
}

/// The module that a file is: `nvme-core.ko.xz` is `nvme_core`.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".gz" | ".xz" | ".zst").then(|| stem.replace('-', "_"))
}

/// Adds the modules in a folder. As depmod has it by default, those below `updates` go before all
/// others.
fn list(
    folder: &Path,
    is_update: bool,
    found: &mut BTreeMap<String, PathBuf>,
) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // `build` and `source` are links to elsewhere.
        if entry.file_type()?.is_dir() {
            list(&path, is_update || entry.file_name() == "updates", found)?;
        } else if let Some(name) = name_of(&path)
            && (is_update || !found.contains_key(&name))
        {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Unpacks kernel and modules of a Debian package.
fn unpack(package: &Path) -> Result<TempDir> {
    let failed = |e: std::io::Error| Error::io(package, "unpack", &e);
    let folder = tempfile::Builder::new().prefix("flowrun-kernel-").tempdir();
    let folder = folder.map_err(failed)?;
    let mut file = std::fs::File::open(package).map_err(failed)?;
    let length = data_of(&mut file).map_err(failed)?.ok_or_else(|| {
        Error::new(Kind::Invalid, "not a Debian package")
            .target(package.display().to_string())
            .hint("unpack others yourself and give --kernel and --modules")
    })?;
    let (_, stream) = decompressed(BufReader::new(file.take(length)))?;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        let is_file = entry.header().entry_type().is_file();
        let name = path.to_string_lossy();
        let is_kernel = name.starts_with("./boot/vmlinuz-");
        let is_module = name.contains("lib/modules/")
            && (name_of(&path).is_some() || name.ends_with("/modules.builtin"));
        if is_file && (is_kernel || is_module || name.ends_with("/vmlinuz")) {
            entry.unpack_in(folder.path()).map_err(failed)?;
        }
    }
    Ok(folder)
}

/// Goes to `data.tar` in the `ar` archive that a Debian package is, and says how long it is.
/// Source: deb(5), ar(5).
fn data_of(file: &mut std::fs::File) -> std::io::Result<Option<u64>> {
    const HEADER_BYTES: usize = 60;
    let mut magic = [0; 8];
    if file.read_exact(&mut magic).is_err() || magic != *b"!<arch>\n" {
        return Ok(None);
    }
    loop {
        let mut header = [0; HEADER_BYTES];
        match file.read_exact(&mut header) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (name, rest) = header.split_at(16);
        let size = rest.get(32..42).map(String::from_utf8_lossy);
        let Some(size) = size.and_then(|size| size.trim().parse::<u64>().ok()) else {
            return Ok(None);
        };
        if name.starts_with(b"data.tar") {
            return Ok(Some(size));
        }
        let padded = i64::try_from(size.next_multiple_of(2)).unwrap_or(i64::MAX);
        file.seek(SeekFrom::Current(padded))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_that_has_modules_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        assert_eq!(newest(root.path()).unwrap_err().kind(), Kind::NotFound);
        for release in ["6.9.0-1", "6.10.1-2", "5.10.0"] {
            make(&format!("boot/vmlinuz-{release}"));
            make(&format!("lib/modules/{release}/kernel/a.ko"));
        }
        make("boot/vmlinuz-6.12.0");
        let (kernel, modules) = newest(root.path()).unwrap();
        assert!(kernel.ends_with("boot/vmlinuz-6.10.1-2"));
        assert!(modules.ends_with("lib/modules/6.10.1-2"));
    }

    #[test]
    fn modules_are_named_as_the_kernel_names_them() {
        for (file, name) in [
            ("kernel/nvme-core.ko", Some("nvme_core")),
            ("a/tg3.ko.xz", Some("tg3")),
            ("a/tg3.ko.zst", Some("tg3")),
            ("a/tg3.ko.gz", Some("tg3")),
            ("modules.builtin", None),
            ("a.ko.sig", None),
        ] {
            assert_eq!(name_of(Path::new(file)).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn an_update_goes_before_the_module_that_came_with_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        // A name above the kernel's own folder says nothing.
        let modules = root.path().join("updates/6.1.0");
        for path in [
            "kernel/a.ko",
            "updates/dkms/a.ko.zst",
            "zfs/a.ko",
            "zfs/b.ko",
        ] {
            let path = modules.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let mut found = BTreeMap::new();
        list(&modules, false, &mut found).unwrap();
        assert_eq!(found["a"], modules.join("updates/dkms/a.ko.zst"));
        assert_eq!(found["b"], modules.join("zfs/b.ko"));
    }

    #[test]
    fn a_kernel_tells_its_release() {
        let mut image = vec![0; 0x400];
        assert_eq!(release_of(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x30e].copy_from_slice(b"6.1.0-18 (x@y)");
        assert_eq!(release_of(&image).unwrap(), "6.1.0-18");
        image.truncate(0x210);
        assert_eq!(release_of(&image), None);
    }
}
