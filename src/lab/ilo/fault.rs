//! What a simulated iLO can be told to do wrong.

use crate::error::{Error, Kind};
use std::fmt;
use std::str::FromStr;

/// A misbehaviour, switched on by its name (`ilo.insert=accepted-but-not-mounted`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Inserts are accepted, but no medium ever connects.
    InsertNotMounted,
    /// Inserts are refused for the licence although the licence document allows them.
    InsertLicenseRejected,
    /// Inserted drives show another URL than the one asked for.
    InsertWrongImageUrl,
    /// The first three inserts are answered with `DeviceIsBusy`.
    InsertBusy,
    /// Images connect some seconds after they were inserted.
    InsertSlow,
    /// A console user holds the CD drive.
    CdromHeldByConsole,
    /// Drives offer HPE's own actions only, as those of iLO 5 1.x.
    HpeActionsOnly,
    /// Drives offer no actions: `Image` is patched, as on iLO 4 before 2.30.
    DrivePatchOnly,
    /// Media are ejected at every second reset, not only those armed for one boot.
    MediaLostAtSecondReset,
    /// The licence is iLO Standard.
    LicenseStandard,
    /// Power actions are accepted and have no effect.
    PowerIgnored,
    /// The first power-on is accepted and has no effect.
    PowerFirstIgnored,
    /// After a power action the old state is shown for some reads.
    PowerShownLate,
    /// The first reads of the power say that it is unknown.
    PowerUnknownFirst,
    /// Boot overrides are refused: this firmware has none.
    BootUnsupported,
    /// Every power-on self test resets the server once more.
    PostResetsTwice,
    /// Boot overrides are accepted and not kept.
    BootNotKept,
    /// Boot overrides hold for one boot only: `Continuous` is refused.
    BootContinuousRefused,
    /// A changed secure boot setting is lost unless a BIOS setting is changed as well.
    SecureBootLost,
    /// The first three reads of a resource are answered with 503.
    ReadUnavailable,
    /// The first three answers to reads end in the middle.
    ReadCut,
    /// Answers are packed although nobody asked for it, and do not say so.
    EncodingUnasked,
    /// Whoever names an encoding is refused with 406.
    EncodingRefused,
    /// Paths without a trailing slash are redirected with 308, as by iLO 5 before 1.40.
    RedirectMissingSlash,
    /// All sessions are taken by others.
    SessionsTaken,
    /// Sessions end after a few requests.
    SessionsExpire,
    /// The account may look, and change nothing.
    PrivilegesMissing,
    /// A right login takes a while.
    LoginSlow,
    /// The first login is refused although it is right, as just after a reset of the iLO.
    LoginFirstRefused,
    /// iLO 4 before 2.30: REST, but no Redfish.
    NoRedfish,
    /// `/xmldata` is switched off.
    NoXmlData,
    /// RIBCL is switched off.
    RibclDisabled,
    /// Another application has the database open for writing, three times.
    RibclDatabaseOpen,
    /// RIBCL documents are malformed as those of old firmware.
    RibclMalformed,
    /// `&` in RIBCL is a character as any other, in image URLs as in passwords.
    RibclRawEntities,
    /// The first three RIBCL answers end in the middle.
    RibclCut,
}

/// A fault with what there is to know about it.
#[derive(Debug, Clone, Copy)]
pub struct FaultInfo {
    /// Which one.
    pub fault: Fault,
    /// How it is switched on.
    pub name: &'static str,
    /// What the iLO does then.
    pub what: &'static str,
    /// Who saw it.
    pub source: &'static str,
}

const fn info(
    fault: Fault,
    name: &'static str,
    what: &'static str,
    source: &'static str,
) -> FaultInfo {
    FaultInfo {
        fault,
        name,
        what,
        source,
    }
}

/// How often a fault that wears off shows itself.
pub(super) const PASSING: u32 = 3;

impl Fault {
    /// How often it shows itself, if it wears off.
    pub(super) fn times(self) -> u32 {
        match self {
            Self::LoginFirstRefused | Self::PowerFirstIgnored => 1,
            _ => PASSING,
        }
    }

    /// Every fault.
    pub const ALL: &'static [FaultInfo] = &[
        info(
            Self::InsertNotMounted,
            "ilo.insert=accepted-but-not-mounted",
            "inserts are accepted, but no medium ever connects",
            "python-redfish-utility issue 2",
        ),
        info(
            Self::InsertLicenseRejected,
            "ilo.insert=license-rejected",
            "inserts are refused for the licence although the licence document allows them",
            "iLO registry, LicenseKeyRequired",
        ),
        info(
            Self::InsertWrongImageUrl,
            "ilo.insert=wrong-image-url",
            "inserted drives show another URL than the one asked for",
            "practice: two clients share one drive",
        ),
        info(
            Self::InsertBusy,
            "ilo.insert=busy-x3",
            "the first three inserts are refused because the device is busy",
            "iLO registry, DeviceIsBusy",
        ),
        info(
            Self::InsertSlow,
            "ilo.insert=slow",
            "media connect two seconds after the insert was accepted",
            "practice: up to 10 s",
        ),
        info(
            Self::CdromHeldByConsole,
            "ilo.cdrom=held-by-console",
            "a console user holds the CD drive (ConnectedVia Applet, VM_APPLET CONNECTED)",
            "Redfish schema VirtualMedia; iLO scripting guide, GET_VM_STATUS",
        ),
        info(
            Self::HpeActionsOnly,
            "ilo.drive=hpe-actions-only",
            "drives offer HPE's own actions only, as those of iLO 5 1.x",
            "proliantutils 2.16.3, VirtualMedia v1_0_0",
        ),
        info(
            Self::DrivePatchOnly,
            "ilo.drive=patch-only",
            "drives offer no actions: Image is patched, as on iLO 4 before 2.30",
            "ilorest 7.4.0, virtualmedia command",
        ),
        info(
            Self::MediaLostAtSecondReset,
            "ilo.media=lost-at-second-reset",
            "every second reset ejects all media, not only those armed for one boot",
            "HPE redfishdocs, BootOnNextServerReset",
        ),
        info(
            Self::LicenseStandard,
            "ilo.license=standard",
            "the licence is iLO Standard, which has no media by URL",
            "HPE licence documents, LicenseFeatures.VMScript",
        ),
        info(
            Self::PowerIgnored,
            "ilo.power=ignored",
            "power actions are accepted and have no effect",
            "OpenStack ironic, ilo power driver",
        ),
        info(
            Self::PowerFirstIgnored,
            "ilo.power=first-on-ignored",
            "the first power-on is accepted and has no effect, as on blades",
            "OpenStack ironic, ilo power driver: repeated after 7 s",
        ),
        info(
            Self::PowerShownLate,
            "ilo.power=shown-late",
            "the old power state is shown three times after a power action",
            "sushy-tools and iLO 4: the state is sampled",
        ),
        info(
            Self::PowerUnknownFirst,
            "ilo.power=unknown-first",
            "the power state is unknown to the first three reads",
            "Redfish schema: PowerState null while the iLO starts",
        ),
        info(
            Self::PostResetsTwice,
            "ilo.post=resets-twice",
            "every self test resets the server once more, as after a change of secure boot",
            "HPE redfishdocs, SecureBoot",
        ),
        info(
            Self::BootNotKept,
            "ilo.boot=not-kept",
            "boot overrides are accepted and not kept",
            "practice: settings in NVRAM fail",
        ),
        info(
            Self::BootContinuousRefused,
            "ilo.boot=continuous-refused",
            "boot overrides hold for one boot only: Continuous is refused",
            "OpenStack ironic, redfish management: falls back to Once",
        ),
        info(
            Self::BootUnsupported,
            "ilo.boot=unsupported",
            "boot overrides are refused: neither firmware nor server has them",
            "iLO registry, UnsupportedOperation; RIBCL status 0x003C (python-hpilo)",
        ),
        info(
            Self::SecureBootLost,
            "ilo.secure-boot=lost",
            "a changed secure boot setting is lost unless a BIOS setting is changed with it",
            "proliantutils 2.16.3, ris set_secure_boot_mode",
        ),
        info(
            Self::ReadUnavailable,
            "ilo.read=503-x3",
            "the first three reads of a resource are answered with 503",
            "proliantutils 2.16.3, HPEConnector",
        ),
        info(
            Self::ReadCut,
            "ilo.read=cut-x3",
            "the first three answers to reads end in the middle",
            "proliantutils 2.16.3, HPEConnector: connection errors are retried",
        ),
        info(
            Self::EncodingUnasked,
            "ilo.encoding=gzip-unasked",
            "answers are packed by gzip although nobody asked for it, without Content-Encoding",
            "proliantutils 2.16.3, ris: resources may return gzipped content",
        ),
        info(
            Self::EncodingRefused,
            "ilo.encoding=refused",
            "requests with Accept-Encoding are refused with 406, of whatever encoding",
            "sushy, connector: Gen10 Plus and Accept-Encoding: identity",
        ),
        info(
            Self::RedirectMissingSlash,
            "ilo.path=redirect-missing-slash",
            "paths without a trailing slash are redirected with 308",
            "HPE redfishdocs, changelog of iLO 5 1.40",
        ),
        info(
            Self::SessionsTaken,
            "ilo.sessions=taken",
            "all sessions are taken by others; Basic authentication works",
            "iLO registry, SessionLimitExceeded",
        ),
        info(
            Self::SessionsExpire,
            "ilo.sessions=expire",
            "sessions end after eight requests",
            "HPE redfishdocs: sessions idle out, an iLO reset ends them",
        ),
        info(
            Self::PrivilegesMissing,
            "ilo.account=no-privileges",
            "the account may log in and look, and change nothing",
            "Base registry, InsufficientPrivilege; iLO scripting guide, RESET_SERVER_PRIV",
        ),
        info(
            Self::LoginSlow,
            "ilo.login=slow",
            "a right login takes two seconds",
            "practice: iLO 4 and 5 under load, or with a directory service",
        ),
        info(
            Self::LoginFirstRefused,
            "ilo.login=first-refused",
            "the first login is refused although it is right, as just after a reset of the iLO",
            "proliantutils 2.16.3, reset_ilo",
        ),
        info(
            Self::NoRedfish,
            "ilo.redfish=absent",
            "iLO 4 before 2.30: REST, but no Redfish",
            "HPE ilo-rest-api-docs, iLO 4",
        ),
        info(
            Self::NoXmlData,
            "ilo.xmldata=off",
            "/xmldata is switched off",
            "iLO 4 user guide, anonymous data",
        ),
        info(
            Self::RibclDisabled,
            "ilo.ribcl=disabled",
            "RIBCL is switched off",
            "OpenStack ironic: \"RIBCLI is disabled.\"",
        ),
        info(
            Self::RibclDatabaseOpen,
            "ilo.ribcl=database-open-x3",
            "three times another application has the database open for writing",
            "iLO scripting guide, USER_INFO and RIB_INFO",
        ),
        info(
            Self::RibclMalformed,
            "ilo.ribcl=malformed",
            "documents begin with <RIBCL/> and hold control bytes and stray quotes",
            "python-hpilo 4.4.3, _parse_message",
        ),
        info(
            Self::RibclRawEntities,
            "ilo.ribcl=raw-entities",
            "entities are neither read nor written, in image URLs as in passwords",
            "python-hpilo 4.4.3: passwords are sent without escapes",
        ),
        info(
            Self::RibclCut,
            "ilo.ribcl=cut-x3",
            "the first three answers end in the middle",
            "python-hpilo 4.4.3: truncated answers",
        ),
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|info| info.fault == *self);
        f.write_str(named.map_or("", |info| info.name))
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::ALL.iter().find(|info| info.name == text);
        named.map(|info| info.fault).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|info| info.name).collect();
            Error::new(Kind::Invalid, format!("no iLO fault is called {text:?}"))
                .hint(format!("the iLO faults are {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for info in Fault::ALL {
            assert_eq!(info.name.parse::<Fault>().unwrap(), info.fault);
            assert_eq!(info.fault.to_string(), info.name);
        }
        assert_eq!(
            "ilo.insert=x".parse::<Fault>().unwrap_err().kind(),
            Kind::Invalid
        );
    }
}
