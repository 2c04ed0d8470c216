//! What an iLO tells and takes, parsed once and shared by every dialect.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A protocol that an iLO speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Redfish: iLO 5 and newer, iLO 4 from 2.30.
    Redfish,
    /// HP's REST before Redfish, `/rest/v1`: iLO 4 from 2.00.
    Rest,
    /// XML documents over HTTPS: iLO 3 and 4.
    Ribcl,
}

impl Dialect {
    /// The spelling used in Lua and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Rest => "rest",
            Self::Ribcl => "ribcl",
        }
    }
}

/// Who the server is and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IloInfo {
    /// 5 for iLO 5, and so on; 0 for a Redfish service that is no iLO.
    pub generation: u8,
    /// What we speak with it.
    pub dialect: Dialect,
    /// Firmware of the iLO as it prints it (`2.46`).
    pub firmware: String,
    /// Product name (`ProLiant DL360 Gen10 Plus`).
    pub model: String,
    /// Serial number of the server.
    pub serial: String,
    /// UUID of the server, not of the iLO.
    pub uuid: Option<Uuid>,
    /// Version of the system ROM.
    pub bios_version: String,
    /// Name of the iLO's licence (`iLO Advanced`).
    pub license: String,
    /// Power of the server.
    pub power_state: PowerState,
    /// How far its power-on self test is.
    pub post_state: PostState,
    /// How it boots.
    pub boot_mode: BootMode,
    /// `OK`, `Warning` or `Critical`, with everything below the server counted.
    pub health: String,
    /// Its virtual drives.
    pub media: Vec<VmediaDevice>,
}

/// The iLO's licence, as far as virtual media need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct License {
    /// `iLO Advanced`, `iLO Standard`, …
    pub name: String,
    /// `Perpetual`, `Evaluation`, `Unlicensed`, …; empty if the iLO does not say.
    pub kind: String,
    /// Whether a medium may be inserted by URL.
    pub scripted_media: bool,
}

/// Power of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// On its way to on.
    PoweringOn,
    /// On its way to off.
    PoweringOff,
    /// Being reset.
    Reset,
    /// The iLO cannot tell.
    Unknown,
}

impl PowerState {
    const SPELLINGS: [(Self, &'static str); 6] = [
        (Self::On, "On"),
        (Self::Off, "Off"),
        (Self::PoweringOn, "PoweringOn"),
        (Self::PoweringOff, "PoweringOff"),
        (Self::Reset, "Reset"),
        (Self::Unknown, "Unknown"),
    ];

    /// Redfish's spelling (`PowerState`).
    #[must_use]
    pub fn as_redfish(self) -> &'static str {
        spelling(&Self::SPELLINGS, self).unwrap_or("Unknown")
    }

    /// Reads Redfish's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        spelled(&Self::SPELLINGS, text).unwrap_or(Self::Unknown)
    }

    /// Whether it stays so without anybody acting.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::On | Self::Off)
    }
}

/// What [`set_power`](super::Ilo::set_power) shall reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerTarget {
    /// On.
    On,
    /// Off, by asking the operating system as a short press of the power button does.
    Off,
    /// Off at once, as holding the power button does.
    ForceOff,
    /// Restarted at once, without losing power. The server must be on.
    Reset,
    /// Restarted by the operating system; switched on if it is off.
    Restart,
    /// Without power for some seconds, then on; switched on if it is off.
    ColdBoot,
}

/// How far the power-on self test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostState {
    /// The iLO cannot tell.
    Unknown,
    /// The server is held in reset.
    Reset,
    /// The server is off.
    PowerOff,
    /// The test runs.
    InPost,
    /// Devices are being discovered.
    InPostDiscoveryStart,
    /// Devices are discovered. A server that finds nothing to boot stays here.
    InPostDiscoveryComplete,
    /// The boot loader took over.
    FinishedPost,
}

impl PostState {
    const SPELLINGS: [(Self, &'static str); 7] = [
        (Self::Unknown, "Unknown"),
        (Self::Reset, "Reset"),
        (Self::PowerOff, "PowerOff"),
        (Self::InPost, "InPost"),
        (Self::InPostDiscoveryStart, "InPostDiscoveryStart"),
        (Self::InPostDiscoveryComplete, "InPostDiscoveryComplete"),
        (Self::FinishedPost, "FinishedPost"),
    ];

    /// HPE's spelling (`PostState`).
    #[must_use]
    pub fn as_redfish(self) -> &'static str {
        spelling(&Self::SPELLINGS, self).unwrap_or("Unknown")
    }

    /// Reads HPE's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        spelled(&Self::SPELLINGS, text).unwrap_or(Self::Unknown)
    }

    /// How far it is; `None` if the iLO does not tell. Only a reset takes it back.
    #[must_use]
    pub fn step(self) -> Option<u8> {
        Some(match self {
            Self::Unknown => return None,
            Self::PowerOff => 0,
            Self::Reset => 1,
            Self::InPost => 2,
            Self::InPostDiscoveryStart => 3,
            Self::InPostDiscoveryComplete => 4,
            Self::FinishedPost => 5,
        })
    }

    /// Whether the test runs, or the server waits at its end for something to boot.
    #[must_use]
    pub fn is_in_post(self) -> bool {
        matches!(
            self,
            Self::Reset | Self::InPost | Self::InPostDiscoveryStart | Self::InPostDiscoveryComplete
        )
    }
}

/// How the server starts its boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// UEFI.
    Uefi,
    /// BIOS.
    Legacy,
    /// The iLO does not say.
    Unknown,
}

/// How the server starts its boot loader, now and after the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BootModes {
    /// Now.
    pub mode: BootMode,
    /// From the next reset on, where that is another one.
    pub pending: Option<BootMode>,
}

/// Whether the firmware boots only what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SecureBoot {
    /// Whether the boot that the server is in was checked.
    pub current: bool,
    /// Whether the boots from the next reset on are.
    pub enabled: bool,
}

/// A device that the server can be told to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// CD, the virtual one included.
    Cdrom,
    /// The first disk.
    Disk,
    /// USB, the virtual floppy included.
    Usb,
    /// Network.
    Pxe,
    /// An HTTP URL that the firmware fetches.
    UefiHttp,
    /// The firmware's shell.
    UefiShell,
    /// The firmware's set-up screen.
    BiosSetup,
}

impl BootDevice {
    const SPELLINGS: [(Self, &'static str); 7] = [
        (Self::Cdrom, "Cd"),
        (Self::Disk, "Hdd"),
        (Self::Usb, "Usb"),
        (Self::Pxe, "Pxe"),
        (Self::UefiHttp, "UefiHttp"),
        (Self::UefiShell, "UefiShell"),
        (Self::BiosSetup, "BiosSetup"),
    ];

    /// Redfish's spelling (`BootSourceOverrideTarget`).
    #[must_use]
    pub fn as_redfish(self) -> &'static str {
        spelling(&Self::SPELLINGS, self).unwrap_or("None")
    }

    /// The device of this spelling, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        spelled(&Self::SPELLINGS, text)
    }
}

/// What overrides the boot order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BootOverride {
    /// For how long.
    pub enabled: OverrideEnabled,
    /// Which device; `None` if nothing overrides, or a device that has no name here.
    pub device: Option<BootDevice>,
}

/// What the server boots: the next time, and when nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BootDevices {
    /// What overrides the boot order.
    #[serde(flatten)]
    pub next: BootOverride,
    /// What a boot tries first unless it is overridden for that boot alone; `None` if it has no
    /// name here or the iLO does not tell.
    pub persistent: Option<BootDevice>,
    /// What that is from the next reset on, where it is another one.
    pub pending: Option<BootDevice>,
}

impl BootDevices {
    /// What boots try first from the next reset on.
    #[must_use]
    pub fn lasting(&self) -> Option<BootDevice> {
        self.pending.or(self.persistent)
    }
}

/// For how long a boot override holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideEnabled {
    /// Not at all.
    Disabled,
    /// For the next boot.
    Once,
    /// Until changed.
    Continuous,
}

/// A virtual drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// Floppy or USB key.
    Floppy,
    /// CD or DVD.
    Cdrom,
}

impl Device {
    /// The spelling used in Lua and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Floppy => "floppy",
            Self::Cdrom => "cdrom",
        }
    }
}

/// How a medium got into a virtual drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectedVia {
    /// Not at all.
    NotConnected,
    /// By URL.
    Uri,
    /// By the user of a remote console.
    Applet,
    /// In a way that has no name here.
    Other,
}

/// A virtual drive and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmediaDevice {
    /// Which drive.
    pub device: Device,
    /// Whether a medium is in.
    pub inserted: bool,
    /// How it got there.
    pub connected_via: ConnectedVia,
    /// Where it comes from, without the signature or credentials of the URL.
    pub image: Option<String>,
    /// Whether the server can only read it.
    pub write_protected: bool,
    /// Whether the next reset boots from it; drives that cannot do so have `None`.
    pub boot_on_next_reset: Option<bool>,
}

fn spelling<T: PartialEq + Copy>(table: &[(T, &'static str)], value: T) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| *known == value)
        .map(|(_, text)| *text)
}

fn spelled<T: Copy>(table: &[(T, &'static str)], text: &str) -> Option<T> {
    table
        .iter()
        .find(|(_, known)| *known == text)
        .map(|(value, _)| *value)
}
