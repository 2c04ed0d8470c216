//! DHCP for IPv4: what is sent and what is understood.
//!
//! Source: RFC 2131 (messages), RFC 2132 (options), RFC 3442 (classless routes). The crates that
//! do this bring a whole DNS implementation along.

use std::net::Ipv4Addr;

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Where the options begin, after the fixed fields and the magic number.
const OPTIONS_AT: usize = 240;
/// Relays may drop what is shorter (RFC 1542 2.1).
const MIN_BYTES: usize = 300;
/// The server is asked to answer to all, as there is no address yet.
const BROADCAST: [u8; 2] = [0x80, 0];

const SUBNET_MASK: u8 = 1;
const ROUTERS: u8 = 3;
const DNS_SERVERS: u8 = 6;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_SECONDS: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const MAX_MESSAGE: u8 = 57;
const CLIENT_ID: u8 = 61;
const ROUTES: u8 = 121;
const PAD: u8 = 0;
const END: u8 = 255;

/// What kind of message it is (RFC 2132 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) kind: MessageType,
    /// Chosen anew for each exchange.
    pub(super) id: u32,
    pub(super) mac: [u8; 6],
    /// The offer that is accepted: address and server.
    pub(super) accepted: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The address that is in use and to be kept.
    pub(super) current: Option<Ipv4Addr>,
}

impl Question {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS_AT];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(0, &[BOOTREQUEST, ETHERNET, 6, 0]);
        put(4, &self.id.to_be_bytes());
        // An answer goes to the address if there is one.
        match self.current {
            Some(address) => put(12, &address.octets()),
            None => put(10, &BROADCAST),
        }
        put(28, &self.mac);
        put(236, &MAGIC);
        option(&mut bytes, MESSAGE_TYPE, &[self.kind as u8]);
        let mut id = vec![ETHERNET];
        id.extend(self.mac);
        option(&mut bytes, CLIENT_ID, &id);
        if let Some((address, server)) = self.accepted {
            option(&mut bytes, REQUESTED_ADDRESS, &address.octets());
            option(&mut bytes, SERVER, &server.octets());
        }
        option(&mut bytes, MAX_MESSAGE, &1472_u16.to_be_bytes());
        // Classless routes first: a server that has them leaves the router out (RFC 3442).
        let wanted = [
            ROUTES,
            SUBNET_MASK,
            ROUTERS,
            DNS_SERVERS,
            DOMAIN,
            MTU,
            LEASE_SECONDS,
        ];
        option(&mut bytes, PARAMETERS, &wanted);
        bytes.push(END);
        bytes.resize(bytes.len().max(MIN_BYTES), 0);
        bytes
    }
}

fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    bytes.push(code);
    bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(value);
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: MessageType,
    pub(super) address: Ipv4Addr,
    pub(super) server: Ipv4Addr,
    /// Length of the network's part of the address.
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    /// Network, length of its part, gateway (unspecified: on the link).
    pub(super) routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) domain: Option<String>,
    pub(super) mtu: Option<u16>,
    pub(super) lease_seconds: u32,
}

impl Answer {
    /// Understands an answer to the question of this number by this interface; anything else is
    /// not for us.
    pub(super) fn decode(bytes: &[u8], id: u32, mac: [u8; 6]) -> Option<Self> {
        let fields = bytes.get(..OPTIONS_AT)?;
        let is_ours = fields.first() == Some(&BOOTREPLY)
            && fields.get(4..8) == Some(&id.to_be_bytes())
            && fields.get(28..34) == Some(&mac)
            && fields.get(236..240) == Some(&MAGIC);
        if !is_ours {
            return None;
        }
        let options = Options(bytes.get(OPTIONS_AT..)?);
        let kind = match options.get(MESSAGE_TYPE)?.as_slice() {
            [2] => MessageType::Offer,
            [5] => MessageType::Ack,
            [6] => MessageType::Nak,
            _ => return None,
        };
        let address = address_in(fields.get(16..20)?)?;
        let mask = options.address(SUBNET_MASK).map_or(0xffff_ff00, u32::from);
        let mtu = options
            .get(MTU)
            .and_then(|mtu| Some(u16::from_be_bytes(*mtu.first_chunk()?)));
        let lease = options.get(LEASE_SECONDS);
        let domain = options.get(DOMAIN);
        let domain = domain.map(|name| {
            String::from_utf8_lossy(&name)
                .trim_end_matches('\0')
                .to_owned()
        });
        let is_name = |name: &String| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        Some(Self {
            kind,
            address,
            server: options.address(SERVER)?,
            prefix: u8::try_from(mask.leading_ones()).unwrap_or(32),
            gateway: options.address(ROUTERS),
            routes: options
                .get(ROUTES)
                .map(|bytes| routes_in(&bytes))
                .unwrap_or_default(),
            dns: options
                .get(DNS_SERVERS)
                .map(|bytes| bytes.chunks_exact(4).filter_map(address_in).collect())
                .unwrap_or_default(),
            domain: domain.filter(is_name),
            mtu: mtu.filter(|mtu| *mtu >= 576),
            lease_seconds: lease
                .and_then(|seconds| Some(u32::from_be_bytes(*seconds.first_chunk()?)))
                .unwrap_or(u32::MAX),
        })
    }
}

struct Options<'a>(&'a [u8]);

impl Options<'_> {
    /// The value; parts of one that is split are put together (RFC 3396).
    fn get(&self, wanted: u8) -> Option<Vec<u8>> {
        let mut rest = self.0;
        let mut value: Option<Vec<u8>> = None;
        loop {
            match rest {
                [END, ..] | [] => return value,
                [PAD, after @ ..] => rest = after,
                [code, length, after @ ..] => {
                    let (part, behind) = after.split_at_checked(usize::from(*length))?;
                    if *code == wanted {
                        value.get_or_insert_default().extend_from_slice(part);
                    }
                    rest = behind;
                }
                [_] => return value,
            }
        }
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        address_in(&self.get(code)?)
    }
}

fn address_in(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes
        .first_chunk::<4>()
        .map(|octets| Ipv4Addr::from(*octets))
}

/// RFC 3442: length of the network's part, as many of its bytes as that takes, gateway.
fn routes_in(mut bytes: &[u8]) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let mut routes = Vec::new();
    while let [prefix @ 0..=32, after @ ..] = bytes {
        let Some((network, behind)) = after.split_at_checked(usize::from(*prefix).div_ceil(8))
        else {
            break;
        };
        let mut octets = [0; 4];
        octets
            .iter_mut()
            .zip(network)
            .for_each(|(to, from)| *to = *from);
        let Some(gateway) = address_in(behind) else {
            break;
        };
        routes.push((Ipv4Addr::from(octets), *prefix, gateway));
        bytes = behind.get(4..).unwrap_or_default();
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn a_question_is_laid_out_as_the_standard_has_it() {
        let question = Question {
            kind: MessageType::Request,
            id: 0x0102_0304,
            mac: MAC,
            accepted: Some(([10, 0, 2, 15].into(), [10, 0, 2, 2].into())),
            current: None,
        };
        let bytes = question.encode();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0]);
        assert_eq!(bytes[28..34], MAC);
        assert_eq!(
            bytes[236..282],
            [
                99, 130, 83, 99, 53, 1, 3, 61, 7, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 50, 4, 10, 0,
                2, 15, 54, 4, 10, 0, 2, 2, 57, 2, 5, 0xc0, 55, 7, 121, 1, 3, 6, 15, 26, 51, 255, 0,
                0, 0, 0
            ]
        );
        let renewal = Question {
            accepted: None,
            current: Some([10, 0, 2, 15].into()),
            ..question
        };
        let bytes = renewal.encode();
        assert_eq!(bytes[10..16], [0, 0, 10, 0, 2, 15]);
    }

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS_AT];
        bytes[0] = BOOTREPLY;
        bytes[4..8].copy_from_slice(&[0, 0, 0, 7]);
        bytes[16..20].copy_from_slice(&[192, 0, 2, 10]);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..240].copy_from_slice(&MAGIC);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn an_answer_is_understood() {
        let bytes = reply(&[
            53, 1, 5, 0, 54, 4, 192, 0, 2, 1, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 254, 0, 3, 4,
            192, 0, 2, 1, 6, 4, 192, 0, 2, 53, 6, 4, 192, 0, 2, 54, 15, 4, b'l', b'a', b'n', 0, 26,
            2, 35, 40, 121, 14, 0, 192, 0, 2, 1, 20, 10, 1, 16, 0, 0, 0, 0, 255, 1,
        ]);
        let answer = Answer::decode(&bytes, 7, MAC).unwrap();
        assert_eq!(answer.kind, MessageType::Ack);
        assert_eq!(answer.address, Ipv4Addr::from([192, 0, 2, 10]));
        assert_eq!(
            (answer.prefix, answer.lease_seconds, answer.mtu),
            (23, 3600, Some(9000))
        );
        assert_eq!(
            answer.dns,
            [Ipv4Addr::from([192, 0, 2, 53]), [192, 0, 2, 54].into()]
        );
        assert_eq!(answer.domain.as_deref(), Some("lan"));
        let gateway = Ipv4Addr::from([192, 0, 2, 1]);
        assert_eq!(answer.gateway, Some(gateway));
        let none = Ipv4Addr::UNSPECIFIED;
        assert_eq!(
            answer.routes,
            [(none, 0, gateway), ([10, 1, 16, 0].into(), 20, none)]
        );
        assert_eq!(Answer::decode(&bytes, 8, MAC), None);
        assert_eq!(Answer::decode(&bytes, 7, [0; 6]), None);
        assert_eq!(Answer::decode(&reply(&[53, 1, 5, 255]), 7, MAC), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(options in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = reply(&[53, 1, 2, 54, 4, 1, 2, 3, 4]);
            bytes.extend(options);
            drop(Answer::decode(&bytes, 7, MAC));
            drop(Answer::decode(&bytes[..bytes.len() / 2], 7, MAC));
        }
    }
}
