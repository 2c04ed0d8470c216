//! `image`: boot ISOs, of kernels and ramdisks from anywhere.

use super::args::blocking;
use super::image::ARTIFACT;
use super::site::Site;
use crate::config::BootLoadersSection;
use crate::disk::plan::BootMode;
use crate::engine::{Class, Reply};
use crate::error::{Error, Kind, Result};
use crate::image::iso::{Iso, IsoSpec, Source};
use crate::image::loader::{self, DiskLoader, Grub, Isolinux};
use crate::imagecache::Fetched;
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub(super) const ISO_PLAN: Record = Record {
    name: "IsoPlan",
    doc: "A boot ISO that is checked and laid out, and not written.",
    fields: &[
        ("bytes", Ty::Integer, "size of the ISO"),
        ("kernel", Ty::String, "the kernel, as it was given"),
        ("ramdisk", Ty::String, "the initial ramdisk, likewise"),
    ],
};

/// What a boot ISO is made of, as a flow says it.
#[derive(Deserialize, Serialize)]
pub(super) struct BootIso {
    kernel: String,
    kernel_checksum: Option<String>,
    ramdisk: String,
    ramdisk_checksum: Option<String>,
    kernel_params: String,
    root_uuid: Option<String>,
    volume_id: String,
    boot: Boot,
}

/// Which firmware boots the medium.
#[derive(Debug, Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Boot {
    Bios,
    Uefi,
    Both,
}

/// An ISO that is laid out.
pub(super) struct Plan {
    pub(super) iso: Arc<Iso>,
    /// Kernel and ramdisk stay where they are until they are on the medium.
    _sources: [Fetched; 2],
}

impl BootIso {
    /// Declares it.
    pub(super) fn options(spec: FnSpec) -> FnSpec {
        spec.required(
            "kernel",
            Ty::String,
            "the kernel: a source as of `image.fetch`",
        )
        .required("ramdisk", Ty::String, "the initial ramdisk, likewise")
        .optional(
            "kernel_checksum",
            Ty::String,
            "as of `image.fetch`; URLs need one",
        )
        .optional("ramdisk_checksum", Ty::String, "likewise")
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
        .error(
            Kind::NotFound,
            "a file, an image or a boot loader is missing",
        )
        .error(Kind::Corrupt, "a checksum is another one")
        .error(Kind::Limit, "kernel or ramdisk has 4 GiB or more")
    }

    /// Reads back what `plan_iso` returned.
    pub(super) fn planned(plan: Value) -> Result<Self> {
        serde_json::from_value(plan).map_err(|error| {
            Error::new(Kind::Invalid, format!("`iso` is not a plan: {error}"))
                .hint("image.plan_iso makes one")
        })
    }

    /// What tells this ISO from others, in the order of the specification: kernel, ramdisk, root
    /// file system, kernel parameters, boot mode.
    pub(super) async fn identity(&self, site: &Site) -> Result<[String; 5]> {
        let kernel = site.identity(&self.kernel, self.kernel_checksum.as_deref());
        let kernel = kernel.await?;
        let ramdisk = site.identity(&self.ramdisk, self.ramdisk_checksum.as_deref());
        Ok([
            kernel,
            ramdisk.await?,
            self.root_uuid.clone().unwrap_or_default(),
            self.kernel_params.clone(),
            format!("{:?}", self.boot).to_lowercase(),
        ])
    }

    /// Lays it out with the site's boot loaders.
    pub(super) async fn plan(&self, site: &Site) -> Result<Plan> {
        let (isolinux, grub) = loaders(self.boot, &site.config().boot_loaders)?;
        let kernel_params = command_line(&self.kernel_params, self.root_uuid.as_deref())?;
        let kernel = site.image(&self.kernel, self.kernel_checksum.as_deref());
        let kernel = kernel.await?;
        let ramdisk = site.image(&self.ramdisk, self.ramdisk_checksum.as_deref());
        let ramdisk = ramdisk.await?;
        let spec = IsoSpec {
            volume_id: self.volume_id.clone(),
            kernel: Source::File(kernel.path.clone()),
            ramdisk: Source::File(ramdisk.path.clone()),
            kernel_params,
            isolinux,
            grub,
            files: Vec::new(),
        };
        Ok(Plan {
            iso: Arc::new(blocking(move || Iso::plan(&spec)).await?),
            _sources: [kernel, ramdisk],
        })
    }
}

#[derive(Serialize)]
struct Planned {
    bytes: u64,
    #[serde(flatten)]
    args: BootIso,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
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
                let plan = args.plan(&site).await?;
                let built = blocking(move || store.put(|out| plan.iso.write(out)));
                Reply::of(&built.await?)
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
                let bytes = args.plan(&site).await?.iso.bytes();
                Reply::of(&Planned { bytes, args })
            }
        }),
    );
}

fn command_line(kernel_params: &str, root_uuid: Option<&str>) -> Result<String> {
    let Some(uuid) = root_uuid else {
        return Ok(kernel_params.to_owned());
    };
    if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        let message = format!("{uuid:?} is not the UUID of a file system");
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(format!("root=UUID={uuid} {kernel_params}"))
}

fn loaders(boot: Boot, section: &BootLoadersSection) -> Result<(Option<Isolinux>, Option<Grub>)> {
    Ok(match boot {
        Boot::Bios => (Some(Isolinux::installed(section)?), None),
        Boot::Uefi => (None, Some(Grub::installed(section)?)),
        Boot::Both => (
            Some(Isolinux::installed(section)?),
            Some(Grub::installed(section)?),
        ),
    })
}

/// What starts a partition image from its disk.
pub(super) fn disk_loader(mode: BootMode, section: &BootLoadersSection) -> Result<DiskLoader> {
    Ok(match mode {
        BootMode::Bios => {
            DiskLoader::Bios(loader::installed(&section.mbr, "mbr", "syslinux-common")?)
        }
        BootMode::Uefi => DiskLoader::Uefi(Grub::installed(section)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_loader_is_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let missing = |name: &str| folder.path().join(name);
        let mut loaders = BootLoadersSection {
            isolinux: missing("isolinux.bin"),
            ldlinux: missing("ldlinux.c32"),
            grub: missing("gcdx64.efi"),
            shim: None,
            mbr: missing("mbr.bin"),
        };
        for (boot, shim, package) in [
            (Boot::Bios, None, "isolinux"),
            (Boot::Uefi, None, "grub-efi-amd64-bin"),
            (Boot::Uefi, Some(missing("shim")), "grub-efi-amd64-signed"),
        ] {
            loaders.shim = shim;
            let error = super::loaders(boot, &loaders).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(error.advice().unwrap().contains(package), "{error:?}");
        }
        std::fs::write(&loaders.grub, "efi").unwrap();
        loaders.shim = None;
        let (isolinux, grub) = super::loaders(Boot::Uefi, &loaders).unwrap();
        assert!(grub.is_some() && isolinux.is_none());
    }

    #[test]
    fn the_root_file_system_is_named_first() {
        assert_eq!(command_line("ro", None).unwrap(), "ro");
        let line = command_line("ro", Some("1BE2-6C0B")).unwrap();
        assert_eq!(line, "root=UUID=1BE2-6C0B ro");
        for uuid in ["", "x y"] {
            let error = command_line("ro", Some(uuid)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
        }
    }
}
