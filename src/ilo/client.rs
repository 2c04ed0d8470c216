//! One of the dialects, found by what the iLO answers, never by a model's name.

use super::IloOptions;
use super::deadline::Deadline;
use super::detection::Tried;
use super::failure::Failure;
use super::media::Drive;
use super::model::{
    BootDevice, BootDevices, BootMode, BootModes, BootOverride, Device, IloInfo, License,
    PowerTarget, SecureBoot,
};
use super::power::Sample;
use super::redfish::Redfish;
use super::ribcl::Ribcl;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use serde_json::Value;

/// What every dialect can do, one request or a few each. The procedures over it (reading first,
/// waiting for the effect) are in `power`, `media` and `boot`.
#[derive(Debug)]
pub(super) enum Client {
    /// Redfish and its predecessor.
    Redfish(Redfish),
    /// RIBCL.
    Ribcl(Ribcl),
}

/// Sends a call on to the dialect.
macro_rules! each {
    ($self:ident, $client:ident => $call:expr) => {
        match $self {
            Client::Redfish($client) => $call,
            Client::Ribcl($client) => $call,
        }
    };
}

impl Client {
    pub(super) async fn connect(options: IloOptions) -> Result<Self> {
        let mut tried = Tried::default();
        // Firmware with such TLS has RIBCL, and little or nothing of its successors.
        if options.legacy_tls {
            return Ok(Self::Ribcl(Ribcl::connect(options, tried).await?));
        }
        match Redfish::connect(options.clone(), &mut tried).await? {
            Some(redfish) => Ok(Self::Redfish(redfish)),
            None => Ok(Self::Ribcl(Ribcl::connect(options, tried).await?)),
        }
    }

    pub(super) async fn info(&self) -> Result<IloInfo> {
        each!(self, c => c.info().await)
    }

    pub(super) async fn check_vmedia_license(&self) -> Result<License> {
        let license = each!(self, c => c.license().await)?;
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

    /// Reads power and self test: with a few attempts, or until `within` ends.
    pub(super) async fn sample(&self, within: Option<Deadline>) -> Result<Sample> {
        each!(self, c => c.sample(within).await)
    }

    /// Whether there is one action for this.
    pub(super) async fn offers(&self, target: PowerTarget, deadline: Deadline) -> Result<bool> {
        match self {
            Self::Redfish(redfish) => redfish.offers(target, deadline).await,
            Self::Ribcl(_) => Ok(Ribcl::offers(target)),
        }
    }

    /// Acts as if a button were pressed.
    pub(super) async fn press(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        each!(self, c => c.press(target, deadline).await)
    }

    pub(super) async fn boot(&self, within: Option<Deadline>) -> Result<BootOverride> {
        each!(self, c => c.boot(within).await)
    }

    pub(super) async fn boot_once(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        each!(self, c => c.boot_once(device, deadline).await)
    }

    pub(super) async fn boot_devices(&self, within: Option<Deadline>) -> Result<BootDevices> {
        each!(self, c => c.boot_devices(within).await)
    }

    /// Makes `device` the first of every boot.
    pub(super) async fn boot_always(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        each!(self, c => c.boot_always(device, deadline).await)
    }

    /// Whether a boot order that holds from the next reset on can be read before.
    pub(super) fn tells_pending_order(&self) -> bool {
        matches!(self, Self::Redfish(_))
    }

    pub(super) async fn boot_mode(&self) -> Result<BootMode> {
        each!(self, c => c.boot_mode().await)
    }

    pub(super) async fn boot_modes(&self, within: Option<Deadline>) -> Result<BootModes> {
        each!(self, c => c.boot_modes(within).await)
    }

    pub(super) async fn change_boot_mode(
        &self,
        mode: BootMode,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        each!(self, c => c.change_boot_mode(mode, deadline).await)
    }

    pub(super) async fn secure_boot(&self, within: Option<Deadline>) -> Result<SecureBoot> {
        match self {
            Self::Redfish(redfish) => redfish.secure_boot(within).await,
            Self::Ribcl(_) => Err(no_secure_boot()),
        }
    }

    pub(super) async fn change_secure_boot(
        &self,
        enabled: bool,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        match self {
            Self::Redfish(redfish) => redfish.change_secure_boot(enabled, deadline).await,
            Self::Ribcl(_) => Err(Failure::Unable(no_secure_boot())),
        }
    }

    pub(super) fn devices(&self) -> Vec<Device> {
        each!(self, c => c.devices())
    }

    pub(super) async fn drive(&self, device: Device, within: Option<Deadline>) -> Result<Drive> {
        each!(self, c => c.drive(device, within).await)
    }

    pub(super) async fn insert(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        each!(self, c => c.insert(device, url, deadline).await)
    }

    pub(super) async fn take_out(&self, device: Device, deadline: Deadline) -> Result<(), Failure> {
        each!(self, c => c.take_out(device, deadline).await)
    }

    /// A raw request, for what has no primitive.
    pub(super) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        deadline: Deadline,
    ) -> Result<Value> {
        match self {
            Self::Redfish(redfish) => redfish.request(method, path, body, deadline).await,
            Self::Ribcl(_) => {
                let message = "this iLO has neither Redfish nor REST";
                Err(Error::new(Kind::Unsupported, message))
            }
        }
    }

    /// A RIBCL script, also of an iLO that is spoken to in another dialect: `options` lead to it.
    pub(super) async fn ribcl(
        &self,
        options: &IloOptions,
        block: &Secret,
        deadline: Deadline,
    ) -> Result<Value> {
        match self {
            Self::Ribcl(ribcl) => ribcl.run(block, deadline).await,
            Self::Redfish(_) => {
                let beside = Ribcl::beside(options.clone())?;
                beside.run(block, deadline).await
            }
        }
    }

    /// Where the open session lies; RIBCL has none.
    pub(super) async fn session_path(&self) -> Option<String> {
        match self {
            Self::Redfish(redfish) => redfish.session_path().await,
            Self::Ribcl(_) => None,
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        match self {
            Self::Redfish(redfish) => redfish.close().await,
            Self::Ribcl(_) => Ok(()),
        }
    }
}

fn no_secure_boot() -> Error {
    Error::new(Kind::Unsupported, "RIBCL knows no secure boot")
        .hint("it came with the UEFI of Gen9 servers, whose iLO has REST")
}
