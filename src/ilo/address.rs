//! Where an iLO is.

use crate::error::{Error, Kind, Result};
use reqwest::Url;

/// `https://host[:port]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Name or address, IPv6 without brackets.
    pub(super) host: String,
    /// Port of the web server, which serves every dialect.
    pub(super) port: u16,
    /// As in a URL: IPv6 in brackets, the port unless it is 443.
    pub(super) authority: String,
}

impl Address {
    /// # Errors
    /// `invalid` if it is anything else: a path, credentials or plain HTTP have no place in it.
    pub(super) fn parse(base_url: &str) -> Result<Self> {
        let url = Url::parse(base_url)
            .ok()
            .filter(|url| {
                url.scheme() == "https"
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.path() == "/"
                    && url.query().is_none()
                    && url.fragment().is_none()
            })
            .ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    "the iLO's address is not of the form https://host[:port]",
                )
            })?;
        let host = url.host_str().unwrap_or_default();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(443),
            authority: match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_host_over_https() {
        for (given, host, port, authority) in [
            ("https://10.0.0.5", "10.0.0.5", 443, "10.0.0.5"),
            (
                "https://ilo.example:8443/",
                "ilo.example",
                8443,
                "ilo.example:8443",
            ),
            ("https://[fe80::1]:443", "fe80::1", 443, "[fe80::1]"),
        ] {
            let address = Address::parse(given).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.authority, authority);
        }
        for given in [
            "http://h",
            "h",
            "https://u:p@h",
            "https://h/redfish",
            "https://h/?a",
            "https://",
        ] {
            let error = Address::parse(given).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{given}");
        }
    }
}
