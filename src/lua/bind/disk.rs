//! `disk`: images onto a node's disk, and proof that they are there.

use super::args::{blocking, on_workers};
use super::image::IMAGE;
use super::iscsi::{SESSION, disk_of};
use super::iso::disk_loader;
use super::site::Site;
use crate::disk::inspect::{Label, inspect};
use crate::disk::plan::{BootMode, LayoutSpec};
use crate::disk::{
    Feeds, FileSystemKind, Guard, Manifest, OnProgress, PartitionImage, Verified, WholeDisk,
    WriteOptions, Written, read_head, verify, write_partition_image, write_whole_disk_image,
};
use crate::engine::{Call, Class, LiveRef, Reply};
use crate::error::{Error, Kind, Result};
use crate::image::configdrive;
use crate::image::loader::DiskLoader;
use crate::image::source::{Format, ImageSource};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

const WRITTEN: Record = Record {
    name: "Written",
    doc: "What was written to a disk.",
    fields: &[
        ("virtual_bytes", Ty::Integer, "size of the image"),
        ("data_bytes", Ty::Integer, "bytes that were sent"),
        ("zero_bytes", Ty::Integer, "bytes that are zero now"),
        (
            "resumed_bytes",
            Ty::Integer,
            "bytes that an attempt before had written, found in place",
        ),
        ("seconds", Ty::Any, "how long it took, flush included"),
        (
            "disk_identifier",
            Ty::String,
            "GPT: disk GUID; msdos: signature; empty without a table",
        ),
        (
            "root_uuid",
            Ty::String,
            "partition images: what `root=UUID=` needs, if the image has one",
        ),
        (
            "efi_system_uuid",
            Ty::String,
            "partition images: serial number of the EFI system partition, if there is one",
        ),
        (
            "partitions",
            Ty::Any,
            "partition images: `role`, `number`, `offset`, `bytes` of each",
        ),
        (
            "manifest",
            Ty::String,
            "what `disk.verify` compares the disk with",
        ),
    ],
};

const LAYOUT: Record = Record {
    name: "DiskLayout",
    doc: "A disk's partition table.",
    fields: &[
        ("label", Ty::Enum(&["gpt", "msdos", "none"]), "its kind"),
        (
            "disk_identifier",
            Ty::String,
            "GPT: disk GUID; msdos: the four bytes at 440 as `0x…`",
        ),
        (
            "boot_signature",
            Ty::Boolean,
            "whether sector 0 ends with 55 AA",
        ),
        (
            "partitions",
            Ty::List(&Ty::Any),
            "in the order of the table",
        ),
    ],
};

const VERIFIED: Record = Record {
    name: "Verified",
    doc: "What a disk was compared with.",
    fields: &[
        ("bytes", Ty::Integer, "how many were compared"),
        ("pieces", Ty::Integer, "in how many pieces"),
        (
            "read_back",
            Ty::Boolean,
            "whether the bytes were fetched for it; false if the ramdisk hashed what its disk holds",
        ),
    ],
};

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    // Runs that write the same image at the same time read it once.
    let feeds = Feeds::default();
    whole_disk(registry, feeds.clone());
    partition(registry, feeds, site);
    check(registry);
    registry.add(
        FnSpec::new(
            "disk",
            "read_partitions",
            Class::Read,
            "Reads a disk's partition table.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .returns(Ty::Record(&LAYOUT), "the table, `none` where there is none")
        .error(Kind::Corrupt, "a GPT whose checksums are wrong")
        .example("disk.read_partitions(lun).label   --> gpt")
        .run(|call| async move {
            #[derive(Deserialize)]
            struct Args {
                lun: LiveRef,
            }
            let Args { lun } = call.decode()?;
            let disk = disk_of(&call, &lun).await?;
            let head = read_head(&disk).await?;
            Reply::of(&inspect(&head, disk.lun_info().block_bytes)?)
        }),
    );
}

#[derive(Deserialize)]
struct Image {
    path: PathBuf,
    format: Format,
}

impl Image {
    async fn open(self) -> Result<Arc<ImageSource>> {
        let opened = blocking(move || ImageSource::open(&self.path, Some(self.format)));
        opened.await.map(Arc::new)
    }
}

/// What both kinds of images take.
fn writing(name: &'static str, summary: &'static str) -> FnSpec {
    FnSpec::new("disk", name, Class::Effect, summary)
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .required("image", Ty::Record(&IMAGE), "as `image.fetch` returns it")
        .optional(
            "configdrive",
            Ty::String,
            "path of a config drive: an image, or one as base64 of gzip",
        )
        .default(
            "disk_is_zero",
            Ty::Boolean,
            false,
            "the disk was zeroed before, so only data is sent; `disk.verify` proves it",
        )
        .returns(Ty::Record(&WRITTEN), "what was written")
        .error(
            Kind::Limit,
            "something does not fit; the message has both sizes",
        )
        .error(Kind::Io, "the disk refused a write")
}

#[derive(Deserialize)]
struct WriteWhole {
    lun: LiveRef,
    image: Image,
    configdrive: Option<PathBuf>,
    disk_is_zero: bool,
    fit_gpt: bool,
}

fn whole_disk(registry: &mut Registry, feeds: Feeds) {
    registry.add(
        writing(
            "write_whole_disk_image",
            "Writes an image from sector 0, holes as zeros, wipes old tables at the end; flushes.",
        )
        .default(
            "fit_gpt",
            Ty::Boolean,
            true,
            "moves the second copy of a GPT to the disk's end; a config drive needs it",
        )
        .error(
            Kind::Unsupported,
            "the image is for other sectors, or has no room for a config drive",
        )
        .example("disk.write_whole_disk_image(lun, { image = img }).data_bytes   --> 67108864")
        .run(move |call| {
            let feeds = feeds.clone();
            async move {
                let args: WriteWhole = call.decode()?;
                let source = args.image.open().await?;
                let whole = WholeDisk {
                    configdrive: load(args.configdrive).await?,
                    fit_gpt: args.fit_gpt,
                    identity: identity(&call),
                };
                let options = WriteOptions {
                    disk_is_zero: args.disk_is_zero,
                    resume: call.attempt > 1,
                    feeds,
                    ..options(&call, "written")
                };
                let disk = disk_of(&call, &args.lun).await?;
                let done = on_workers(async move {
                    write_whole_disk_image(&disk, source, &whole, &options).await
                })
                .await?;
                let more = json!({ "disk_identifier": done.disk_identifier });
                reply(&done.written, more)
            }
        }),
    );
}

#[derive(Deserialize)]
struct WritePartition {
    lun: LiveRef,
    image: Image,
    configdrive: Option<PathBuf>,
    disk_is_zero: bool,
    root_gb: i64,
    swap_mb: i64,
    ephemeral_gb: i64,
    ephemeral_format: FileSystemKind,
    preserve_ephemeral: bool,
    boot_mode: BootMode,
    boot_option: String,
    disk_label: Option<Label>,
}

impl WritePartition {
    fn layout(&self) -> Result<LayoutSpec> {
        let bytes = |name: &str, count: i64, shift: u32| {
            let bytes = u64::try_from(count)
                .ok()
                .and_then(|n| n.checked_mul(1 << shift));
            bytes.ok_or_else(|| Error::new(Kind::Invalid, format!("`{name}` cannot be {count}")))
        };
        Ok(LayoutSpec {
            boot_mode: self.boot_mode,
            local_boot: self.boot_option == "local",
            label: self.disk_label,
            root_bytes: bytes("root_gb", self.root_gb, 30)?,
            swap_bytes: bytes("swap_mb", self.swap_mb, 20)?,
            ephemeral_bytes: bytes("ephemeral_gb", self.ephemeral_gb, 30)?,
            configdrive_bytes: 0,
        })
    }
}

impl WritePartition {
    /// A disk that the node is started from gets a boot loader.
    fn loader(&self, site: &Site) -> Result<Option<DiskLoader>> {
        let section = &site.config().boot_loaders;
        let local = self.boot_option == "local";
        local
            .then(|| disk_loader(self.boot_mode, section))
            .transpose()
    }
}

/// How the disk is partitioned around an image.
fn partitioning() -> FnSpec {
    writing(
        "write_partition_image",
        "Partitions a disk, writes an image into the root partition, and flushes.",
    )
    .required("root_gb", Ty::Integer, "size of the root partition in GiB")
    .default(
        "swap_mb",
        Ty::Integer,
        0,
        "size of the swap partition in MiB",
    )
    .default(
        "ephemeral_gb",
        Ty::Integer,
        0,
        "size of the ephemeral partition in GiB",
    )
    .default(
        "ephemeral_format",
        Ty::Enum(&["ext4", "xfs", "vfat"]),
        "ext4",
        "file system of the ephemeral partition",
    )
    .default(
        "preserve_ephemeral",
        Ty::Boolean,
        false,
        "keeps table and ephemeral partition of the last deployment",
    )
    .default(
        "boot_mode",
        Ty::Enum(&["bios", "uefi"]),
        "bios",
        "how the node is started",
    )
    .default(
        "boot_option",
        Ty::Enum(&["local", "netboot"]),
        "local",
        "whether it is started from this disk, which gets a boot loader then: GRUB on the EFI \
         system partition, or code in sector 0 that starts the image's own boot sector",
    )
    .optional(
        "disk_label",
        Ty::Enum(&["gpt", "msdos"]),
        "else gpt for uefi and large disks, msdos for bios",
    )
}

fn partition(registry: &mut Registry, feeds: Feeds, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        partitioning()
            .error(
                Kind::Conflict,
                "the disk does not have the partitions that are to be preserved",
            )
            .error(
                Kind::NotFound,
                "the tool that makes the ephemeral file system",
            )
            .example("disk.write_partition_image(lun, { image = img, root_gb = 20 }).root_uuid")
            .run(move |call| {
                let (feeds, site) = (feeds.clone(), site.clone());
                async move {
                    let args: WritePartition = call.decode()?;
                    let wanted = PartitionImage {
                        layout: args.layout()?,
                        ephemeral_format: args.ephemeral_format,
                        preserve_ephemeral: args.preserve_ephemeral,
                        loader: args.loader(&site)?,
                        configdrive: load(args.configdrive).await?,
                        identity: identity(&call),
                    };
                    let source = args.image.open().await?;
                    let options = WriteOptions {
                        disk_is_zero: args.disk_is_zero,
                        resume: call.attempt > 1,
                        feeds,
                        ..options(&call, "written")
                    };
                    let disk = disk_of(&call, &args.lun).await?;
                    let done = on_workers(async move {
                        write_partition_image(&disk, source, &wanted, &options).await
                    })
                    .await?;
                    let more = json!({
                        "disk_identifier": done.disk_identifier,
                        "root_uuid": done.root_uuid,
                        "efi_system_uuid": done.efi_system_uuid,
                        "partitions": done.partitions,
                    });
                    reply(&done.written, more)
                }
            }),
    );
}

fn reply(written: &Written, more: Value) -> Result<Reply> {
    let manifest = serde_json::to_string(&written.manifest)
        .map_err(|e| Error::new(Kind::Internal, "manifest").caused_by(&e))?;
    let mut value = json!({
        "virtual_bytes": written.image_bytes,
        "data_bytes": written.data_bytes,
        "zero_bytes": written.zero_bytes,
        "resumed_bytes": written.resumed_bytes,
        "seconds": written.seconds,
        "manifest": manifest,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    Ok(value.into())
}

async fn load(path: Option<PathBuf>) -> Result<Vec<u8>> {
    match path {
        Some(path) => blocking(move || configdrive::read(&path)).await,
        None => Ok(Vec::new()),
    }
}

/// Names what this call makes on the disk: the same at every replay, another for every run.
fn identity(call: &Call) -> Uuid {
    let secret = call.derive("disk identity");
    let hash = Sha256::digest(secret.expose().as_bytes());
    let bytes = hash.first_chunk::<16>().copied().unwrap_or_default();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[derive(Deserialize)]
struct Verify {
    lun: LiveRef,
    written: WrittenArgs,
}

#[derive(Deserialize)]
struct WrittenArgs {
    manifest: String,
}

fn check(registry: &mut Registry) {
    registry.add(
        FnSpec::new(
            "disk",
            "verify",
            Class::Read,
            "Has the ramdisk hash every byte of what was written, or reads it back where it cannot.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .required(
            "written",
            Ty::Record(&WRITTEN),
            "as `disk.write_…_image` returns it",
        )
        .returns(Ty::Record(&VERIFIED), "what was compared")
        .error(
            Kind::Corrupt,
            "the disk holds something else; the message has the first offset",
        )
        .example("disk.verify(lun, { written = written }).bytes   --> 67108864")
        .run(|call| async move {
            let Verify { lun, written } = call.decode()?;
            let manifest: Manifest = serde_json::from_str(&written.manifest)
                .map_err(|e| Error::new(Kind::Invalid, "no manifest").caused_by(&e))?;
            let options = options(&call, "verified");
            let disk = disk_of(&call, &lun).await?;
            on_workers(async move {
                let verified = verify(&disk, &manifest, &options).await?;
                Ok(json!({
                    "bytes": manifest.bytes(),
                    "pieces": manifest.pieces().count(),
                    "read_back": verified == Verified::Here,
                })
                .into())
            })
            .await as Result<Reply>
        }),
    );
}

/// Progress goes to the run's events; a run that lost its lease stops writing.
fn options(call: &Call, what: &'static str) -> WriteOptions {
    let (run, key, guarded) = (call.run.clone(), call.key.clone(), call.run.clone());
    let progress: OnProgress = Arc::new(move |progress| {
        run.progress(&key, what, progress.done_bytes, progress.total_bytes);
    });
    WriteOptions {
        progress,
        guard: Guard(Arc::new(move || guarded.guard())),
        ..WriteOptions::default()
    }
}
