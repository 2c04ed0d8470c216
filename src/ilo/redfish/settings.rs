//! Settings of the server's firmware that hold from the next reset on: boot order, boot mode,
//! secure boot. What holds now and what will are two resources.

use super::{Redfish, documents, order};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::{Class, Failure};
use crate::ilo::model::{
    BootDevice, BootDevices, BootMode, BootModes, OverrideEnabled, SecureBoot,
};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// The boot order; and that from the next reset on, with where it is changed.
struct BootOrder {
    current: Value,
    pending: Option<(String, Value)>,
}

impl Redfish {
    pub(in crate::ilo) async fn boot_devices(
        &self,
        within: Option<Deadline>,
    ) -> Result<BootDevices> {
        let system = self.get(&self.system, within).await?;
        let next = documents::boot_override(&system);
        if next.enabled == OverrideEnabled::Continuous {
            return Ok(BootDevices {
                next,
                persistent: next.device,
                pending: None,
            });
        }
        let order = self.boot_order(&system, within).await?;
        let persistent = order
            .as_ref()
            .and_then(|order| order::first(&order.current, &order.current));
        let pending = order.as_ref().and_then(|order| {
            let (_, pending) = order.pending.as_ref()?;
            order::first(pending, &order.current)
        });
        Ok(BootDevices {
            next,
            persistent,
            pending: pending.filter(|pending| Some(*pending) != persistent),
        })
    }

    /// By an override that stays, as HPE's own client does; where the iLO has none, by the boot
    /// order.
    pub(in crate::ilo) async fn boot_always(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let place = "/Boot/BootSourceOverrideEnabled@Redfish.AllowableValues";
        let mut listed = documents::texts(&system, place).peekable();
        if listed.peek().is_none() || listed.any(|value| value == "Continuous") {
            match self
                .set_override(&system, device, "Continuous", deadline)
                .await
            {
                Err(failure)
                    if matches!(
                        failure.class(),
                        Some(Class::BadRequest | Class::Unsupported)
                    ) =>
                {
                    tracing::debug!(%failure, "no lasting boot override");
                }
                done => return done,
            }
        }
        let order = self.boot_order(&system, Some(deadline)).await?;
        let Some(BootOrder {
            current,
            pending: Some((path, pending)),
        }) = order
        else {
            let message = "the iLO takes no lasting boot override, and has no UEFI boot order";
            let error = Error::new(Kind::Unsupported, message);
            return Err(Failure::Unable(error.hint("set a one-time boot each time")));
        };
        let Some(names) = order::with_first(&pending, &current, device) else {
            let message = format!("the boot order lists no {}", device.as_redfish());
            let error = Error::new(Kind::Unsupported, message)
                .hint("it lists what the last self test found: let the server boot with it once")
                .detail("boot_sources", order::names(&current));
            return Err(Failure::Unable(error));
        };
        let body = json!({ "PersistentBootConfigOrder": names });
        self.send(Method::PATCH, &path, &body, deadline).await
    }

    /// `None` where the server boots BIOS, for which there is no such resource, and where the
    /// service is no iLO.
    async fn boot_order(
        &self,
        system: &Value,
        within: Option<Deadline>,
    ) -> Result<Option<BootOrder>, Failure> {
        if documents::oem(system, "").is_none() {
            return Ok(None);
        }
        let bios = self.bios(system, within).await?;
        let link = documents::oem_link(&bios, "/Links/Boot");
        let Some(path) = link.or_else(|| documents::link(&bios, "/Boot")) else {
            return Ok(None);
        };
        if documents::boot_mode(&bios, system) == BootMode::Legacy {
            return Ok(None);
        }
        let Some(current) = self.get_if_there(path, within).await? else {
            return Ok(None);
        };
        let pending = match documents::settings(&current) {
            Ok(path) => self.get_if_there(path, within).await?.map(|it| (path, it)),
            Err(_) => None,
        };
        let pending = pending.map(|(path, pending)| (path.to_owned(), pending));
        Ok(Some(BootOrder { current, pending }))
    }

    pub(in crate::ilo) async fn boot_mode(&self) -> Result<BootMode> {
        let system = self.get(&self.system, None).await?;
        let bios = self.bios(&system, None).await?;
        Ok(documents::boot_mode(&bios, &system))
    }

    pub(in crate::ilo) async fn boot_modes(&self, within: Option<Deadline>) -> Result<BootModes> {
        let system = self.get(&self.system, within).await?;
        let bios = self.bios(&system, within).await?;
        let mode = documents::boot_mode(&bios, &system);
        let pending = match documents::attribute(&bios, "BootMode") {
            Some(_) => self.get(documents::settings(&bios)?, within).await?,
            None => Value::Null,
        };
        let pending = documents::boot_mode(&pending, &system);
        let is_other = documents::attribute(&bios, "BootMode").is_some() && pending != mode;
        Ok(BootModes {
            mode,
            pending: is_other.then_some(pending),
        })
    }

    pub(in crate::ilo) async fn change_boot_mode(
        &self,
        mode: BootMode,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let bios = self.bios(&system, Some(deadline)).await?;
        if documents::attribute(&bios, "BootMode").is_none() {
            let only = documents::boot_mode(&bios, &system);
            let message = format!("the server has one boot mode only: {only:?}");
            return Err(Failure::Unable(Error::new(Kind::Unsupported, message)));
        }
        let mut changes = Map::new();
        let name = match mode {
            BootMode::Legacy => "LegacyBios",
            BootMode::Uefi | BootMode::Unknown => "Uefi",
        };
        changes.insert("BootMode".to_owned(), name.into());
        // As HPE's own client does: with it off UEFI firmware boots as BIOS in parts.
        let optimized = "UefiOptimizedBoot";
        if mode == BootMode::Uefi && documents::attribute(&bios, optimized).is_some() {
            changes.insert(optimized.to_owned(), "Enabled".into());
        }
        self.change_bios(&bios, changes, deadline).await
    }

    pub(in crate::ilo) async fn secure_boot(&self, within: Option<Deadline>) -> Result<SecureBoot> {
        let system = self.get(&self.system, within).await?;
        let document = self.get(secure_boot_path(&system)?, within).await?;
        Ok(documents::secure_boot(&document))
    }

    pub(in crate::ilo) async fn change_secure_boot(
        &self,
        enabled: bool,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let path = secure_boot_path(&system).map_err(Failure::Unable)?;
        let body = json!({ "SecureBootEnable": enabled });
        self.send(Method::PATCH, path, &body, deadline).await?;
        if self.generation != 4 {
            return Ok(());
        }
        // Gen9 firmware loses it unless another setting changes too (proliantutils 2.16.3, ris
        // set_secure_boot_mode): a blank at the end of the message that POST shows.
        let name = "CustomPostMessage";
        let bios = self.bios(&system, Some(deadline)).await?;
        let Some(message) = documents::attribute(&bios, name).and_then(Value::as_str) else {
            return Ok(());
        };
        let other = match message.strip_suffix(' ') {
            Some(message) => message.to_owned(),
            None => format!("{message} "),
        };
        let changes = Map::from_iter([(name.to_owned(), other.into())]);
        self.change_bios(&bios, changes, deadline).await
    }

    /// Changes attributes of the BIOS: iLO 4 has them in the resource itself.
    async fn change_bios(
        &self,
        bios: &Value,
        changes: Map<String, Value>,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let body = match bios.get("Attributes") {
            Some(_) => json!({ "Attributes": changes }),
            None => Value::Object(changes),
        };
        let path = documents::settings(bios).map_err(Failure::Unable)?;
        self.send(Method::PATCH, path, &body, deadline).await
    }

    /// The BIOS resource; null if there is none.
    pub(super) async fn bios(
        &self,
        system: &Value,
        within: Option<Deadline>,
    ) -> Result<Value, Failure> {
        let link = documents::link(system, "/Bios");
        let bios = match link.or_else(|| documents::oem_link(system, "/Links/BIOS")) {
            // A server that never finished POST has none.
            Some(path) => self.get_if_there(path, within).await?,
            None => None,
        };
        Ok(bios.unwrap_or_default())
    }

    async fn get_if_there(
        &self,
        path: &str,
        within: Option<Deadline>,
    ) -> Result<Option<Value>, Failure> {
        match self.get(path, within).await {
            Err(failure) if failure.class() == Some(Class::NotFound) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// iLO 4 has it only while the server boots UEFI.
fn secure_boot_path(system: &Value) -> Result<&str> {
    let link = documents::link(system, "/SecureBoot");
    let link = link.or_else(|| documents::oem_link(system, "/Links/SecureBoot"));
    link.ok_or_else(|| {
        let message = "the server has no secure boot";
        Error::new(Kind::Unsupported, message).hint("it is of UEFI: look at the boot mode")
    })
}
