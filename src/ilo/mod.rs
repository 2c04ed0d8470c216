//! The iLO client: one handle per iLO, one method per primitive.
//!
//! A method names what failed (`ilo.attach_vmedia`) and on which iLO. Changing methods take turns,
//! wait until the iLO shows what they asked for, and give up at their timeout; reading methods
//! bring back what the iLO says now. Requests to one iLO never overlap. A call that reaches its
//! timeout takes a last look, and cleans up what it began: it may end some seconds later.
//!
//! Which dialect an iLO speaks is found out by asking it: Redfish, HP's REST, what it tells
//! everybody, RIBCL, in this order.
//! The procedures (`power`, `media`, `boot`) are the same for all of them.

mod address;
mod boot;
mod client;
mod deadline;
mod detection;
mod failure;
pub(crate) mod mask;
mod media;
pub mod model;
mod power;
mod redfish;
mod ribcl;

use crate::error::{Error, Kind, Result};
use crate::http::{Certificate, Trust};
use crate::secret::Secret;
use address::Address;
use client::Client;
use deadline::Deadline;
use model::{
    BootDevice, BootDevices, BootMode, BootModes, BootOverride, Device, IloInfo, License,
    PostState, PowerState, PowerTarget, SecureBoot, VmediaDevice,
};
use serde_json::Value;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Mutex;

/// How to reach an iLO.
#[derive(Debug, Clone)]
pub struct IloOptions {
    /// `https://host[:port]`.
    pub base_url: String,
    /// User name of the iLO account.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Whose certificates are accepted; iLOs come with a self-signed one.
    pub trust: Trust,
    /// Speaks RIBCL over the TLS of old firmware, which only builds with the feature `legacy-tls`
    /// have.
    pub legacy_tls: bool,
    /// Longest wait for the answer to one request.
    pub timeout: Duration,
}

/// The certificate that the iLO at `base_url` shows to anybody, for an operator to compare and
/// pin.
///
/// # Errors
/// `invalid` for a base URL that is not `https://host[:port]`, `unreachable`, `timeout`, or
/// `unsupported` if no TLS version is shared, or `legacy_tls` is asked of a build without it.
pub async fn certificate(
    base_url: &str,
    legacy_tls: bool,
    timeout: Duration,
) -> Result<Certificate> {
    let op = "ilo.certificate";
    let Address {
        host,
        port,
        authority,
    } = Address::parse(base_url).map_err(|e| e.op(op))?;
    let shown = match legacy_tls {
        false => Certificate::shown_by(&host, port, timeout).await,
        true => Certificate::shown_in_legacy_tls(&host, port, timeout).await,
    };
    shown.map_err(|e| advise(e).op(op).target(authority))
}

/// Says what cures an iLO whose TLS is too old.
fn advise(error: Error) -> Error {
    match error.details().get("tls") {
        Some(_) => error.hint(
            "update the iLO's firmware: iLO 4 speaks TLS 1.2 in 2.50 and later; until then set \
             driver_info.ilo_legacy_tls, with a flowrun built with the feature legacy-tls",
        ),
        None => error,
    }
}

/// A connected iLO with an open session. [`close`](Self::close) it: sessions are few.
#[derive(Debug)]
pub struct Ilo {
    host: String,
    options: IloOptions,
    client: Client,
    /// Held by the method that changes something.
    turn: Mutex<()>,
}

impl Ilo {
    /// Logs in and finds the iLO's resources.
    ///
    /// # Errors
    /// `invalid` for a base URL that is not `https://host[:port]`, `unreachable` and `timeout` if
    /// nobody answers, `auth` for wrong credentials or an untrusted certificate, `unsupported` if
    /// it is not an iLO or its TLS is too old, `limit` if no session is free.
    pub async fn connect(options: IloOptions) -> Result<Self> {
        let op = "ilo.connect";
        let host = Address::parse(&options.base_url)
            .map_err(|e| e.op(op))?
            .authority;
        match Client::connect(options.clone()).await {
            Ok(client) => Ok(Self {
                host,
                options,
                client,
                turn: Mutex::new(()),
            }),
            Err(error) => Err(advise(error).op(op).target(host)),
        }
    }

    /// The iLO's address: host, and port unless it is 443.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Reads who the server is and how it does.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn info(&self) -> Result<IloInfo> {
        self.read("ilo.info", self.client.info()).await
    }

    /// Checks that a medium may be inserted by URL.
    ///
    /// # Errors
    /// `unsupported`, naming the licence, if it may not.
    pub async fn check_vmedia_license(&self) -> Result<License> {
        self.read(
            "ilo.check_vmedia_license",
            self.client.check_vmedia_license(),
        )
        .await
    }

    /// Reads the power state.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn power_state(&self) -> Result<PowerState> {
        let sample = self.read("ilo.power_state", self.client.sample(None));
        Ok(sample.await?.power)
    }

    /// Brings the server's power to `target` and waits until the iLO shows it. Does nothing if it
    /// is there already; [`PowerTarget::Reset`], [`PowerTarget::Restart`] and
    /// [`PowerTarget::ColdBoot`] always act. They are over when the iLO showed that the server
    /// restarted (power away, or a self test that began anew) and shows it on: POST has only begun
    /// then. RIBCL does not tell the self test: there the iLO's yes has to do. What the firmware
    /// has no action for is done in two: off, as gently as asked for, and on. A server that is off
    /// is switched on by the latter two.
    ///
    /// # Errors
    /// `conflict` for the reset of a server that is off, `timeout`, `unsupported` if the firmware
    /// does not offer it, `in_doubt` if the answer to a restart was lost and nothing showed it.
    pub async fn set_power(&self, target: PowerTarget, timeout: Duration) -> Result<PowerState> {
        let deadline = Deadline::after(timeout);
        let change = self.client.set_power(target, deadline);
        self.change("ilo.set_power", deadline, change).await
    }

    /// Reads the virtual drives.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn vmedia_status(&self) -> Result<Vec<VmediaDevice>> {
        self.read("ilo.vmedia_status", self.client.vmedia_status())
            .await
    }

    /// Inserts the medium at `url` and waits until the iLO shows it as connected. What was in the
    /// drive is ejected first. If it does not work out, the drive is left empty.
    ///
    /// # Errors
    /// `unsupported` without a licence, `conflict` if a console user holds the drive or another
    /// image shows up, `timeout` if the iLO accepts the URL but never connects the medium.
    pub async fn attach_vmedia(
        &self,
        device: Device,
        url: &Secret,
        timeout: Duration,
    ) -> Result<VmediaDevice> {
        let deadline = Deadline::after(timeout);
        let change = self.client.attach(device, url, deadline);
        self.change("ilo.attach_vmedia", deadline, change).await
    }

    /// Ejects what is in the drive and waits until the iLO shows it empty. An empty drive is a
    /// success.
    ///
    /// # Errors
    /// `conflict` if a console user holds the drive, `timeout`.
    pub async fn eject_vmedia(&self, device: Device, timeout: Duration) -> Result<VmediaDevice> {
        let deadline = Deadline::after(timeout);
        let change = self.client.eject(device, deadline);
        self.change("ilo.eject_vmedia", deadline, change).await
    }

    /// Makes the next boot come from `device` and reads it back. While the server is in POST the
    /// iLO refuses; this waits for the end of it.
    ///
    /// # Errors
    /// `unsupported` if the server cannot boot from there, `conflict` if POST outlasts `timeout`,
    /// `timeout` if the iLO accepts the setting but does not show it.
    pub async fn set_one_time_boot(
        &self,
        device: BootDevice,
        timeout: Duration,
    ) -> Result<BootOverride> {
        let deadline = Deadline::after(timeout);
        let change = self.client.set_one_time_boot(device, deadline);
        self.change("ilo.set_one_time_boot", deadline, change).await
    }

    /// Reads what overrides the boot order, and what it tries first.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn boot_device(&self) -> Result<BootDevices> {
        self.read("ilo.boot_device", self.client.boot_devices(None))
            .await
    }

    /// Makes every boot try `device` first, and reads it back: by a boot override that stays, else
    /// by the firmware's boot order, which changes at the next reset; `pending` says so. An
    /// override takes the place of a one-time boot. RIBCL shows an order when it holds: `pending`
    /// is what the iLO took.
    ///
    /// # Errors
    /// `unsupported` if the server cannot boot from there or its boot order does not list it,
    /// `conflict` if POST outlasts `timeout`, `timeout` if the iLO accepts the setting but does
    /// not show it.
    pub async fn set_boot_device(
        &self,
        device: BootDevice,
        timeout: Duration,
    ) -> Result<BootDevices> {
        let deadline = Deadline::after(timeout);
        let change = self.client.set_boot_device(device, deadline);
        self.change("ilo.set_boot_device", deadline, change).await
    }

    /// Reads whether the server boots UEFI or BIOS.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn boot_mode(&self) -> Result<BootMode> {
        self.read("ilo.boot_mode", self.client.boot_mode()).await
    }

    /// Makes the server boot UEFI or BIOS from the next reset on, and reads that back.
    ///
    /// # Errors
    /// `unsupported` if the server has one mode only, `conflict` if POST outlasts `timeout`,
    /// `timeout` if the iLO accepts the setting but does not show it.
    pub async fn set_boot_mode(&self, mode: BootMode, timeout: Duration) -> Result<BootModes> {
        let deadline = Deadline::after(timeout);
        let change = self.client.set_boot_mode(mode, deadline);
        self.change("ilo.set_boot_mode", deadline, change).await
    }

    /// Reads whether the firmware boots only what is signed.
    ///
    /// # Errors
    /// `unsupported` if server or dialect know no secure boot.
    pub async fn secure_boot(&self) -> Result<SecureBoot> {
        self.read("ilo.secure_boot", self.client.secure_boot(None))
            .await
    }

    /// Switches secure boot from the next reset on, and reads that back. At that reset the server
    /// resets once more by itself, and a medium armed for one boot is lost.
    ///
    /// # Errors
    /// `unsupported` if server or dialect know no secure boot, or the server boots BIOS;
    /// `conflict` if POST outlasts `timeout`, `timeout` if the iLO accepts the setting but does
    /// not show it.
    pub async fn set_secure_boot(&self, enabled: bool, timeout: Duration) -> Result<SecureBoot> {
        let deadline = Deadline::after(timeout);
        let change = self.client.set_secure_boot(enabled, deadline);
        self.change("ilo.set_secure_boot", deadline, change).await
    }

    /// Reads how far the power-on self test is.
    ///
    /// # Errors
    /// What the iLO says, or `unreachable`.
    pub async fn post_state(&self) -> Result<PostState> {
        let sample = self.read("ilo.post_state", self.client.sample(None));
        Ok(sample.await?.post)
    }

    /// Sends a request of the caller's and brings back the answer, credentials and signatures
    /// masked. For what has no method here.
    ///
    /// # Errors
    /// `invalid` for a method or path that cannot be sent; otherwise what the iLO says.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Value> {
        let deadline = Deadline::after(timeout);
        let change = self.client.request(method, path, body, deadline);
        self.change("ilo.request", deadline, change).await
    }

    /// Runs a block of RIBCL commands of the caller's (`<SERVER_INFO MODE="read">…</SERVER_INFO>`)
    /// and brings back the elements of the answer, credentials and signatures masked. A block that
    /// writes is not sent again when its answer is lost.
    ///
    /// # Errors
    /// `invalid` for what is no block, `unsupported` if the iLO has no RIBCL or not this command;
    /// otherwise what the iLO says.
    pub async fn ribcl(&self, block: &Secret, timeout: Duration) -> Result<Value> {
        let deadline = Deadline::after(timeout);
        let change = self.client.ribcl(&self.options, block, deadline);
        self.change("ilo.ribcl", deadline, change).await
    }

    /// Deletes the session. Does nothing if none is open; a later call opens a new one.
    ///
    /// # Errors
    /// `unreachable` if the iLO could not be told; it drops idle sessions by itself.
    pub async fn close(&self) -> Result<()> {
        self.read("ilo.close", self.client.close()).await
    }

    /// Where the open session lies, so that a successor of a process that died can delete it.
    pub async fn session_path(&self) -> Option<String> {
        self.client.session_path().await
    }

    async fn read<T>(&self, op: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        call.await.map_err(|e| e.op(op).target(self.host.as_str()))
    }

    /// Waits for its turn before it lets `change` begin.
    async fn change<T>(
        &self,
        op: &str,
        deadline: Deadline,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let in_turn = async {
            let turn = deadline.bound(self.turn.lock()).await;
            let _turn = turn.ok_or_else(|| {
                let message = "another call did not end its change of this iLO in time";
                Error::new(Kind::Timeout, message).retryable(true)
            })?;
            change.await
        };
        self.read(op, in_turn).await
    }
}
