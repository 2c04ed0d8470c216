//! What an operator brings to a site: the deploy ISO and an OS image.
//!
//! Both are built from nothing, the same in every lab. The ISO's kernel and ramdisk are
//! stand-ins, and say so to whoever opens them: a simulated server reads but does not execute
//! them. The image is a real disk image: boot code, GPT, a FAT volume with files, a partition
//! with recognisable data, and holes.

use super::files::{make_private_dir, read_text, write_private};
use crate::error::{Error, Kind, Result};
use crate::image::bootsector::program;
use crate::image::efi_program;
use crate::image::iso::{Iso, IsoSpec, Source};
use hadris_fat::{FatKind, FatOptions, VolumeLabel};
use hadris_fs::{Content, Guid, Node as FsNode, Tree};
use hadris_part::gpt::types::{EFI_SYSTEM, LINUX_FILESYSTEM};
use hadris_part::{DiskLayout, PartitionSpec, Size};
use hadris_storage::BlockSize;
use hadris_storage::host::FileDevice;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Container of the object store that the deploy ISO is in.
pub const CONTAINER: &str = "flowrun_images";

/// Name of the deploy ISO in it.
pub const DEPLOY_ISO: &str = "deploy.iso";

/// Changes when the files that are built change.
const VERSION: u32 = 3;

const SECTOR_BYTES: u64 = 512;
const IMAGE_BYTES: u64 = 32 << 20;
const ESP_BYTES: usize = 8 << 20;
/// What of sector 0 is boot code; the disk identifier and the table follow.
const BOOT_CODE_BYTES: usize = 440;
/// What the image says when it is booted.
const NO_SYSTEM: &str = "flowrun lab image: a disk for simulated servers, without a system.";
/// Of the EFI system partition.
const VOLUME_ID: u32 = 0x1ab0_0001;
/// GUID of the image's partition table.
const DISK_GUID: [u8; 16] = *b"flowrun lab disk";
/// Blocks of the root partition, and which of them hold data.
const BLOCK_BYTES: usize = 4096;
const DATA_BLOCKS: [std::ops::Range<u64>; 2] = [0..1024, 4096..4352];

const STAND_IN: &str = "This is not a program. A simulated server reads it from the CD as a real \
    one does, and does not execute it: where this is the deploy ramdisk, it runs the ramdisk's \
    code itself.\n";

/// The files, and what there is to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    version: u32,
    /// The deploy ISO.
    pub deploy_iso: PathBuf,
    /// Stand-ins for boot loaders: ISOLINUX, its `ldlinux.c32`, GRUB, code for sector 0.
    pub boot_loaders: [PathBuf; 4],
    /// The OS image: raw, a whole disk.
    pub image: PathBuf,
    /// Its size.
    pub image_bytes: u64,
    /// Its SHA-256 in hex.
    pub image_sha256: String,
}

impl Media {
    /// Builds the files in this folder, unless they are there. Blocks.
    ///
    /// # Errors
    /// `io` or `limit` if they cannot be written.
    pub fn make(folder: &Path) -> Result<Self> {
        make_private_dir(folder)?;
        let list = folder.join("media.json");
        if let Some(text) = read_text(&list)?
            && let Ok(media) = serde_json::from_str::<Self>(&text)
            && media.is_in(folder)
        {
            return Ok(media);
        }
        let (deploy_iso, image) = (folder.join("deploy.iso"), folder.join("lab-image.raw"));
        let boot_loaders = ["isolinux.bin", "ldlinux.c32", "gcdx64.efi", "mbr.bin"];
        let boot_loaders = boot_loaders.map(|name| folder.join(name));
        for path in &boot_loaders {
            let bytes = if path.ends_with("mbr.bin") { 440 } else { 4096 };
            write_private(path, &stand_in("boot loader stand-in", bytes))?;
        }
        write_deploy_iso(&deploy_iso)?;
        let esp = esp(&folder.join("esp.new"))?;
        write_image(&image, &esp).map_err(|e| Error::io(&image, "write the OS image", &e))?;
        let media = Self {
            version: VERSION,
            image_sha256: sha256(&image).map_err(|e| Error::io(&image, "read", &e))?,
            image_bytes: IMAGE_BYTES,
            deploy_iso,
            boot_loaders,
            image,
        };
        // Written last: without it the files count as unfinished.
        let text = serde_json::to_string(&media)
            .map_err(|e| Error::new(Kind::Internal, "no list of media").caused_by(&e))?;
        write_private(&list, text.as_bytes())?;
        Ok(media)
    }

    fn is_in(&self, folder: &Path) -> bool {
        let mut files = [&self.deploy_iso, &self.image]
            .into_iter()
            .chain(&self.boot_loaders);
        self.version == VERSION && files.all(|file| file.starts_with(folder) && file.is_file())
    }
}

/// A file that says what it stands for.
fn stand_in(what: &str, size: usize) -> Vec<u8> {
    let mut contents = format!("flowrun lab: {what}. {STAND_IN}").into_bytes();
    contents.resize(size, b'\n');
    contents
}

fn write_deploy_iso(path: &Path) -> Result<()> {
    let spec = IsoSpec {
        volume_id: "VMEDIA_BOOT_ISO".to_owned(),
        kernel: Source::Bytes(stand_in("kernel stand-in", 1 << 20)),
        ramdisk: Source::Bytes(stand_in("ramdisk stand-in", 512 << 10)),
        kernel_params: "boot_method=vmedia".to_owned(),
        isolinux: None,
        grub: None,
        files: Vec::new(),
    };
    let failed = |e: &io::Error| Error::io(path, "write the deploy ISO", e);
    let mut file = BufWriter::new(File::create(path).map_err(|e| failed(&e))?);
    Iso::plan(&spec)?.write(&mut file)?;
    file.into_inner().map_err(|e| failed(e.error()))?;
    Ok(())
}

/// Writes the OS image; what is not written is a hole.
fn write_image(path: &Path, esp: &[u8]) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(IMAGE_BYTES)?;
    let esp_mib = (ESP_BYTES >> 20) as u64;
    let block_size = BlockSize::new(512).ok_or(io::ErrorKind::InvalidInput)?;
    let mut disk = DiskLayout::gpt(Guid::from_bytes(DISK_GUID))
        .partition(PartitionSpec::new(EFI_SYSTEM, Size::MiB(esp_mib)).with_name("EFI"))
        .partition(PartitionSpec::new(LINUX_FILESYSTEM, Size::Remaining).with_name("root"))
        .build(IMAGE_BYTES / SECTOR_BYTES, block_size)
        .map_err(io::Error::other)?;
    let code = program(NO_SYSTEM);
    let code = code.map_err(io::Error::other)?;
    disk.set_bootstrap(code.get(..BOOT_CODE_BYTES).unwrap_or_default())
        .map_err(io::Error::other)?;
    for run in disk.runs() {
        file.write_all_at(run.bytes(), run.lba() * SECTOR_BYTES)?;
    }
    let start = |slot: usize| {
        let partition = disk.partition(slot).ok_or(io::ErrorKind::InvalidData)?;
        io::Result::Ok(partition.start() * SECTOR_BYTES)
    };
    write_sparse(&file, esp, start(0)?)?;
    let root = start(1)?;
    for number in DATA_BLOCKS.into_iter().flatten() {
        file.write_all_at(&data_block(number), root + number * BLOCK_BYTES as u64)?;
    }
    file.sync_all()
}

/// Writes the blocks that are not zero.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    for (block, number) in bytes.chunks(BLOCK_BYTES).zip(0_u64..) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, offset + number * BLOCK_BYTES as u64)?;
        }
    }
    Ok(())
}

/// A FAT volume as UEFI looks for it, with files that say what they are.
fn esp(scratch: &Path) -> Result<Vec<u8>> {
    let grub = "search --label root --set root\nlinux /vmlinuz root=LABEL=root\n";
    let readme = "The EFI system partition of the flowrun lab's OS image.\n";
    let program = efi_program::program(NO_SYSTEM);
    let files = [
        ("readme.txt", readme.as_bytes()),
        ("grub.cfg", grub.as_bytes()),
        ("EFI/BOOT/BOOTX64.EFI", &program),
    ];
    let broken =
        |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("the lab's ESP: {e}"));
    let mut tree = Tree::new();
    for (name, content) in files {
        let content = Content::bytes(content);
        tree.insert(name, FsNode::file(content))
            .map_err(|e| broken(&e))?;
    }
    let options = FatOptions::new()
        .with_size(ESP_BYTES as u64)
        .with_kind(FatKind::Fat16)
        .with_serial(VOLUME_ID)
        .with_label(VolumeLabel::new("LAB-ESP").map_err(|e| broken(&e))?);
    let failed = |e: io::Error| Error::io(scratch, "make the EFI system partition", &e);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch);
    let mut device = FileDevice::new(file.map_err(failed)?).map_err(failed)?;
    hadris_fat::sync::write(&mut device, &tree, &options).map_err(|e| broken(&e))?;
    let bytes = fs::read(scratch).map_err(failed)?;
    fs::remove_file(scratch).map_err(failed)?;
    Ok(bytes)
}

/// A block that says which one it is, followed by bytes that no compressor makes small.
fn data_block(number: u64) -> Vec<u8> {
    let mut block = format!("flowrun lab image, root partition, block {number:08}\n").into_bytes();
    let mut state = Sha256::digest(number.to_le_bytes());
    while block.len() < BLOCK_BYTES {
        block.extend_from_slice(&state);
        state = Sha256::digest(state);
    }
    block.truncate(BLOCK_BYTES);
    block
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    #[test]
    fn the_image_is_a_sparse_disk_that_other_tools_read_and_the_same_in_every_lab() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = folders.each_ref().map(|f| Media::make(f.path()).unwrap());
        assert_eq!(first.image_sha256, second.image_sha256);
        let iso = |media: &Media| fs::read(&media.deploy_iso).unwrap();
        assert!(iso(&first) == iso(&second));
        let found = fs::metadata(&first.image).unwrap();
        assert_eq!(found.len(), IMAGE_BYTES);
        assert!(found.blocks() * 512 < IMAGE_BYTES / 4);

        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            let output = output.unwrap_or_else(|e| panic!("{program} is needed: {e}"));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program}: {text}");
            text
        };
        let image = first.image.to_str().unwrap();
        let verdict = run("sgdisk", &["-v", image]);
        assert!(verdict.contains("No problems found"), "{verdict}");
        let table = run("sgdisk", &["-p", image]);
        assert!(table.contains("EF00") && table.contains("8300"), "{table}");
        let esp = first.image.with_file_name("esp.fat");
        let bytes = fs::read(&first.image).unwrap();
        fs::write(&esp, &bytes[1 << 20..(1 << 20) + ESP_BYTES]).unwrap();
        run("fsck.vfat", &["-n", esp.to_str().unwrap()]);
        let text = run("mtype", &["-i", esp.to_str().unwrap(), "::readme.txt"]);
        assert!(text.contains("EFI system partition"), "{text}");

        // What is there already is kept.
        let before = found.modified().unwrap();
        assert_eq!(Media::make(folders[0].path()).unwrap(), first);
        let after = fs::metadata(&first.image).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }
}
