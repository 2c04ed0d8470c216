//! `image`: floppies, ISO images, and what an OS image is.

use super::args::{Text, blocking};
use super::site::Site;
use crate::engine::{Call, Class, Handle, Reply};
use crate::error::{Error, Kind, Result};
use crate::image::artifact::Artifact;
use crate::image::checksum::{Algorithm, Checksum};
use crate::image::iso::{IsoSpec, Isolinux, Source, make_iso};
use crate::image::source::{Format, ImageSource};
use crate::image::vfat::{VfatSpec, make_vfat};
use crate::imagecache::{Lease, Origin};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const ARTIFACT: Record = Record {
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
            "virtual_bytes",
            Ty::Integer,
            "size of the disk it describes",
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
    iso(registry, site);
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
            "Builds a virtual floppy.",
        )
        .optional(
            "parameters",
            texts(),
            "lines of `parameters.txt`; no white space in values",
        )
        .optional("token", Ty::Text, "contents of the file `token`")
        .optional("files", texts(), "more files by name")
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
                let files = exposed(&call, &args.files).await?;
                spec.files.extend(
                    files
                        .into_iter()
                        .map(|(name, text)| (name, text.into_bytes())),
                );
                if let Some(token) = &args.token {
                    let token = token.read(&call).await?.expose().as_bytes().to_vec();
                    spec.files.push(("token".to_owned(), token));
                }
                let store = site.artifacts()?;
                let built = blocking(move || {
                    let image = make_vfat(&spec)?;
                    store.put(|out| written(out.write_all(&image)))
                });
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

fn written(outcome: std::io::Result<()>) -> Result<()> {
    outcome.map_err(|e| Error::new(Kind::Io, "cannot write the artifact").caused_by(&e))
}

#[derive(Deserialize)]
struct Iso {
    kernel: PathBuf,
    ramdisk: PathBuf,
    kernel_params: String,
    volume_id: String,
    isolinux: Option<PathBuf>,
    ldlinux: Option<PathBuf>,
}

fn iso(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "image",
            "make_iso",
            Class::Pure,
            "Builds a boot ISO from kernel and ramdisk.",
        )
        .required("kernel", Ty::String, "path of the kernel")
        .required("ramdisk", Ty::String, "path of the initial ramdisk")
        .default("kernel_params", Ty::String, "", "the kernel's command line")
        .default("volume_id", Ty::String, "VMEDIA_BOOT_ISO", "volume name")
        .optional(
            "isolinux",
            Ty::String,
            "path of isolinux.bin; without it no BIOS boots the ISO",
        )
        .optional(
            "ldlinux",
            Ty::String,
            "path of ldlinux.c32, which Syslinux 5 and newer need",
        )
        .returns(
            Ty::Record(&ARTIFACT),
            "the image; equal inputs give equal bytes",
        )
        .error(Kind::NotFound, "a file is missing")
        .example(
            "image.make_iso { kernel = \"/boot/vmlinuz\", ramdisk = \"/boot/initrd.img\" }.path",
        )
        .run(move |call| {
            let site = site.clone();
            async move {
                let args: Iso = call.decode()?;
                let store = site.artifacts()?;
                let built = blocking(move || build_iso(args, &store)).await?;
                Reply::of(&built)
            }
        }),
    );
}

fn build_iso(args: Iso, store: &crate::image::artifact::ArtifactStore) -> Result<Artifact> {
    let ldlinux = args.ldlinux.map(Source::File);
    let spec = IsoSpec {
        volume_id: args.volume_id,
        kernel: Source::File(args.kernel),
        ramdisk: Source::File(args.ramdisk),
        kernel_params: args.kernel_params,
        isolinux: args.isolinux.map(|bin| Isolinux {
            bin: Source::File(bin),
            ldlinux,
        }),
        files: Vec::new(),
    };
    store.put(|out| make_iso(&spec, out).map(drop))
}

#[derive(Deserialize)]
struct Fetch {
    source: String,
    checksum: Option<String>,
    format: Option<Format>,
}

fn fetch(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "image",
            "fetch",
            Class::Read,
            "Brings an OS image here, by way of the cache unless it is a file, and checks it.",
        )
        .subject(
            "source",
            Ty::String,
            "glance://<id or name>, a Glance id, http(s)://…, file://…, or a path",
        )
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
        .returns(
            Ty::Record(&IMAGE),
            "what `disk.write_whole_disk_image` takes",
        )
        .error(Kind::NotFound, "there is no such image")
        .error(Kind::Corrupt, "the checksum is another one")
        .error(Kind::Limit, "there is no space for it")
        .error(Kind::Refused, "the image points at other files")
        .example("image.fetch(\"/srv/images/debian.qcow2\").virtual_bytes   --> 2147483648")
        .run(move |call| {
            let site = site.clone();
            async move { do_fetch(&site, &call).await }
        }),
    );
}

async fn do_fetch(site: &Site, call: &Call) -> Result<Reply> {
    let args: Fetch = call.decode()?;
    let checksum = args.checksum.as_deref().map(Checksum::parse).transpose()?;
    let (cache, sources) = site.images()?;
    let fetched = cache
        .fetch(&sources, Origin::parse(&args.source)?, checksum)
        .await?;
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
    let image = blocking(move || ImageSource::open(&path, format)).await?;
    let info = image.info();
    let sha256 = fetched.checksum.as_ref();
    let sha256 = sha256.filter(|sum| sum.algorithm == Algorithm::Sha256);
    let reply = json!({
        "path": fetched.path,
        "format": info.format,
        "virtual_bytes": info.virtual_bytes,
        "file_bytes": info.file_bytes,
        "sha256": sha256.map(|sum| &sum.hex),
        "checksum": fetched.checksum.as_ref().map(ToString::to_string),
    });
    if let Some(lease) = fetched.lease {
        let name = format!("image {}", lease.path.display());
        call.run.share(&name, Arc::new(InUse(lease)));
    }
    Ok(reply.into())
}

/// An image of the cache, for as long as the run lasts.
#[derive(Debug)]
struct InUse(#[expect(dead_code, reason = "it is held")] Lease);

impl Handle for InUse {
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
