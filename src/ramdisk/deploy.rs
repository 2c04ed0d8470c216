//! From the parameters to the reboot.

use super::callback::Callback;
use super::done::DonePort;
use super::parameters::Parameters;
use crate::error::{Error, Kind, Result};
use crate::iscsi::Chap;
use crate::iscsi::target::{BlockDevice, InitiatorRule, Target, TargetOptions};
use crate::secret::Secret;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Port of the iSCSI target.
pub const ISCSI_PORT: u16 = 3260;

/// Port on which the deployer says that the disk is written.
pub const DONE_PORT: u16 = 10000;

/// Where the ramdisk tells what it does.
pub trait Log: Send + Sync + fmt::Debug {
    /// Takes one line, without secrets.
    fn line(&self, text: &str);

    /// Gives the lines away that were not given away before, oldest first, to be sent to the
    /// deployer. A log that is read where it is written has none.
    fn take(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The line as a console can show it: whatever would move its cursor is a space.
#[must_use]
pub fn printable(line: &str) -> String {
    let shown = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.collect()
}

/// A log that goes to the program's own.
#[derive(Debug)]
struct Trace;

impl Log for Trace {
    fn line(&self, text: &str) {
        tracing::info!("{text}");
    }
}

/// What a deployment is run with.
pub struct DeployOptions {
    /// What the deployer said.
    pub parameters: Parameters,
    /// Sent as `X-Auth-Token` with the callback.
    pub token: Option<Secret>,
    /// The only authority whose certificates the callback trusts; absent: the system's.
    pub ca_pem: Option<String>,
    /// What is exported.
    pub disk: Arc<dyn BlockDevice>,
    /// The node's address; everything listens on it alone.
    pub address: IpAddr,
    /// Port of the iSCSI target.
    pub iscsi_port: u16,
    /// Port on which `done` arrives.
    pub done_port: u16,
    /// How long the deployer may take to accept the callback.
    pub callback_deadline: Duration,
    /// How long the disk may be written.
    pub done_deadline: Duration,
    /// Where progress is told.
    pub log: Arc<dyn Log>,
    /// What the deployment took of the machine, asked for when the disk is written.
    pub usage: Usage,
}

/// Says in a line what was used; empty if it is not known.
pub type Usage = Arc<dyn Fn() -> String + Send + Sync>;

impl DeployOptions {
    /// With the standard ports, half an hour for the callback and six hours for the disk.
    pub fn new(parameters: Parameters, disk: Arc<dyn BlockDevice>, address: IpAddr) -> Self {
        Self {
            parameters,
            token: None,
            ca_pem: None,
            disk,
            address,
            iscsi_port: ISCSI_PORT,
            done_port: DONE_PORT,
            callback_deadline: Duration::from_secs(30 * 60),
            done_deadline: Duration::from_secs(6 * 60 * 60),
            log: Arc::new(Trace),
            usage: Arc::new(String::new),
        }
    }
}

impl fmt::Debug for DeployOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployOptions")
            .field("parameters", &self.parameters)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How a deployment ends when it ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployEnd {
    /// The disk is written: the node has to be rebooted.
    Reboot,
}

/// Whom to tell, and by which address the node is reached.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the deployer said.
    pub parameters: Parameters,
    /// Sent as `X-Auth-Token`.
    pub token: Option<Secret>,
    /// The only authority whose certificates are trusted; absent: the system's.
    pub ca_pem: Option<String>,
    /// The node's address.
    pub address: IpAddr,
}

impl Caller {
    /// Tells the deployer why there is no disk to be written. That it cannot be told is only
    /// logged.
    pub async fn report(self, failure: &Error, log: &Arc<dyn Log>) {
        let told = match Callback::new(self, Arc::clone(log)) {
            Ok(callback) => callback.report(failure).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            log.line(&format!("not reported: {error}"));
        }
    }
}

/// Exports the disk, calls the deployer and waits until it is done. Dropping the future closes
/// every port at once.
///
/// A failure is reported to the deployer too, unless it is the deployer that cannot be reached.
///
/// # Errors
/// `io` if a port or the disk fails; `timeout` if the deployer does not accept the callback or
/// never says that it is done; what its answer stands for if it refuses the callback.
pub async fn run(options: DeployOptions) -> Result<DeployEnd> {
    let caller = Caller {
        parameters: options.parameters.clone(),
        token: options.token.clone(),
        ca_pem: options.ca_pem.clone(),
        address: options.address,
    };
    let callback = Callback::new(caller, Arc::clone(&options.log))?;
    let work = async {
        let export = export(&options).await?;
        if let Err(unheard) = callback.deliver("", options.callback_deadline).await {
            return Ok(Err(unheard));
        }
        export.finish(&options).await.map(Ok)
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = callback.send_log() => Ok(Err(Error::new(Kind::Internal, "the log ended"))),
    };
    let failure = match outcome {
        Ok(end) => {
            callback.send_log_once().await;
            return end.map(|()| DeployEnd::Reboot);
        }
        Err(failure) => failure,
    };
    options.log.line(&format!("failed: {failure}"));
    if let Err(error) = callback.report(&failure).await {
        options.log.line(&format!("not reported: {error}"));
    }
    Err(failure)
}

/// The disk, for whom it is meant, and the port for the word that ends it.
#[derive(Debug)]
struct Export {
    target: Target,
    done: DonePort,
}

/// Opens both ports: the deployer may use them from the moment it is called.
async fn export(options: &DeployOptions) -> Result<Export> {
    let done = DonePort::bind(SocketAddr::new(options.address, options.done_port)).await?;
    let address = SocketAddr::new(options.address, options.iscsi_port);
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Error::new(Kind::Io, format!("cannot listen: {e}"))
            .op("ramdisk.export")
            .target(address.to_string())
    })?;
    let parameters = &options.parameters;
    let name = &parameters.iscsi_target_iqn;
    // LUN 1: tgt reserves 0 for its controller, and deployers rely on it.
    let target = Target::start(TargetOptions {
        initiator: parameters.initiator.as_deref().map(InitiatorRule::new),
        chap: parameters.chap.as_ref().map(|chap| Chap {
            user: chap.user.clone(),
            secret: chap.secret.clone(),
            mutual: None,
        }),
        ..TargetOptions::new(name, listener, Arc::clone(&options.disk))
    })?;
    let whom = parameters.initiator.as_deref().unwrap_or("anybody");
    options
        .log
        .line(&format!("{name} on {address} exports the disk to {whom}"));
    Ok(Export { target, done })
}

impl Export {
    async fn finish(self, options: &DeployOptions) -> Result<()> {
        let port = self.done.address()?;
        options
            .log
            .line(&format!("until the disk is written, waiting on {port}"));
        let waited = tokio::time::timeout(options.done_deadline, self.done.wait()).await;
        let (peer, said) = waited.map_err(|_| {
            let seconds = options.done_deadline.as_secs();
            let message = format!("nobody said done within {seconds} seconds");
            Error::new(Kind::Timeout, message).op("ramdisk.done")
        })??;
        options.log.line(&format!("{peer} said {said:?}"));
        let stats = self.target.stats();
        self.target.stop().await?;
        options.log.line(&format!(
            "target stopped and disk flushed: {} logins, {} bytes written, {} zeroed, {} hashed, {} read",
            stats.logins,
            stats.bytes_written,
            stats.bytes_zeroed,
            stats.bytes_hashed,
            stats.bytes_read
        ));
        let usage = (options.usage)();
        if !usage.is_empty() {
            options.log.line(&usage);
        }
        Ok(())
    }
}
