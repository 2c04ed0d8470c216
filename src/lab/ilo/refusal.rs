//! Why a machine does not do what it is asked for. Each protocol says it in its own words.

/// A reason to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The power state does not allow the action.
    WrongPower,
    /// The action is for servers that are off.
    NotOff,
    /// This setting cannot be changed while the power-on self test runs.
    InPost(&'static str),
    /// The licence does not cover media by URL.
    NotLicensed,
    /// The drive is busy.
    Busy,
    /// There is a medium in the drive already.
    DriveTaken,
    /// A console user's medium is in the drive.
    DriveHeld,
    /// There is no medium in the drive.
    DriveEmpty,
    /// Not a URL that the iLO reads.
    BadUrl(String),
    /// The server cannot boot from there, or the setting has no such value.
    NotInList {
        /// What was asked for.
        value: String,
        /// Of which setting.
        name: &'static str,
    },
    /// No such setting, or one that only the iLO changes.
    NotWritable(String),
    /// Neither firmware nor server has it.
    Unsupported,
    /// For servers that boot UEFI.
    NotInLegacyMode,
}
