//! `ilo`: the management processor of a node.

use super::args::{Seconds, Text};
use super::site::Site;
use crate::engine::{Call, Class, Probe, Reply};
use crate::error::{Error, Kind, Result};
use crate::ilo::model::{BootDevice, Device, PowerState, PowerTarget};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const DEVICE: Ty = Ty::Enum(&["cdrom", "floppy"]);
const NODE_DOC: &str = "the server";

const INFO: Record = Record {
    name: "IloInfo",
    doc: "What an iLO tells about itself and its server.",
    fields: &[
        ("generation", Ty::Integer, "5 for iLO 5"),
        (
            "dialect",
            Ty::Enum(&["redfish", "rest", "ribcl"]),
            "what is spoken with it",
        ),
        ("firmware", Ty::String, "its version"),
        ("model", Ty::String, "the server's product name"),
        ("serial", Ty::String, "the server's serial number"),
        ("uuid", Ty::String, "the server's UUID"),
        ("bios_version", Ty::String, "version of the system ROM"),
        ("license", Ty::String, "the iLO licence"),
        ("power_state", Ty::String, "`on`, `off`, `powering_on`, …"),
        (
            "post_state",
            Ty::String,
            "`power_off`, `in_post`, `finished_post`, …",
        ),
        ("boot_mode", Ty::String, "`uefi` or `legacy`"),
        ("health", Ty::String, "`OK`, `Warning` or `Critical`"),
        (
            "media",
            Ty::List(&Ty::Record(&VMEDIA)),
            "what the virtual drives hold; URLs are masked",
        ),
    ],
};

const VMEDIA: Record = Record {
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
struct Node {
    node: String,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    looking(registry, site);
    power(registry, site);
    vmedia(registry, site);
    boot(registry, site);
    raw(registry, site);
}

/// Declares a primitive that takes a node and looks at its iLO.
macro_rules! look {
    ($registry:expr, $site:expr, $spec:expr, |$ilo:ident| $answer:expr) => {{
        let site = $site.clone();
        $registry.add($spec.run(move |call| {
            let site = site.clone();
            async move {
                let Node { node } = call.decode()?;
                let $ilo = site.ilo(&call, &node).await?;
                Ok($answer)
            }
        }));
    }};
}

fn spec(name: &'static str, class: Class, summary: &'static str) -> FnSpec {
    FnSpec::new("ilo", name, class, summary)
        .subject("node", Ty::Node, NODE_DOC)
        .error(
            Kind::Auth,
            "user or password is wrong, or the user lacks the privilege",
        )
        .error(Kind::Unreachable, "the iLO does not answer")
}

fn looking(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "info",
            Class::Read,
            "Tells generation, firmware, model, power and health."
        )
        .returns(Ty::Record(&INFO), "what the iLO reports")
        .example("log.info(ilo.info(node).model)   --> ProLiant DL360 Gen10 Plus"),
        |ilo| Reply::of(&ilo.info().await?)?
    );
    look!(
        registry,
        site,
        spec(
            "check_vmedia_license",
            Class::Read,
            "Checks that the iLO's licence allows media by URL."
        )
        .returns(Ty::String, "the licence's name")
        .error(
            Kind::Unsupported,
            "the licence does not; the message names it"
        )
        .example("ilo.check_vmedia_license(node)   --> iLO Advanced"),
        |ilo| Value::from(ilo.check_vmedia_license().await?.name).into()
    );
    look!(
        registry,
        site,
        spec(
            "post_state",
            Class::Read,
            "Tells how far the power-on self test is."
        )
        .returns(Ty::String, "`power_off`, `in_post`, `finished_post`, …")
        .example("ilo.post_state(node)   --> finished_post"),
        |ilo| Reply::of(&ilo.post_state().await?)?
    );
    look!(
        registry,
        site,
        spec(
            "boot_mode",
            Class::Read,
            "Tells whether the server boots by UEFI or BIOS."
        )
        .returns(Ty::String, "`uefi`, `legacy` or `unknown`")
        .example("ilo.boot_mode(node)   --> uefi"),
        |ilo| Reply::of(&ilo.boot_mode().await?)?
    );
}

#[derive(Deserialize)]
struct SetPower {
    node: String,
    state: String,
    timeout: Seconds,
}

fn power(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "power_state",
            Class::Read,
            "Tells whether the server is powered."
        )
        .returns(
            Ty::String,
            "`on`, `off`, `powering_on`, `powering_off`, `reset`, `unknown`"
        )
        .example("ilo.power_state(node)   --> off"),
        |ilo| Reply::of(&ilo.power_state().await?)?
    );
    let (run, probe) = (site.clone(), site.clone());
    registry.add(
        spec(
            "set_power",
            Class::EffectProbe,
            "Switches the server and waits until the iLO reports the new state.",
        )
        .required(
            "state",
            Ty::Enum(&["on", "off", "soft_off", "reset"]),
            "`off` holds the button, `soft_off` asks the operating system",
        )
        .default(
            "timeout",
            Ty::Duration,
            "3m",
            "how long the change may take",
        )
        .returns(Ty::String, "the power state now")
        .error(Kind::Conflict, "`reset` of a server that is off")
        .error(Kind::Timeout, "the server did not follow")
        .example("ilo.set_power(node, { state = \"off\" })   --> off")
        .probe(move |call| {
            let site = probe.clone();
            async move { power_reached(&site, &call).await }
        })
        .run(move |call| {
            let site = run.clone();
            async move {
                let SetPower {
                    node,
                    state,
                    timeout,
                } = call.decode()?;
                let ilo = site.ilo(&call, &node).await?;
                let target = match state.as_str() {
                    "on" => PowerTarget::On,
                    "off" => PowerTarget::ForceOff,
                    "soft_off" => PowerTarget::Off,
                    _ => PowerTarget::Reset,
                };
                Reply::of(&ilo.set_power(target, timeout.duration()).await?)
            }
        }),
    );
}

/// On and off can be seen; whether a reset happened cannot, and one more does no harm that the
/// first did not do.
async fn power_reached(site: &Site, call: &Call) -> Result<Probe> {
    let SetPower { node, state, .. } = call.decode()?;
    let now = site.ilo(call, &node).await?.power_state().await?;
    let reached = matches!(
        (state.as_str(), now),
        ("on", PowerState::On) | ("off" | "soft_off", PowerState::Off)
    );
    if reached {
        Ok(Probe::Done(Reply::of(&now)?))
    } else {
        Ok(Probe::NotDone)
    }
}

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

fn vmedia(registry: &mut Registry, site: &Arc<Site>) {
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

#[derive(Deserialize)]
struct OneTime {
    node: String,
    device: BootDevice,
    timeout: Seconds,
}

fn boot(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "boot_device",
            Class::Read,
            "Tells what the next boot is set to."
        )
        .returns(
            Ty::Any,
            "`enabled` (`disabled`, `once`, `continuous`) and `device`"
        )
        .example("ilo.boot_device(node).device   --> cdrom"),
        |ilo| Reply::of(&ilo.boot_device().await?)?
    );
    let once = site.clone();
    registry.add(
        spec(
            "set_one_time_boot",
            Class::Effect,
            "Sets the device of the next boot only; the server must not be in POST.",
        )
        .required(
            "device",
            Ty::Enum(&["cdrom", "disk", "usb", "pxe"]),
            "what to boot from",
        )
        .default(
            "timeout",
            Ty::Duration,
            "3m",
            "how long to wait for the end of POST",
        )
        .example("ilo.set_one_time_boot(node, { device = \"cdrom\" })")
        .run(move |call| {
            let site = once.clone();
            async move {
                let OneTime {
                    node,
                    device,
                    timeout,
                } = call.decode()?;
                let ilo = site.ilo(&call, &node).await?;
                Reply::of(&ilo.set_one_time_boot(device, timeout.duration()).await?)
            }
        }),
    );
}

#[derive(Deserialize)]
struct Raw {
    node: String,
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
    timeout: Seconds,
}

fn raw(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        spec(
            "request",
            Class::Effect,
            "Sends a Redfish request of your own, for quirks.",
        )
        .required("path", Ty::String, "begins with /redfish/v1/")
        .default(
            "method",
            Ty::Enum(&["GET", "POST", "PATCH", "DELETE"]),
            "GET",
            "HTTP method",
        )
        .optional("body", Ty::Any, "sent as JSON")
        .default("timeout", Ty::Duration, "60s", "how long the iLO may take")
        .returns(
            Ty::Any,
            "the answer's JSON; credentials and signatures are masked",
        )
        .example("ilo.request(node, { path = \"/redfish/v1/Systems/1/\" }).SKU   --> P28948-B21")
        .run(move |call| {
            let site = site.clone();
            async move {
                let Raw {
                    node,
                    method,
                    path,
                    body,
                    timeout,
                } = call.decode()?;
                if !path.starts_with("/redfish/") {
                    return Err(
                        Error::new(Kind::Invalid, format!("{path:?} is no Redfish path"))
                            .hint("/redfish/v1/Systems/1/"),
                    );
                }
                let ilo = site.ilo(&call, &node).await?;
                let answer = ilo
                    .request(&method, &path, body.as_ref(), timeout.duration())
                    .await?;
                Ok(answer.into())
            }
        }),
    );
}
