//! How the node gets onto its network, as the parameters say it.

use super::parameters::word;
use crate::error::{Error, Kind, Result};
use std::net::IpAddr;

/// Modes of a bond, by number (Linux, Documentation/networking/bonding.rst).
const BOND_MODES: [&str; 7] = [
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];

/// The network; without any of it, DHCP on the interface of `BOOTIF`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addressing {
    /// `ip_address=192.0.2.10/24`; absent: DHCP.
    pub address: Option<(IpAddr, u8)>,
    /// `gateway=192.0.2.1`
    pub gateway: Option<IpAddr>,
    /// `nameservers=192.0.2.53,192.0.2.54`
    pub nameservers: Vec<IpAddr>,
    /// `vlan=100`
    pub vlan: Option<u16>,
    /// `bond=aa:bb:cc:dd:ee:01,aa:bb:cc:dd:ee:02`: MAC addresses in upper case.
    pub bond: Vec<String>,
    /// `bond_mode=active-backup`, by number.
    pub bond_mode: u8,
    /// `mtu=9000`
    pub mtu: Option<u32>,
}

impl Addressing {
    /// Reads what there is of it.
    ///
    /// # Errors
    /// `invalid` for a value that cannot be.
    pub fn parse(text: &str) -> Result<Self> {
        let address = value(text, "ip_address", |value| {
            let (address, prefix) = value.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            Some((
                address,
                prefix.parse().ok().filter(|prefix| *prefix <= most)?,
            ))
        })?;
        let list = |value: &str| -> Option<Vec<IpAddr>> {
            value
                .split(',')
                .map(|address| address.parse().ok())
                .collect()
        };
        let bond = value(text, "bond", |value| value.split(',').map(mac).collect())?;
        let mode = value(text, "bond_mode", |value| {
            let place = BOND_MODES.iter().position(|mode| *mode == value)?;
            u8::try_from(place).ok()
        })?;
        let addressing = Self {
            address,
            gateway: value(text, "gateway", |value| value.parse().ok())?,
            nameservers: value(text, "nameservers", list)?.unwrap_or_default(),
            vlan: value(text, "vlan", |value| {
                value.parse().ok().filter(|id| (1..=4094).contains(id))
            })?,
            bond: bond.unwrap_or_default(),
            bond_mode: mode.unwrap_or(1),
            mtu: value(text, "mtu", |value| {
                value
                    .parse()
                    .ok()
                    .filter(|mtu| (576..=65_535).contains(mtu))
            })?,
        };
        match (addressing.gateway, addressing.address) {
            (Some(_), None) => Err(Error::new(Kind::Invalid, "gateway without ip_address")),
            (Some(gateway), Some((address, _))) if gateway.is_ipv4() != address.is_ipv4() => Err(
                Error::new(Kind::Invalid, "gateway and ip_address are of two kinds"),
            ),
            _ => Ok(addressing),
        }
    }
}

fn value<T>(text: &str, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(value) = word(text, name) else {
        return Ok(None);
    };
    match read(value) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::new(Kind::Invalid, format!("{name} is {value:?}"))),
    }
}

fn mac(text: &str) -> Option<String> {
    let mut parts = text.split(':');
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let right = parts.by_ref().take(6).filter(|part| is_byte(part)).count() == 6;
    (right && parts.next().is_none()).then(|| text.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dhcp_is_what_nothing_means() {
        let addressing = Addressing::parse("deployment_id=x BOOTIF=y").unwrap();
        assert_eq!(
            addressing,
            Addressing {
                bond_mode: 1,
                ..Addressing::default()
            }
        );
    }

    #[test]
    fn everything_is_taken() {
        let addressing = Addressing::parse(
            "ip_address=192.0.2.10/24\ngateway=192.0.2.1\nnameservers=192.0.2.53,2001:db8::1\n\
             vlan=100\nbond=aa:bb:cc:dd:ee:01,AA:bb:cc:dd:ee:02\nbond_mode=802.3ad\nmtu=9000",
        );
        let addressing = addressing.unwrap();
        assert_eq!(addressing.address, Some(([192, 0, 2, 10].into(), 24)));
        assert_eq!(addressing.gateway, Some([192, 0, 2, 1].into()));
        assert_eq!(addressing.nameservers.len(), 2);
        assert_eq!((addressing.vlan, addressing.mtu), (Some(100), Some(9000)));
        assert_eq!(addressing.bond, ["AA:BB:CC:DD:EE:01", "AA:BB:CC:DD:EE:02"]);
        assert_eq!(addressing.bond_mode, 4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("ip_address=192.0.2.10", "ip_address is"),
            ("ip_address=192.0.2.10/33", "ip_address is"),
            ("gateway=192.0.2.1", "without ip_address"),
            ("ip_address=192.0.2.10/24 gateway=::1", "of two kinds"),
            ("nameservers=a", "nameservers is"),
            ("vlan=4095", "vlan is"),
            ("bond=aa:bb", "bond is"),
            ("bond_mode=best", "bond_mode is"),
            ("mtu=9", "mtu is"),
        ] {
            let error = Addressing::parse(text).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
