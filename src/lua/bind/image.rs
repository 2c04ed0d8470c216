//! `image`: floppies, ISO images, and what an OS image is.

use super::args::{Text, blocking};
use super::site::Site;
use crate::engine::{Call, Class, Handle, Reply};
use crate::error::{Kind, Result};
use crate::image::checksum::Algorithm;
use crate::image::filesystem::{self, FileSystem, identify};
use crate::image::iso::Source;
use crate::image::source::{Format, ImageSource};
use crate::image::vfat::{VfatSpec, make_vfat};
use crate::imagecache::{Held, ImageCache, Lease};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const ARTIFACT: Record = Record {
    name: "Artifact",
    doc: "A file that was built, named by its contents.",
    fields: &[
        ("path", Ty::String, "where it is"),
        ("sha256", Ty::String, "hash of its contents"),
        ("bytes", Ty::Integer, "its size"),
    ],
};

pub(super) const IMAGE: Record = Record {
    name: "Image",
    doc: "An OS image that was looked at.",
    fields: &[
        ("path", Ty::String, "where it is"),
        ("format", Ty::Enum(&["raw", "qcow2"]), "how it is stored"),
        (
            "compression",
            Ty::Enum(&["gz", "xz", "zst"]),
            "how the file is compressed as a whole, if it is",
        ),
        (
            "kind",
            Ty::Enum(&["partition", "whole-disk"]),
            "a file system alone, or a disk with a partition table",
        ),
        (
            "virtual_bytes",
            Ty::Integer,
            "size of the disk it describes; of a compressed file it is not known",
        ),
        (
            "root_uuid",
            Ty::String,
            "partition images: UUID of the file system",
        ),
        ("file_bytes", Ty::Integer, "size of the file"),
        (
            "sha256",
            Ty::String,
            "SHA-256 of the file, if that was checked",
        ),
        (
            "checksum",
            Ty::String,
            "what was checked, as `sha512:<hex>`",
        ),
    ],
};

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    vfat(registry, site);
    fetch(registry, site);
    let remove = site.clone();
    registry.add(
        FnSpec::new(
            "image",
            "discard",
            Class::Effect,
            "Removes an artifact; one that is gone is fine.",
        )
        .subject(
            "artifact",
            Ty::Record(&ARTIFACT),
            "what `make_vfat` or `make_iso` returned",
        )
        .example("image.discard(floppy)")
        .run(move |call| {
            #[derive(Deserialize)]
            struct Args {
                artifact: Named,
            }
            #[derive(Deserialize)]
            struct Named {
                sha256: String,
            }
            let site = remove.clone();
            async move {
                let Args { artifact } = call.decode()?;
                site.artifacts()?.remove(&artifact.sha256)?;
                Ok(Reply::default())
            }
        }),
    );
}

#[derive(Deserialize)]
struct Vfat {
    #[serde(default)]
    parameters: BTreeMap<String, Text>,
    #[serde(default)]
    files: BTreeMap<String, Text>,
    #[serde(default)]
    paths: BTreeMap<String, PathBuf>,
    token: Option<Text>,
    label: String,
}

fn vfat(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    let texts = || Ty::Map(&Ty::Text);
    registry.add(
        FnSpec::new(
            "image",
            "make_vfat",
            Class::Pure,
            "Builds a virtual floppy, or a larger key if the files need one.",
        )
        .optional(
            "parameters",
            texts(),
            "lines of `parameters.txt`; no white space in values",
        )
        .optional("token", Ty::Text, "contents of the file `token`")
        .optional("files", texts(), "more files: name and contents")
        .optional(
            "paths",
            Ty::Map(&Ty::String),
            "more files: name and the path of a local file, of any size",
        )
        .default(
            "label",
            Ty::String,
            crate::image::vfat::LABEL,
            "volume label, case kept",
        )
        .returns(Ty::Record(&ARTIFACT), "the image")
        .error(
            Kind::Invalid,
            "a parameter or name would not be read back as it is",
        )
        .error(Kind::NotFound, "there is no file at a path")
        .error(
            Kind::Limit,
            "a file has 4 GiB or more, or all of them 60 GiB",
        )
        .example(
            "image.make_vfat { parameters = { deployment_id = node.uuid } }.bytes   --> 1474560",
        )
        .run(move |call| {
            let site = site.clone();
            async move {
                let args: Vfat = call.decode()?;
                let mut spec = VfatSpec {
                    label: args.label,
                    parameters: exposed(&call, &args.parameters).await?,
                    files: Vec::new(),
                };
                let mut add = |name, source| spec.files.push((name, source));
                for (name, text) in exposed(&call, &args.files).await? {
                    add(name, Source::Bytes(text.into_bytes()));
                }
                for (name, path) in args.paths {
                    add(name, Source::File(path));
                }
                if let Some(token) = &args.token {
                    let token = token.read(&call).await?.expose().as_bytes().to_vec();
                    add("token".to_owned(), Source::Bytes(token));
                }
                let store = site.artifacts()?;
                let built = blocking(move || store.build(|file| make_vfat(&spec, file)));
                Reply::of(&built.await?)
            }
        }),
    );
}

async fn exposed(call: &Call, texts: &BTreeMap<String, Text>) -> Result<BTreeMap<String, String>> {
    let mut plain = BTreeMap::new();
    for (key, text) in texts {
        plain.insert(key.clone(), text.read(call).await?.expose().to_owned());
    }
    Ok(plain)
}

pub(super) const SOURCES: &str = "glance://<id or name>, a Glance id, swift:<container>/<object>, http(s)://…, \
                       file://…, or a path";

#[derive(Deserialize)]
struct Fetch {
    source: String,
    checksum: Option<String>,
    format: Option<Format>,
}

fn fetch(registry: &mut Registry, site: &Arc<Site>) {
    let (site, resumed) = (site.clone(), site.clone());
    registry.add(
        FnSpec::new(
            "image",
            "fetch",
            Class::Read,
            "Brings an OS image here, by way of the cache unless it is a file, and checks it.",
        )
        .subject("source", Ty::String, SOURCES)
        .optional(
            "checksum",
            Ty::String,
            "SHA-256 or SHA-512 in hex, or md5:<hex>; URLs need one, Glance has its own",
        )
        .optional(
            "format",
            Ty::Enum(&["raw", "qcow2"]),
            "refuses the other; else Glance or the content decides",
        )
        .returns(Ty::Record(&IMAGE), "what `disk.write_…_image` takes")
        .error(Kind::NotFound, "there is no such image")
        .error(Kind::Corrupt, "the checksum is another one")
        .error(Kind::Limit, "there is no space for it")
        .error(Kind::Refused, "the image points at other files")
        .error(Kind::Unsupported, "it is neither raw nor qcow2")
        .example("image.fetch(\"/srv/images/debian.qcow2\").virtual_bytes   --> 2147483648")
        .holds(move |call, result| {
            let held = kept(&resumed, &call, &result);
            let held = held.inspect_err(|error| tracing::info!(%error, "fetched again"));
            std::future::ready(held.unwrap_or(false))
        })
        .run(move |call| {
            let site = site.clone();
            async move { do_fetch(&site, &call).await }
        }),
    );
}

async fn do_fetch(site: &Site, call: &Call) -> Result<Reply> {
    let args: Fetch = call.decode()?;
    let fetched = site.image(&args.source, args.checksum.as_deref()).await?;
    let told = fetched
        .record
        .as_ref()
        .and_then(|image| image.disk_format.as_deref());
    let format = args.format.or(match told {
        Some("raw") => Some(Format::Raw),
        Some("qcow2") => Some(Format::Qcow2),
        _ => None,
    });
    let path = fetched.path.clone();
    let (info, file_system) = blocking(move || {
        let image = ImageSource::open(&path, format)?;
        Ok((image.info().clone(), alone(&image)?))
    })
    .await?;
    let sha256 = fetched.checksum.as_ref();
    let sha256 = sha256.filter(|sum| sum.algorithm == Algorithm::Sha256);
    let reply = json!({
        "path": fetched.path,
        "format": info.format,
        "compression": info.compression,
        "kind": if file_system.is_some() { "partition" } else { "whole-disk" },
        "root_uuid": file_system.and_then(|found| found.uuid),
        "virtual_bytes": info.virtual_bytes,
        "file_bytes": info.file_bytes,
        "sha256": sha256.map(|sum| &sum.hex),
        "checksum": fetched.checksum.as_ref().map(ToString::to_string),
    });
    if let Some(lease) = fetched.lease {
        keep(call, lease);
    }
    Ok(reply.into())
}

/// Keeps an image from being evicted until the run ends.
fn keep(call: &Call, lease: Lease) {
    let name = format!("image {}", lease.path.display());
    call.run.share(&name, || Arc::new(InUse(lease)));
}

/// Whether a resumed run still has the image that it fetched before.
fn kept(site: &Site, call: &Call, result: &Value) -> Result<bool> {
    let path = result.get("path").and_then(Value::as_str);
    let held = ImageCache::of(site.config())?.hold_again(Path::new(path.unwrap_or_default()))?;
    if let Held::Again(lease) = held {
        keep(call, lease);
        return Ok(true);
    }
    Ok(matches!(held, Held::Elsewhere))
}

/// The file system that an image is, if it is one and not a disk.
fn alone(image: &ImageSource) -> Result<Option<FileSystem>> {
    let head = image.head(filesystem::HEAD_BYTES)?;
    let is_gpt = head.get(512..520) == Some(b"EFI PART");
    Ok(identify(&head).filter(|_| !is_gpt))
}

/// An image of the cache, for as long as the run lasts.
#[derive(Debug)]
struct InUse(#[expect(dead_code, reason = "it is held")] Lease);

impl Handle for InUse {
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
