//! RIBCL, the XML that iLO 3 and 4 speak: one command a request, one request a connection.
//!
//! It knows no POST state and no secure boot, and shows a boot order only when it holds. Insert
//! alone does not attach a medium; the drive is told to connect it, and shows both.

mod boot;
#[cfg(test)]
#[path = "captures_tests.rs"]
mod captures;
mod document;
mod http;
mod raw;
mod request;
mod status;
mod transport;
mod xmldata;

use super::IloOptions;
use super::deadline::Deadline;
use super::detection::Tried;
use super::failure::{Class, Failure};
use super::media::Drive;
use super::model::{
    ConnectedVia, Device, Dialect, IloInfo, License, PostState, PowerState, PowerTarget,
    VmediaDevice,
};
use super::power::Sample;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use document::{Answer, Element};
use request::{Block, Command};
use transport::Transport;
use xmldata::Shown;

/// The oldest iLO that speaks RIBCL over HTTP.
const OLDEST: u8 = 3;

/// An iLO that takes our account.
#[derive(Debug)]
pub(super) struct Ribcl {
    transport: Transport,
    generation: u8,
    firmware: String,
    /// As the firmware's own answer names it.
    license: String,
}

impl Ribcl {
    /// The RIBCL of an iLO that is spoken to in another dialect.
    pub(super) fn beside(options: IloOptions) -> Result<Self> {
        Ok(Self {
            transport: Transport::new(options)?,
            generation: 0,
            firmware: String::new(),
            license: String::new(),
        })
    }

    /// Asks for what everybody may know, then logs in.
    pub(super) async fn connect(options: IloOptions, mut tried: Tried) -> Result<Self> {
        let transport = Transport::new(options)?;
        let known = transport.shown(&mut tried).await;
        let known = known.filter(|known| known.generation().is_some());
        if let Some(known) = &known
            && known.generation() < Some(OLDEST)
        {
            let message = format!("{known} is not supported");
            return Err(Error::new(Kind::Unsupported, message).hint("iLO 3 is the oldest that is"));
        }
        let ask = Command::look(Block::Rib, "GET_FW_VERSION");
        let answer = match transport.call(&ask, None).await {
            // Something else, or nothing, at RIBCL's place.
            Err(Failure::Broken(error) | Failure::Unable(error))
                if matches!(error.kind(), Kind::Protocol | Kind::Unsupported) =>
            {
                if let Some(known) = known {
                    return Err(no_dialect(&known).cause(error.to_string()));
                }
                tried.note("POST /ribcl", error.message());
                return Err(tried.not_an_ilo());
            }
            answer => answer?,
        };
        let version = shown(&answer, "GET_FW_VERSION")?;
        let processor = version.attribute("MANAGEMENT_PROCESSOR");
        Ok(Self {
            generation: processor
                .trim_start_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap_or_default(),
            firmware: version.attribute("FIRMWARE_VERSION").to_owned(),
            license: version.attribute("LICENSE_TYPE").to_owned(),
            transport,
        })
    }

    pub(super) async fn info(&self) -> Result<IloInfo> {
        let Sample { power, post } = self.sample(None).await?;
        // It can be switched off.
        let public = self.transport.shown(&mut Tried::default()).await;
        let product = self.look(Block::Server, "GET_PRODUCT_NAME", None).await?;
        let health = self
            .look(Block::Server, "GET_EMBEDDED_HEALTH", None)
            .await?;
        let mut media = Vec::new();
        for device in self.devices() {
            media.push(VmediaDevice::from(&self.drive(device, None).await?));
        }
        Ok(IloInfo {
            generation: self.generation,
            dialect: Dialect::Ribcl,
            firmware: self.firmware.clone(),
            model: shown(&product, "PRODUCT_NAME")?
                .attribute("VALUE")
                .to_owned(),
            uuid: public.as_ref().and_then(|page| page.uuid.parse().ok()),
            serial: public.map(|page| page.serial).unwrap_or_default(),
            bios_version: system_rom(&health),
            license: self.license().await?.name,
            power_state: power,
            post_state: post,
            boot_mode: self.boot_mode().await?,
            health: worst(&health),
            media,
        })
    }

    pub(super) async fn license(&self) -> Result<License> {
        let name = match self.look(Block::Rib, "GET_ALL_LICENSES", None).await {
            Ok(answer) => {
                let named = answer.element("LICENSE_TYPE");
                named.map_or_else(|| self.license.clone(), |e| e.attribute("VALUE").to_owned())
            }
            Err(failure) if failure.class() == Some(Class::Unsupported) => self.license.clone(),
            Err(failure) => return Err(failure.into()),
        };
        let covers = ["Advanced", "Scale-Out", "Essentials"];
        Ok(License {
            scripted_media: covers.iter().any(|tier| name.contains(tier)),
            kind: String::new(),
            name,
        })
    }

    pub(super) async fn sample(&self, within: Option<Deadline>) -> Result<Sample> {
        let answer = self
            .look(Block::Server, "GET_HOST_POWER_STATUS", within)
            .await?;
        // It answers under another name.
        let state = shown(&answer, "GET_HOST_POWER")?.attribute("HOST_POWER");
        let power = match state.to_ascii_uppercase().as_str() {
            "ON" => PowerState::On,
            "OFF" => PowerState::Off,
            _ => PowerState::Unknown,
        };
        let post = match power {
            PowerState::Off => PostState::PowerOff,
            _ => PostState::Unknown,
        };
        Ok(Sample { power, post })
    }

    /// There is no graceful restart.
    pub(super) fn offers(target: PowerTarget) -> bool {
        target != PowerTarget::Restart
    }

    pub(super) async fn press(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let (name, attributes): (_, &[(&str, &str)]) = match target {
            PowerTarget::On => ("SET_HOST_POWER", &[("HOST_POWER", "Yes")]),
            PowerTarget::Off => ("PRESS_PWR_BTN", &[]),
            PowerTarget::ForceOff => ("HOLD_PWR_BTN", &[("TOGGLE", "No")]),
            PowerTarget::Reset => ("RESET_SERVER", &[]),
            PowerTarget::ColdBoot => ("COLD_BOOT_SERVER", &[]),
            PowerTarget::Restart => {
                let error = Error::new(Kind::Unsupported, "RIBCL has no graceful restart");
                return Err(Failure::Unable(error));
            }
        };
        self.write(
            Command::with(Block::Server, true, name, attributes),
            deadline,
        )
        .await
    }

    pub(super) fn devices(&self) -> Vec<Device> {
        vec![Device::Floppy, Device::Cdrom]
    }

    pub(super) async fn drive(&self, device: Device, within: Option<Deadline>) -> Result<Drive> {
        let attributes = [("DEVICE", name(device))];
        let command = Command::with(Block::Rib, false, "GET_VM_STATUS", &attributes)?;
        let answer = self.transport.call(&command, within).await?;
        Ok(drive(device, shown(&answer, "GET_VM_STATUS")?))
    }

    pub(super) async fn insert(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let attributes = [("DEVICE", name(device)), ("IMAGE_URL", url.expose())];
        let insert = Command::with(Block::Rib, true, "INSERT_VIRTUAL_MEDIA", &attributes);
        self.write(insert, deadline).await?;
        let options = [("VM_BOOT_OPTION", "CONNECT"), ("VM_WRITE_PROTECT", "YES")];
        let drive = [("DEVICE", name(device))];
        let connect = Command::nested(Block::Rib, true, "SET_VM_STATUS", &drive, &options);
        let connected = self.write(connect, deadline).await;
        if connected.is_err() {
            // The failure counts; an image that is not connected is of no use.
            drop(self.take_out(device, deadline).await);
        }
        connected
    }

    pub(super) async fn take_out(&self, device: Device, deadline: Deadline) -> Result<(), Failure> {
        let attributes = [("DEVICE", name(device))];
        let command = Command::with(Block::Rib, true, "EJECT_VIRTUAL_MEDIA", &attributes);
        self.write(command, deadline).await
    }

    async fn look(
        &self,
        block: Block,
        name: &'static str,
        within: Option<Deadline>,
    ) -> Result<Answer, Failure> {
        self.transport
            .call(&Command::look(block, name), within)
            .await
    }

    async fn write(&self, command: Result<Command>, deadline: Deadline) -> Result<(), Failure> {
        let command = command.map_err(Failure::Unable)?;
        let answer = self.transport.call(&command, Some(deadline)).await?;
        tracing::debug!(ilo = ?self.transport, command.name, said = answer.message);
        Ok(())
    }
}

/// An iLO that keeps silent in every dialect.
fn no_dialect(known: &Shown) -> Error {
    let message = format!("{known} answers with neither Redfish, REST nor RIBCL");
    let hint = "switch RIBCL on in the iLO's access settings, or update its firmware";
    Error::new(Kind::Unsupported, message).hint(hint)
}

/// The element that carries what was asked for.
fn shown<'a>(answer: &'a Answer, name: &str) -> Result<&'a Element> {
    answer.element(name).ok_or_else(|| {
        let message = format!("the iLO's answer has no {name}");
        Error::new(Kind::Protocol, message)
    })
}

fn name(device: Device) -> &'static str {
    match device {
        Device::Floppy => "FLOPPY",
        Device::Cdrom => "CDROM",
    }
}

fn drive(device: Device, status: &Element) -> Drive {
    let yes = |name| status.attribute(name).eq_ignore_ascii_case("YES");
    let url = status.attribute("IMAGE_URL");
    let inserted = yes("IMAGE_INSERTED");
    Drive {
        device,
        inserted,
        connected_via: match (
            status.attribute("VM_APPLET"),
            status.attribute("BOOT_OPTION"),
        ) {
            ("CONNECTED", _) => ConnectedVia::Applet,
            (_, "BOOT_ALWAYS" | "BOOT_ONCE" | "CONNECT") if inserted => ConnectedVia::Uri,
            _ => ConnectedVia::NotConnected,
        },
        image: (!url.is_empty()).then(|| Secret::new(url)),
        write_protected: yes("WRITE_PROTECT"),
        boot_on_next_reset: None,
    }
}

/// The worst state of the health summary.
fn worst(health: &Answer) -> String {
    let states = health
        .below("HEALTH_AT_A_GLANCE")
        .map(|e| e.attribute("STATUS"));
    let weight = |state: &str| match state.to_ascii_lowercase().as_str() {
        "" | "not installed" | "n/a" => 0,
        "ok" | "redundant" => 1,
        "failed" | "critical" => 3,
        _ => 2,
    };
    match states.map(weight).max().unwrap_or(0) {
        0 => "Unknown",
        1 => "OK",
        2 => "Warning",
        _ => "Critical",
    }
    .to_owned()
}

fn system_rom(health: &Answer) -> String {
    let mut firmware = health.below("FIRMWARE_INFORMATION");
    let rom = firmware
        .find(|e| e.name == "FIRMWARE_NAME" && e.attribute("VALUE").ends_with("System ROM"));
    let version = rom.and_then(|_| firmware.find(|e| e.name == "FIRMWARE_VERSION"));
    version
        .map(|e| e.attribute("VALUE").to_owned())
        .unwrap_or_default()
}
