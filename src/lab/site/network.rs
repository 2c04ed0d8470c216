//! The addresses of a site: one block of 127.0.0.0/8 for each lab directory, so that labs that
//! run at the same time do not meet and every node has the standard ports.

use crate::error::{Error, Kind, Result};
use crate::ramdisk::deploy::{DONE_PORT, ISCSI_PORT};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

/// Most simulated nodes of a site.
pub(super) const MAX_NODES: usize = 200;

/// Most virtual machines.
pub(super) const MAX_VMS: usize = 32;

/// How many blocks are tried.
const TRIES: u32 = 16;

/// A node among those of its kind, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Simulated(usize),
    Vm(usize),
}

/// How many nodes of each kind run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) simulated: usize,
    pub(super) vms: usize,
}

impl Counts {
    pub(super) fn check(self) -> Result<()> {
        if self.simulated > MAX_NODES || self.vms > MAX_VMS || self.simulated + self.vms == 0 {
            let message = format!(
                "a lab has up to {MAX_NODES} simulated nodes and {MAX_VMS} virtual machines, not {} and {}",
                self.simulated, self.vms
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(())
    }

    pub(super) fn places(self) -> impl Iterator<Item = Place> {
        let vms = (0..self.vms).map(Place::Vm);
        (0..self.simulated).map(Place::Simulated).chain(vms)
    }
}

/// 127.A.B.0/24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block(u8, u8);

impl Block {
    /// A random block in which nobody listens on the ports of the nodes.
    pub(super) fn choose(counts: Counts) -> Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut random = [0; 2];
            getrandom::fill(&mut random)
                .map_err(|e| Error::new(Kind::Internal, format!("no random numbers: {e}")))?;
            // Distributions use low blocks (127.0.0.1, 127.0.1.1, 127.0.0.53).
            let block = Self(16 + random[0] % 224, random[1]);
            match block.check_nodes(counts) {
                Ok(()) => return Ok(block),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Conflict, "no free block of addresses")))
    }

    /// Whether the deploy ramdisks of the nodes will be able to listen.
    pub(super) fn check_nodes(self, counts: Counts) -> Result<()> {
        for place in counts.places() {
            let address = self.node(place);
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

    /// The address of a node.
    pub(super) fn node(self, place: Place) -> Ipv4Addr {
        let host = match place {
            Place::Simulated(index) => 11 + index,
            Place::Vm(index) => 11 + MAX_NODES + index,
        };
        Ipv4Addr::new(127, self.0, self.1, u8::try_from(host).unwrap_or(u8::MAX))
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
