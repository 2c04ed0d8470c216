//! Bootable ISO 9660 media: kernel, ramdisk and the loader that starts them.
//!
//! The layout is the one of Ironic's `create_isolinux_image`. The image is written front to back
//! without ever being read again or held in memory, so it can go straight into an upload, and it
//! carries no clock or random value: the same inputs give the same bytes.

use super::bootsector;
use crate::error::{Error, Kind, Result};
use hadris_fs::{Content, Node, PathError, Tree, WarningKind};
use hadris_io::ErrorType;
use hadris_iso::{BootEntry, BootInfo, ElTorito, IsoId, IsoLevel, IsoOptions};
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::PathBuf;

const OP: &str = "image.make_iso";

/// Where the boot image lies, whether it is ISOLINUX or our own.
const BOOT_IMAGE: &str = "isolinux/isolinux.bin";

/// An El Torito no-emulation image is loaded in 512-byte units; four are one CD sector, which is
/// all that ISOLINUX expects the firmware to load.
const LOAD_SECTORS: u16 = 4;

/// Bytes in one sector of the medium.
const CD_SECTOR: usize = 2048;

/// The longest command line that both ISOLINUX and x86 Linux keep whole.
const MAX_COMMAND_LINE: usize = 2047;

/// Longest volume name: 16 UCS-2 units are what Joliet stores, and readers show either one.
const MAX_VOLUME_ID: usize = 32;

const NO_LOADER: &str = "This medium was made without a BIOS boot loader.\n\
     It carries a kernel and a ramdisk for a loader that reads it.\nHalted.\n";

/// The bytes of one file on the medium.
#[derive(Debug, Clone)]
pub enum Source {
    /// Held in memory.
    Bytes(Vec<u8>),
    /// A local file, read in small pieces while the medium is written.
    File(PathBuf),
}

/// The ISOLINUX loader.
#[derive(Debug, Clone)]
pub struct Isolinux {
    /// `isolinux.bin`.
    pub bin: Source,
    /// `ldlinux.c32`, needed by Syslinux 5 and newer.
    pub ldlinux: Option<Source>,
}

/// What goes onto a boot medium.
#[derive(Debug, Clone)]
pub struct IsoSpec {
    /// Volume name, at most 32 printable ASCII characters; Joliet readers see the first 16.
    pub volume_id: String,
    /// The kernel, `/vmlinuz`.
    pub kernel: Source,
    /// The ramdisk, `/initrd`.
    pub ramdisk: Source,
    /// Kernel parameters, separated by spaces, as one line.
    pub kernel_params: String,
    /// The loader; without one a program that prints a sentence and halts takes its place.
    pub isolinux: Option<Isolinux>,
    /// More files, by their path on the medium.
    pub files: Vec<(String, Source)>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoReport {
    /// Size of the image.
    pub bytes: u64,
    /// SHA-256 of the image in lower-case hex.
    pub sha256: String,
}

/// Writes a boot medium to `out`, front to back, and reports its size and digest.
///
/// ISO 9660 level 3 with Rock Ridge, Joliet and a BIOS El Torito entry. Blocks while it reads and
/// writes.
///
/// # Errors
///
/// `invalid` for a specification that cannot be a medium, before anything is written;
/// `not_found` or `io` if a source cannot be read; `corrupt` if one changed its size meanwhile;
/// `io` or `limit` if `out` does not take the bytes.
pub fn make_iso(spec: &IsoSpec, out: &mut dyn Write) -> Result<IsoReport> {
    build(spec, out).map_err(|error| error.op(OP))
}

fn build(spec: &IsoSpec, out: &mut dyn Write) -> Result<IsoReport> {
    let tree = tree(spec)?;
    let options = options(spec)?;
    let plan = hadris_iso::plan(&tree, &options).map_err(|error| failure(&error))?;
    refuse_losses(&plan)?;
    let mut sink = Sink {
        out,
        next: 0,
        blocks: plan.size() / u64::from(CD_BLOCK.get()),
        digest: Sha256::new(),
    };
    let report =
        hadris_iso::sync::write(&mut sink, &tree, &options).map_err(|error| failure(&error))?;
    if sink.next != sink.blocks {
        return Err(Error::new(
            Kind::Internal,
            format!("{} of {} sectors were written", sink.next, sink.blocks),
        ));
    }
    Ok(IsoReport {
        bytes: report.size(),
        sha256: hex::encode(sink.digest.finalize()),
    })
}

/// The files of the medium.
fn tree(spec: &IsoSpec) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut add = |path: &str, content: Content| {
        tree.insert(path, Node::file(content))
            .map_err(|error| failure(&error))
    };
    add("vmlinuz", content(&spec.kernel)?)?;
    add("initrd", content(&spec.ramdisk)?)?;
    add(
        "isolinux/isolinux.cfg",
        Content::bytes(loader_config(&spec.kernel_params)?),
    )?;
    match &spec.isolinux {
        Some(loader) => {
            add(BOOT_IMAGE, content(&loader.bin)?)?;
            if let Some(ldlinux) = &loader.ldlinux {
                add("isolinux/ldlinux.c32", content(ldlinux)?)?;
            }
        }
        None => {
            let mut image = bootsector::program(NO_LOADER)?.to_vec();
            image.resize(CD_SECTOR, 0);
            add(BOOT_IMAGE, Content::bytes(image))?;
        }
    }
    for (path, source) in &spec.files {
        if path.chars().any(char::is_control) || path.split('/').all(str::is_empty) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{path:?} is not a path on the medium"),
            ));
        }
        add(path, content(source)?)?;
    }
    Ok(tree)
}

fn content(source: &Source) -> Result<Content> {
    match source {
        Source::Bytes(bytes) => Ok(Content::bytes(bytes.as_slice())),
        Source::File(path) => hadris_fs::host::file(path).map_err(|error| failure(&error)),
    }
}

/// `isolinux.cfg`: one label that starts the kernel with the whole command line.
fn loader_config(params: &str) -> Result<String> {
    if let Some(bad) = params.chars().find(|c| c.is_control()) {
        return Err(Error::new(
            Kind::Invalid,
            format!("the kernel parameters have {bad:?}, they must be one line"),
        )
        .hint("separate parameters with spaces"));
    }
    let mut line = String::from("initrd=/initrd text ");
    if !params.trim().is_empty() {
        line.push_str(params.trim());
        line.push(' ');
    }
    line.push_str("--");
    if line.len() > MAX_COMMAND_LINE {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "the kernel command line takes {} bytes, boot loader and kernel keep {MAX_COMMAND_LINE}",
                line.len()
            ),
        ));
    }
    Ok(format!(
        "default boot\n\nlabel boot\nkernel /vmlinuz\nappend {line}\n"
    ))
}

fn options(spec: &IsoSpec) -> Result<IsoOptions> {
    let volume = &spec.volume_id;
    if volume.is_empty()
        || volume.len() > MAX_VOLUME_ID
        || !volume.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return Err(Error::new(
            Kind::Invalid,
            format!("{volume:?} is not a volume name of 1 to {MAX_VOLUME_ID} ASCII characters"),
        ));
    }
    let mut boot = BootEntry::bios(BOOT_IMAGE).with_load_size(LOAD_SECTORS);
    if spec.isolinux.is_some() {
        boot = boot.with_boot_info(BootInfo::Table);
    }
    Ok(IsoOptions::new()
        .with_id(IsoId::Volume, volume)
        .with_id(IsoId::Application, "FLOWRUN")
        // Lower levels refuse files of 4 GiB and more.
        .with_level(IsoLevel::L3)
        .with_rock_ridge()
        .with_joliet()
        .with_el_torito(
            ElTorito::new()
                .with_entry(boot)
                .with_catalog_path("isolinux/boot.cat"),
        ))
}

/// Refuses an image on which some reader would miss a file or find it under another name.
fn refuse_losses(plan: &hadris_fs::Report) -> Result<()> {
    let loss = plan
        .warnings()
        .iter()
        .find(|warning| warning.kind() != WarningKind::Relocated);
    match loss {
        None => Ok(()),
        Some(warning) => {
            let error = Error::new(Kind::Invalid, warning.message());
            Err(match warning.path() {
                Some(path) => error.target(String::from_utf8_lossy(path)),
                None => error,
            })
        }
    }
}

/// Says in our words what the ISO writer met.
fn failure(error: &PathError) -> Error {
    use hadris_io::ErrorKind;

    let system = error.downcast_device::<std::io::Error>();
    let kind = match (error.kind(), system.map(std::io::Error::kind)) {
        (ErrorKind::NotFound, _) | (_, Some(std::io::ErrorKind::NotFound)) => Kind::NotFound,
        (ErrorKind::NoSpace, _) | (_, Some(std::io::ErrorKind::StorageFull)) => Kind::Limit,
        (ErrorKind::Io, _) => Kind::Io,
        (ErrorKind::Corrupt, _) => Kind::Corrupt,
        (ErrorKind::ReadOnly, _) => Kind::Internal,
        _ => Kind::Invalid,
    };
    let message = match system {
        Some(system) => format!("{}: {system}", error.message()),
        None => error.message().to_owned(),
    };
    let failure = Error::new(kind, message);
    match (error.host_path(), error.path()) {
        (Some(path), _) => failure.target(path.display().to_string()),
        (None, Some(path)) => failure.target(String::from_utf8_lossy(path)),
        (None, None) => failure,
    }
}

const CD_BLOCK: BlockSize = match BlockSize::new(2048) {
    Some(size) => size,
    None => unreachable!(),
};

/// The output as the block device the writer wants: takes each block once, in order.
struct Sink<'a> {
    out: &'a mut dyn Write,
    next: u64,
    blocks: u64,
    digest: Sha256,
}

impl ErrorType for Sink<'_> {
    type Error = std::io::Error;
}

impl BlockDevice for Sink<'_> {
    fn block_size(&self) -> BlockSize {
        CD_BLOCK
    }

    fn block_count(&self) -> u64 {
        self.blocks
    }

    fn writable(&self) -> bool {
        true
    }

    fn read_blocks(
        &mut self,
        _first: BlockIndex,
        _buf: &mut [u8],
    ) -> Result<(), hadris_io::Error<std::io::Error>> {
        Err(hadris_io::Error::new(
            hadris_io::ErrorKind::ReadOnly,
            "the ISO writer wanted to read its own output",
        ))
    }

    fn write_blocks(
        &mut self,
        first: BlockIndex,
        buf: &[u8],
    ) -> Result<(), hadris_io::Error<std::io::Error>> {
        if first.get() != self.next {
            return Err(hadris_io::Error::new(
                hadris_io::ErrorKind::ReadOnly,
                "the ISO writer left the order of the sectors",
            ));
        }
        self.out
            .write_all(buf)
            .map_err(|error| hadris_io::Error::device(error, "cannot write the image"))?;
        self.digest.update(buf);
        let sectors = u64::try_from(buf.len() / CD_SECTOR).unwrap_or(u64::MAX);
        self.next = self.next.saturating_add(sectors);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), hadris_io::Error<std::io::Error>> {
        self.out
            .flush()
            .map_err(|error| hadris_io::Error::device(error, "cannot write the image"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> IsoSpec {
        IsoSpec {
            volume_id: "VMEDIA_BOOT_ISO".into(),
            kernel: Source::Bytes(b"kernel".to_vec()),
            ramdisk: Source::Bytes(b"ramdisk".to_vec()),
            kernel_params: "boot_method=vmedia console=ttyS0".into(),
            isolinux: None,
            files: Vec::new(),
        }
    }

    #[test]
    fn the_loader_starts_the_kernel_with_the_whole_line() {
        assert_eq!(
            loader_config("a=1 b=\"x y\"").unwrap(),
            "default boot\n\nlabel boot\nkernel /vmlinuz\n\
             append initrd=/initrd text a=1 b=\"x y\" --\n"
        );
        assert!(loader_config("").unwrap().ends_with("text --\n"));
    }

    #[test]
    fn refuses_parameters_that_are_not_one_line() {
        for params in ["a\nb", "a\rlabel x", "a\0", &"x".repeat(2048)] {
            assert_eq!(loader_config(params).unwrap_err().kind(), Kind::Invalid);
        }
    }

    #[test]
    fn the_digest_and_size_are_those_of_the_bytes() {
        let mut image = Vec::new();
        let report = make_iso(&spec(), &mut image).unwrap();
        assert_eq!(report.bytes, u64::try_from(image.len()).unwrap());
        assert_eq!(report.sha256, hex::encode(Sha256::digest(&image)));
    }

    #[test]
    fn refuses_paths_that_clash_or_leave_the_medium() {
        let long = "x".repeat(70);
        for path in [
            "vmlinuz",
            "VMLINUZ",
            "../up",
            "",
            "/",
            "vmlinuz/x",
            "a\nb",
            &long,
        ] {
            let mut spec = spec();
            spec.files = vec![(path.to_owned(), Source::Bytes(Vec::new()))];
            let mut image = Vec::new();
            let error = make_iso(&spec, &mut image).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{path:?}: {error}");
            assert!(image.is_empty(), "{path:?}");
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let mut spec = spec();
        spec.ramdisk = Source::File("/nonexistent/initrd".into());
        let error = make_iso(&spec, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.on(), "/nonexistent/initrd");
    }

    #[test]
    fn a_full_output_says_so() {
        let mut small = [0_u8; 100_000];
        let mut out = small.as_mut_slice();
        let error = make_iso(&spec(), &mut out).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(
            error.to_string().contains("cannot write the image"),
            "{error}"
        );
    }
}
