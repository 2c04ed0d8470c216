//! The resources and where they are. Paths are compared without case and without a slash at the
//! end, and iLO 4 has them below `/rest/v1` as well.

use super::super::generation::Traits;
use crate::ilo::model::Device;

/// What can be read, changed or acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Versions,
    Root,
    SessionService,
    Sessions,
    Session(String),
    Systems,
    System,
    Bios,
    BiosSettings,
    BootOrder,
    BootOrderSettings,
    SecureBoot,
    Managers,
    Manager,
    Licenses,
    License,
    Media,
    Drive(Device),
}

pub(super) const ROOT: &str = "/redfish/v1";
pub(super) const REST_ROOT: &str = "/rest/v1";

impl Resource {
    /// What is at a path that begins with [`ROOT`] or [`REST_ROOT`].
    pub(super) fn at(path: &str, traits: &Traits) -> Option<Self> {
        let plain = path.trim_end_matches('/');
        if plain.eq_ignore_ascii_case("/redfish") {
            return Some(Self::Versions);
        }
        let below = |root: &str| {
            let (head, tail) = plain.split_at_checked(root.len())?;
            head.eq_ignore_ascii_case(root).then_some(tail)
        };
        let tail = below(ROOT).or_else(|| below(REST_ROOT))?;
        let lower = tail.to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("/systems/1/bios") {
            let order = traits.boot_order_path;
            return match rest {
                "" => Some(Self::Bios),
                "/settings" => Some(Self::BiosSettings),
                _ if rest == order => Some(Self::BootOrder),
                _ if rest.strip_prefix(order) == Some("/settings") => Some(Self::BootOrderSettings),
                _ => None,
            };
        }
        Some(match lower.as_str() {
            "" => Self::Root,
            "/sessionservice" => Self::SessionService,
            "/sessionservice/sessions" | "/sessions" => Self::Sessions,
            "/systems" => Self::Systems,
            "/systems/1" => Self::System,
            "/systems/1/secureboot" => Self::SecureBoot,
            "/managers" => Self::Managers,
            "/managers/1" => Self::Manager,
            "/managers/1/licenseservice" => Self::Licenses,
            "/managers/1/licenseservice/1" => Self::License,
            "/managers/1/virtualmedia" => Self::Media,
            "/managers/1/virtualmedia/1" => Self::Drive(Device::Floppy),
            "/managers/1/virtualmedia/2" => Self::Drive(Device::Cdrom),
            _ => {
                // The names of sessions have a case.
                let name = tail.get("/sessionservice/sessions/".len()..);
                return lower
                    .strip_prefix("/sessionservice/sessions/")
                    .and(name)
                    .map(|name| Self::Session(name.to_owned()));
            }
        })
    }

    /// Whether it is shown to who has not logged in.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Versions | Self::Root)
    }

    /// The methods that it takes.
    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Self::Sessions => "GET, HEAD, POST",
            Self::Session(_) => "GET, HEAD, DELETE",
            Self::System | Self::Drive(_) | Self::Manager => "GET, HEAD, POST, PATCH",
            Self::BiosSettings | Self::BootOrderSettings | Self::SecureBoot => "GET, HEAD, PATCH",
            _ => "GET, HEAD",
        }
    }
}
