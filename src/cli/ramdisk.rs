//! `ramdisk build`: the deploy ramdisk as a boot ISO.

use super::Exit;
use super::args::{Cli, RamdiskBuild, RamdiskCommand};
use super::format::bytes;
use super::site::configured;
use crate::cli::output::out;
use crate::error::{Error, Kind, Result};
use crate::image::loader::{Grub, Isolinux};
use crate::ramdisk::build::{self, BuildOptions, KernelSource, Presence, Ramdisk};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) async fn ramdisk(cli: &Cli, command: &RamdiskCommand) -> Result<Exit> {
    let RamdiskCommand::Build(args) = command;
    let config = configured(cli)?;
    let isolinux = Isolinux::installed(&config.boot_loaders)?;
    let grub = Grub::installed(&config.boot_loaders)?;
    let options = options(args)?;
    let (output, folder) = (args.output.clone(), args.files.clone());
    let built = tokio::task::spawn_blocking(move || {
        let ramdisk = build::build(&options)?;
        let iso = ramdisk.iso(Some(isolinux), Some(grub))?;
        let sha256 = write(&output, |out| iso.write(out))?;
        if let Some(folder) = folder {
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "create", &e))?;
            for (name, part) in [
                ("vmlinuz", &ramdisk.kernel),
                ("initramfs", &ramdisk.initramfs),
            ] {
                let path = folder.join(name);
                write(&path, |out| {
                    out.write_all(part)
                        .map_err(|e| Error::io(&path, "write", &e))
                })?;
            }
        }
        Ok::<_, Error>((ramdisk, iso.bytes(), sha256))
    });
    let (ramdisk, iso_bytes, sha256) = built
        .await
        .map_err(|e| Error::new(Kind::Internal, "the build ended").caused_by(&e))??;
    match cli.json {
        true => out!(
            "{}",
            json!({
                "output": args.output, "bytes": iso_bytes, "sha256": sha256,
                "contents": ramdisk.contents,
            })
        ),
        false => show(&ramdisk, args, iso_bytes, &sha256),
    }
    Ok(Exit::Done)
}

fn options(args: &RamdiskBuild) -> Result<BuildOptions> {
    let kernel = match (&args.kernel_package, &args.kernel, &args.modules) {
        (Some(package), _, _) => KernelSource::Package(package.clone()),
        (None, Some(kernel), Some(modules)) => KernelSource::Files {
            kernel: kernel.clone(),
            modules: modules.clone(),
        },
        _ => KernelSource::Host,
    };
    let init = match &args.init {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .map_err(|e| Error::io(&PathBuf::from("/proc/self/exe"), "find this program", &e))?,
    };
    Ok(BuildOptions {
        kernel,
        init,
        firmware: args.firmware.clone(),
        ca: args.ca.clone(),
        append: args.append.clone(),
    })
}

/// Writes a file that appears when it is whole, and says its hash.
fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<String> {
    let failed = |e: &std::io::Error| Error::io(path, "write", e);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
        .map_err(|e| failed(&e))?;
    let mut hash = Sha256::new();
    {
        let mut both = Both(std::io::BufWriter::new(file.as_file_mut()), &mut hash);
        fill(&mut both)?;
        both.flush().map_err(|e| failed(&e))?;
    }
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(hex::encode(hash.finalize()))
}

/// Hashes what is written.
struct Both<'a, W>(W, &'a mut Sha256);

impl<W: Write> Write for Both<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.0.write(buffer)?;
        self.1.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn show(ramdisk: &Ramdisk, args: &RamdiskBuild, iso_bytes: u64, sha256: &str) {
    let contents = &ramdisk.contents;
    let line = |size: u64, what: &str| out!("{:>11}  {what}", bytes(size));
    out!(
        "{}  {}  sha256 {sha256}",
        args.output.display(),
        bytes(iso_bytes)
    );
    line(
        contents.kernel_bytes,
        &format!("kernel {}", contents.kernel_release),
    );
    let unpacked = bytes(contents.unpacked_bytes);
    let how = contents.compression;
    line(
        contents.initramfs_bytes,
        &format!("initramfs, {how}; {unpacked} in memory, of which"),
    );
    for file in contents.files.iter().chain(&contents.firmware) {
        line(file.bytes, &format!("  /{}", file.path));
    }
    let packed = contents
        .modules
        .iter()
        .filter(|m| m.presence == Presence::Packed);
    for module in packed {
        let why = if module.is_dependency {
            "  (needed by others)"
        } else {
            ""
        };
        line(module.bytes, &format!("  module {}{why}", module.name));
    }
    for (presence, what) in [
        (Presence::BuiltIn, "built into this kernel"),
        (Presence::Missing, "not in this kernel"),
    ] {
        let names = contents.modules.iter().filter(|m| m.presence == presence);
        let names: Vec<&str> = names.map(|m| m.name.as_str()).collect();
        if !names.is_empty() {
            out!("{what}: {}", names.join(", "));
        }
    }
    if contents.firmware_missing > 0 {
        let count = contents.firmware_missing;
        out!("firmware files that drivers may ask for and that are not packed: {count}");
    }
    out!("command line: {}", contents.command_line);
}
