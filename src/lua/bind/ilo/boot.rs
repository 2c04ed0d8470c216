//! What the server boots, and how.

use super::super::args::Seconds;
use super::super::site::Site;
use super::{look, spec};
use crate::engine::{Class, Reply};
use crate::error::Kind;
use crate::ilo::model::{BootDevice, BootMode};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use serde::Deserialize;
use std::sync::Arc;

const DEVICE: Ty = Ty::Enum(&["cdrom", "disk", "usb", "pxe", "uefi_http"]);
pub(super) const BOOT_MODE: Ty = Ty::Enum(&["uefi", "legacy", "unknown"]);
const POST_WAIT: &str = "how long to wait for the end of POST, in which the iLO refuses";

const BOOT_DEVICES: Record = Record {
    name: "BootDevices",
    doc: "What a server boots; a device that has no name here is absent.",
    fields: &[
        (
            "enabled",
            Ty::Enum(&["disabled", "once", "continuous"]),
            "whether `device` overrides the boot order, and for how long",
        ),
        (
            "device",
            Ty::String,
            "what overrides it: one of the devices that can be set, `uefi_shell`, `bios_setup`",
        ),
        (
            "persistent",
            Ty::String,
            "what every boot tries first that is not overridden for that boot alone",
        ),
        (
            "pending",
            Ty::String,
            "what that becomes at the next reset, if it changes then",
        ),
    ],
};

const BOOT_OVERRIDE: Record = Record {
    name: "BootOverride",
    doc: "What overrides the boot order.",
    fields: &[
        (
            "enabled",
            Ty::Enum(&["disabled", "once", "continuous"]),
            "for how long",
        ),
        ("device", Ty::String, "what is booted instead"),
    ],
};

const BOOT_MODES: Record = Record {
    name: "BootModes",
    doc: "How a server starts its boot loader.",
    fields: &[
        ("mode", BOOT_MODE, "now"),
        (
            "pending",
            Ty::String,
            "what it becomes at the next reset, if it changes then",
        ),
    ],
};

const SECURE_BOOT: Record = Record {
    name: "SecureBoot",
    doc: "Whether the firmware boots only what is signed. Where the two differ, a reset is due.",
    fields: &[
        (
            "current",
            Ty::Boolean,
            "whether the boot that the server is in was checked",
        ),
        (
            "enabled",
            Ty::Boolean,
            "whether boots are checked from the next reset on",
        ),
    ],
};

#[derive(Deserialize)]
struct SetDevice {
    node: String,
    device: BootDevice,
    timeout: Seconds,
}

#[derive(Deserialize)]
struct SetMode {
    node: String,
    mode: BootMode,
    timeout: Seconds,
}

#[derive(Deserialize)]
struct SetSecureBoot {
    node: String,
    enabled: bool,
    timeout: Seconds,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    reads(registry, site);
    devices(registry, site);
    modes(registry, site);
}

/// A setting: refused during POST, read back.
fn setting(name: &'static str, summary: &'static str) -> FnSpec {
    spec(name, Class::Effect, summary)
        .error(Kind::Conflict, "POST lasted longer than the timeout")
        .error(
            Kind::Timeout,
            "the iLO accepted the setting and never showed it",
        )
}

fn reads(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "boot_device",
            Class::Read,
            "Tells what the next boot and every boot are set to."
        )
        .returns(Ty::Record(&BOOT_DEVICES), "what the server boots")
        .example("ilo.boot_device(node).persistent   --> disk"),
        |ilo| Reply::of(&ilo.boot_device().await?)?
    );
    look!(
        registry,
        site,
        spec(
            "boot_mode",
            Class::Read,
            "Tells whether the server boots by UEFI or BIOS."
        )
        .returns(BOOT_MODE, "how it boots now")
        .example("ilo.boot_mode(node)   --> uefi"),
        |ilo| Reply::of(&ilo.boot_mode().await?)?
    );
    look!(
        registry,
        site,
        spec(
            "secure_boot",
            Class::Read,
            "Tells whether the server boots only what is signed."
        )
        .returns(Ty::Record(&SECURE_BOOT), "what holds now and what will")
        .error(
            Kind::Unsupported,
            "the iLO speaks RIBCL only, or the server boots BIOS (iLO 4)"
        )
        .example("ilo.secure_boot(node).enabled   --> false"),
        |ilo| Reply::of(&ilo.secure_boot().await?)?
    );
}

fn devices(registry: &mut Registry, site: &Arc<Site>) {
    let once = site.clone();
    registry.add(
        setting(
            "set_one_time_boot",
            "Sets the device of the next boot only; the server must not be in POST.",
        )
        .required("device", DEVICE, "what to boot from")
        .default("timeout", Ty::Duration, "3m", POST_WAIT)
        .returns(Ty::Record(&BOOT_OVERRIDE), "as the iLO shows it")
        .error(Kind::Unsupported, "the server cannot boot from there")
        .example("ilo.set_one_time_boot(node, { device = \"cdrom\" })")
        .run(move |call| {
            let site = once.clone();
            async move {
                let args: SetDevice = call.decode()?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Reply::of(&ilo.set_one_time_boot(args.device, timeout).await?)
            }
        }),
    );
    let always = site.clone();
    registry.add(
        setting(
            "set_boot_device",
            "Sets the device that every boot tries first; the server must not be in POST.",
        )
        .required("device", DEVICE, "what to boot from")
        .default("timeout", Ty::Duration, "3m", POST_WAIT)
        .returns(
            Ty::Record(&BOOT_DEVICES),
            "as the iLO shows it. Kept as an override (`continuous`) it takes the place of a \
             one-time boot, and a one-time boot its place; else it is the boot order, which \
             changes at the next reset: `pending` says so. Over RIBCL, which does not show an \
             order before it holds, `pending` is what the iLO took",
        )
        .error(
            Kind::Unsupported,
            "the server cannot boot from there, or its boot order lists no such device",
        )
        .example("ilo.set_boot_device(node, { device = \"disk\" }).persistent   --> disk")
        .run(move |call| {
            let site = always.clone();
            async move {
                let args: SetDevice = call.decode()?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Reply::of(&ilo.set_boot_device(args.device, timeout).await?)
            }
        }),
    );
}

fn modes(registry: &mut Registry, site: &Arc<Site>) {
    let mode = site.clone();
    registry.add(
        setting(
            "set_boot_mode",
            "Makes the server boot by UEFI or BIOS from the next reset on.",
        )
        .required(
            "mode",
            Ty::Enum(&["uefi", "legacy"]),
            "`legacy` is BIOS; reset the server yourself",
        )
        .default("timeout", Ty::Duration, "3m", POST_WAIT)
        .returns(Ty::Record(&BOOT_MODES), "what holds now and what will")
        .error(
            Kind::Unsupported,
            "the server has one mode only (Gen11 and newer: UEFI)",
        )
        .example("ilo.set_boot_mode(node, { mode = \"uefi\" }).pending   --> uefi")
        .run(move |call| {
            let site = mode.clone();
            async move {
                let args: SetMode = call.decode()?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Reply::of(&ilo.set_boot_mode(args.mode, timeout).await?)
            }
        }),
    );
    let secure = site.clone();
    registry.add(
        setting(
            "set_secure_boot",
            "Switches secure boot on or off from the next reset on.",
        )
        .required(
            "enabled",
            Ty::Boolean,
            "whether boots shall be checked. Reset the server yourself: it resets once more on \
             its own then, and a medium armed for one boot is lost on the way",
        )
        .default("timeout", Ty::Duration, "3m", POST_WAIT)
        .returns(Ty::Record(&SECURE_BOOT), "what holds now and what will")
        .error(
            Kind::Unsupported,
            "the server boots BIOS, or the iLO speaks RIBCL only",
        )
        .example("ilo.set_secure_boot(node, { enabled = true }).current   --> false")
        .run(move |call| {
            let site = secure.clone();
            async move {
                let args: SetSecureBoot = call.decode()?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Reply::of(&ilo.set_secure_boot(args.enabled, timeout).await?)
            }
        }),
    );
}
