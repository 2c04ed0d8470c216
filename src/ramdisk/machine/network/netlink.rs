//! What the kernel is told about interfaces, addresses and routes.
//!
//! Source: rtnetlink(7), Linux `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`. All
//! numbers are in the byte order of the machine.

use crate::error::{Error, Kind, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};
use std::net::IpAddr;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// Milliseconds between two looks at a bond's cables.
const MIIMON: u32 = 100;

/// Brings an interface up.
pub(super) fn set_up(index: u32) -> Result<()> {
    ask(
        "bring the interface up",
        RTM_NEWLINK,
        0,
        &link(index, IFF_UP, IFF_UP),
    )
}

/// Takes an interface down.
pub(super) fn set_down(index: u32) -> Result<()> {
    ask(
        "take the interface down",
        RTM_NEWLINK,
        0,
        &link(index, 0, IFF_UP),
    )
}

/// Sets the longest packet of an interface.
pub(super) fn set_mtu(index: u32, mtu: u32) -> Result<()> {
    let mut body = link(index, 0, 0);
    attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    ask("set the MTU", RTM_NEWLINK, 0, &body)
}

/// Makes an interface, which has to be down, part of a bond.
pub(super) fn enslave(index: u32, bond: u32) -> Result<()> {
    let mut body = link(index, 0, 0);
    attribute(&mut body, IFLA_MASTER, &bond.to_ne_bytes());
    ask("put the interface into the bond", RTM_NEWLINK, 0, &body)
}

/// Makes a bond of this mode (0 to 6).
pub(super) fn add_bond(name: &str, mode: u8) -> Result<()> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_BOND_MODE, &[mode]);
    attribute(&mut data, IFLA_BOND_MIIMON, &MIIMON.to_ne_bytes());
    add_link("make the bond", name, "bond", &data, None)
}

/// Makes a VLAN on an interface.
pub(super) fn add_vlan(name: &str, parent: u32, id: u16) -> Result<()> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes());
    add_link("make the VLAN", name, "vlan", &data, Some(parent))
}

fn add_link(doing: &str, name: &str, kind: &str, data: &[u8], parent: Option<u32>) -> Result<()> {
    let mut body = link(0, 0, 0);
    attribute(&mut body, IFLA_IFNAME, format!("{name}\0").as_bytes());
    if let Some(parent) = parent {
        attribute(&mut body, IFLA_LINK, &parent.to_ne_bytes());
    }
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    attribute(&mut info, IFLA_INFO_DATA, data);
    attribute(&mut body, IFLA_LINKINFO, &info);
    ask(doing, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// Gives an interface an address.
pub(super) fn add_address(index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut body = vec![family(address), prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let bytes = octets(address);
    attribute(&mut body, IFA_LOCAL, &bytes);
    attribute(&mut body, IFA_ADDRESS, &bytes);
    ask(
        "set the address",
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_REPLACE,
        &body,
    )
}

/// Sends what goes to a network by a gateway, or straight onto the interface's network.
pub(super) fn add_route(
    index: u32,
    (network, prefix): (IpAddr, u8),
    gateway: Option<IpAddr>,
) -> Result<()> {
    let scope = if gateway.is_some() { 0 } else { RT_SCOPE_LINK };
    let mut body = vec![
        family(network),
        prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    if prefix > 0 {
        attribute(&mut body, RTA_DST, &octets(network));
    }
    if let Some(gateway) = gateway {
        attribute(&mut body, RTA_GATEWAY, &octets(gateway));
    }
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    ask(
        "set the route",
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        &body,
    )
}

/// `struct ifinfomsg`
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for field in [index, flags, change] {
        body.extend(field.to_ne_bytes());
    }
    body
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Appends an attribute; each begins at a multiple of four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend_from_slice(value);
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 16;
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    // Number of the request, and who asks: there is one request a socket.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

/// Sends a request and waits for the kernel's answer, which comes at once.
fn ask(doing: &str, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(Kind::Io, format!("cannot {doing}: {e}")).op("ramdisk.network")
    };
    let exchange = || -> rustix::io::Result<Vec<u8>> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        send(&socket, &message(kind, flags, body), SendFlags::empty())?;
        let mut answer = vec![0; 8192];
        let (_, length) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    };
    let answer = exchange().map_err(|e| failed(e.into()))?;
    match error_in(&answer) {
        Some(0) => Ok(()),
        Some(number) => Err(failed(std::io::Error::from_raw_os_error(-number))),
        None => Err(failed(std::io::ErrorKind::InvalidData.into())),
    }
}

/// The (negative) error number of an answer; 0 is an acknowledgement.
fn error_in(answer: &[u8]) -> Option<i32> {
    let kind = answer.get(4..6)?.first_chunk::<2>()?;
    let number = answer.get(16..)?.first_chunk::<4>()?;
    (u16::from_ne_bytes(*kind) == NLMSG_ERROR).then(|| i32::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let mut body = link(2, IFF_UP, IFF_UP);
        attribute(&mut body, IFLA_INFO_KIND, b"vlan");
        attribute(&mut body, IFLA_VLAN_ID, &[1, 2]);
        attribute(&mut body, IFLA_MTU, &[]);
        let expected: Vec<u8> = [
            &[60, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
            &[
                8, 0, 1, 0, b'v', b'l', b'a', b'n', 6, 0, 1, 0, 1, 2, 0, 0, 4, 0, 4, 0,
            ],
        ]
        .concat();
        let sent = message(RTM_NEWLINK, 0, &body);
        assert_eq!(sent[16..], expected[16..]);
        assert_eq!(sent[0], 52);
        assert_eq!(sent[4..16], expected[4..16]);
    }

    #[test]
    fn the_kernel_understands_and_refuses() {
        // Nobody has an interface of this number; without privileges it is refused before that.
        let error = set_up(0x7fff_fff0).unwrap_err();
        assert!(
            error
                .message()
                .starts_with("cannot bring the interface up: "),
            "{error}"
        );
        assert!(!error.message().contains("invalid data"), "{error}");
    }

    #[test]
    fn answers_are_read() {
        let mut ack = vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(error_in(&ack), Some(0));
        ack[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(error_in(&ack), Some(-17));
        assert_eq!(error_in(&ack[..18]), None);
    }
}
