//! The addresses of a site: one block of 127.0.0.0/8 for each lab directory, so that labs that
//! run at the same time do not meet and every node has the standard ports.

use crate::error::{Error, Kind, Result};
use crate::ramdisk::deploy::{DONE_PORT, ISCSI_PORT};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

/// Most nodes of a site.
pub(super) const MAX_NODES: usize = 200;

/// How many blocks are tried.
const TRIES: u32 = 16;

/// 127.A.B.0/24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block(u8, u8);

impl Block {
    /// A random block in which nobody listens on the ports of that many nodes.
    pub(super) fn choose(nodes: usize) -> Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut random = [0; 2];
            getrandom::fill(&mut random)
                .map_err(|e| Error::new(Kind::Internal, format!("no random numbers: {e}")))?;
            // Distributions use low blocks (127.0.0.1, 127.0.1.1, 127.0.0.53).
            let block = Self(16 + random[0] % 224, random[1]);
            match block.check_nodes(nodes) {
                Ok(()) => return Ok(block),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Conflict, "no free block of addresses")))
    }

    /// Whether the deploy ramdisks of that many nodes will be able to listen.
    pub(super) fn check_nodes(self, nodes: usize) -> Result<()> {
        for index in 0..nodes {
            let address = self.node(index);
            for port in [ISCSI_PORT, DONE_PORT] {
                drop(listen(address, port, "the deploy ramdisk")?);
            }
        }
        Ok(())
    }

    /// Where iLOs, object store and callback listener are.
    pub(super) fn services(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, self.1, 1)
    }

    /// The URL of a service.
    pub(super) fn url(self, port: u16) -> String {
        format!("https://{}:{port}", self.services())
    }

    /// The address of a node, counted from 0.
    pub(super) fn node(self, index: usize) -> Ipv4Addr {
        let host = u8::try_from(index).unwrap_or(u8::MAX).saturating_add(11);
        Ipv4Addr::new(127, self.0, self.1, host)
    }

    /// Listens on the services' address; port 0 for any that is free.
    pub(super) fn listen(self, port: u16, who: &str) -> Result<TcpListener> {
        listen(self.services(), port, who)
    }
}

fn listen(address: Ipv4Addr, port: u16, who: &str) -> Result<TcpListener> {
    TcpListener::bind((address, port)).map_err(|e| {
        let error = match e.kind() {
            ErrorKind::AddrInUse => Error::new(
                Kind::Conflict,
                format!("the port of {who} is taken by another program"),
            )
            .hint("stop that program, or take another lab directory"),
            ErrorKind::AddrNotAvailable => Error::new(
                Kind::Unsupported,
                "this system has no addresses in 127.0.0.0/8 but 127.0.0.1",
            )
            .hint("the lab runs on Linux"),
            _ => Error::new(Kind::Io, format!("cannot listen for {who}: {e}")),
        };
        error.op("lab.start").target(format!("{address}:{port}"))
    })
}
