//! What virtual machines are made of, by name: all of them, or the one named before a colon.

use super::for_nodes::ForNodes;
use crate::error::{Error, Kind, Result};
use crate::lab::vm::{DiskBus, Parts};
use std::ops::RangeInclusive;

/// Firmware and kernel alone take more than less of it; QEMU would reserve more of any size.
const MEMORY_MIB: RangeInclusive<u32> = 128..=1 << 20;

/// What was asked for; a later word wins.
#[derive(Debug)]
pub(super) struct Machines(ForNodes<Part>);

#[derive(Debug, Clone, Copy)]
enum Part {
    Disk(DiskBus),
    MemoryMib(u32),
}

impl Machines {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        ForNodes::parse(texts, Part::parse).map(Self)
    }

    /// Refuses parts of machines that do not run.
    pub(super) fn check_nodes(&self, running: &[&str]) -> Result<()> {
        self.0.check("a part", running)
    }

    pub(super) fn of(&self, name: &str) -> Parts {
        let mut parts = Parts::default();
        for part in self.0.of(name) {
            match part {
                Part::Disk(disk) => parts.disk = disk,
                Part::MemoryMib(mib) => parts.memory_mib = mib,
            }
        }
        parts
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self> {
        let found = match text.split_once('=') {
            Some(("disk", "sata")) => Some(Self::Disk(DiskBus::Sata)),
            Some(("disk", "nvme")) => Some(Self::Disk(DiskBus::Nvme)),
            Some(("memory_mib", mib)) => {
                let mib = mib.parse().ok().filter(|mib| MEMORY_MIB.contains(mib));
                mib.map(Self::MemoryMib)
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let message = format!("a virtual machine has no part {text:?}");
            Error::new(Kind::Invalid, message)
                .hint("disk=sata, disk=nvme, or memory_mib=N of 128 and more")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_the_parts_that_are_for_it() {
        let texts = ["vm-2:memory_mib=512", "memory_mib=1024", "vm-1:disk=nvme"];
        let machines = Machines::parse(&texts.map(str::to_owned)).unwrap();
        let parts = |name| {
            let Parts { disk, memory_mib } = machines.of(name);
            (disk, memory_mib)
        };
        assert_eq!(parts("vm-1"), (DiskBus::Nvme, 1024));
        assert_eq!(parts("vm-2"), (DiskBus::Sata, 512));
        assert!(machines.check_nodes(&["vm-1", "vm-2"]).is_ok());
        assert!(machines.check_nodes(&["vm-1", "lab-2"]).is_err());
        for wrong in ["disk=floppy", "memory_mib=64", "memory_mib=1G", "disk", ""] {
            assert!(Machines::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
