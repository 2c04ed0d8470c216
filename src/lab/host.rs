//! The seam between a simulated iLO and the machine it powers.

use crate::error::Result;
use crate::ilo::model::BootMode;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// What runs on a node's processor. The iLO powers it on by polling the future that [`boot`]
/// returns, and cuts its power by dropping that future, wherever it is.
///
/// [`boot`]: Host::boot
pub trait Host: Send + Sync + fmt::Debug {
    /// Runs from the choice of the boot device until the machine reboots or stops by itself.
    /// `started` is called when the firmware is through with POST and starts what is there.
    fn boot(&self, request: BootRequest, started: Started) -> BoxFuture<'static, BootOutcome>;
}

/// Tells the iLO that POST is finished.
pub type Started = Box<dyn FnOnce() + Send>;

/// What the firmware is to boot, and what it will find.
#[derive(Debug, Clone)]
pub struct BootRequest {
    /// Counts the boots of this machine since the lab began, from 1.
    pub number: u64,
    /// Which device the firmware tries.
    pub source: BootSource,
    /// How it starts what is on the device.
    pub mode: BootMode,
    /// The virtual CD, if one is inserted.
    pub cdrom: Option<Arc<dyn Medium>>,
    /// The virtual floppy or USB key, if one is inserted.
    pub floppy: Option<Arc<dyn Medium>>,
}

/// The device that the firmware starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootSource {
    /// The virtual CD.
    Cdrom,
    /// The first disk.
    Disk,
}

/// How a boot ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootOutcome {
    /// The system asked for a warm restart.
    Reboot,
    /// The system switched the machine off.
    PowerOff,
    /// Nothing bootable was found; the machine sits at its boot prompt, powered.
    NoBootDevice,
    /// An operating system runs; the machine stays up.
    Running,
}

/// A medium that the iLO reads on demand from its URL and shows to the host as a drive.
pub trait Medium: Send + Sync + fmt::Debug {
    /// Size of the medium in bytes.
    fn size_bytes(&self) -> u64;
    /// Reads up to `length` bytes from `offset`; shorter only at the end of the medium.
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>>;
}
