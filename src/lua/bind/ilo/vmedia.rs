//! Virtual media.

use super::super::args::{Seconds, Text};
use super::super::site::Site;
use super::{look, spec};
use crate::engine::{Class, Probe, Reply};
use crate::error::Kind;
use crate::ilo::model::Device;
use crate::lua::spec::{Record, Registry, Ty};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const DEVICE: Ty = Ty::Enum(&["cdrom", "floppy"]);

pub(super) const VMEDIA: Record = Record {
    name: "VmediaDevice",
    doc: "A virtual drive.",
    fields: &[
        ("device", DEVICE, "which drive"),
        ("inserted", Ty::Boolean, "whether it holds a medium"),
        (
            "connected_via",
            Ty::String,
            "`uri`, `applet` (a console user), `not_connected`",
        ),
    ],
};

#[derive(Deserialize)]
struct Attach {
    node: String,
    device: Device,
    url: Text,
    timeout: Seconds,
}

#[derive(Deserialize)]
struct Eject {
    node: String,
    device: Device,
    timeout: Seconds,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "vmedia_status",
            Class::Read,
            "Tells what the virtual drives hold."
        )
        .returns(
            Ty::List(&Ty::Record(&VMEDIA)),
            "one entry a drive; URLs are masked"
        )
        .example("ilo.vmedia_status(node)[1].inserted   --> false"),
        |ilo| Reply::of(&ilo.vmedia_status().await?)?
    );
    attach(registry, site);
    let eject = site.clone();
    registry.add(
        spec(
            "eject_vmedia",
            Class::Effect,
            "Empties a virtual drive; an empty one is fine.",
        )
        .required("device", DEVICE, "which drive")
        .default("timeout", Ty::Duration, "30s", "how long the iLO may take")
        .example("ilo.eject_vmedia(node, { device = \"floppy\" })")
        .run(move |call| {
            let site = eject.clone();
            async move {
                let Eject {
                    node,
                    device,
                    timeout,
                } = call.decode()?;
                let ilo = site.ilo(&call, &node).await?;
                ilo.eject_vmedia(device, timeout.duration()).await?;
                Ok(Reply::default())
            }
        }),
    );
}

fn attach(registry: &mut Registry, site: &Arc<Site>) {
    let (run, probe) = (site.clone(), site.clone());
    registry.add(
        spec(
            "attach_vmedia",
            Class::EffectProbe,
            "Inserts an image by URL and waits until the iLO shows exactly that image.",
        )
        .required(
            "device",
            DEVICE,
            "which drive; what it holds is ejected first",
        )
        .required(
            "url",
            Ty::Text,
            "where the iLO reads the image; keep it short",
        )
        .default(
            "timeout",
            Ty::Duration,
            "60s",
            "how long the iLO may take to show it",
        )
        .returns(Ty::Record(&VMEDIA), "the drive as the iLO reports it")
        .error(Kind::Unsupported, "the licence does not allow media by URL")
        .error(Kind::Conflict, "a console user holds the drive")
        .error(
            Kind::Timeout,
            "the iLO accepted the image and never connected it",
        )
        .example("ilo.attach_vmedia(node, { device = \"cdrom\", url = url }).inserted   --> true")
        .probe(move |call| {
            let site = probe.clone();
            async move {
                let args: Attach = call.decode()?;
                let url = args.url.read(&call).await?;
                let drives = site.ilo(&call, &args.node).await?.vmedia_status().await?;
                let shown = drives.into_iter().find(|drive| {
                    let same = drive
                        .image
                        .as_deref()
                        .is_some_and(|image| url.matches(image));
                    drive.device == args.device && drive.inserted && same
                });
                match shown {
                    Some(drive) => Ok(Probe::Done(shown_drive(&drive))),
                    None => Ok(Probe::NotDone),
                }
            }
        })
        .run(move |call| {
            let site = run.clone();
            async move {
                let args: Attach = call.decode()?;
                let url = args.url.read(&call).await?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Ok(shown_drive(
                    &ilo.attach_vmedia(args.device, &url, timeout).await?,
                ))
            }
        }),
    );
}

/// A drive without its URL: it may be signed, and it is known to whoever attached it.
fn shown_drive(drive: &crate::ilo::model::VmediaDevice) -> Reply {
    json!({
        "device": drive.device,
        "inserted": drive.inserted,
        "connected_via": drive.connected_via,
    })
    .into()
}
