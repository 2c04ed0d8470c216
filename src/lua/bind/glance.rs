//! `glance`: what Glance knows of images, and URLs for those that lie in Swift.

use super::args::Seconds;
use super::site::Site;
use crate::engine::{Call, Class, LiveValue, Reply};
use crate::error::{Kind, Result};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use crate::openstack::swift::TempUrlOptions;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The specification's `swift_temp_url_duration`, in seconds.
const TEMP_URL_DURATION: u32 = 1200;

const IMAGE: Record = Record {
    name: "GlanceImage",
    doc: "An image as Glance knows it; properties that the operator gave it are fields too.",
    fields: &[
        ("id", Ty::String, "its id"),
        ("name", Ty::String, "its name"),
        ("status", Ty::String, "`active` when it has its data"),
        ("size", Ty::Integer, "size of the data"),
        ("disk_format", Ty::String, "`raw`, `qcow2`, `iso`, …"),
        ("min_disk", Ty::Integer, "least disk in GiB"),
        ("checksum", Ty::String, "MD5 of the data"),
        ("os_hash_algo", Ty::String, "which hash os_hash_value is"),
        ("os_hash_value", Ty::String, "hash of the data"),
        ("updated_at", Ty::String, "when it last changed"),
        ("kernel_id", Ty::String, "the kernel of a partition image"),
        ("ramdisk_id", Ty::String, "the ramdisk of a partition image"),
        ("boot_iso", Ty::String, "the image of an ISO that boots it"),
    ],
};

fn spec(name: &'static str, class: Class, summary: &'static str) -> FnSpec {
    FnSpec::new("glance", name, class, summary)
        .subject(
            "image",
            Ty::String,
            "an image's id, or a name that only one has",
        )
        .error(Kind::NotFound, "there is no such image")
        .error(
            Kind::Invalid,
            "several images have this name, or there is no [keystone]",
        )
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    #[derive(Deserialize)]
    struct Args {
        image: String,
    }
    let image = site.clone();
    registry.add(
        spec("image", Class::Read, "Tells what Glance knows of an image.")
            .returns(Ty::Record(&IMAGE), "its record")
            .example("glance.image(\"debian-12\").disk_format   --> qcow2")
            .run(move |call| {
                let site = image.clone();
                async move {
                    let Args { image } = call.decode()?;
                    Reply::of(&site.glance()?.image(&image).await?)
                }
            }),
    );
    let url = site.clone();
    registry.add(
        spec(
            "temp_url",
            Class::Live,
            "Signs a URL for the data of an image that Glance keeps in Swift.",
        )
        .optional(
            "ttl",
            Ty::Duration,
            "how long it is good; default [glance] swift_temp_url_duration, 20 minutes",
        )
        .optional(
            "filename",
            Ty::String,
            "makes the URL end in this name, for iLOs that insist",
        )
        .returns(
            Ty::Live("secret"),
            "the URL; a run that is resumed gets a fresh one",
        )
        .error(Kind::Unsupported, "Glance keeps the image elsewhere")
        .error(
            Kind::Auth,
            "Swift does not accept the URL: another key, or clocks that differ",
        )
        .example("local url = glance.temp_url(\"deploy-iso\", { filename = \"boot.iso\" })")
        .run(move |call| {
            let site = url.clone();
            async move { temp_url(&site, &call).await }
        }),
    );
}

async fn temp_url(site: &Site, call: &Call) -> Result<Reply> {
    #[derive(Deserialize)]
    struct Args {
        image: String,
        ttl: Option<Seconds>,
        filename: Option<String>,
    }
    let args: Args = call.decode()?;
    let glance = site.glance()?;
    let section = &site.config().glance;
    let duration = section.swift_temp_url_duration.unwrap_or(TEMP_URL_DURATION);
    let default = Duration::from_secs(u64::from(duration));
    let options = TempUrlOptions {
        ttl: args.ttl.map_or(default, Seconds::duration),
        filename: args.filename,
        ..TempUrlOptions::default()
    };
    let image = glance.image(&args.image).await?;
    let container = section.swift_container.as_deref().unwrap_or("glance");
    let swift = site.glance_swift()?;
    let url = glance.temp_url(&image, swift, container, options).await?;
    swift.check_temp_url(&image.id, &url).await?;
    let mut reply = Reply::default();
    reply.value = reply.hold(LiveValue::Secret(url));
    Ok(reply)
}
