//! Bootable ISO 9660 media: kernel, ramdisk and the loader that starts them.
//!
//! The layout is the one of Ironic's boot ISOs. The image is written front to back
//! without ever being read again or held in memory, so it can go straight into an upload, and it
//! carries no clock or random value: the same inputs give the same bytes.

use super::bootsector;
use super::loader::{self, Grub, Isolinux};
use crate::error::{Error, Kind, Result};
use hadris_fs::{Content, Node, PathError, Tree, WarningKind};
use hadris_io::ErrorType;
use hadris_iso::{BootEntry, BootInfo, ElTorito, IsoId, IsoLevel, IsoOptions};
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
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

/// The EFI system partition, which UEFI firmware finds through the boot catalogue.
const EFI_IMAGE: &str = "boot/efi.img";

/// Boot loaders address what they load with 32 bits.
const MAX_LOADED: u64 = u32::MAX as u64;

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
    /// The loader for BIOS; without one a program that prints a sentence and halts takes its place.
    pub isolinux: Option<Isolinux>,
    /// The loader for UEFI; without one UEFI does not boot the medium.
    pub grub: Option<Grub>,
    /// More files, by their path on the medium.
    pub files: Vec<(String, Source)>,
}

/// A boot medium that is laid out and not yet written.
#[derive(Debug)]
pub struct Iso {
    tree: Tree,
    options: IsoOptions,
    bytes: u64,
}

impl Iso {
    /// Lays out a medium: ISO 9660 level 3 with Rock Ridge and Joliet, and El Torito entries for
    /// BIOS and, with GRUB, for UEFI. Looks at the sources' sizes; reads only the loaders.
    ///
    /// # Errors
    ///
    /// `invalid` for a specification that cannot be a medium; `limit` for a kernel or ramdisk
    /// that no loader can load; `not_found` or `io` if a source cannot be opened.
    pub fn plan(spec: &IsoSpec) -> Result<Self> {
        Self::lay_out(spec).map_err(|error| error.op(OP))
    }

    fn lay_out(spec: &IsoSpec) -> Result<Self> {
        let tree = tree(spec)?;
        let options = options(spec)?;
        let plan = hadris_iso::plan(&tree, &options).map_err(|error| failure(&error))?;
        refuse_losses(&plan)?;
        Ok(Self {
            tree,
            options,
            bytes: plan.size(),
        })
    }

    /// Size of the image.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the image, front to back. Blocks while it reads and writes.
    ///
    /// # Errors
    ///
    /// `not_found` or `io` if a source cannot be read; `corrupt` if one changed its size since
    /// the medium was laid out; `io` or `limit` if `out` does not take the bytes.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let mut sink = Sink {
            out,
            next: 0,
            blocks: self.bytes / u64::from(CD_BLOCK.get()),
        };
        hadris_iso::sync::write(&mut sink, &self.tree, &self.options)
            .map_err(|error| failure(&error).op(OP))?;
        if sink.next != sink.blocks {
            let message = format!("{} of {} sectors were written", sink.next, sink.blocks);
            return Err(Error::new(Kind::Internal, message).op(OP));
        }
        Ok(())
    }
}

/// The files of the medium.
fn tree(spec: &IsoSpec) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut add = |path: &str, content: Content| {
        tree.insert(path, Node::file(content))
            .map_err(|error| failure(&error))
    };
    add("vmlinuz", loadable("kernel", &spec.kernel)?)?;
    add("initrd", loadable("ramdisk", &spec.ramdisk)?)?;
    add(
        "isolinux/isolinux.cfg",
        Content::bytes(loader::isolinux_config(&spec.kernel_params)?),
    )?;
    match &spec.isolinux {
        Some(loader) => {
            add(BOOT_IMAGE, loader.bin.content()?)?;
            if let Some(ldlinux) = &loader.ldlinux {
                add("isolinux/ldlinux.c32", ldlinux.content()?)?;
            }
        }
        None => {
            let mut image = bootsector::program(NO_LOADER)?.to_vec();
            image.resize(CD_SECTOR, 0);
            add(BOOT_IMAGE, Content::bytes(image))?;
        }
    }
    if let Some(grub) = &spec.grub {
        let config = loader::grub_config(&spec.kernel_params)?;
        for path in loader::GRUB_CONFIGS {
            add(path, Content::bytes(config.as_str()))?;
        }
        add(EFI_IMAGE, Content::bytes(loader::system_partition(grub)?))?;
    }
    for (path, source) in &spec.files {
        if path.chars().any(char::is_control) || path.split('/').all(str::is_empty) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{path:?} is not a path on the medium"),
            ));
        }
        add(path, source.content()?)?;
    }
    Ok(tree)
}

impl Source {
    /// All of it. Blocks.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => std::fs::read(path).map_err(|e| Error::io(path, "read", &e)),
        }
    }

    pub(super) fn content(&self) -> Result<Content> {
        match self {
            Self::Bytes(bytes) => Ok(Content::bytes(bytes.as_slice())),
            Self::File(path) => hadris_fs::host::file(path).map_err(|error| failure(&error)),
        }
    }
}

fn loadable(what: &str, source: &Source) -> Result<Content> {
    let content = source.content()?;
    if content.len() > MAX_LOADED {
        return Err(Error::new(
            Kind::Limit,
            format!(
                "the {what} has {} bytes; boot loaders load less than 4 GiB",
                content.len()
            ),
        ));
    }
    Ok(content)
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
    let mut catalog = ElTorito::new()
        .with_catalog_path("isolinux/boot.cat")
        .with_entry(boot);
    if spec.grub.is_some() {
        catalog = catalog.with_entry(BootEntry::uefi(EFI_IMAGE));
    }
    Ok(IsoOptions::new()
        .with_id(IsoId::Volume, volume)
        .with_id(IsoId::Application, "FLOWRUN")
        // Lower levels refuse files of 4 GiB and more.
        .with_level(IsoLevel::L3)
        .with_rock_ridge()
        .with_joliet()
        .with_el_torito(catalog))
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
pub(super) fn failure(error: &PathError) -> Error {
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
            grub: None,
            files: Vec::new(),
        }
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
            let error = Iso::plan(&spec).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{path:?}: {error}");
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let mut spec = spec();
        spec.ramdisk = Source::File("/nonexistent/initrd".into());
        let error = Iso::plan(&spec).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.on(), "/nonexistent/initrd");
    }

    #[test]
    fn a_full_output_says_so() {
        let mut small = [0_u8; 100_000];
        let mut out = small.as_mut_slice();
        let error = Iso::plan(&spec()).unwrap().write(&mut out).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(
            error.to_string().contains("cannot write the image"),
            "{error}"
        );
    }
    #[test]
    fn refuses_what_no_loader_can_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initrd");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(4 << 30).unwrap();
        let mut spec = spec();
        spec.ramdisk = Source::File(path);
        let error = Iso::plan(&spec).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit, "{error}");
    }
}
