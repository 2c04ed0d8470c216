//! iLO 5 and newer: Redfish with HPE's extensions, resources found by links.

mod boot;
mod documents;
mod failure;
mod media;
mod message;
mod power;
mod transport;

use super::IloOptions;
use super::deadline::Deadline;
use super::mask;
use super::model::{BootMode, Device, Dialect, IloInfo, License, PostState, PowerState};
use crate::error::{Error, Kind, Result};
use failure::Failure;
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;
use transport::Transport;

/// A logged-in iLO and where its resources are.
#[derive(Debug)]
pub(super) struct Redfish {
    transport: Transport,
    generation: u8,
    firmware: String,
    /// The one server that it manages.
    system: String,
    manager: String,
    drives: Vec<(Device, String)>,
}

impl Redfish {
    pub(super) async fn connect(options: IloOptions) -> Result<Self> {
        let transport = Transport::new(options)?;
        let root = transport
            .service_root()
            .await
            .map_err(not_found_means_old)?;
        let (generation, firmware) = documents::generation(&root)?;
        if let Some(sessions) = documents::link(&root, "/Links/Sessions") {
            transport.create_sessions_at(sessions).await;
        }
        let mut redfish = Self {
            transport,
            generation,
            firmware,
            system: String::new(),
            manager: String::new(),
            drives: Vec::new(),
        };
        if let Err(error) = redfish.discover(&root).await {
            // The first error counts; the iLO drops the session when it idles.
            drop(redfish.close().await);
            return Err(error);
        }
        Ok(redfish)
    }

    async fn discover(&mut self, root: &Value) -> Result<()> {
        let systems = documents::required_link(root, "/Systems")?;
        self.system = self.only_member(&systems).await?;
        let system = self.transport.get(&self.system).await?;
        self.manager = match documents::link(&system, "/Links/ManagedBy/0") {
            Some(manager) => manager.to_owned(),
            None => {
                let managers = documents::required_link(root, "/Managers")?;
                self.only_member(&managers).await?
            }
        };
        let manager = self.transport.get(&self.manager).await?;
        let media = documents::required_link(&manager, "/VirtualMedia")?;
        let media = self.transport.get(&media).await?;
        for path in documents::members(&media) {
            if let Some(drive) = documents::Drive::parse(&self.transport.get(path).await?) {
                self.drives.push((drive.device, path.to_owned()));
            }
        }
        Ok(())
    }

    async fn only_member(&self, path: &str) -> Result<String> {
        let collection = self.transport.get(path).await?;
        let first = documents::members(&collection).next().map(str::to_owned);
        first.ok_or_else(|| Error::new(Kind::Protocol, format!("the iLO's {path} is empty")))
    }

    pub(super) async fn info(&self) -> Result<IloInfo> {
        let system = self.system().await?;
        let license = self.license().await?;
        let boot_mode = self.boot_mode_of(&system).await?;
        let field = |pointer| documents::text(&system, pointer).to_owned();
        Ok(IloInfo {
            generation: self.generation,
            dialect: Dialect::Redfish,
            firmware: self.firmware.clone(),
            model: field("/Model"),
            serial: field("/SerialNumber"),
            uuid: documents::uuid(&system),
            bios_version: field("/BiosVersion"),
            license: license.name,
            power_state: documents::power_state(&system),
            post_state: documents::post_state(&system),
            boot_mode,
            health: documents::health(&system),
            media: self.vmedia_status().await?,
        })
    }

    pub(super) async fn check_vmedia_license(&self) -> Result<License> {
        let license = self.license().await?;
        if license.scripted_media {
            return Ok(license);
        }
        let message = format!(
            "the licence {:?} does not cover scripted virtual media",
            license.name
        );
        Err(Error::new(Kind::Unsupported, message)
            .hint("install an iLO Advanced licence")
            .detail("license", license.name))
    }

    async fn license(&self) -> Result<License> {
        let manager = self.transport.get(&self.manager).await?;
        let service = documents::required_link(&manager, "/Oem/Hpe/Links/LicenseService")?;
        let license = self.only_member(&service).await?;
        Ok(documents::license(&self.transport.get(&license).await?))
    }

    pub(super) async fn power_state(&self) -> Result<PowerState> {
        Ok(documents::power_state(&self.system().await?))
    }

    pub(super) async fn post_state(&self) -> Result<PostState> {
        Ok(documents::post_state(&self.system().await?))
    }

    pub(super) async fn boot_mode(&self) -> Result<BootMode> {
        self.boot_mode_of(&self.system().await?).await
    }

    async fn boot_mode_of(&self, system: &Value) -> Result<BootMode> {
        let bios = match documents::link(system, "/Bios") {
            Some(path) => self.transport.get(path).await,
            None => Ok(Value::Null),
        };
        let bios = match bios {
            // A server that never finished POST has none.
            Err(failure) if failure.class() == Some(message::Class::NotFound) => Value::Null,
            other => other?,
        };
        Ok(documents::boot_mode(&bios, system))
    }

    pub(super) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        deadline: Deadline,
    ) -> Result<Value> {
        let sendable = [
            Method::GET,
            Method::POST,
            Method::PATCH,
            Method::PUT,
            Method::DELETE,
        ];
        let method = sendable
            .into_iter()
            .find(|m| m.as_str() == method)
            .ok_or_else(|| {
                let message = format!("{method:?} is not GET, POST, PATCH, PUT or DELETE");
                Error::new(Kind::Invalid, message)
            })?;
        let printable = path.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if !path.starts_with('/') || !printable {
            return Err(Error::new(
                Kind::Invalid,
                format!("{path:?} is not a path on the iLO"),
            ));
        }
        let mut answer = match method {
            Method::GET => self.transport.get_until(path, deadline).await?,
            _ => self.transport.write(&method, path, body, deadline).await?,
        };
        mask::json(&mut answer);
        Ok(answer)
    }

    pub(super) async fn session_path(&self) -> Option<String> {
        self.transport.session_path().await
    }

    pub(super) async fn close(&self) -> Result<()> {
        Ok(self.transport.log_out().await?)
    }

    async fn system(&self) -> Result<Value> {
        Ok(self.transport.get(&self.system).await?)
    }
}

/// An iLO without Redfish is older than iLO 4 2.30.
fn not_found_means_old(failure: Failure) -> Error {
    match failure.class() {
        Some(message::Class::NotFound) => Error::new(
            Kind::Unsupported,
            "there is no Redfish service: not an iLO 5 or newer",
        ),
        _ => failure.into(),
    }
}

/// Pauses between looks at something that is about to change.
const POLL: crate::backoff::Backoff = crate::backoff::Backoff {
    times: u32::MAX,
    delay: Duration::from_millis(200),
    factor: 1.4,
    max: Duration::from_secs(2),
};
