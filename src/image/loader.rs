//! Boot loaders of a boot ISO: ISOLINUX for BIOS, GRUB for UEFI, and what tells them what to boot.
//!
//! The loaders themselves are files of the site, as distributions ship them: ISOLINUX is under the
//! GPL 2 and GRUB under the GPL 3, so this program carries neither.

use super::iso::Source;
use crate::config::BootLoadersSection;
use crate::error::{Error, Kind, Result};
use hadris_fat::{FatKind, FatOptions, VolumeLabel};
use hadris_fs::{Node, Tree};
use std::path::Path;

/// The ISOLINUX loader.
#[derive(Debug, Clone)]
pub struct Isolinux {
    /// `isolinux.bin`.
    pub bin: Source,
    /// `ldlinux.c32`, needed by Syslinux 5 and newer.
    pub ldlinux: Option<Source>,
}

/// GRUB as an EFI program that was built for CDs: it reads `boot/grub/grub.cfg` of the medium, as
/// Debian's `gcdx64.efi` does, or `grub.cfg` beside itself, as Red Hat's does.
#[derive(Debug, Clone)]
pub struct Grub {
    /// The program.
    pub efi: Source,
    /// shim, which UEFI Secure Boot trusts, and which starts a GRUB that shim trusts.
    pub shim: Option<Source>,
}

impl Isolinux {
    /// The one that the configuration names.
    ///
    /// # Errors
    /// `not_found` if a file is not there.
    pub fn installed(loaders: &BootLoadersSection) -> Result<Self> {
        Ok(Self {
            bin: installed(&loaders.isolinux, "isolinux", "isolinux")?,
            ldlinux: Some(installed(&loaders.ldlinux, "ldlinux", "syslinux-common")?),
        })
    }
}

impl Grub {
    /// The one that the configuration names.
    ///
    /// # Errors
    /// `not_found` if a file is not there.
    pub fn installed(loaders: &BootLoadersSection) -> Result<Self> {
        let package = match loaders.shim {
            Some(_) => "grub-efi-amd64-signed",
            None => "grub-efi-amd64-bin",
        };
        let shim = loaders.shim.as_ref();
        Ok(Self {
            efi: installed(&loaders.grub, "grub", package)?,
            shim: shim
                .map(|path| installed(path, "shim", "shim-signed"))
                .transpose()?,
        })
    }
}

/// A loader's file, which must be there; the error names the Debian package that has it.
///
/// # Errors
/// `not_found` if it is not.
pub fn installed(path: &Path, key: &str, package: &str) -> Result<Source> {
    if path.is_file() {
        return Ok(Source::File(path.to_owned()));
    }
    Err(
        Error::new(Kind::NotFound, format!("the boot loader {key} is missing"))
            .target(path.display().to_string())
            .hint(format!(
                "install Debian's package {package}, or set boot_loaders.{key} in flowrun.toml"
            )),
    )
}

/// Where GRUB looks for its configuration.
pub(super) const GRUB_CONFIGS: [&str; 2] = ["boot/grub/grub.cfg", "EFI/BOOT/grub.cfg"];

/// The longest command line that both ISOLINUX and x86 Linux keep whole.
const MAX_COMMAND_LINE: usize = 2047;

/// El Torito counts an image in 512-byte units of 16 bits.
const MAX_ESP: u64 = 0xffff * 512;

/// What the FAT of an EFI system partition takes beside its files, and clusters that files leave
/// half empty.
const ESP_OVERHEAD: u64 = 64 << 10;

/// `isolinux.cfg`: one label that starts the kernel with the whole command line.
pub(super) fn isolinux_config(params: &str) -> Result<String> {
    let line = command_line(params)?;
    Ok(format!(
        "default boot\n\nlabel boot\nkernel /vmlinuz\nappend initrd=/initrd {line}\n"
    ))
}

/// `grub.cfg`: starts the kernel at once. GRUB's root is the medium it was started from.
///
/// GRUB takes quotes away and puts double quotes around a word with spaces, which means the same
/// to Linux; it writes a backslash before the characters that are refused here.
pub(super) fn grub_config(params: &str) -> Result<String> {
    let line = command_line(params)?;
    if let Some(bad) = line.chars().find(|c| matches!(c, '\\' | '\'')) {
        return Err(Error::new(
            Kind::Invalid,
            format!("the kernel parameters have {bad:?}, which GRUB does not pass on as it is"),
        ));
    }
    let words: Vec<String> = words(&line)?
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    Ok(format!(
        "linux /vmlinuz {}\ninitrd /initrd\nboot\n",
        words.join(" ")
    ))
}

/// What of a master boot record is code.
const BOOT_CODE_BYTES: usize = 440;

/// What starts a file system from the disk that it is on.
#[derive(Debug, Clone)]
pub enum DiskLoader {
    /// Code for sector 0 of a msdos disk that starts the active partition's own boot sector, such
    /// as Syslinux's `mbr.bin`.
    Bios(Source),
    /// GRUB on the EFI system partition, which goes on with `/boot/grub/grub.cfg` of the root.
    Uefi(Grub),
}

impl DiskLoader {
    /// The code of sector 0, if it is by that that the disk is started. Blocks.
    ///
    /// # Errors
    /// `invalid` if it is too long, `io` if it cannot be read.
    pub fn boot_code(&self) -> Result<Option<Vec<u8>>> {
        let Self::Bios(code) = self else {
            return Ok(None);
        };
        let code = code.read()?;
        if code.is_empty() || code.len() > BOOT_CODE_BYTES {
            let bytes = code.len();
            let message = format!("boot code has 1 to {BOOT_CODE_BYTES} bytes, not {bytes}");
            return Err(Error::new(Kind::Invalid, message).hint("syslinux's mbr.bin fits"));
        }
        Ok(Some(code))
    }

    /// What goes on the EFI system partition to start the root of this UUID. Blocks.
    ///
    /// # Errors
    /// `io` if a loader cannot be read.
    pub fn esp_files(&self, root_uuid: &str) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let Self::Uefi(grub) = self else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        match &grub.shim {
            Some(shim) => {
                files.push(("EFI/BOOT/BOOTX64.EFI", shim.read()?));
                files.push(("EFI/BOOT/grubx64.efi", grub.efi.read()?));
            }
            None => files.push(("EFI/BOOT/BOOTX64.EFI", grub.efi.read()?)),
        }
        let config = format!(
            "search --no-floppy --fs-uuid --set=root {root_uuid}\n\
             set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        );
        files.extend(GRUB_CONFIGS.map(|path| (path, config.clone().into_bytes())));
        Ok(files)
    }
}

/// What both loaders pass to the kernel, as Ironic's templates have it.
fn command_line(params: &str) -> Result<String> {
    if let Some(bad) = params.chars().find(|c| c.is_control()) {
        return Err(Error::new(
            Kind::Invalid,
            format!("the kernel parameters have {bad:?}, they must be one line"),
        )
        .hint("separate parameters with spaces"));
    }
    let mut line = String::from("text ");
    if !params.trim().is_empty() {
        line.push_str(params.trim());
        line.push(' ');
    }
    line.push_str("--");
    if line.len() + "BOOT_IMAGE=/vmlinuz initrd=/initrd ".len() > MAX_COMMAND_LINE {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "the kernel command line takes {} bytes, boot loader and kernel keep {MAX_COMMAND_LINE}",
                line.len()
            ),
        ));
    }
    Ok(line)
}

/// The words of a command line as Linux splits it: at spaces outside of double quotes.
fn words(line: &str) -> Result<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match (c, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    if quoted {
        return Err(Error::new(
            Kind::Invalid,
            "a double quote in the kernel parameters is not closed",
        ));
    }
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// The EFI system partition that UEFI firmware finds on the medium, a FAT volume.
///
/// Firmware starts `BOOTX64.EFI`; shim then starts the `grubx64.efi` beside it.
pub(super) fn system_partition(grub: &Grub) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    match &grub.shim {
        Some(shim) => {
            files.push(("EFI/BOOT/BOOTX64.EFI", shim.content()?));
            files.push(("EFI/BOOT/grubx64.efi", grub.efi.content()?));
        }
        None => files.push(("EFI/BOOT/BOOTX64.EFI", grub.efi.content()?)),
    }
    let bytes: u64 = files.iter().map(|(_, content)| content.len()).sum();
    let size = (bytes + bytes / 256 + ESP_OVERHEAD).next_multiple_of(2048);
    if size > MAX_ESP {
        return Err(Error::new(
            Kind::Limit,
            format!("boot loaders of {bytes} bytes do not fit into a boot image of {MAX_ESP}"),
        ));
    }
    let mut tree = Tree::new();
    for (path, content) in files {
        tree.insert(path, Node::file(content))
            .map_err(|error| super::iso::failure(&error))?;
    }
    let label = VolumeLabel::new("ESP").map_err(|_| Error::new(Kind::Internal, "no label"))?;
    let options = FatOptions::new()
        .with_size(size)
        .with_kind(if size < 16 << 20 {
            FatKind::Fat12
        } else {
            FatKind::Fat16
        })
        .with_label(label);
    let mut image = Vec::new();
    hadris_fat::sync::write(&mut image, &tree, &options)
        .map_err(|error| super::iso::failure(&error))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loaders_start_the_kernel_with_the_whole_line() {
        assert_eq!(
            isolinux_config("a=1 b=\"x y\"").unwrap(),
            "default boot\n\nlabel boot\nkernel /vmlinuz\n\
             append initrd=/initrd text a=1 b=\"x y\" --\n"
        );
        assert!(isolinux_config("").unwrap().ends_with("text --\n"));
        assert_eq!(
            grub_config("a=1  b=\"x $y;\"").unwrap(),
            "linux /vmlinuz 'text' 'a=1' 'b=x $y;' '--'\ninitrd /initrd\nboot\n"
        );
    }

    #[test]
    fn refuses_parameters_that_would_arrive_changed() {
        for params in ["a\nb", "a\rlabel x", "a\0", &"x".repeat(2048)] {
            assert_eq!(isolinux_config(params).unwrap_err().kind(), Kind::Invalid);
            assert_eq!(grub_config(params).unwrap_err().kind(), Kind::Invalid);
        }
        for params in ["a='x y'", "a=\\n", "a=\"x"] {
            assert_eq!(grub_config(params).unwrap_err().kind(), Kind::Invalid);
        }
    }
}
