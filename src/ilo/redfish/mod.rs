//! Redfish, and HP's REST from before it: resources found by links.
//!
//! iLO 5 and newer have Redfish with HPE's extensions, iLO 4 from 2.30 Redfish 1.0 with HP's, iLO
//! 4 from 2.00 `/rest/v1`, whose documents are [rewritten](rest) as they are read. A service that
//! is no iLO is driven by the standard alone, as far as that goes.

mod actions;
mod body;
#[cfg(test)]
#[path = "captures_tests.rs"]
mod captures;
mod documents;
mod message;
mod order;
mod rest;
mod settings;
mod transport;

use super::IloOptions;
use super::deadline::Deadline;
use super::detection::Tried;
use super::failure::Failure;
use super::mask;
use super::model::{Device, Dialect, IloInfo, License};
use crate::error::{Error, Kind, Result};
use reqwest::Method;
use serde_json::{Value, json};
use transport::Transport;

/// A logged-in iLO and where its resources are.
#[derive(Debug)]
pub(super) struct Redfish {
    transport: Transport,
    dialect: Dialect,
    generation: u8,
    firmware: String,
    /// The one server that it manages.
    system: String,
    manager: String,
    drives: Vec<(Device, String)>,
}

impl Redfish {
    /// Looks for a service root; `None`, and why, if there is none.
    pub(super) async fn connect(options: IloOptions, tried: &mut Tried) -> Result<Option<Self>> {
        let transport = Transport::new(options)?;
        for (dialect, path) in [
            (Dialect::Redfish, "/redfish/v1/"),
            (Dialect::Rest, "/rest/v1"),
        ] {
            let request = format!("GET {path}");
            let root = match transport.service_root(path).await {
                Ok(root) => rest::as_redfish(dialect, root),
                Err(failure) => {
                    tried.note_failure(&request, failure)?;
                    continue;
                }
            };
            if documents::link(&root, "/Systems").is_none() {
                tried.note(&request, "no service root");
                continue;
            }
            return Self::at(transport, dialect, root).await.map(Some);
        }
        Ok(None)
    }

    async fn at(transport: Transport, dialect: Dialect, root: Value) -> Result<Self> {
        let (generation, firmware) = documents::generation(&root).unwrap_or_default();
        // iLO 4 has it beside the other resources.
        let sessions = documents::link(&root, "/Links/Sessions");
        if let Some(sessions) = sessions.or_else(|| documents::link(&root, "/Sessions")) {
            transport.create_sessions_at(sessions).await;
        }
        let mut redfish = Self {
            transport,
            dialect,
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
        let system = self.get(&self.system, None).await?;
        self.manager = match documents::link(&system, "/Links/ManagedBy/0") {
            Some(manager) => manager.to_owned(),
            None => {
                let managers = documents::required_link(root, "/Managers")?;
                self.only_member(&managers).await?
            }
        };
        let manager = self.get(&self.manager, None).await?;
        if self.firmware.is_empty() {
            documents::text(&manager, "/FirmwareVersion").clone_into(&mut self.firmware);
        }
        let media = match documents::link(&manager, "/VirtualMedia") {
            Some(media) => media.to_owned(),
            // Where newer standards and other makers have it.
            None => documents::required_link(&system, "/VirtualMedia")?,
        };
        let media = self.get(&media, None).await?;
        for path in documents::members(&media) {
            if let Some(drive) = documents::drive(&self.get(path, None).await?) {
                self.drives.push((drive.device, path.to_owned()));
            }
        }
        Ok(())
    }

    /// Reads a resource, in the words of Redfish: with a few attempts, or until `within` ends.
    async fn get(&self, path: &str, within: Option<Deadline>) -> Result<Value, Failure> {
        let document = match within {
            Some(deadline) => self.transport.get_until(path, deadline).await?,
            None => self.transport.get(path).await?,
        };
        Ok(rest::as_redfish(self.dialect, document))
    }

    async fn only_member(&self, path: &str) -> Result<String> {
        let collection = self.get(path, None).await?;
        let first = documents::members(&collection).next().map(str::to_owned);
        first.ok_or_else(|| Error::new(Kind::Protocol, format!("the iLO's {path} is empty")))
    }

    pub(super) async fn info(&self) -> Result<IloInfo> {
        let system = self.get(&self.system, None).await?;
        let mut media = Vec::new();
        for device in self.devices() {
            media.push((&self.drive(device, None).await?).into());
        }
        let license = self.license().await?;
        let bios = self.bios(&system, None).await?;
        let field = |pointer| documents::text(&system, pointer).to_owned();
        Ok(IloInfo {
            generation: self.generation,
            dialect: self.dialect,
            firmware: self.firmware.clone(),
            model: field("/Model"),
            serial: field("/SerialNumber"),
            uuid: documents::uuid(&system),
            bios_version: field("/BiosVersion"),
            license: license.name,
            power_state: documents::power_state(&system),
            post_state: documents::post_state(&system),
            boot_mode: documents::boot_mode(&bios, &system),
            health: documents::health(&system),
            media,
        })
    }

    pub(super) async fn license(&self) -> Result<License> {
        let manager = self.get(&self.manager, None).await?;
        let Some(service) = documents::oem_link(&manager, "/Links/LicenseService") else {
            return Ok(documents::license_of_manager(&manager));
        };
        let license = self.only_member(service).await?;
        Ok(documents::license(&self.get(&license, None).await?))
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
        // An action without parameters needs an empty object: no body at all is refused.
        let empty = json!({});
        let takes_body = matches!(method, Method::POST | Method::PATCH | Method::PUT);
        let body = body.or_else(|| takes_body.then_some(&empty));
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
}
