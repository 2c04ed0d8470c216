//! `disk`: images onto a node's disk, and proof that they are there.

use super::args::blocking;
use super::image::IMAGE;
use super::iscsi::{Disk, SESSION, with_disk};
use crate::disk::inspect::inspect;
use crate::disk::{
    Guard, Manifest, OnProgress, WriteOptions, read_head, verify, write_whole_disk_image,
};
use crate::engine::{Call, Class, LiveRef, Reply};
use crate::error::{Error, Kind, Result};
use crate::image::source::{Format, ImageSource};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

const WRITTEN: Record = Record {
    name: "Written",
    doc: "What was written to a disk.",
    fields: &[
        ("virtual_bytes", Ty::Integer, "size of the image"),
        ("data_bytes", Ty::Integer, "bytes that were sent"),
        (
            "zero_bytes",
            Ty::Integer,
            "bytes that the disk was told to zero",
        ),
        ("seconds", Ty::Any, "how long it took, flush included"),
        ("digest", Ty::String, "names the contents"),
        (
            "manifest",
            Ty::String,
            "what `disk.verify` compares the disk with",
        ),
    ],
};

pub(super) fn register(registry: &mut Registry) {
    write(registry);
    check(registry);
    registry.add(
        FnSpec::new(
            "disk",
            "read_partitions",
            Class::Read,
            "Reads a disk's partition table.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .returns(
            Ty::Any,
            "`label`, `disk_identifier`, `boot_signature`, `partitions`",
        )
        .error(Kind::Corrupt, "a GPT whose checksums are wrong")
        .example("disk.read_partitions(lun).label   --> gpt")
        .run(|call| async move {
            #[derive(Deserialize)]
            struct Args {
                lun: LiveRef,
            }
            let Args { lun } = call.decode()?;
            let head = with_disk(&call, &lun, async |disk| read_head(disk).await).await?;
            Reply::of(&inspect(&head)?)
        }),
    );
}

#[derive(Deserialize)]
struct Write {
    lun: LiveRef,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    path: PathBuf,
    format: Format,
}

fn write(registry: &mut Registry) {
    registry.add(
        FnSpec::new(
            "disk",
            "write_whole_disk_image",
            Class::Effect,
            "Writes an image from sector 0, holes as zeros, and flushes.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .required("image", Ty::Record(&IMAGE), "as `image.fetch` returns it")
        .returns(Ty::Record(&WRITTEN), "what was written")
        .error(
            Kind::Limit,
            "the image is larger than the disk; the message has both sizes",
        )
        .error(Kind::Io, "the disk refused a write")
        .example("disk.write_whole_disk_image(lun, { image = img }).data_bytes   --> 67108864")
        .run(|call| async move {
            let Write { lun, image } = call.decode()?;
            let source =
                blocking(move || ImageSource::open(&image.path, Some(image.format))).await?;
            let options = options(&call, "written");
            let work =
                async |disk: &Disk| write_whole_disk_image(disk, Arc::new(source), &options).await;
            let written = with_disk(&call, &lun, work).await?;
            let manifest = serde_json::to_string(&written.manifest)
                .map_err(|e| Error::new(Kind::Internal, "manifest").caused_by(&e))?;
            Ok(json!({
                "virtual_bytes": written.virtual_bytes,
                "data_bytes": written.data_bytes,
                "zero_bytes": written.zero_bytes,
                "seconds": written.seconds,
                "digest": written.manifest.digest(),
                "manifest": manifest,
            })
            .into()) as Result<Reply>
        }),
    );
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
            "Reads the disk back and compares every byte.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .required(
            "written",
            Ty::Record(&WRITTEN),
            "as `disk.write_whole_disk_image` returns it",
        )
        .returns(
            Ty::Any,
            "`bytes` that were compared, `pieces` and the `digest` they make",
        )
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
            with_disk(&call, &lun, async |disk| {
                verify(disk, &manifest, &options).await
            })
            .await?;
            Ok(json!({
                "bytes": manifest.virtual_bytes,
                "pieces": manifest.pieces.len(),
                "digest": manifest.digest(),
            })
            .into()) as Result<Reply>
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
