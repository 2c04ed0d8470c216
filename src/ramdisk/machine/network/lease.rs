//! Gets an address by DHCP, and keeps it.

use super::dhcp::{Answer, MessageType, Question};
use crate::error::{Error, Kind, Result};
use crate::ramdisk::deploy::Log;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// How often each message is sent, and how long its answer may take: RFC 2131 4.1 doubles from 4 s.
const PATIENCE: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// Longest answer that is looked at.
const MAX_ANSWER_BYTES: usize = 2048;

/// One interface as a client.
#[derive(Debug)]
pub(super) struct Client {
    socket: UdpSocket,
    mac: [u8; 6],
}

impl Client {
    /// Listens on an interface that is up.
    pub(super) async fn open(interface: &str, mac: [u8; 6]) -> Result<Self> {
        let open = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).await?;
            socket.set_broadcast(true)?;
            // Sends out of this interface although it has no address, and hears no other.
            socket.bind_device(Some(interface.as_bytes()))?;
            Ok(socket)
        };
        let socket = open.await.map_err(|e: std::io::Error| {
            Error::new(Kind::Io, format!("cannot use DHCP on {interface}: {e}"))
        })?;
        Ok(Self { socket, mac })
    }

    /// Asks for an address: DISCOVER, OFFER, REQUEST, ACK.
    ///
    /// # Errors
    /// `timeout` if no server answers, `refused` if it takes its offer back.
    pub(super) async fn acquire(&self) -> Result<Answer> {
        let question = Question {
            kind: MessageType::Discover,
            id: number()?,
            mac: self.mac,
            accepted: None,
            current: None,
        };
        let offer = self.ask(&question).await?;
        let accepted = Some((offer.address, offer.server));
        self.confirmed(Question {
            kind: MessageType::Request,
            accepted,
            ..question
        })
        .await
    }

    /// Keeps the address for as long as the future is polled.
    pub(super) async fn keep(self, lease: Answer, log: Arc<dyn Log>) {
        let mut seconds = lease.lease_seconds;
        loop {
            // RFC 2131 4.4.5: at half of the time; nobody needs it more often than a minute.
            let pause = u64::from((seconds / 2).max(60));
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let renewal = async {
                let question = Question {
                    kind: MessageType::Request,
                    id: number()?,
                    mac: self.mac,
                    accepted: None,
                    current: Some(lease.address),
                };
                self.confirmed(question).await
            };
            match renewal.await {
                Ok(answer) => seconds = answer.lease_seconds,
                // The address is used on: the disk is being written through it.
                Err(error) => log.line(&format!("DHCP: not renewed: {error}")),
            }
        }
    }

    async fn confirmed(&self, question: Question) -> Result<Answer> {
        let answer = self.ask(&question).await?;
        match answer.kind {
            MessageType::Ack => Ok(answer),
            _ => Err(Error::new(
                Kind::Refused,
                "the DHCP server took its offer back",
            )),
        }
    }

    async fn ask(&self, question: &Question) -> Result<Answer> {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
        let bytes = question.encode();
        for patience in PATIENCE {
            let sent = self.socket.send_to(&bytes, everybody).await;
            sent.map_err(|e| Error::new(Kind::Io, format!("cannot send to a DHCP server: {e}")))?;
            if let Ok(answer) = tokio::time::timeout(patience, self.answer(question)).await {
                return answer;
            }
        }
        let seconds: u64 = PATIENCE.iter().map(Duration::as_secs).sum();
        let message = format!("no DHCP server answered within {seconds} seconds");
        Err(Error::new(Kind::Timeout, message))
    }

    /// The next answer that fits the question.
    async fn answer(&self, question: &Question) -> Result<Answer> {
        let mut buffer = [0; MAX_ANSWER_BYTES];
        loop {
            let (length, _) = self
                .socket
                .recv_from(&mut buffer)
                .await
                .map_err(|e| Error::new(Kind::Io, format!("cannot hear a DHCP server: {e}")))?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let Some(answer) = Answer::decode(bytes, question.id, self.mac) else {
                continue;
            };
            let is_offer = answer.kind == MessageType::Offer;
            if is_offer == (question.kind == MessageType::Discover) {
                return Ok(answer);
            }
        }
    }
}

fn number() -> Result<u32> {
    getrandom::u32().map_err(|e| Error::new(Kind::Io, format!("no random numbers: {e}")))
}
