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
    /// A console user holds the CD drive.
    CdromHeldByConsole,
    /// Drives offer HPE's own actions only, as those of iLO 5 1.x.
    HpeActionsOnly,
    /// Power actions are accepted and have no effect.
    PowerIgnored,
    /// The first three reads of a resource are answered with 503.
    ReadUnavailable,
    /// Paths without a trailing slash are redirected with 308, as by iLO 5 before 1.40.
    RedirectMissingSlash,
}

/// How often a fault that wears off shows itself.
pub(super) const PASSING: u32 = 3;

impl Fault {
    /// Every fault with its name.
    pub const NAMES: [(Self, &'static str); 9] = [
        (
            Self::InsertNotMounted,
            "ilo.insert=accepted-but-not-mounted",
        ),
        (Self::InsertLicenseRejected, "ilo.insert=license-rejected"),
        (Self::InsertWrongImageUrl, "ilo.insert=wrong-image-url"),
        (Self::InsertBusy, "ilo.insert=busy-x3"),
        (Self::CdromHeldByConsole, "ilo.cdrom=held-by-console"),
        (Self::HpeActionsOnly, "ilo.drive=hpe-actions-only"),
        (Self::PowerIgnored, "ilo.power=ignored"),
        (Self::ReadUnavailable, "ilo.read=503-x3"),
        (
            Self::RedirectMissingSlash,
            "ilo.path=redirect-missing-slash",
        ),
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(fault, _)| fault == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(fault, _)| *fault).ok_or_else(|| {
            let known = Self::NAMES.map(|(_, name)| name).join(", ");
            Error::new(Kind::Invalid, format!("no iLO fault is called {text:?}"))
                .hint(format!("the iLO faults are {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for (fault, name) in Fault::NAMES {
            assert_eq!(name.parse::<Fault>().unwrap(), fault);
            assert_eq!(fault.to_string(), name);
        }
        assert_eq!(
            "ilo.insert=x".parse::<Fault>().unwrap_err().kind(),
            Kind::Invalid
        );
    }
}
