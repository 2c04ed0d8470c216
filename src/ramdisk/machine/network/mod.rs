//! Brings the machine onto its network.

mod dhcp;
mod lease;
mod netlink;

use super::modules::Modules;
use super::until;
use crate::error::{Error, Kind, Result};
use crate::ramdisk::addressing::Addressing;
use crate::ramdisk::deploy::Log;
use crate::ramdisk::parameters::Parameters;
use dhcp::Answer;
use lease::Client;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long drivers may take to show the interface.
const INTERFACE_DEADLINE: Duration = Duration::from_secs(90);

/// How long a cable may take: switches with spanning tree keep a port closed for half a minute.
const CARRIER_DEADLINE: Duration = Duration::from_secs(60);

const LOOPBACK: u32 = 1;
const BOND: &str = "bond0";
const VLAN: &str = "vlan0";

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    index: u32,
    /// In upper case.
    mac: String,
}

/// What has to be polled for as long as the network is used.
#[derive(Debug)]
pub(super) struct Connection {
    /// The machine's address.
    pub(super) address: IpAddr,
    lease: Option<(Client, Answer)>,
}

impl Connection {
    /// Keeps the address.
    pub(super) async fn keep(self, log: Arc<dyn Log>) {
        match self.lease {
            Some((client, lease)) => client.keep(lease, log).await,
            None => std::future::pending().await,
        }
    }
}

/// Finds the interface, which also tells whether this is the machine that the parameters are for;
/// puts bond and VLAN on it, and gives it its address.
///
/// # Errors
/// `not_found` if the machine has no such interface, `unreachable` if it has no cable, `timeout`
/// without a DHCP server, `io` if the kernel refuses.
pub(super) async fn connect(
    parameters: &Parameters,
    modules: &mut Modules,
    log: &dyn Log,
) -> Result<Connection> {
    let addressing = &parameters.addressing;
    netlink::set_up(LOOPBACK)?;
    let mut interface = match addressing.bond.is_empty() {
        true => find(parameters.bootif.as_deref(), modules, log).await?,
        false => bond(addressing, modules, log).await?,
    };
    if let Some(mtu) = addressing.mtu {
        netlink::set_mtu(interface.index, mtu)?;
    }
    netlink::set_up(interface.index)?;
    wait_for_carrier(&interface).await?;
    if let Some(id) = addressing.vlan {
        modules.insert("8021q", log);
        netlink::add_vlan(VLAN, interface.index, id)?;
        let made = Interface::named(VLAN);
        interface = made.ok_or_else(|| Error::new(Kind::Io, "the VLAN did not come up"))?;
        netlink::set_up(interface.index)?;
    }
    log.line(&format!("network: {} {}", interface.name, interface.mac));
    match addressing.address {
        Some(address) => fixed(&interface, address, addressing, log),
        None => leased(&interface, addressing, log).await,
    }
}

/// The interface of this MAC address, else the first one with a cable.
async fn find(mac: Option<&str>, modules: &mut Modules, log: &dyn Log) -> Result<Interface> {
    let mut last = Vec::new();
    let found = until(INTERFACE_DEADLINE, || {
        modules.settle(log);
        last = Interface::all();
        match mac {
            Some(mac) => last.iter().find(|interface| interface.mac == mac).cloned(),
            None => {
                for interface in &last {
                    drop(netlink::set_up(interface.index));
                }
                last.iter()
                    .find(|interface| interface.has_carrier())
                    .cloned()
            }
        }
    });
    if let Some(interface) = found.await {
        return Ok(interface);
    }
    let seen: Vec<String> = last
        .iter()
        .map(|i| format!("{} {}", i.name, i.mac))
        .collect();
    let seen = if seen.is_empty() {
        "none".to_owned()
    } else {
        seen.join(", ")
    };
    Err(match mac {
        Some(mac) => Error::new(
            Kind::NotFound,
            format!(
                "this machine has no interface {mac}, so the parameters are for another one; it has {seen}"
            ),
        ),
        None => Error::new(
            Kind::Unreachable,
            format!("no interface has a cable: {seen}"),
        ),
    })
}

/// Makes the bond of interfaces that are all there.
async fn bond(addressing: &Addressing, modules: &mut Modules, log: &dyn Log) -> Result<Interface> {
    let mut parts = Vec::new();
    for mac in &addressing.bond {
        parts.push(find(Some(mac), modules, log).await?);
    }
    modules.insert("bonding", log);
    netlink::add_bond(BOND, addressing.bond_mode)?;
    let made = Interface::named(BOND);
    let bond = made.ok_or_else(|| Error::new(Kind::Io, "the bond did not come up"))?;
    for part in parts {
        netlink::set_down(part.index)?;
        netlink::enslave(part.index, bond.index)?;
    }
    netlink::set_up(bond.index)?;
    // It has taken over the address of its first part.
    Interface::named(BOND).ok_or_else(|| Error::new(Kind::Io, "the bond is gone"))
}

async fn wait_for_carrier(interface: &Interface) -> Result<()> {
    let carrier = until(CARRIER_DEADLINE, || interface.has_carrier().then_some(()));
    carrier.await.ok_or_else(|| {
        let message = format!("{} {} has no cable", interface.name, interface.mac);
        Error::new(Kind::Unreachable, message)
    })
}

fn fixed(
    interface: &Interface,
    (address, prefix): (IpAddr, u8),
    addressing: &Addressing,
    log: &dyn Log,
) -> Result<Connection> {
    netlink::add_address(interface.index, address, prefix)?;
    if let Some(gateway) = addressing.gateway {
        let all = if gateway.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            IpAddr::from([0; 16])
        };
        netlink::add_route(interface.index, (all, 0), Some(gateway))?;
    }
    log.line(&format!(
        "network: {address}/{prefix} as the parameters say"
    ));
    resolve_by(&addressing.nameservers, None)?;
    Ok(Connection {
        address,
        lease: None,
    })
}

async fn leased(
    interface: &Interface,
    addressing: &Addressing,
    log: &dyn Log,
) -> Result<Connection> {
    let mac = interface.octets().ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!("{} is no Ethernet interface", interface.name),
        )
    })?;
    let client = Client::open(&interface.name, mac).await?;
    let lease = client.acquire().await?;
    let Answer {
        address,
        prefix,
        server,
        ..
    } = lease;
    log.line(&format!(
        "network: {address}/{prefix} from DHCP server {server} for {} s",
        lease.lease_seconds
    ));
    if let (Some(mtu), None) = (lease.mtu, addressing.mtu) {
        netlink::set_mtu(interface.index, mtu.into())?;
    }
    netlink::add_address(interface.index, address.into(), prefix)?;
    let all = (Ipv4Addr::UNSPECIFIED, 0);
    let router = lease.gateway.map(|gateway| (all.0, all.1, gateway));
    // RFC 3442: with classless routes the router is not looked at.
    let routes = match lease.routes.is_empty() {
        true => router.into_iter().collect(),
        false => lease.routes.clone(),
    };
    for (network, length, gateway) in routes {
        let gateway = (!gateway.is_unspecified()).then(|| gateway.into());
        netlink::add_route(interface.index, (network.into(), length), gateway)?;
    }
    let dns: Vec<IpAddr> = match addressing.nameservers.is_empty() {
        true => lease
            .dns
            .iter()
            .map(|address| IpAddr::from(*address))
            .collect(),
        false => addressing.nameservers.clone(),
    };
    resolve_by(&dns, lease.domain.as_deref())?;
    Ok(Connection {
        address: address.into(),
        lease: Some((client, lease)),
    })
}

fn resolve_by(nameservers: &[IpAddr], domain: Option<&str>) -> Result<()> {
    let mut text = String::new();
    if let Some(domain) = domain {
        _ = writeln!(text, "search {domain}");
    }
    for server in nameservers {
        _ = writeln!(text, "nameserver {server}");
    }
    let path = Path::new("/etc/resolv.conf");
    std::fs::write(path, text).map_err(|e| Error::io(path, "write", &e))
}

impl Interface {
    /// All with hardware behind them, in the order of their names.
    fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten();
        let entries = entries.filter(|entry| entry.path().join("device").exists());
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut all: Vec<Self> = names.filter_map(|name| Self::named(&name)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn named(name: &str) -> Option<Self> {
        let folder = Path::new("/sys/class/net").join(name);
        let text = |file: &str| {
            let text = std::fs::read_to_string(folder.join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        Some(Self {
            name: name.to_owned(),
            index: text("ifindex")?.parse().ok()?,
            mac: text("address")?.to_ascii_uppercase(),
        })
    }

    /// An interface that is down does not say.
    fn has_carrier(&self) -> bool {
        let path = Path::new("/sys/class/net").join(&self.name).join("carrier");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    }

    fn octets(&self) -> Option<[u8; 6]> {
        let bytes = self
            .mac
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
    }
}
