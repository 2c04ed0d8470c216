//! Which certificate of a node's iLO is accepted, and by whose word.

use super::site::{Site, read_text};
use crate::config::DriverInfo;
use crate::error::{Error, Result};
use crate::http::{Trust, tls};
use crate::journal::{Journal, Pin};
use serde::Serialize;

/// By whose word a certificate is an iLO's. The first that there is counts, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustSource {
    /// The configuration pins this one certificate (`ilo_fingerprint`).
    Pinned,
    /// The operator looked at this one certificate (`flowrun node trust`).
    StoredPin,
    /// The configuration takes any (`ilo_insecure`).
    Insecure,
    /// The configuration names who signed it (`ilo_ca_file`).
    Ca,
    /// The operating system knows who signed it.
    System,
}

impl TrustSource {
    /// What counts for this node.
    #[must_use]
    pub fn of(info: &DriverInfo, has_pin: bool) -> Self {
        match info {
            _ if info.ilo_fingerprint.is_some() => Self::Pinned,
            _ if has_pin => Self::StoredPin,
            _ if info.ilo_insecure => Self::Insecure,
            _ if info.ilo_ca_file.is_some() => Self::Ca,
            _ => Self::System,
        }
    }

    /// `pin` is the stored one of the node.
    pub(super) fn trust(self, info: &DriverInfo, pin: Option<&Pin>) -> Result<Trust> {
        match (self, &info.ilo_fingerprint, pin, &info.ilo_ca_file) {
            (Self::Pinned, Some(configured), _, _) => Ok(Trust::Pinned(
                configured
                    .parse()
                    .map_err(|e: Error| e.op("ilo_fingerprint"))?,
            )),
            (Self::StoredPin, _, Some(pin), _) => Ok(Trust::Pinned(pin.fingerprint.parse()?)),
            (Self::Insecure, ..) => Ok(Trust::Insecure),
            (Self::Ca, _, _, Some(path)) => Ok(Trust::Ca(read_text(path)?)),
            _ => Ok(Trust::System),
        }
    }

    /// Says what the operator of `node` can do about a certificate that is not accepted.
    pub(super) fn advise(self, error: Error, node: &str) -> Error {
        if !error.details().contains_key(tls::CERTIFICATE) {
            return error;
        }
        let look = format!("`flowrun node trust {node}` shows it");
        error.advise(match self {
            Self::Pinned => {
                format!("find out why it changed; {look}, ilo_fingerprint of the node pins it")
            }
            Self::StoredPin => format!("find out why it changed; {look} and pins the new one"),
            Self::Ca | Self::System | Self::Insecure => {
                format!("{look} and pins it; or name the CA that signed it as ilo_ca_file")
            }
        })
    }
}

impl Site {
    /// By whose word the certificate of a node's iLO is accepted.
    ///
    /// # Errors
    /// `not_found` if there is no such node.
    pub async fn trust_source(&self, name: &str, journal: &Journal) -> Result<TrustSource> {
        let info = &self.node(name)?.driver_info;
        let pin = journal.pin(name).await?;
        Ok(TrustSource::of(info, pin.is_some()))
    }

    /// What every run has to say of the connection to a node's iLO.
    ///
    /// # Errors
    /// `not_found` if there is no such node.
    pub async fn warnings(&self, name: &str, journal: &Journal) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if self.trust_source(name, journal).await? == TrustSource::Insecure {
            warnings.push(format!(
                "the iLO of {name} is not verified (ilo_insecure): whoever poses as it gets the \
                 password; `flowrun node trust {name}` pins its certificate"
            ));
        }
        if self.node(name)?.driver_info.ilo_legacy_tls {
            warnings.push(format!(
                "the TLS of {name}'s iLO is not secure (ilo_legacy_tls)"
            ));
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn info(more: &str) -> DriverInfo {
        let text = "ilo_address = 'h'\nilo_username = 'u'\nilo_password_file = '/p'\n";
        toml::from_str(&format!("{text}{more}")).unwrap()
    }

    fn shown(trust: Trust) -> String {
        match trust {
            Trust::Pinned(fingerprint) => fingerprint.to_string().to_lowercase().replace(':', ""),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_narrowest_word_counts() {
        let pin = Pin {
            fingerprint: B.to_owned(),
            pinned_ms: 0,
        };
        let all = format!("ilo_fingerprint = '{A}'\nilo_insecure = true\nilo_ca_file = '/ca'\n");
        let insecure = "ilo_insecure = true\nilo_ca_file = '/ca'\n";
        for (config, pin, source, trust) in [
            (all.as_str(), Some(&pin), TrustSource::Pinned, A),
            (insecure, Some(&pin), TrustSource::StoredPin, B),
            (insecure, None, TrustSource::Insecure, "Insecure"),
            ("", Some(&pin), TrustSource::StoredPin, B),
            ("", None, TrustSource::System, "System"),
        ] {
            let info = info(config);
            let found = TrustSource::of(&info, pin.is_some());
            assert_eq!(found, source, "{config}");
            assert_eq!(shown(found.trust(&info, pin).unwrap()), trust, "{config}");
        }
        let info = info("ilo_ca_file = '/nowhere/ca.pem'\n");
        let source = TrustSource::of(&info, false);
        assert_eq!(source, TrustSource::Ca);
        let error = source.trust(&info, None).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "not silently the system's");
    }

    #[test]
    fn a_fingerprint_that_is_none_is_refused() {
        let info = info("ilo_fingerprint = 'sha1'\n");
        let error = TrustSource::Pinned.trust(&info, None).unwrap_err();
        assert_eq!(
            (error.kind(), error.operation()),
            (Kind::Invalid, "ilo_fingerprint")
        );
    }
}
