//! `image`: floppies, ISO images, and what an OS image is.

use super::args::{Text, blocking};
use super::site::Site;
use crate::config::BootLoadersSection;
use crate::engine::{Call, Class, Handle, Reply};
use crate::error::{Error, Kind, Result};
use crate::image::checksum::{Algorithm, Checksum};
use crate::image::filesystem::{self, FileSystem, identify};
use crate::image::iso::{Iso, IsoSpec, Source};
use crate::image::loader::{Grub, Isolinux};
use crate::image::source::{Format, ImageSource};
use crate::image::vfat::{VfatSpec, make_vfat};
use crate::imagecache::{Lease, Origin};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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

pub(super) const ISO_PLAN: Record = Record {
    name: "IsoPlan",
    doc: "A boot ISO that is checked and laid out, and not written.",
    fields: &[
        ("bytes", Ty::Integer, "size of the ISO"),
        ("kernel", Ty::String, "path of the kernel"),
        ("ramdisk", Ty::String, "path of the initial ramdisk"),
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

/// What a boot ISO is made of, as a flow says it.
#[derive(Deserialize, Serialize)]
pub(super) struct BootIso {
    kernel: PathBuf,
    ramdisk: PathBuf,
    kernel_params: String,
    root_uuid: Option<String>,
    volume_id: String,
    boot: Boot,
}

/// Which firmware boots the medium.
#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Boot {
    Bios,
    Uefi,
    Both,
}

impl BootIso {
    fn options(spec: FnSpec) -> FnSpec {
        spec.required("kernel", Ty::String, "path of the kernel")
            .required("ramdisk", Ty::String, "path of the initial ramdisk")
            .default("kernel_params", Ty::String, "", "the kernel's command line")
            .optional(
                "root_uuid",
                Ty::String,
                "the root file system's UUID, for `root=UUID=…` before `kernel_params`",
            )
            .default("volume_id", Ty::String, "VMEDIA_BOOT_ISO", "volume name")
            .default(
                "boot",
                Ty::Enum(&["bios", "uefi", "both"]),
                "both",
                "which firmware boots it; `[boot_loaders]` says where the loaders are",
            )
            .error(Kind::NotFound, "a file or a boot loader is missing")
            .error(Kind::Limit, "kernel or ramdisk has 4 GiB or more")
    }

    /// Reads back what `plan_iso` returned.
    pub(super) fn planned(plan: Value) -> Result<Self> {
        serde_json::from_value(plan).map_err(|error| {
            Error::new(Kind::Invalid, format!("`iso` is not a plan: {error}"))
                .hint("image.plan_iso makes one")
        })
    }

    /// Lays it out with the site's boot loaders.
    pub(super) async fn plan(&self, site: &Site) -> Result<Iso> {
        let spec = iso_spec(self, &site.config().boot_loaders)?;
        blocking(move || Iso::plan(&spec)).await
    }
}

#[derive(Serialize)]
struct Planned {
    bytes: u64,
    #[serde(flatten)]
    args: BootIso,
}

fn iso(registry: &mut Registry, site: &Arc<Site>) {
    let make = site.clone();
    registry.add(
        BootIso::options(FnSpec::new(
            "image",
            "make_iso",
            Class::Pure,
            "Builds a boot ISO from kernel and ramdisk.",
        ))
        .returns(
            Ty::Record(&ARTIFACT),
            "the image; equal inputs give equal bytes",
        )
        .example(
            "image.make_iso { kernel = \"/boot/vmlinuz\", ramdisk = \"/boot/initrd.img\" }.path",
        )
        .run(move |call| {
            let site = make.clone();
            async move {
                let args: BootIso = call.decode()?;
                let store = site.artifacts()?;
                let iso = args.plan(&site).await?;
                Reply::of(&blocking(move || store.put(|out| iso.write(out))).await?)
            }
        }),
    );
    let plan = site.clone();
    registry.add(
        BootIso::options(FnSpec::new(
            "image",
            "plan_iso",
            Class::Read,
            "Lays out the boot ISO that `make_iso` builds, for `swift.upload` to build while \
             it is sent.",
        ))
        .returns(Ty::Record(&ISO_PLAN), "what `swift.upload` takes as `iso`")
        .example("swift.upload(\"c\", { name = \"boot.iso\", iso = image.plan_iso { kernel = k, ramdisk = r } })")
        .run(move |call| {
            let site = plan.clone();
            async move {
                let args: BootIso = call.decode()?;
                let bytes = args.plan(&site).await?.bytes();
                Reply::of(&Planned { bytes, args })
            }
        }),
    );
}

fn iso_spec(args: &BootIso, loaders: &BootLoadersSection) -> Result<IsoSpec> {
    let mut kernel_params = args.kernel_params.clone();
    if let Some(uuid) = &args.root_uuid {
        if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            let message = format!("{uuid:?} is not the UUID of a file system");
            return Err(Error::new(Kind::Invalid, message));
        }
        kernel_params = format!("root=UUID={uuid} {kernel_params}");
    }
    Ok(IsoSpec {
        volume_id: args.volume_id.clone(),
        kernel: Source::File(args.kernel.clone()),
        ramdisk: Source::File(args.ramdisk.clone()),
        kernel_params,
        isolinux: match args.boot {
            Boot::Bios | Boot::Both => Some(isolinux(loaders)?),
            Boot::Uefi => None,
        },
        grub: match args.boot {
            Boot::Uefi | Boot::Both => Some(grub(loaders)?),
            Boot::Bios => None,
        },
        files: Vec::new(),
    })
}

fn isolinux(loaders: &BootLoadersSection) -> Result<Isolinux> {
    Ok(Isolinux {
        bin: loader(&loaders.isolinux, "isolinux", "isolinux")?,
        ldlinux: Some(loader(&loaders.ldlinux, "ldlinux", "syslinux-common")?),
    })
}

fn grub(loaders: &BootLoadersSection) -> Result<Grub> {
    let package = match loaders.shim {
        Some(_) => "grub-efi-amd64-signed",
        None => "grub-efi-amd64-bin",
    };
    let shim = loaders.shim.as_ref();
    Ok(Grub {
        efi: loader(&loaders.grub, "grub", package)?,
        shim: shim
            .map(|path| loader(path, "shim", "shim-signed"))
            .transpose()?,
    })
}

/// A loader's file, which must be there.
fn loader(path: &Path, key: &str, package: &str) -> Result<Source> {
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
        .returns(Ty::Record(&IMAGE), "what `disk.write_…_image` takes")
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
        let name = format!("image {}", lease.path.display());
        call.run.share(&name, || Arc::new(InUse(lease)));
    }
    Ok(reply.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(boot: Boot, root_uuid: Option<&str>) -> BootIso {
        BootIso {
            kernel: "k".into(),
            ramdisk: "r".into(),
            kernel_params: "ro".to_owned(),
            root_uuid: root_uuid.map(str::to_owned),
            volume_id: "V".to_owned(),
            boot,
        }
    }

    #[test]
    fn a_missing_loader_is_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let missing = |name: &str| folder.path().join(name);
        let mut loaders = BootLoadersSection {
            isolinux: missing("isolinux.bin"),
            ldlinux: missing("ldlinux.c32"),
            grub: missing("gcdx64.efi"),
            shim: None,
        };
        for (boot, shim, package) in [
            (Boot::Bios, None, "isolinux"),
            (Boot::Uefi, None, "grub-efi-amd64-bin"),
            (Boot::Uefi, Some(missing("shim")), "grub-efi-amd64-signed"),
        ] {
            loaders.shim = shim;
            let error = iso_spec(&args(boot, None), &loaders).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(error.advice().unwrap().contains(package), "{error:?}");
        }
        std::fs::write(&loaders.grub, "efi").unwrap();
        loaders.shim = None;
        let spec = iso_spec(&args(Boot::Uefi, Some("1BE2-6C0B")), &loaders).unwrap();
        assert_eq!(spec.kernel_params, "root=UUID=1BE2-6C0B ro");
        assert!(spec.grub.is_some() && spec.isolinux.is_none());
        let error = iso_spec(&args(Boot::Uefi, Some("x y")), &loaders).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
